"""What is due: which partitions of a dataset are not what their inputs say, and why.

Belongs here: comparing expected input digests with what the audit recorded. Does not belong here: doing the work,
Dagster's automation (which is told of changed partitions by the manifest asset).
"""

from __future__ import annotations

from dataclasses import dataclass

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings, generations, records, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import current_plan


@dataclass(frozen=True)
class PartitionState:
    """One planned partition. `state` is `current`, or the first asset of the chain that has something to do."""

    partition: str
    cohort: str
    objects: int
    size_bytes: int
    state: str
    reason: str


def partition_states(ctx: Context, spec: DatasetSpec, cohorts: tuple[str, ...] | None = None) -> list[PartitionState]:
    """Every planned partition (of `cohorts`, if given), by name."""
    plan = current_plan(ctx, spec).sort("partition")
    counted = _counted_collections(ctx, spec) if ctx.index is not None else None
    states = []
    for row in plan.iter_rows(named=True):
        if cohorts is not None and row["cohort"] not in cohorts:
            continue
        state, reason = _state(ctx, spec, row["partition"], row["content_digest"], counted)
        states.append(PartitionState(row["partition"], row["cohort"], row["objects"], row["size_bytes"], state, reason))
    return states


def _state(
    ctx: Context, spec: DatasetSpec, partition: str, planned_digest: str, counted: set[tuple[str, str]] | None
) -> tuple[str, str]:
    heads = ctx.audit.latest(spec.id)
    head = heads.get((records.ASSET, "-", partition))
    if head is None:
        return records.ASSET, "never materialized"
    if head["input_digest"] != records.expected_input(ctx, spec, planned_digest):
        return records.ASSET, "its content, a rule or the normalisation changed"
    for space in spec.spaces:
        for version in generations.maintained_versions(ctx, spec, space):
            asset = embeddings.asset_name(space)
            found = heads.get((asset, version, partition))
            aim = embeddings.target(ctx, spec, space, version)
            if found is None or found["input_digest"] != embeddings.expected_input(aim, head["output_digest"]):
                return asset, "never materialized" if found is None else "its records or the encoder changed"
            indexed = heads.get((vectors.asset_name(space), version, partition))
            if indexed is None or indexed["input_digest"] != vectors.expected_input(
                vectors.asset_name(space), found, indexed["table_path"]
            ):
                return vectors.asset_name(space), "the index is behind gold"
            if counted is not None and any(
                (name, partition) not in counted for name in indexed["table_path"].split(",")
            ):
                return vectors.asset_name(space), "the index does not agree with its receipt"
    return "current", ""


def _counted_collections(ctx: Context, spec: DatasetSpec) -> set[tuple[str, str]]:
    """(collection, partition) pairs whose receipt the index still agrees with, by instance and count.

    One count of a whole collection settles all its partitions; only where that differs is each partition counted.
    """
    assert ctx.index is not None
    by_collection: dict[str, list[dict[str, object]]] = {}
    for (name, _), receipt in vectors.receipts(ctx, spec).items():
        by_collection.setdefault(name, []).append(receipt)
    agreed: set[tuple[str, str]] = set()
    for name, found in by_collection.items():
        info = ctx.index.describe(name)
        if info is None:
            continue
        mine = [receipt for receipt in found if receipt["collection_uuid"] == info.uuid]
        whole = ctx.index.count(name) == sum(int(str(receipt["entities"])) for receipt in mine)
        for receipt in mine:
            partition = str(receipt["partition"])
            if whole or ctx.index.count(name, partition) == receipt["entities"]:
                agreed.add((name, partition))
    return agreed
