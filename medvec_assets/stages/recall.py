"""Tie-aware recall@10: how many of the exact nearest neighbours a collection's search finds.

Belongs here: choosing queries, exact search over gold block by block, the comparison, what recall suffices, the record of
what was measured (audit/index_recall). Does not belong here: what follows of it (promote, verify), timing (bench).

A hit counts if its score is at least the k-th exact score less TIE: by id, equal scores would cost 4-6 points that no
reader can see. Memory is a block of gold and QUERIES x K scores, whatever the collection's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import entities
from medvec_assets.stages.context import Context
from medvec_assets.stages.generations import Generation
from medvec_assets.stages.manifest import current_plan
from resources import tables
from resources.lakehouse import Snapshot

K = 10
TIE = 1e-5
QUERIES = 200
NOISE = 0.01  # so that no query is its own answer
EVERYTHING = "everything"
MIN_RECALL, MIN_COHORT_RECALL = 0.98, 0.95


@dataclass(frozen=True)
class Recall:
    """Recall of the K best in one scope (`everything` or a cohort) of `entities` entities, searched with HNSW's `ef` or
    IVF_FLAT's `nprobe`; 0 where the index has no such thing."""

    scope: str
    entities: int
    queries: int
    ef: int
    nprobe: int
    recall: float


@dataclass
class _Scope:
    """A part of the collection, `share` of the plan's objects, and the best exact scores in it so far, float32 [queries,
    at most K]."""

    name: str
    partitions: list[str] | None
    share: float
    best: NDArray[np.float32]
    entities: int = 0

    def covers(self, partition: str) -> bool:
        return self.partitions is None or partition in self.partitions

    def add(self, scores: NDArray[np.float32]) -> None:
        joined = np.concatenate([self.best, scores], axis=1)
        kept = min(K, joined.shape[1])
        self.best = np.partition(joined, joined.shape[1] - kept, axis=1)[:, joined.shape[1] - kept :]
        self.entities += scores.shape[1]


def shortfalls(found: Sequence[Recall]) -> list[str]:
    """Where recall is lower than a search should have, as sentences."""
    floors = [MIN_RECALL if one.scope == EVERYTHING else MIN_COHORT_RECALL for one in found]
    return [
        f"recall@{K} of {one.scope} is {one.recall}, under {floor}"
        for one, floor in zip(found, floors, strict=True)
        if one.recall < floor
    ]


def measure_and_record(
    ctx: Context, spec: DatasetSpec, space: str, generation: Generation, gold: Snapshot
) -> list[Recall]:
    """What `measure` finds, also appended to audit/index_recall with the instance and the Delta version it is true of."""
    found = measure(ctx, spec, generation, gold)
    info = ctx.index.describe(generation["collection"]) if ctx.index else None
    if not found or info is None:
        return found
    facts = {
        "dataset": spec.id,
        "space": space,
        "collection": info.name,
        "collection_uuid": info.uuid,
        "delta_version": gold.version,
        "k": K,
        "run_id": ctx.run_id,
        "measured_at": datetime.now(UTC),
    }
    rows = pa.Table.from_pylist([facts | asdict(one) for one in found], schema=tables.INDEX_RECALL)
    ctx.lake.append(tables.index_recall(), rows, {"asset": "index_recall", "run_id": ctx.run_id})
    return found


def measure(
    ctx: Context, spec: DatasetSpec, generation: Generation, gold: Snapshot, queries: int = QUERIES
) -> list[Recall]:
    """Recall over the whole collection and within its smallest and its largest cohort, against `gold`, as widely as
    readers look. Nothing where gold has no rows of it or the collection is missing."""
    assert ctx.index is not None, "recall needs a context with an index"
    info = ctx.index.describe(generation["collection"])
    asked = _queries(gold, generation, queries)
    if info is None or not len(asked):
        return []
    scopes = _scopes(ctx, spec, gold, generation["space_version"], len(asked))
    for partition in sorted(gold.partition_values("partition")):
        for block in _blocks(spec, gold, generation, partition):
            scores = asked @ block.T
            for scope in scopes:
                if scope.covers(partition):
                    scope.add(scores)
    found = []
    for scope in (scope for scope in scopes if scope.entities):
        params = info.declared.search_params(K, scope.share)
        hits = ctx.index.search(generation["collection"], asked, K, params=params, partitions=scope.partitions)
        floors = scope.best.min(axis=1) - TIE
        right = [sum(hit.score >= floor for hit in some) for some, floor in zip(hits, floors, strict=True)]
        recall = round(float(np.mean(right)) / scope.best.shape[1], 4)
        widths = params.get("ef", 0), params.get("nprobe", 0)
        found.append(Recall(scope.name, scope.entities, len(asked), *widths, recall))
    return found


def _of(generation: Generation, partition: str | None = None) -> pc.Expression:
    where = pc.field("space_version") == generation["space_version"]
    where &= pc.field("access_tier") == generation["access_tier"]
    return where if partition is None else where & (pc.field("partition") == partition)


def _queries(gold: Snapshot, generation: Generation, count: int) -> NDArray[np.float32]:
    """Unit vectors, float32 [at most `count`, dim], near stored ones: ids are hashes, so the smallest are a sample."""
    smallest: list[str] = []
    for batch in gold.scan(["vector_id"], _of(generation), 65_536):
        smallest = sorted({*smallest, *batch["vector_id"].to_pylist()})[:count]
    rows = gold.read(["vector_id", "vector"], _of(generation) & pc.field("vector_id").isin(smallest)).sort("vector_id")
    if rows.is_empty():
        return np.empty((0, 0), np.float32)
    stored = np.array(rows["vector"].to_list(), np.float32)
    noisy = stored + np.random.default_rng(0).normal(0, NOISE, stored.shape).astype(np.float32)
    unit: NDArray[np.float32] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return unit


def _scopes(ctx: Context, spec: DatasetSpec, gold: Snapshot, space_version: str, asked: int) -> list[_Scope]:
    """Everything, and the smallest and the largest embedded cohort of at least K objects."""
    plan, present = current_plan(ctx, spec), gold.partition_values("partition")
    share = pl.col("objects").sum() / plan["objects"].sum()
    embedded = plan.filter(pl.col("partition").is_in(sorted(present)))
    cohorts = embedded.group_by("cohort").agg(pl.col("partition").sort(), pl.col("objects").sum(), share=share)
    sized = cohorts.filter(pl.col("objects") >= K).sort("objects", "cohort")
    none = np.empty((asked, 0), np.float32)
    scopes = {EVERYTHING: _Scope(EVERYTHING, None, 1.0, none)}
    for cohort, partitions, of_all in pl.concat([sized[:1], sized[-1:]])["cohort", "partition", "share"].rows():
        scopes[cohort] = _Scope(cohort, partitions, of_all, none)
    return list(scopes.values())


def _blocks(spec: DatasetSpec, gold: Snapshot, generation: Generation, partition: str) -> list[NDArray[np.float32]]:
    """The vectors of the partition's entities, one per distinct content, as the index holds them."""
    held = entities.desired(spec, gold, generation["space_version"], partition)
    wanted = held.filter(pl.col("access_tier") == generation["access_tier"]).select("vector_id")
    blocks = []
    for batch in gold.scan(["vector_id", "vector"], _of(generation, partition)):
        keep = pl.Series(batch["vector_id"]).is_in(wanted["vector_id"].implode()).to_numpy()
        rows = batch.filter(keep)
        if rows.num_rows:
            blocks.append(rows["vector"].flatten().to_numpy().reshape(rows.num_rows, -1))
    return blocks
