"""Delta tables: the only importer of deltalake. Local folder or s3:// by URI alone.

Belongs here: opening, reading, replacing and appending tables, and turning storage failures into named errors.
Does not belong here: what a table means (tables.py names the columns, stages decide the rows).

Two ways to write, because they are the two that were measured not to lose anything:
- `replace`: one atomic overwrite of the rows that match a partition, based on a snapshot opened when the work began.
  If another run replaced or deleted in the same partition meanwhile, the commit is refused; other partitions never
  conflict (16 processes x 10 rounds on distinct partitions: 160 of 160).
- `append`: for append-only audit tables (0 of 160 lost at 200 commit retries, 16 of 160 at the default 15).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from resources.errors import CommitConflict, MedvecError, StorageError
from resources.settings import Settings
from resources.tables import TableSpec

APPEND_RETRIES = 200
# A replace is only ever retried against commits to other partitions, which do not conflict.
REPLACE_RETRIES = 200
# A replace of everything conflicts with every commit. delta-rs sees that only by the files both remove: of two that
# began on an empty table both would land, and every row stand twice.
WHOLE_RETRIES = 0
# 8,192 rows of 384 float32 are 12 MB: the writer's buffer stays small whatever the partition's size.
VECTOR_ROW_GROUP = 8_192
ROW_GROUP = 32_768
LOG_RETENTION = "interval 90 days"
FILE_RETENTION = "interval 30 days"
# Opening a table reads every commit since the last checkpoint: 25 ms at delta-rs' default of 100, 7 ms at 20.
CHECKPOINT_INTERVAL = "20"

# delta-rs reads these once, when it first writes. One writer to a partition and little on its way to storage: 1.3 million
# vectors of 384 peak at 0.7 GB, otherwise at 1.5 GB, in the same time.
os.environ.setdefault("DELTARS_MAX_CONCURRENT_WRITERS", "1")
os.environ.setdefault("DELTARS_MAX_IN_FLIGHT_UPLOAD_BYTES", str(16 << 20))
# Arrow's own allocator keeps what a scan needed at its peak: a scan of 250,000 records leaves 165 MB, this one 45 MB.
pa.set_memory_pool(pa.system_memory_pool())

_LogEntry = tuple[int, int, int]
"""(inode, modification time in ns, bytes) of a local log entry: another one where a table was deleted and made again."""


@dataclass(frozen=True)
class Commit:
    """What a write did. `changed` is False when nothing was committed because nothing was new."""

    table_path: str
    uri: str
    version: int
    rows: int
    changed: bool = True


class Snapshot:
    """One table at one version: reads through it never see a later commit."""

    def __init__(self, spec: TableSpec, table: DeltaTable) -> None:
        self.spec = spec
        self._table = table  # never written through: a write moves the handle to the version it made
        self.version: int = table.version()

    @cached_property
    def _dataset(self) -> pads.Dataset:
        """Made once: it lists every file of the table, whatever is read of them."""
        return self._table.to_pyarrow_dataset(schema=self.spec.schema)

    def scan(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None, batch_rows: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        """Stream matching rows, at most `batch_rows` in a batch and four batches in memory. Prunes partitions."""
        with _named_failures(self.spec):
            scanner = self._dataset.scanner(
                columns=list(columns) if columns is not None else self.spec.schema.names,
                filter=where,
                batch_size=batch_rows,
                batch_readahead=2,
                fragment_readahead=1,
            )
            yield from (batch for batch in scanner.to_batches() if batch.num_rows)

    def read(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pl.DataFrame:
        """All matching rows as a frame. For results that are known to be small."""
        names = list(columns) if columns is not None else self.spec.schema.names
        schema = pa.schema([self.spec.schema.field(name) for name in names])
        with _named_failures(self.spec):
            table = self._dataset.to_table(columns=names, filter=where)
        frame = pl.from_arrow(table if table.num_rows else schema.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def count(self, where: pc.Expression | None = None) -> int:
        with _named_failures(self.spec):
            return int(self._dataset.count_rows(filter=where))

    def schema_drift(self) -> list[str]:
        """How the stored schema differs from the declared one, in words; empty if it does not."""
        stored = pa.schema(self._table.schema().to_arrow())
        declared = {field.name: field for field in self.spec.schema}
        found = {field.name: field for field in stored}
        drift = [f"column {name} is missing" for name in declared if name not in found]
        drift += [f"column {name} is not declared" for name in found if name not in declared]
        for name in declared.keys() & found.keys():
            if not found[name].type.equals(declared[name].type):
                drift.append(f"column {name} is {found[name].type}, declared {declared[name].type}")
            if found[name].nullable and not declared[name].nullable:
                drift.append(f"column {name} allows nulls")
        return sorted(drift)

    def partition_values(self, column: str) -> set[str]:
        """The distinct values of a physical partition column, from the log alone."""
        with _named_failures(self.spec):
            return {str(entry[column]) for entry in self._table.partitions()}

    def transaction_version(self, application: str) -> int:
        """The version that the newest commit of `application` carried (see `replace`); -1 if it never committed."""
        with _named_failures(self.spec):
            version = self._table.transaction_version(application)
        return -1 if version is None else version

    def commits(self) -> list[dict[str, Any]]:
        """What Delta's log still tells, newest first. A convenience: the record of lineage is audit/materializations."""
        with _named_failures(self.spec):
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


class Lakehouse:
    """All tables below one root URI."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self._options = dict(storage_options or {})
        self._newest: dict[str, tuple[_LogEntry, Snapshot]] = {}

    @classmethod
    def open(cls, settings: Settings) -> Lakehouse:
        # S3 endpoint, keys and region come from the usual AWS_* variables; conditional puts make commits safe.
        options = {"aws_conditional_put": "etag"} if settings.lake.startswith("s3://") else {}
        return cls(settings.lake, options)

    def uri(self, spec: TableSpec) -> str:
        return f"{self.root}/{spec.path}"

    def snapshot(self, spec: TableSpec, version: int | None = None) -> Snapshot | None:
        """The table as it is now (or at `version`), or None if it does not exist."""
        entry, newest = self._newest.get(spec.path, (None, None))
        if version is None and newest is not None and newest.spec == spec and self._newest_entry(newest) == entry:
            return newest
        table = self._open(spec, version)
        if table is None:
            return None
        return self._kept(spec, table) if version is None else Snapshot(spec, table)

    def _kept(self, spec: TableSpec, table: DeltaTable) -> Snapshot:
        """`table` as it is, kept to be handed out again while no commit follows it."""
        snapshot = Snapshot(spec, table)
        if (entry := self._newest_entry(snapshot)) is not None:
            self._newest[spec.path] = (entry, snapshot)
        return snapshot

    def _newest_entry(self, snapshot: Snapshot) -> _LogEntry | None:
        """What made `snapshot`, if no commit came after it: then there is no entry of the next number, as Delta's
        protocol has them without gaps. None if one did, or if the lake is not a local folder.

        Opening a table lists its log and reads what follows its checkpoint: 7 ms, and a partition's run asks for
        tables 50 times.
        """
        if "://" in self.root:
            return None
        log = Path(self.uri(snapshot.spec)) / "_delta_log"
        try:
            made = (log / f"{snapshot.version:020d}.json").stat()
        except OSError:
            return None
        if (log / f"{snapshot.version + 1:020d}.json").exists():
            return None
        return made.st_ino, made.st_mtime_ns, made.st_size

    def ensure(self, spec: TableSpec) -> Snapshot:
        """The table, created empty if it does not exist. Two creators at once end with one table."""
        found = self.snapshot(spec)
        if found is not None:
            return found
        stats = {"delta.dataSkippingStatsColumns": ",".join(spec.stats_columns)}
        with _named_failures(spec):
            try:
                DeltaTable.create(
                    self.uri(spec),
                    schema=spec.schema,
                    mode="ignore",
                    partition_by=list(spec.partition_by),
                    configuration={
                        "delta.logRetentionDuration": LOG_RETENTION,
                        "delta.deletedFileRetentionDuration": FILE_RETENTION,
                        "delta.checkpointInterval": CHECKPOINT_INTERVAL,
                        **(stats if spec.stats_columns else {"delta.dataSkippingNumIndexedCols": "0"}),
                    },
                    storage_options=self._options,
                )
            except DeltaError:
                if self._open(spec) is None:  # not because another run created it first
                    raise
        created = self.snapshot(spec)
        assert created is not None
        return created

    def replace(
        self,
        base: Snapshot,
        where: Mapping[str, str],
        batches: Iterable[pa.RecordBatch],
        metadata: Mapping[str, Any],
        transaction: tuple[str, int] | None = None,
    ) -> Commit:
        """Atomically replace the rows equal to `where` (everything, if empty) by `batches`, streamed.

        `base` is the snapshot opened when the run began: CommitConflict if anything matching changed since.
        `transaction` is an (application, version) that becomes readable with the commit or not at all.
        """
        spec = base.spec
        stream = _Counted(batches)
        reader = pa.RecordBatchReader.from_batches(spec.schema, stream.guarded())
        handle = self._open(spec, base.version)
        if handle is None:
            raise StorageError(f"table {spec.path} vanished during the run", remedy="run again", retryable=True)
        with _named_failures(spec, stream.failure):
            write_deltalake(
                handle,
                reader,
                mode="overwrite",
                predicate=" AND ".join(f"{name} = '{_quoted(value)}'" for name, value in where.items()) or None,
                writer_properties=_writer(spec),
                commit_properties=_commit(metadata, REPLACE_RETRIES if where else WHOLE_RETRIES, transaction),
            )
        return Commit(spec.path, self.uri(spec), self._kept(spec, handle).version, stream.rows)

    def append(self, spec: TableSpec, rows: pa.Table, metadata: Mapping[str, Any]) -> Commit:
        """Append rows to an append-only table."""
        self.ensure(spec)
        handle = self._open(spec)
        assert handle is not None
        with _named_failures(spec):
            write_deltalake(
                handle,
                rows.cast(spec.schema),
                mode="append",
                schema_mode="merge",  # a column that the spec has and the table has not yet
                writer_properties=_writer(spec),
                commit_properties=_commit(metadata, APPEND_RETRIES),
            )
        return Commit(spec.path, self.uri(spec), self._kept(spec, handle).version, rows.num_rows)

    def _open(self, spec: TableSpec, version: int | None = None) -> DeltaTable | None:
        with _named_failures(spec):
            try:
                return DeltaTable(self.uri(spec), version=version, storage_options=self._options)
            except TableNotFoundError:
                return None


class _Counted:
    """Counts streamed rows and keeps the producer's own exception, which Arrow's C stream would flatten to a string."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self._failure: Exception | None = None
        self.rows = 0

    def guarded(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield batch
        except Exception as error:
            self._failure = error
            raise

    def failure(self) -> Exception | None:
        return self._failure


def _writer(spec: TableSpec) -> WriterProperties:
    rows = VECTOR_ROW_GROUP if "vector" in spec.schema.names else ROW_GROUP
    return WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=rows)


def _commit(metadata: Mapping[str, Any], retries: int, transaction: tuple[str, int] | None = None) -> CommitProperties:
    return CommitProperties(
        custom_metadata={"medvec": json.dumps(dict(metadata), sort_keys=True)},
        max_commit_retries=retries,
        app_transactions=[Transaction(*transaction)] if transaction else None,
    )


def _quoted(value: str) -> str:
    return value.replace("'", "''")


@contextmanager
def _named_failures(spec: TableSpec, producer: Callable[[], Exception | None] = lambda: None) -> Iterator[None]:
    """Storage failures as errors that name the table and end with the remedy."""
    try:
        yield
    except MedvecError:
        raise
    except CommitFailedError as error:
        raise CommitConflict(
            f"another run committed to the same part of {spec.path} first",
            remedy="run again: it starts from the new version",
        ) from error
    except (DeltaError, OSError, pa.ArrowException) as error:
        if (own := producer()) is not None:
            raise own from error
        raise _storage_error(spec, error) from error


def _storage_error(spec: TableSpec, error: Exception) -> StorageError:
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text or "os error 28" in text:
        return StorageError(
            f"the disk is full: {spec.path} could not be written; nothing was committed",
            remedy="free space on the lake's volume and run again: finished vectors are staged and adopted",
            code="disk_full",
        )
    if "Permission denied" in text or "os error 13" in text or "AccessDenied" in text:
        return StorageError(
            f"no permission for table {spec.path}",
            remedy="check who owns the lake's folder, or the bucket's policy and credentials",
            code="storage_denied",
        )
    # The first line only: below it delta-rs previews the rows it refuses, which may be a person's.
    summary = text.partition("\n")[0][:200]
    return StorageError(
        f"table {spec.path} could not be read or written ({type(error).__name__}: {summary})",
        remedy="check that the lake's URI answers (medvec doctor), then run again",
        retryable=True,
    )
