"""Events back, from the lake and from this place's folder.

Belongs here: which segments to open for a span of time. Does not belong here: whether the log stands (verifying).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pyarrow.compute as pc

from resources import tables
from resources.access_log.chains import Segment
from resources.access_log.events import Line
from resources.access_log.keys import Keys
from resources.access_log.places import Place
from resources.lakehouse import Lakehouse


def events(lake: Lakehouse, place: Place, keys: Keys, since: datetime, until: datetime) -> Iterator[Line]:
    """Every intact line of `since` <= at < `until`, segment by segment: in a writer's order, not in that of all.

    Lines whose hash is not theirs are left out: `verify` names them.
    """
    open_data = {(writer, number): data for writer in place.writers() for number, data in place.data(writer).items()}
    snapshot = lake.snapshot(tables.access())
    if snapshot is not None:
        within = (pc.field("last_at") >= since) & (pc.field("first_at") < until)
        for batch in snapshot.scan(["writer", "segment", "lines"], within, batch_rows=8):
            for row in batch.to_pylist():
                open_data.pop((row["writer"], row["segment"]), None)
                yield from _within(row["lines"], keys, since, until)
        for row in snapshot.read(["writer", "segment"]).iter_rows():
            open_data.pop(row, None)
    for data in open_data.values():
        yield from _within(data, keys, since, until)


def _within(data: bytes, keys: Keys, since: datetime, until: datetime) -> Iterator[Line]:
    for line in Segment.read(data, keys).intact:
        if since <= line.at < until:
            yield line
