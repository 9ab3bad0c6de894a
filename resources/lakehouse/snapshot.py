"""One table at one version, to be read.

Belongs here: whatever is asked of a version of a table: rows, counts, schema, files, the log. Does not belong here:
opening tables and writing to them (lake), rewriting their files (upkeep).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import DeltaTable

from resources.lakehouse.failures import named_failures
from resources.tables import TableSpec
from resources.tracing import span

_OPENED = count(1)


class Snapshot:
    """One table at one version: reads through it never see a later commit."""

    def __init__(self, spec: TableSpec, table: DeltaTable) -> None:
        self.spec = spec
        self._table = table  # never written through: a write moves the handle to the version it made
        self.version: int = table.version()
        self.opened = next(_OPENED)  # tells two tables apart that had the same version one after the other

    @cached_property
    def _dataset(self) -> pads.Dataset:
        """Made once: it lists every file of the table, whatever is read of them."""
        return self._table.to_pyarrow_dataset(filesystem=self._folder, schema=self.spec.schema)

    @cached_property
    def _folder(self) -> pafs.FileSystem | None:
        """The table's folder for Arrow to read by itself; None in a bucket, which Arrow then reads through delta-rs.

        That way calls Python from Arrow's threads: a process that ends while they still read ahead hangs or crashes
        (54 of 60 did). So only a bucket is read that way, and to its end (see `scan`).
        """
        if not self._table.table_uri.startswith("file://"):
            return None
        local, path = pafs.FileSystem.from_uri(self._table.table_uri)
        return pafs.SubTreeFileSystem(path, local)

    def scan(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None, batch_rows: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        """Stream matching rows, at most `batch_rows` in a batch and four batches in memory. Prunes partitions."""
        with named_failures(self.spec):
            scanner = self._dataset.scanner(
                columns=list(columns) if columns is not None else self.spec.schema.names,
                filter=where,
                batch_size=batch_rows,
                batch_readahead=2,
                fragment_readahead=1,
            )
            reader = scanner.to_reader()
            try:
                yield from (batch for batch in reader if batch.num_rows)
            finally:
                if self._folder is None:
                    reader.close()  # reads what is left

    def read(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pl.DataFrame:
        """All matching rows as a frame. For results that are known to be small."""
        names = list(columns) if columns is not None else self.spec.schema.names
        schema = pa.schema([self.spec.schema.field(name) for name in names])
        with span("lake.read"), named_failures(self.spec):
            table = self._dataset.to_table(columns=names, filter=where)
        frame = pl.from_arrow(table if table.num_rows else schema.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def count(self, where: pc.Expression | None = None) -> int:
        with named_failures(self.spec):
            return int(self._dataset.count_rows(filter=where))

    def schema_drift(self) -> list[str]:
        """How the stored schema differs from the declared one, in words; empty if it does not. A column that may be null and
        is not there yet is no difference: it reads as null, and the next write adds it."""
        stored = pa.schema(self._table.schema().to_arrow())
        declared = {field.name: field for field in self.spec.schema}
        found = {field.name: field for field in stored}
        drift = [f"column {name} is missing" for name in declared if name not in found and not declared[name].nullable]
        drift += [f"column {name} is not declared" for name in found if name not in declared]
        for name in declared.keys() & found.keys():
            if not found[name].type.equals(declared[name].type):
                drift.append(f"column {name} is {found[name].type}, declared {declared[name].type}")
            if found[name].nullable and not declared[name].nullable:
                drift.append(f"column {name} allows nulls")
        return sorted(drift)

    def partition_values(self, column: str) -> set[str]:
        """The distinct values of a physical partition column, from the log alone."""
        with named_failures(self.spec):
            return {str(entry[column]) for entry in self._table.partitions()}

    def file_sizes(self) -> dict[tuple[str, ...], list[int]]:
        """Bytes of each data file, by the values of the physical partition columns, from the log alone."""
        found: dict[tuple[str, ...], list[int]] = {}
        with named_failures(self.spec):
            actions = pa.table(self._table.get_add_actions(flatten=True))
        columns = [actions[f"partition.{name}"].to_pylist() for name in self.spec.partition_by]
        for number, size in enumerate(actions["size_bytes"].to_pylist()):
            found.setdefault(tuple(str(column[number]) for column in columns), []).append(size)
        return found

    def file_paths(self, where: Mapping[str, str]) -> set[str]:
        """The data files of the partitions equal to `where`; names are never used twice, so equal sets are equal rows."""
        filters = [(name, "=", value) for name, value in where.items()]
        with named_failures(self.spec):
            return set(self._table.file_uris(partition_filters=filters or None))

    def transaction_version(self, application: str) -> int:
        """The version that the newest commit of `application` carried (see `replace`); -1 if it never committed."""
        with named_failures(self.spec):
            version = self._table.transaction_version(application)
        return -1 if version is None else version

    def commits(self) -> list[dict[str, Any]]:
        """What Delta's log still tells, newest first. A convenience: the record of lineage is audit/materializations."""
        with named_failures(self.spec):
            history = self._table.history()
        return [
            {
                "version": entry.get("version"),
                "timestamp": entry.get("timestamp"),
                "operation": entry.get("operation"),
                "medvec": json.loads(entry["medvec"]) if "medvec" in entry else None,
            }
            for entry in history
        ]
