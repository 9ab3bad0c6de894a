"""The ledger of what left: audit/exports, append-only, one hash chain per dataset (ADR 0003, ADR 0016).

Belongs here: entering an export, reading what left before, verifying the chains. Does not belong here: what may leave
(medvec_assets.query), the file that is written. It holds only what left: a hidden cell is null here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from resources import tables
from resources.audit import GENESIS, faults, row_hash
from resources.lakehouse import Lakehouse

Group = frozenset[tuple[str, str]]
"""Who is counted: (dimension, label) pairs. A total along a dimension leaves that dimension out."""


@dataclass(frozen=True)
class Export:
    """One table of counts that left. `cells`: None where the count was hidden; what occurs nowhere is in no cell."""

    sequence: int
    dimensions: tuple[str, ...]
    cells: Mapping[Group, int | None]
    exported_at: datetime


def of_dataset(lake: Lakehouse, dataset: str) -> list[Export]:
    """Every export of `dataset`, oldest first."""
    return [
        Export(row["sequence"], tuple(json.loads(row["dimensions"])), _cells(row["cells"]), row["exported_at"])
        for row in _rows(lake, dataset)
    ]


def enter(
    lake: Lakehouse, dataset: str, dimensions: Sequence[str], cells: Mapping[Group, int | None], smallest_count: int
) -> int:
    """Append an export to its dataset's chain, before its file is written; its sequence number."""
    rows = _rows(lake, dataset)
    listed = sorted(([dict(sorted(group)), count] for group, count in cells.items()), key=json.dumps)
    row: dict[str, Any] = {
        "dataset": dataset,
        "sequence": rows[-1]["sequence"] + 1 if rows else 0,
        "dimensions": json.dumps(list(dimensions)),
        "smallest_count": smallest_count,
        "cells": json.dumps(listed),
        "exported_at": datetime.now(UTC),
        "previous_hash": rows[-1]["row_hash"] if rows else GENESIS,
    }
    row["row_hash"] = row_hash(row, tables.EXPORTS)
    lake.append(tables.exports(), pa.Table.from_pylist([row], schema=tables.EXPORTS), {"asset": "exports"})
    return int(row["sequence"])


def broken_chains(lake: Lakehouse, dataset: str) -> list[str]:
    """Every changed, missing or forked row, in words."""
    snapshot = lake.snapshot(tables.exports())
    if snapshot is None:
        return []
    rows = snapshot.read(where=pc.field("dataset") == dataset)
    return list(faults(rows, tables.EXPORTS, lambda row: ("exports", row["dataset"])))


def _rows(lake: Lakehouse, dataset: str) -> list[dict[str, Any]]:
    snapshot = lake.snapshot(tables.exports())
    if snapshot is None:
        return []
    return snapshot.read(where=pc.field("dataset") == dataset).sort("sequence", "exported_at").to_dicts()


def _cells(told: str) -> dict[Group, int | None]:
    return {frozenset(group.items()): count for group, count in json.loads(told)}
