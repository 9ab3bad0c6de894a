"""Small tables of notes by partition, for the tests of the lakehouse."""

from __future__ import annotations

import pyarrow as pa

from resources.lakehouse import Commit, Lakehouse
from resources.tables import TableSpec

NOTES = TableSpec(
    "test/notes",
    pa.schema([pa.field("partition", pa.string(), nullable=False), pa.field("note", pa.string(), nullable=False)]),
    ("partition",),
)
WHOLE = TableSpec("test/whole", NOTES.schema)


def notes(partition: str, *values: str) -> list[pa.RecordBatch]:
    rows = [{"partition": partition, "note": value} for value in values]
    return pa.Table.from_pylist(rows, schema=NOTES.schema).to_batches()


def replace(lake: Lakehouse, partition: str, *values: str, table: TableSpec = NOTES) -> Commit:
    where = {"partition": partition} if table.partition_by else {}
    return lake.replace(lake.ensure(table), where, notes(partition, *values), {"run_id": "r1"})


def stored(lake: Lakehouse, table: TableSpec = NOTES) -> list[tuple[str, str]]:
    snapshot = lake.snapshot(table)
    assert snapshot is not None
    return sorted(snapshot.read().rows())
