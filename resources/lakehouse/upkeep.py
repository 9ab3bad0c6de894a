"""Keeping a table's files few and its old ones short-lived, without changing a row.

Belongs here: merging small files, deleting unreferenced ones, checkpoints and the log's clean-up, each of one table and
with what must be the same before and after. Does not belong here: which tables, how often a conflict is tried again
(the maintain stage).

A table to which a row is appended at a time has a file for each: reading 300 of them takes 0.5 s, the merged one 16 ms.
Of what `replace` writes there is little to merge, and every merge is left out that is not worth a conflict with a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import pyarrow.compute as pc

from resources.errors import ConfigError, IntegrityError
from resources.lakehouse import log
from resources.lakehouse.failures import named_failures
from resources.lakehouse.lake import (
    APPEND_RETRIES,
    FILE_RETENTION_DAYS,
    Lakehouse,
    commit_properties,
    writer,
)
from resources.lakehouse.snapshot import Snapshot
from resources.tables import TableSpec

TARGET_BYTES = 100 << 20  # delta-rs' own; a file of this size is left alone
WORTH_FILES = 4  # a file costs a reader 2 ms: fewer are not worth the chance of refusing a run's commit


@dataclass(frozen=True)
class Compaction:
    """Files of one partition merged: what `version` did to its predecessor, which is still there to be read."""

    where: Mapping[str, str]
    version: int
    files_before: int
    files_after: int
    rows: int


def small_files(snapshot: Snapshot, target_bytes: int | None = None) -> list[dict[str, str]]:
    """The partitions (as `where` of `compact`) with at least WORTH_FILES files that are small and fit together."""
    target = target_bytes or TARGET_BYTES
    found = []
    for values, sizes in sorted(snapshot.file_sizes().items()):
        small = sorted(size for size in sizes if size < target)
        if len(small) >= WORTH_FILES and sum(small[:WORTH_FILES]) <= target:
            found.append(dict(zip(snapshot.spec.partition_by, values, strict=True)))
    return found


def compact(
    lake: Lakehouse,
    spec: TableSpec,
    where: Mapping[str, str],
    facts: Mapping[str, str],
    target_bytes: int | None = None,
) -> Compaction | None:
    """Merge the small files of the partition `where` (the whole table, if empty) in one commit; None if there is nothing.

    Appends go on beside it. CommitConflict if another run replaced rows meanwhile: nothing is changed then.
    IntegrityError `maintenance_changed_rows` if the commit has not as many rows as its predecessor.
    """
    handle = lake.handle(spec)
    if handle is None:
        return None
    mark, read = uuid4().hex, handle.version()
    with named_failures(spec):
        done = handle.optimize.compact(
            partition_filters=[(name, "=", value) for name, value in where.items()] or None,
            target_size=target_bytes or TARGET_BYTES,
            max_concurrent_tasks=1,  # each holds a file's rows; there is no hurry
            writer_properties=writer(spec),
            commit_properties=commit_properties({**facts, "compaction": mark}, APPEND_RETRIES),
        )
    if not done["numFilesRemoved"]:
        return None
    version = _marked(lake, spec, read, mark)
    before, after = _count(lake, spec, version - 1, where), _count(lake, spec, version, where)
    if before != after:
        raise IntegrityError(
            f"merging files changed table {spec.path}: {before} rows in version {version - 1}, {after} in {version}",
            remedy=f"stop maintenance and restore version {version - 1}, whose files are kept for {FILE_RETENTION_DAYS} days",
            code="maintenance_changed_rows",
        )
    return Compaction(dict(where), version, done["numFilesRemoved"], done["numFilesAdded"], after)


def vacuum(lake: Lakehouse, spec: TableSpec, keep_days: int = FILE_RETENTION_DAYS) -> int:
    """Delete the files that no version of the last `keep_days` refers to, those of killed writers too; their number.

    ConfigError as `require_retention`. IntegrityError `maintenance_changed_rows` if a row cannot be read any more.
    """
    require_retention(keep_days)
    handle = lake.handle(spec)
    if handle is None:
        return 0
    # `full`: files that no commit tells of too, which a killed writer left.
    with named_failures(spec):
        if not handle.vacuum(retention_hours=24 * keep_days, dry_run=True, full=True):
            return 0
    version = handle.version()
    before = _count(lake, spec, version, {})
    facts = commit_properties({"asset": "maintain"}, APPEND_RETRIES)
    with named_failures(spec):
        gone = handle.vacuum(retention_hours=24 * keep_days, dry_run=False, full=True, commit_properties=facts)
    after = _count(lake, spec, version, {})
    if after != before:
        raise IntegrityError(
            f"deleting files changed table {spec.path}: {before} rows in version {version}, {after} now",
            remedy="stop maintenance and bring the lake's files back from its backup or bucket versions",
            code="maintenance_changed_rows",
        )
    return len(gone)


def require_retention(keep_days: int) -> None:
    """ConfigError if `keep_days` is shorter than what readers and slow runs are promised."""
    if keep_days < FILE_RETENTION_DAYS:
        raise ConfigError(
            f"files of the lake cannot be deleted after {keep_days} days: readers and runs may use them for "
            f"{FILE_RETENTION_DAYS}",
            remedy=f"keep them for {FILE_RETENTION_DAYS} days or more",
        )


def checkpoint(lake: Lakehouse, spec: TableSpec) -> bool:
    """Let opening the table read one file, and delete log entries past their retention. False if it was so already.

    delta-rs does both at every 20th commit by itself, but never for a table to which nobody commits.
    """
    handle = lake.handle(spec)
    if handle is None:
        return False
    due = log.last_checkpoint(lake.uri(spec)) < handle.version()
    with named_failures(spec):
        if due:
            handle.create_checkpoint()
        handle.cleanup_metadata()
    return due


def _marked(lake: Lakehouse, spec: TableSpec, after: int, mark: str) -> int:
    """The version of our own commit, which is later than `after`: others may have come before it, and since."""
    newest = lake.snapshot(spec)
    assert newest is not None
    for version in range(after + 1, newest.version + 1):
        told = log.commit_info(lake.uri(spec), version)
        if told and json.loads(told.get("medvec", "{}")).get("compaction") == mark:
            return version
    raise IntegrityError(
        f"a commit to table {spec.path} is not in its log", remedy="run `medvec maintain` again", code="commit_lost"
    )


def _count(lake: Lakehouse, spec: TableSpec, version: int, where: Mapping[str, str]) -> int:
    snapshot = lake.snapshot(spec, version)
    assert snapshot is not None
    chosen = [pc.field(name) == value for name, value in where.items()]
    matching = chosen[0] if chosen else None
    for further in chosen[1:]:
        matching = matching & further
    return snapshot.count(matching)
