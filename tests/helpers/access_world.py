"""Chains of the access log as tests make and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from resources.access_log import Event, Keys, Writer
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.access_log.verifying import Report
from resources.lakehouse import Lakehouse

KEYS = Keys(b"k" * 32)
EVENTS = 8  # of one chain, `opened` and `closed` included


def chain(place: Place, answers: int = EVENTS - 2, **options: Any) -> str:
    """A whole chain of one writer that has ended; its name."""
    writer = Writer(place, KEYS, **options)
    for number in range(answers):
        writer.submit(Event(who="ann", route="/v1/search", status=200, results=number)).result()
    writer.close()
    return writer.name


def killed(writer: Writer) -> str:
    """What kill -9 leaves: the kernel lets go of the lock, nothing is closed."""
    writer._queue.put(None)
    writer._thread.join()
    writer._files.close()
    return writer.name


def found(report: Report) -> list[tuple[str, int, str]]:
    return [(fault.writer, fault.sequence, fault.rule) for fault in report.faults]


def all_lines(lake: Lakehouse, place: Place) -> Iterator[Any]:
    from datetime import UTC, datetime

    return events(lake, place, KEYS, datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def settled(writer: Writer, segment: int) -> None:
    """Until the writer has gone on to `segment`."""
    deadline = time.monotonic() + 10
    while writer.segment < segment:
        assert time.monotonic() < deadline
        time.sleep(0.001)
