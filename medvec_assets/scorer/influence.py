"""What an identifier did to a record without standing in it: two copies that differ in one cell must become equal records.

Belongs here: comparing the records of a pair. Does not belong here: planting it (planting.cells), the scored run (score).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from medvec_assets.scorer.search import Leak

COMPARED = ("text", "attributes", "deid_actions", "content_digests", "payload")


@dataclass(frozen=True)
class PlantedPair:
    """The object ids of a pair's copies, and what was planted in which cell of them."""

    kind: str
    place: str
    objects: tuple[str, str]


def leaks_of(pairs: Iterable[PlantedPair], records: pl.DataFrame, table: str) -> set[Leak]:
    """A leak for each column of `records` (those of `table`) in which the records of a pair differ; of a pair of which one
    copy alone became a record, that it did."""
    rows = {row["object_ids"][0]: row for row in records.select("object_ids", *COMPARED).iter_rows(named=True)}
    leaks = set()
    for pair in pairs:
        one, other = (rows.get(name) for name in pair.objects)
        if one is None or other is None:
            differing = ["object_ids"] if (one is None) != (other is None) else []
        else:
            differing = [column for column in COMPARED if one[column] != other[column]]
        leaks |= {Leak(pair.kind, pair.place, f"{table}: column {name}", "depends on it") for name in differing}
    return leaks
