"""Verify: diff the index against gold, entity by entity, and repair nothing.

A fingerprint says which vector was written, not that it is still the same floats: of SAMPLE_PARTITIONS some vectors are
read back and compared. Recall is measured where asked for, since it reads every vector.

Belongs here: the report of what is missing, extra and stale, and of a collection that is not laid out as planned. Does not
belong here: healing (vectors.build with full=True).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import entities, generations, recall, vectors
from medvec_assets.stages.context import Context
from resources import tables
from resources.vector_index import differences

SAMPLE_PARTITIONS, SAMPLE_VECTORS = 16, 16  # 256 vectors of a collection: 1 % of flipped ones is seen 9 times of 10


@dataclass
class CollectionReport:
    """One collection, in entities. `ok` only if it holds exactly what gold says, no more, no less, nothing different,
    and finds what it should where recall was measured.

    `layout` says what is not as planned for the dataset's size: slower or less exact than it could be, not wrong.
    """

    collection: str
    partitions: int = 0
    desired: int = 0
    indexed: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0
    vectors_compared: int = 0
    vectors_differ: int = 0
    layout: list[str] = field(default_factory=list)
    recall: list[recall.Recall] = field(default_factory=list)
    ok: bool = False


def verify(
    ctx: Context, spec: DatasetSpec, *, every_vector: bool = False, with_recall: bool = False
) -> list[CollectionReport]:
    """A report for every maintained collection of a dataset. Of its vectors a sample is compared, or every one."""
    return [
        verify_collection(ctx, spec, space, generation, every_vector=every_vector, with_recall=with_recall)
        for space, generation in _maintained(ctx, spec)
    ]


def layouts(ctx: Context, spec: DatasetSpec) -> dict[str, list[str]]:
    """Collection -> what of it is not as planned, for the maintained collections that are there and differ."""
    found = {one["collection"]: _layout(ctx, spec, space, one["collection"]) for space, one in _maintained(ctx, spec)}
    return {name: unlike for name, unlike in found.items() if unlike}


def as_json(reports: list[CollectionReport]) -> dict[str, Any]:
    return {"ok": all(report.ok for report in reports), "collections": [asdict(report) for report in reports]}


def verify_collection(
    ctx: Context,
    spec: DatasetSpec,
    space: str,
    generation: generations.Generation,
    *,
    every_vector: bool = False,
    with_recall: bool = False,
) -> CollectionReport:
    """How one collection differs from gold as it stands now. `with_recall` also measures and records its recall."""
    assert ctx.index is not None, "verify needs a context with an index"
    name, version = generation["collection"], generation["space_version"]
    report = CollectionReport(name)
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    present = ctx.index.describe(name) is not None
    report.indexed = ctx.index.count(name) if present else 0
    names = sorted(gold.partition_values("partition")) if gold else []
    sampled = set(names if every_vector else _sample(names, gold.version if gold else 0))
    for partition in names:
        assert gold is not None
        rows = entities.gold_rows(gold, version, partition).filter(pl.col("access_tier") == generation["access_tier"])
        whole = entities.of_rows(spec, rows, partition)
        desired = entities.row_fingerprints(whole)
        actual = vectors.indexed_entities(ctx.index, name, partition) if present else {}
        report.partitions += 1
        report.desired += len(desired)
        report.missing += len(desired.keys() - actual.keys())
        report.stale += sum(
            actual[entity] != fingerprint for entity, fingerprint in desired.items() if entity in actual
        )
        if present and partition in sampled:
            chosen = whole.sort("entity_id").head(whole.height if every_vector else SAMPLE_VECTORS)
            held = entities.Held(gold, version, partition, generation["access_tier"], rows)
            report.vectors_compared += chosen.height
            report.vectors_differ += len(vectors.other_vectors(ctx.index, name, held, chosen))
        ctx.progress(f"{name} verify", report.desired, 0)
    # What is neither missing nor desired is extra, also in partitions that gold does not know.
    report.extra = report.indexed - (report.desired - report.missing)
    report.ok = present and not (report.missing or report.extra or report.stale or report.vectors_differ)
    report.layout = _layout(ctx, spec, space, name)
    if with_recall and gold is not None:
        report.recall = recall.measure_and_record(ctx, spec, space, generation, gold)
        report.ok = report.ok and not recall.shortfalls(report.recall)
    return report


def _maintained(ctx: Context, spec: DatasetSpec) -> list[tuple[str, generations.Generation]]:
    return [
        (space, generation)
        for space in spec.spaces
        for generation in generations.of_space(ctx, spec, space)
        if generation["state"] in generations.MAINTAINED
    ]


def _layout(ctx: Context, spec: DatasetSpec, space: str, name: str) -> list[str]:
    assert ctx.index is not None, "layouts need a context with an index"
    info, found = ctx.index.describe(name), ctx.index.layout(name)
    if info is None or found is None:
        return []
    return differences(vectors.planned_layout(ctx, spec, space, info.dim), found)


def _sample(partitions: list[str], version: int) -> list[str]:
    """SAMPLE_PARTITIONS of them, others after each commit to gold, and the same ones until then."""
    return sorted(partitions, key=lambda name: fingerprints.input_digest(name, str(version)))[:SAMPLE_PARTITIONS]
