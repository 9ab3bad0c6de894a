"""All tables below one root: opening, replacing, appending.

Belongs here: `Lakehouse` and how it commits. Does not belong here: reading a version (snapshot), rewriting files (upkeep).

Two ways to write, because they are the two that were measured not to lose anything:
- `replace`: one atomic overwrite of the rows that match a partition, based on a snapshot opened when the work began.
  If another run replaced or deleted in the same partition meanwhile, the commit is refused; other partitions never
  conflict (16 processes x 10 rounds on distinct partitions: 160 of 160).
- `append`: for append-only audit tables (0 of 160 lost at 200 commit retries, 16 of 160 at the default 15).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from resources.errors import CommitConflict, MedvecError, StorageError
from resources.lakehouse import log
from resources.lakehouse.failures import named_failures
from resources.lakehouse.snapshot import Snapshot
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.tables import TableSpec

APPEND_RETRIES = 200
# A replace is only ever retried against commits to other partitions, which do not conflict.
REPLACE_RETRIES = 200
# A replace of everything conflicts with every commit. delta-rs sees that only by the files both remove: of two that
# began on an empty table both would land, and every row stand twice.
WHOLE_RETRIES = 0
# A table to which rows are appended one by one is read in 0.1 s after this many, in 4 s after 900, and runs read the audit
# again and again. Larger files are left to maintenance: each merge writes anew what it merges.
MERGE_EVERY = 50
# Of a file's own minima and maxima; they stand in its footer whole unless told otherwise: a segment of 8 MiB of the access
# log, 0.5 MB compressed, had a footer of 17 MB, which whoever opened the table read.
STATISTICS_BYTES = 64
MERGE_BYTES = 1 << 20
# 8,192 rows of 384 float32 are 12 MB: the writer's buffer stays small whatever the partition's size.
VECTOR_ROW_GROUP = 8_192
ROW_GROUP = 32_768
LOG_RETENTION = "interval 90 days"
FILE_RETENTION_DAYS = 30
# Opening a table reads every commit since the last checkpoint: 25 ms at delta-rs' default of 100, 7 ms at 20.
CHECKPOINT_INTERVAL = "20"
# A request that is refused is tried for some seconds: 10 retries, the default, may take a minute each, and a step makes
# several. A minute of 503s is for the step's own retries to survive.
S3_OPTIONS = {"aws_conditional_put": "etag", "max_retries": "6", "retry_timeout": "60s"}

# delta-rs reads these once, when it first writes. One writer to a partition and little on its way to storage: 1.3 million
# vectors of 384 peak at 0.7 GB, otherwise at 1.5 GB, in the same time.
os.environ.setdefault("DELTARS_MAX_CONCURRENT_WRITERS", "1")
os.environ.setdefault("DELTARS_MAX_IN_FLIGHT_UPLOAD_BYTES", str(16 << 20))
# Arrow's own allocator keeps what a scan needed at its peak: a scan of 250,000 records leaves 165 MB, this one 45 MB.
pa.set_memory_pool(pa.system_memory_pool())


@dataclass(frozen=True)
class Commit:
    """What a write did. `changed` is False when nothing was committed because nothing was new."""

    table_path: str
    uri: str
    version: int
    rows: int
    changed: bool = True


class Lakehouse:
    """All tables below one root URI."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self._options = dict(storage_options or {})
        self._newest: dict[str, tuple[log.Entry, Snapshot]] = {}

    @classmethod
    def open(cls, settings: Settings) -> Lakehouse:
        # S3 endpoint, keys and region come from the usual AWS_* variables; conditional puts make commits safe.
        return cls(settings.lake, S3_OPTIONS if settings.lake.startswith("s3://") else {})

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.root)

    def uri(self, spec: TableSpec) -> str:
        return f"{self.root}/{spec.path}"

    def snapshot(self, spec: TableSpec, version: int | None = None) -> Snapshot | None:
        """The table as it is now (or at `version`), or None if it does not exist."""
        entry, newest = self._newest.get(spec.path, (None, None))
        if version is None and newest is not None and newest.spec == spec and self._newest_entry(newest) == entry:
            return newest
        if log.is_absent(self._store, spec.path):
            return None
        table = self.handle(spec, version)
        if table is None:
            return None
        return self._kept(spec, table) if version is None else Snapshot(spec, table)

    def _kept(self, spec: TableSpec, table: DeltaTable) -> Snapshot:
        """`table` as it is, kept to be handed out again while no commit follows it."""
        snapshot = Snapshot(spec, table)
        if (entry := self._newest_entry(snapshot)) is not None:
            self._newest[spec.path] = (entry, snapshot)
        return snapshot

    def _newest_entry(self, snapshot: Snapshot) -> log.Entry | None:
        """What made `snapshot`, if no commit came after it; None also where the store does not tell: opening the table
        says why. Opening takes 7 ms in a folder and 23 on S3, this a tenth of it, and a partition's run asks for tables
        50 times."""
        with suppress(MedvecError):
            return log.newest_entry(self._store, snapshot.spec.path, snapshot.version)
        return None

    def ensure(self, spec: TableSpec) -> Snapshot:
        """The table, created empty if it does not exist. Two creators at once end with one table."""
        found = self.snapshot(spec)
        if found is not None:
            return found
        stats = {"delta.dataSkippingStatsColumns": ",".join(spec.stats_columns)}
        with named_failures(spec):
            try:
                DeltaTable.create(
                    self.uri(spec),
                    schema=spec.schema,
                    mode="ignore",
                    partition_by=list(spec.partition_by),
                    configuration={
                        "delta.logRetentionDuration": LOG_RETENTION,
                        "delta.deletedFileRetentionDuration": f"interval {FILE_RETENTION_DAYS} days",
                        "delta.checkpointInterval": CHECKPOINT_INTERVAL,
                        **(stats if spec.stats_columns else {"delta.dataSkippingNumIndexedCols": "0"}),
                    },
                    storage_options=self._options,
                )
            except DeltaError:
                if self.handle(spec) is None:  # not because another run created it first
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

        `base` is the snapshot opened when the run began: CommitConflict if anything matching changed since, but not if
        maintenance merged its files meanwhile. (If that happens while the rows are streamed, it is a conflict too.)
        `transaction` is an (application, version) that becomes readable with the commit or not at all.
        """
        spec = base.spec
        stream = _Counted(batches)
        reader = pa.RecordBatchReader.from_batches(spec.schema, stream.guarded())
        handle = self.handle(spec)
        if handle is not None:
            unchanged = self._past_maintenance(base, Snapshot(spec, handle), where, transaction)
            handle = handle if handle.version() == unchanged else self.handle(spec, unchanged)
        if handle is None:
            raise StorageError(f"table {spec.path} vanished during the run", remedy="run again", retryable=True)
        with named_failures(spec, stream.failure):
            write_deltalake(
                handle,
                reader,
                mode="overwrite",
                schema_mode="merge",  # a column that the spec has and the table has not yet
                predicate=" AND ".join(f"{name} = '{_quoted(value)}'" for name, value in where.items()) or None,
                writer_properties=writer(spec),
                commit_properties=commit_properties(metadata, REPLACE_RETRIES if where else WHOLE_RETRIES, transaction),
            )
        return Commit(spec.path, self.uri(spec), self._kept(spec, handle).version, stream.rows)

    def _past_maintenance(
        self, base: Snapshot, newest: Snapshot, where: Mapping[str, str], transaction: tuple[str, int] | None
    ) -> int:
        """The newest version that holds the rows of `base`, as far as `where` goes: merged into other files perhaps.

        A run of an hour is not to be lost because its partition's files were merged or old ones deleted: that changes no
        row. Nor is a change to be hidden by it: the log is read only where files differ, and believed only where between
        two merges there is the same set of files and no other commit of `transaction`'s application.
        """
        if newest.version <= base.version:
            return base.version

        def untouched(known: Snapshot, later: Snapshot | None) -> bool:
            return (
                later is not None
                and later.file_paths(where) == known.file_paths(where)
                and (
                    not transaction
                    or later.transaction_version(transaction[0]) == known.transaction_version(transaction[0])
                )
            )

        known = base
        if not untouched(known, newest):
            for version in range(base.version + 1, newest.version + 1):
                told = log.commit_info(self.uri(base.spec), version) or {}
                if told.get("operation") != "OPTIMIZE":
                    continue
                if not untouched(known, self.snapshot(base.spec, version - 1)):
                    break
                merged = self.snapshot(base.spec, version)
                assert merged is not None
                known = merged
        return newest.version if untouched(known, newest) else known.version

    def append(self, spec: TableSpec, rows: pa.Table, metadata: Mapping[str, Any]) -> Commit:
        """Append rows to an append-only table. Every MERGE_EVERY commits its smallest files are merged."""
        self.ensure(spec)
        handle = self.handle(spec)
        assert handle is not None
        with named_failures(spec):
            write_deltalake(
                handle,
                rows.cast(spec.schema),
                mode="append",
                schema_mode="merge",  # a column that the spec has and the table has not yet
                writer_properties=writer(spec),
                commit_properties=commit_properties(metadata, APPEND_RETRIES),
            )
        commit = Commit(spec.path, self.uri(spec), self._kept(spec, handle).version, rows.num_rows)
        if commit.version % MERGE_EVERY == 0:
            self._merge_appended(spec)
        return commit

    def _merge_appended(self, spec: TableSpec) -> None:
        from resources.lakehouse import upkeep  # it is built on this module

        with suppress(
            CommitConflict, StorageError
        ):  # the rows are in: the next merge or `medvec maintain` makes up for it
            for where in upkeep.small_files(self.ensure(spec), MERGE_BYTES):
                upkeep.compact(self, spec, where, {"asset": "append"}, MERGE_BYTES)

    def handle(self, spec: TableSpec, version: int | None = None) -> DeltaTable | None:
        """deltalake's own table, for this package only; None if the table does not exist.

        StorageError `version_gone` if it does, and the log does not tell of `version` any more.
        """
        with named_failures(spec):
            try:
                return DeltaTable(self.uri(spec), version=version, storage_options=self._options)
            except TableNotFoundError:
                if version is None or self.handle(spec) is None:
                    return None
        raise StorageError(
            f"version {version} of table {spec.path} is not in its log any more",
            remedy="read a newer version: the log tells of 90 days",
            code="version_gone",
        )


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


def writer(spec: TableSpec) -> WriterProperties:
    rows = VECTOR_ROW_GROUP if "vector" in spec.schema.names else ROW_GROUP
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=rows,
        statistics_truncate_length=STATISTICS_BYTES,
    )


def commit_properties(
    metadata: Mapping[str, Any], retries: int, transaction: tuple[str, int] | None = None
) -> CommitProperties:
    return CommitProperties(
        custom_metadata={"medvec": json.dumps(dict(metadata), sort_keys=True)},
        max_commit_retries=retries,
        app_transactions=[Transaction(*transaction)] if transaction else None,
    )


def _quoted(value: str) -> str:
    return value.replace("'", "''")
