"""resources.lakehouse in memory: several times faster, for tests that try many histories. Delta itself is not tested with it.

Atomic replaces, snapshots that do not move, conflicts and transactions are as test_lakehouse.py holds the real one to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from resources.errors import CommitConflict
from resources.lakehouse import Commit, Lakehouse, Snapshot
from resources.tables import TableSpec


@dataclass(frozen=True)
class _Version:
    rows: pa.Table
    where: Mapping[str, str] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)


class MemorySnapshot(Snapshot):
    def __init__(self, spec: TableSpec, number: int, version: _Version) -> None:
        self.spec = spec
        self.version = number
        self._version = version

    def scan(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None, batch_rows: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        yield from self._rows(columns, where).combine_chunks().to_batches(max_chunksize=batch_rows)

    def read(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pl.DataFrame:
        frame = pl.from_arrow(self._rows(columns, where))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def count(self, where: pc.Expression | None = None) -> int:
        return int(self._rows(None, where).num_rows)

    def partition_values(self, column: str) -> set[str]:
        assert column in self.spec.partition_by
        return set(self._version.rows[column].to_pylist())

    def transaction_version(self, application: str) -> int:
        return self._version.transactions.get(application, -1)

    def _rows(self, columns: Sequence[str] | None, where: pc.Expression | None) -> pa.Table:
        rows = self._version.rows if where is None else self._version.rows.filter(where)
        return rows.select(list(columns) if columns is not None else self.spec.schema.names)


class MemoryLake(Lakehouse):
    """`root` is a folder all the same: what is staged lies there."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        Path(root).mkdir(parents=True, exist_ok=True)
        self._tables: dict[str, list[_Version]] = {}

    def snapshot(self, spec: TableSpec, version: int | None = None) -> Snapshot | None:
        found = self._tables.get(spec.path)
        if not found:
            return None
        number = len(found) - 1 if version is None else version
        return MemorySnapshot(spec, number, found[number])

    def ensure(self, spec: TableSpec) -> Snapshot:
        self._tables.setdefault(spec.path, [_Version(spec.schema.empty_table())])
        found = self.snapshot(spec)
        assert found is not None
        return found

    def replace(
        self,
        base: Snapshot,
        where: Mapping[str, str],
        batches: Iterable[pa.RecordBatch],
        metadata: Mapping[str, Any],
        transaction: tuple[str, int] | None = None,
    ) -> Commit:
        spec = base.spec
        rows = _valid(pa.Table.from_batches(list(batches), spec.schema))
        versions = self._tables[spec.path]
        for later in versions[base.version + 1 :]:
            if all(later.where.get(name, value) == value for name, value in where.items()):
                raise CommitConflict(f"another run committed to {spec.path} first", remedy="run again")
        kept = versions[-1].rows.slice(0, 0)
        if where:
            matches = [pc.field(name) == value for name, value in where.items()]
            matching = matches[0]
            for further in matches[1:]:
                matching = matching & further
            assert rows.filter(matching).num_rows == rows.num_rows, "rows of another partition"
            kept = versions[-1].rows.filter(~matching)
        return self._commit(spec, pa.concat_tables([kept, rows]), where, rows.num_rows, transaction)

    def append(self, spec: TableSpec, rows: pa.Table, metadata: Mapping[str, Any]) -> Commit:
        self.ensure(spec)
        added = _valid(rows.cast(spec.schema))
        everything = pa.concat_tables([self._tables[spec.path][-1].rows, added])
        return self._commit(spec, everything, {}, added.num_rows, None)

    def _commit(
        self, spec: TableSpec, rows: pa.Table, where: Mapping[str, str], count: int, transaction: tuple[str, int] | None
    ) -> Commit:
        versions = self._tables[spec.path]
        transactions = dict(versions[-1].transactions) | (dict([transaction]) if transaction else {})
        versions.append(_Version(rows, dict(where), transactions))
        return Commit(spec.path, self.uri(spec), len(versions) - 1, count)


def _valid(rows: pa.Table) -> pa.Table:
    for declared in rows.schema:
        assert declared.nullable or rows[declared.name].null_count == 0, f"nulls in {declared.name}"
    return rows
