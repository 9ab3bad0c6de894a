"""What is due: which partitions of a dataset are not what their inputs say, and why.

Belongs here: comparing expected input digests with what the audit recorded. Does not belong here: doing the work,
Dagster's automation (which is told of changed partitions by the manifest asset).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.scorer.verdicts import Verdicts, passed
from medvec_assets.stages import embeddings, generations, records, vectors
from medvec_assets.stages.context import Context, is_ahead
from medvec_assets.stages.manifest import current_plan
from resources import tables
from resources.audit import ChainKey
from resources.lakehouse import Snapshot

NEVER = "never materialized"
KILLED = "a run was killed between its commit and its audit row"
CONTENT_CHANGED = "its content, a rule or the normalisation changed"
LEAKED = "identifiers came through its de-identification: it is not shown, and nothing is made of it"
UNPROVED = "its de-identification could not be scored"
INPUT_CHANGED = "its records or the encoder changed"
BEHIND_GOLD = "the index is behind gold"
NOT_KEPT = "its collection is not kept up any more"
DISAGREES = "the index does not agree with its receipt"


@dataclass(frozen=True)
class PartitionState:
    """One planned partition. `state` is `current`, or the first asset of the chain that has something to do."""

    partition: str
    cohort: str
    objects: int
    size_bytes: int
    state: str
    reason: str


@dataclass(frozen=True)
class _Known:
    """What every partition is judged by, read once: tables first, so that no audit row is missing for what they hold."""

    heads: dict[ChainKey, dict[str, Any]]
    verdicts: Verdicts
    silver: tuple[Snapshot | None, ...]
    gold: Mapping[str, tuple[Snapshot | None, ...]]
    kept: Mapping[str, Mapping[str, set[str]]]
    """space -> maintained version -> its collections that are kept up."""
    counted: set[tuple[str, str]] | None


def partition_states(ctx: Context, spec: DatasetSpec, cohorts: tuple[str, ...] | None = None) -> list[PartitionState]:
    """Every planned partition (of `cohorts`, if given), by name."""
    plan = current_plan(ctx, spec).sort("partition")
    aside = ctx.lake.snapshot(tables.quarantine(spec.id))
    silver = (ctx.lake.snapshot(tables.records(spec.id)), aside)
    gold = {space: (ctx.lake.snapshot(tables.embeddings(spec.id, space)), aside) for space in spec.spaces}
    counted = _counted_collections(ctx, spec) if ctx.index is not None else None
    kept = {space: _kept(ctx, spec, space) for space in spec.spaces}
    known = _Known(ctx.audit.latest(spec.id), Verdicts(ctx.lake, spec.id), silver, gold, kept, counted)
    states = []
    for row in plan.iter_rows(named=True):
        if cohorts is not None and row["cohort"] not in cohorts:
            continue
        found = _silver_state(ctx, spec, row["partition"], row["content_digest"], known)
        spaces = (_space_state(ctx, spec, space, row["partition"], known) for space in spec.spaces)
        state, reason = found or next(filter(None, spaces), ("current", ""))
        states.append(PartitionState(row["partition"], row["cohort"], row["objects"], row["size_bytes"], state, reason))
    return states


def _silver_state(
    ctx: Context, spec: DatasetSpec, partition: str, planned_digest: str, known: _Known
) -> tuple[str, str] | None:
    """(asset, reason) if the partition's records have something to do."""
    chain = records.chain_of(partition)
    head = known.heads.get(chain)
    if head is None:
        return records.ASSET, NEVER
    if head["input_digest"] != records.expected_input(ctx, spec, planned_digest):
        return records.ASSET, CONTENT_CHANGED
    if is_ahead(chain, head, *known.silver):
        return records.ASSET, KILLED
    score = known.verdicts.newest(partition)
    if score is None or passed(score):  # without one its run was killed before its embeddings, or is not Dagster's
        return None
    return records.ASSET, LEAKED if known.verdicts.leaks(partition) else UNPROVED


def _space_state(ctx: Context, spec: DatasetSpec, space: str, partition: str, known: _Known) -> tuple[str, str] | None:
    """(asset, reason) if a maintained version of the space has something to do, given that the records have not."""
    head = known.heads[records.chain_of(partition)]
    for version, kept in known.kept[space].items():
        chain = embeddings.chain_of(space, version, partition)
        found = known.heads.get(chain)
        aim = embeddings.target(ctx, spec, space, version)
        if found is None or found["input_digest"] != embeddings.expected_input(aim, head["output_digest"]):
            return chain[0], NEVER if found is None else INPUT_CHANGED
        if is_ahead(chain, found, *known.gold[space]):
            return chain[0], KILLED
        asset = vectors.asset_name(space)
        indexed = known.heads.get((asset, version, partition))
        if indexed is None or indexed["input_digest"] != vectors.expected_input(
            spec, asset, found, indexed["table_path"]
        ):
            return asset, BEHIND_GOLD
        # A partition without one entity has no collection to be counted in.
        collections = [name for name in indexed["table_path"].split(",") if name]
        if not kept.issuperset(collections):  # what a promotion left behind, wanted again
            return asset, NOT_KEPT
        if known.counted is not None and any((name, partition) not in known.counted for name in collections):
            return asset, DISAGREES
    return None


def _kept(ctx: Context, spec: DatasetSpec, space: str) -> dict[str, set[str]]:
    kept: dict[str, set[str]] = {version: set() for version in generations.maintained_versions(ctx, spec, space)}
    for one in generations.of_space(ctx, spec, space):
        if one["state"] in generations.MAINTAINED and one["space_version"] in kept:
            kept[one["space_version"]].add(one["collection"])
    return kept


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
        closed = [receipt for receipt in mine if receipt["entities"] != vectors.UNFINISHED]
        entities = sum(int(str(receipt["entities"])) for receipt in closed)
        whole = len(closed) == len(mine) and ctx.index.count(name) == entities
        for receipt in closed:
            partition = str(receipt["partition"])
            if whole or ctx.index.count(name, partition) == receipt["entities"]:
                agreed.add((name, partition))
    return agreed
