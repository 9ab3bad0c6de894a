"""Maintenance: few files, no old ones, short logs, nothing staged or landed that nobody wants, an index without dead weight.

Belongs here: which tables and collections are kept up, what must be the same afterwards, how often a conflict is tried
again. Does not belong here: merging and deleting one table's files (resources.lakehouse), emptying partitions (retire).

No run is harmed by it, nor does it wait for one: what conflicts with a run's commit is tried a few times, then left for
the next day and told. It is not refused where a dataset's policy is: old versions must go there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from medvec_assets.catalog.spec import DatasetSpec, Withdrawal
from medvec_assets.connectors.landing import Landing
from medvec_assets.stages import generations, payloads
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import partition_states
from medvec_assets.stages.retire import leftovers
from resources import lakehouse, tables
from resources.errors import CommitConflict, IntegrityError
from resources.lakehouse import FILE_RETENTION_DAYS
from resources.object_store import ObjectStore
from resources.tables import TableSpec

T = TypeVar("T")

STAGED_AGE = timedelta(days=1)  # a run that lasts longer than a partition may take is not at work any more
_ATTEMPTS = 3  # each merge begins anew: a table that is committed to all the time is left for the next day
AUDIT = (
    tables.materializations(),
    tables.index_receipts(),
    tables.index_recall(),
    tables.generations(),
    tables.deid_scores(),
    tables.suppression(),
    tables.exports(),
    tables.api_keys(),
    tables.harvesting(),
)


@dataclass(frozen=True)
class TableUpkeep:
    """What was done to one table. `skipped` names what other runs' commits did not let through."""

    table: str
    files_before: int
    files_after: int
    merged_partitions: int
    files_deleted: int
    checkpoint: bool
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Maintained:
    """What one round did. `compacted` are the collections whose server was asked to give up deleted entities."""

    tables: tuple[TableUpkeep, ...]
    compacted: tuple[str, ...]
    staged_removed: int
    landed_bytes_removed: int
    payloads_removed: int


def maintain(ctx: Context, specs: Sequence[DatasetSpec], keep_days: int = FILE_RETENTION_DAYS) -> Maintained:
    """Keep up the tables, collections and staging of `specs`, and what the audit tables hold of them.

    ConfigError if `keep_days` is shorter than FILE_RETENTION_DAYS. IntegrityError, and no file of a table is deleted, if merging
    changed one of its rows or a chain of the audit.
    """
    lakehouse.require_retention(keep_days)
    known = {spec.id for spec in specs}
    every = [*AUDIT, *(table for spec in specs for table in tables_of(spec))]
    done = []
    for number, table in enumerate(every):
        ctx.progress("maintenance", number, len(every))
        if ctx.lake.snapshot(table) is not None:
            done.append(_keep_up(ctx, table, known, keep_days))
    ctx.progress("maintenance", len(every), len(every))
    removed = sum(_remove_staged(ctx, spec) for spec in specs)
    evicted = sum(_evict_landed(ctx, spec, timedelta(days=keep_days)) for spec in specs)
    unused = sum(payloads.sweep(ctx, spec) for spec in specs)
    compacted = tuple(name for spec in specs for name in _compact_index(ctx, spec))
    return Maintained(tuple(done), compacted, removed, evicted, unused)


def tables_of(spec: DatasetSpec) -> list[TableSpec]:
    """Every table that holds one dataset's rows and no other's."""
    gold = [tables.embeddings(spec.id, space) for space in spec.spaces]
    bronze = [tables.manifest(spec.id), tables.partitions(spec.id), tables.quarantine(spec.id)]
    return [*bronze, tables.records(spec.id), *gold]


def _keep_up(ctx: Context, table: TableSpec, datasets: set[str], keep_days: int) -> TableUpkeep:
    snapshot = ctx.lake.ensure(table)
    merged, skipped = 0, []
    for where in lakehouse.small_files(snapshot):
        if where.get("dataset") not in {None, *datasets}:
            continue
        try:
            merged += _merge(ctx, table, where)
        except CommitConflict:
            skipped.append("/".join(where.values()) or "everything")
    deleted = 0
    try:
        deleted = _again(lambda: lakehouse.vacuum(ctx.lake, table, keep_days))
    except CommitConflict:
        skipped.append("old files")
    made = lakehouse.checkpoint(ctx.lake, table)
    before, after = (sum(map(len, one.file_sizes().values())) for one in (snapshot, ctx.lake.ensure(table)))
    return TableUpkeep(table.path, before, after, merged, deleted, made, tuple(skipped))


def _merge(ctx: Context, table: TableSpec, where: Mapping[str, str]) -> bool:
    facts = {"asset": "maintain", "run_id": ctx.run_id}
    done = _again(lambda: lakehouse.compact(ctx.lake, table, where, facts))
    if done is None:
        return False
    if table == tables.materializations():
        read = ctx.audit.broken_chains
        before, after = (sorted(read(where["dataset"], version)) for version in (done.version - 1, done.version))
        if before != after:
            raise IntegrityError(
                f"merging files changed the audit of {where['dataset']}: {len(before)} faults in version {done.version - 1}, "
                f"{len(after)} in {done.version}",
                remedy=f"stop maintenance and restore version {done.version - 1} of {table.path}",
                code="maintenance_changed_rows",
            )
    return True


def _again(action: Callable[[], T]) -> T:
    """`action`, tried again a few times while other runs' commits come first."""
    patient = retry(
        retry=retry_if_exception_type(CommitConflict),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(0.1, 5),
        reraise=True,
    )
    return patient(action)()


def _remove_staged(ctx: Context, spec: DatasetSpec) -> int:
    """Delete what is staged for no unfinished work and older than STAGED_AGE; the number of segments."""
    if ctx.lake.snapshot(tables.partitions(spec.id)) is None:  # then nothing was planned, and there may be no lake
        return 0
    store, oldest = ObjectStore(ctx.lake.root), datetime.now(UTC) - STAGED_AGE
    old = {info.key for info in store.list(f"staging/{spec.id}/") if info.modified < oldest}
    if not old:
        return 0
    unwanted = leftovers(ctx, spec, lambda: partition_states(ctx, spec)).staged.values()
    gone = [key for keys in unwanted for key in keys if key in old]
    for key in gone:
        store.delete(key)
    return len(gone)


def _evict_landed(ctx: Context, spec: DatasetSpec, kept: timedelta) -> int:
    """Remove what was landed in this home for earlier releases and not asked for since, in time for who withdrew."""
    if spec.withdrawal == Withdrawal.ERASE:
        kept = min(kept, spec.withdrawal_grace)
    return Landing(ctx.settings, spec.id).evict(datetime.now(UTC) - kept)


def _compact_index(ctx: Context, spec: DatasetSpec) -> Iterator[str]:
    assert ctx.index is not None, "maintenance needs a context with an index"
    for space in spec.spaces:
        for generation in generations.of_space(ctx, spec, space):
            name, kept_up = generation["collection"], generation["state"] in generations.MAINTAINED
            if kept_up and ctx.index.describe(name) is not None and ctx.index.compact(name):
                yield name
