"""Retiring partitions that left the plan: after a split, the parent goes when all its children stand.

Belongs here: finding and emptying such partitions in silver, gold, index, staging, quarantine and payloads.
Does not belong here: planning (partitions), withdrawal of subjects (the records stage drops them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medvec_assets import partitions
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import entities, generations, payloads, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import PartitionState, partition_states
from medvec_assets.stages.manifest import UNASSIGNED, current_plan
from medvec_assets.stages.staging import staged_keys
from resources import tables
from resources.object_store import ObjectStore
from resources.tables import TableSpec


@dataclass(frozen=True)
class Leftovers:
    """What nobody wants any more: `partitions` to empty, and `staged` segments (partition -> keys in the lake)."""

    partitions: tuple[str, ...]
    staged: dict[str, list[str]]


def leftovers(ctx: Context, spec: DatasetSpec, states: Callable[[], Sequence[PartitionState]]) -> Leftovers:
    """Stored partitions that left the plan and whose successors are all current; staged vectors of finished work.

    `states` is called only if there may be some.
    """
    planned = set(current_plan(ctx, spec)["partition"])
    stored = (_partitions(ctx, table) for table in _tables(spec))
    orphans = set().union(*stored) - planned - {UNASSIGNED} if planned else set()
    staged = staged_keys(ObjectStore(ctx.lake.root), spec.id) if planned else {}
    if not orphans and not staged:
        return Leftovers((), {})
    unfinished = {state.partition for state in states() if state.state != "current"}
    return Leftovers(
        tuple(sorted(name for name in orphans if not _successors(name, planned) & unfinished)),
        {name: keys for name, keys in staged.items() if name not in unfinished},
    )


def retire(ctx: Context, spec: DatasetSpec) -> list[str]:
    """Empty every partition that is not planned any more and whose successors are all current; their names.

    Vectors that a killed run staged for work nobody wants any more go too.
    """
    found = leftovers(ctx, spec, lambda: partition_states(ctx, spec))
    for name in found.partitions:
        named = payloads.of_partition(ctx.lake.ensure(tables.records(spec.id)), name)
        _remove_from_index(ctx, spec, name)
        for table in _tables(spec):
            if name in _partitions(ctx, table):
                _remove_from_table(ctx, table, name)
        payloads.remove_unused(ctx, spec, named)  # of subjects who are in no successor
    store = ObjectStore(ctx.lake.root)
    for key in (key for keys in found.staged.values() for key in keys):
        store.delete(key)
    return list(found.partitions)


def _successors(orphan: str, planned: set[str]) -> set[str]:
    gone = partitions.Partition.parse(orphan)
    leaves = {name: partitions.Partition.parse(name) for name in planned}
    return {n for n, leaf in leaves.items() if leaf.cohort == gone.cohort and leaf.prefix.startswith(gone.prefix)}


def _tables(spec: DatasetSpec) -> list[TableSpec]:
    gold = [tables.embeddings(spec.id, space) for space in spec.spaces]
    return [tables.records(spec.id), *gold, tables.quarantine(spec.id)]


def _partitions(ctx: Context, table: TableSpec) -> set[str]:
    snapshot = ctx.lake.snapshot(table)
    return snapshot.partition_values("partition") if snapshot else set()


def _remove_from_table(ctx: Context, table: TableSpec, partition: str) -> None:
    base = ctx.lake.ensure(table)
    ctx.lake.replace(
        base, {"partition": partition}, [], {"asset": "retire", "partition": partition, "run_id": ctx.run_id}
    )


def _remove_from_index(ctx: Context, spec: DatasetSpec, partition: str) -> None:
    assert ctx.index is not None, "retiring needs a context with an index"
    for space in spec.spaces:
        for generation in generations.of_space(ctx, spec, space):
            info = ctx.index.describe(generation["collection"])
            if info is not None:
                ctx.index.delete_partition(info.name, partition)
                ctx.index.settle(info.name)
                vectors.write_receipt(ctx, spec, info, partition, 0, 0, entities.digest({}))
