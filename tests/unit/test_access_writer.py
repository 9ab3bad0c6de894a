"""The writer of the access log: a disk that refuses, one sync for all who wait, many threads."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.access_world import KEYS, all_lines, settled

from resources.access_log import Event, Receipt, Writer
from resources.access_log import writer as writer_module
from resources.access_log.places import Place
from resources.access_log.sealing import seal
from resources.access_log.verifying import verify
from resources.errors import AuditUnavailable
from resources.lakehouse import Lakehouse


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path / "lake"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "access")


@pytest.mark.parametrize("call", ["write", "pwrite"])
def test_while_the_disk_refuses_nothing_is_recorded_and_then_the_chain_goes_on(
    lake: Lakehouse, place: Place, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    writer = Writer(place, KEYS)
    before = writer.submit(Event(who="ann")).result()
    real = getattr(os, call)

    def refused(*arguments: Any) -> Any:
        if call == "write":
            real(arguments[0], bytes(arguments[1])[:10])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refused)
        for _ in range(2):
            with pytest.raises(AuditUnavailable):
                writer.submit(Event(who="lost")).result()
        with pytest.raises(AuditUnavailable):
            writer.check(5)
    writer.check(5)
    after = writer.submit(Event(who="ann")).result()
    writer.close()
    assert verify(lake, place, KEYS).ok
    lines = {line.sequence: line.facts for line in all_lines(lake, place)}
    assert (before.sequence, after.sequence) == (1, 3)
    assert lines[2]["kind"] == "resumed" and lines[2]["note"] == {"unwritten": 2}
    assert "lost" not in {facts.get("who") for facts in lines.values()}


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "access").write_text("a file")
    with pytest.raises(AuditUnavailable):
        Writer(Place(tmp_path / "access"), KEYS)


def test_an_event_that_nobody_waits_for_any_more_is_not_written(
    lake: Lakehouse, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(place, KEYS)
    with _stuck(monkeypatch) as gate:
        first = writer.submit(Event(who="first"))
        gate.reached.wait(10)
        late = writer.submit(Event(who="late"))
        assert late.cancel()
        gate.go.set()
        first.result()
    with pytest.raises(CancelledError):
        late.result()
    writer.close()
    assert "late" not in {line.facts.get("who") for line in all_lines(lake, place)}


def test_all_who_wait_share_one_sync(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(place, KEYS)
    settled(writer, 1)
    with _stuck(monkeypatch) as gate, ThreadPoolExecutor(1) as pool:
        first = writer.submit(Event())
        gate.reached.wait(10)
        others = [writer.submit(Event()) for _ in range(50)]
        pool.submit(gate.go.set)
        sequences = [one.result().sequence for one in [first, *others]]
    assert gate.syncs == 2
    assert sequences == sorted(sequences)
    writer.close()


def test_many_threads_lose_no_event(lake: Lakehouse, place: Place) -> None:
    writer = Writer(place, KEYS, rotate_bytes=4_096)
    with ThreadPoolExecutor(8) as pool:
        receipts: list[Receipt] = list(pool.map(lambda n: writer.submit(Event(results=n)).result(), range(1, 201)))
    writer.close()
    assert verify(lake, place, KEYS).ok
    seal(lake, place, KEYS)
    assert verify(lake, place, KEYS).ok
    hashes = {line.hash for line in all_lines(lake, place)}
    assert {one.hash for one in receipts} <= hashes and len({one.sequence for one in receipts}) == 200


class _Gate:
    def __init__(self) -> None:
        self.reached, self.go, self.syncs = threading.Event(), threading.Event(), 0


@contextmanager
def _stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Gate]:
    """The first write inside waits for `go`."""
    gate, real = _Gate(), writer_module.write_durably

    def write(descriptor: int, data: bytearray) -> None:
        gate.syncs += 1
        gate.reached.set()
        gate.go.wait(10)
        real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "write_durably", write)
        yield gate
        gate.go.set()
