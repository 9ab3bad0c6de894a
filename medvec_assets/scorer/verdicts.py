"""What the kept scores say: whose records may be shown and worked on, and whose must be scored again.

Belongs here: reading audit/deid_scores. Does not belong here: scoring (score), keeping scores (scores). It imports nothing
of the scorer, so that search and the stages ask it too.

The newest score counts, whatever rules it was made under: once identifiers came through, a partition stays hidden until
a later score passes. A score whose run failed proves nothing, so it neither hides a partition nor shows it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from resources import tables

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

_COLUMNS = ("partition", "input_digest", "leaks", "leak_places", "failure", "scored_at")
ALL = "-"  # the partition of a score that is of all of a catalogue's
Row = Mapping[str, Any]


def passed(row: Row) -> bool:
    return not row["leaks"] and not row["failure"]


def told(row: Row) -> str:
    """What a score that did not pass says, by kind and place, never with what stands around it."""
    if not row["leaks"]:
        return f"the scored run failed ({row['failure']})"
    places = json.loads(row["leak_places"])
    more = f" and {row['leaks'] - 1} more" if row["leaks"] > 1 else ""
    return f"{places[0] if places else 'an identifier'}{more} came through"


class Verdicts:
    """The newest scores of one dataset's partitions."""

    def __init__(self, lake: Lakehouse, dataset: str) -> None:
        self._newest: dict[str, Row] = {}
        self._proved: dict[str, Row] = {}
        snapshot = lake.snapshot(tables.deid_scores())
        here = pc.field("dataset") == dataset
        rows = snapshot.read(_COLUMNS, here).sort("scored_at").iter_rows(named=True) if snapshot else ()
        for row in rows:
            self._newest[row["partition"]] = row
            if row["leaks"] or not row["failure"]:
                self._proved[row["partition"]] = row

    def newest(self, partition: str) -> Row | None:
        """Its newest score (some columns of audit/deid_scores), or None."""
        return _later(self._newest, partition)

    def leaks(self, partition: str) -> bool:
        """Whether identifiers came through when it was last shown whether they do."""
        row = _later(self._proved, partition)
        return row is not None and row["leaks"] > 0


def _later(rows: Mapping[str, Row], partition: str) -> Row | None:
    """Of the partition's score and that of a whole catalogue the later one."""
    found = [rows[name] for name in (partition, ALL) if name in rows]
    return max(found, key=lambda row: row["scored_at"], default=None)
