"""Checks of every dataset, derived from its spec. Blocking where a bad partition must not travel on.

Belongs here: each check's rule as a function from tables to a `Finding`, and the specs the factory declares.
Does not belong here: repairing anything, or rules of one modality (those reject objects in modalities).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.partitions import Partition
from medvec_assets.scorer import scores, verdicts
from medvec_assets.stages import embeddings, entities, generations, manifest, quarantine, records, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import partition_states
from medvec_assets.stages.standing import Standing
from resources import tables
from resources.tables import TableSpec

UNIT_NORM_TOLERANCE = 1e-3
MAX_NAMED = 10  # a failing check names at most so many partitions or ids


@dataclass(frozen=True)
class Finding:
    """One check's answer. `remedy` is shown when it failed; numbers go to the check's metadata."""

    name: str
    passed: bool
    remedy: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


# name -> (description, blocking), by the asset the check stands on
MANIFEST_CHECKS = {
    "schema": ("Columns, types and nullability are the declared ones.", True),
    "unique_keys": ("No object id stands twice.", True),
    "plan_adds_up": ("Every published object is in exactly one planned partition.", True),
    "quarantine_share": ("The share of listed objects in quarantine is under the spec's threshold.", True),
}
RECORDS_CHECKS = {
    "schema": ("Columns, types and nullability are the declared ones.", True),
    "unique_keys": ("No record id stands twice.", True),
    "counts_add_up": ("Objects = objects in records + quarantined + skipped by rule.", True),
    "license_allowed": ("Every record's licence is one the spec allows.", True),
    "quarantine_share": ("The share of objects in quarantine is under the spec's threshold.", True),
    "deid_scored": ("No identifier planted in copies of its objects stands in anything that was written.", True),
}
EMBEDDINGS_CHECKS = {
    "schema": ("Columns, types and nullability are the declared ones.", True),
    "unique_keys": ("No vector id stands twice within a space version.", True),
    "counts_add_up": ("Records = embeddings + quarantined, in every space version.", True),
    "vectors_valid": ("Every vector has the encoder's dimension, unit norm and no NaN.", True),
}
VECTORS_CHECKS = {
    "index_reconciled": ("The index holds exactly the entities that gold says, by receipt and count.", True),
}
FRESHNESS_CHECK = "partitions_fresh"
STANDING_CHECK = "nothing_broken_or_stale"
PLAN = "partitions"  # the external asset of the plan


def specs(
    asset: dg.AssetKey, named: Mapping[str, tuple[str, bool]], partitions_def: dg.PartitionsDefinition | None
) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description, blocking=blocking, partitions_def=partitions_def)
        for name, (description, blocking) in named.items()
    ]


def results(asset: dg.AssetKey, findings: Iterable[Finding]) -> Iterator[dg.AssetCheckResult]:
    """`findings` about `asset`, which is named so that Dagster need not look up for each what it is about."""
    for found in findings:
        metadata = dict(found.numbers) | ({} if found.passed else {"what to do": found.remedy})
        yield dg.AssetCheckResult(
            asset_key=asset, check_name=found.name, passed=found.passed, severity=found.severity, metadata=metadata
        )


def of_manifest(ctx: Context, spec: DatasetSpec) -> Iterator[Finding]:
    table = tables.manifest(spec.id)
    yield _schema(ctx, table, None)
    snapshot = ctx.lake.snapshot(table)
    assert snapshot is not None
    objects = snapshot.read(["object_id", "removed_in_version"])
    yield _unique("unique_keys", objects["object_id"])
    published = objects["removed_in_version"].null_count()
    planned = int(manifest.current_plan(ctx, spec)["objects"].sum())
    numbers = {"published": published, "planned": planned}
    yield Finding(
        "plan_adds_up", published == planned, "materialize the manifest again; if it stays, report it", numbers
    )
    bad = quarantine.read(ctx, spec, manifest.ASSET).height
    yield _share(bad, published + bad, spec.quarantine_threshold)


def of_records(ctx: Context, spec: DatasetSpec, partition: str) -> Iterator[Finding]:
    table, where = tables.records(spec.id), pc.field("partition") == partition
    yield _schema(ctx, table, where)
    snapshot, listed = ctx.lake.snapshot(table), ctx.lake.snapshot(tables.manifest(spec.id))
    assert snapshot is not None and listed is not None
    rows = snapshot.read(["record_id", "object_ids", "license"], where)
    yield _unique("unique_keys", rows["record_id"])
    objects = listed.count(where & pc.field("removed_in_version").is_null())
    kept = int(rows["object_ids"].list.len().sum())
    aside = dict(quarantine.read(ctx, spec, records.ASSET, partition)["disposition"].value_counts().rows())
    numbers = {
        "objects": objects,
        "in_records": kept,
        **{name: aside.get(name, 0) for name in ("quarantined", "skipped")},
    }
    remedy = "materialize the records of this partition again; if it stays, the modality loses objects: report it"
    yield Finding("counts_add_up", objects == kept + sum(aside.values()), remedy, numbers)
    foreign = rows.filter(~pl.col("license").is_in(sorted(spec.licenses)))["license"].unique().to_list()
    remedy = "remove these records or allow their licence in the spec after reading its terms"
    yield Finding("license_allowed", not foreign, remedy, {"licenses_not_allowed": foreign[:MAX_NAMED]})
    threshold = spec.known_bad.get(Partition.parse(partition).cohort, spec.quarantine_threshold)
    yield _share(aside.get("quarantined", 0), objects, threshold)
    yield _deid_scored(ctx, spec, partition)


def of_embeddings(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> Iterator[Finding]:
    table = tables.embeddings(spec.id, space)
    yield _schema(ctx, table, pc.field("partition") == partition)
    counts: dict[str, int] = {}
    quarantined: dict[str, int] = {}
    repeated, invalid, expected = 0, 0, _records_with_input(ctx, spec, space, partition)
    for version in generations.maintained_versions(ctx, spec, space):
        ids: list[str] = []
        dim = embeddings.target(ctx, spec, space, version).card.dim
        for found, bad in _vector_pieces(ctx, table, version, partition, dim):
            ids += found
            invalid += bad
        counts[version] = len(ids)
        stage = quarantine.stage_of(embeddings.chain_of(space, version, partition))
        quarantined[version] = quarantine.read(ctx, spec, stage, partition).height
        repeated += len(ids) - len(set(ids))
    yield Finding(
        "unique_keys", repeated == 0, "materialize this partition again; if it stays, report it", {"repeated": repeated}
    )
    adds_up = all(count + quarantined[version] == expected for version, count in counts.items())
    remedy = "materialize this partition again; rows are missing or too many"
    numbers = {"records": expected, "embeddings": dict(counts), "quarantined": dict(quarantined)}
    yield Finding("counts_add_up", adds_up, remedy, numbers)
    remedy = "the encoder's output or the table was damaged: re-run with verified weights, then materialize again"
    yield Finding("vectors_valid", invalid == 0, remedy, {"invalid": invalid})


def of_vectors(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> Iterator[Finding]:
    assert ctx.index is not None
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    found = vectors.receipts(ctx, spec)
    wrong: list[str] = []
    desired_count = 0
    for generation in generations.of_space(ctx, spec, space):
        if generation["state"] not in generations.MAINTAINED or gold is None:
            continue
        name = generation["collection"]
        desired = entities.desired(spec, gold, generation["space_version"], partition)
        desired = desired.filter(pl.col("access_tier") == generation["access_tier"])
        digest = entities.digest(entities.row_fingerprints(desired))
        info, receipt = ctx.index.describe(name), found.get((name, partition))
        desired_count += desired.height
        if info is None or receipt is None or not vectors.agrees(ctx.index, info, receipt, digest):
            wrong.append(name)
    remedy = f"medvec sync --dataset {spec.id} --full"
    yield Finding("index_reconciled", not wrong, remedy, {"entities": desired_count, "collections_that_differ": wrong})


def plan_check_key(spec: DatasetSpec, name: str) -> dg.AssetCheckKey:
    """A check of a whole dataset stands on its plan, not on the manifest: right after a refresh every changed partition is
    stale, and a check that runs with the manifest would fail until somebody asks again. It never runs as part of what it
    judges."""
    return dg.AssetCheckKey(dg.AssetKey([spec.id, PLAN]), name)


def freshness(ctx: Context, spec: DatasetSpec, now: datetime) -> Finding:
    """Whether every materialized partition, down to the index, is made from what is published now: a warning if not, an
    error once one has been so for longer than the spec's `max_age`.

    Dagster's own FreshnessPolicy looks at an asset's last materialization only: a backfill of one old shard makes
    everything fresh. Age alone is no fault: what the source has not changed since is as it should be.
    """
    heads, refusal = ctx.audit.latest(spec.id), ctx.refusal(spec)
    if refusal is not None:  # the source must not be asked; that something is here is another check's matter
        return Finding(FRESHNESS_CHECK, not heads, refusal.remedy, {"rule": refusal.rule}, dg.AssetCheckSeverity.WARN)
    published = ctx.connector(spec).version()
    listed = heads.get((manifest.ASSET, "-", "-"))
    current = listed is not None and listed["upstream_version"] == published
    behind: dict[str, datetime] = {}  # partition -> when it was last known to be as published
    for state in partition_states(ctx, spec):
        head = heads.get(records.chain_of(state.partition))
        if head is None or listed is None:
            continue  # never asked for; `medvec partitions` shows it
        if state.state != "current":
            behind[state.partition] = head["finished_at"]
        elif not current:
            behind[state.partition] = max(head["finished_at"], listed["finished_at"])
    old = [partition for partition, since in behind.items() if now - since.astimezone(UTC) > spec.freshness.max_age]
    numbers = {
        "upstream_version_published": published,
        "upstream_version_listed": listed["upstream_version"] if listed is not None else "never",
        "partitions_behind": len(behind),
        "partitions_too_old": len(old),
        "for_example": sorted(behind, key=lambda partition: behind[partition])[:MAX_NAMED],
    }
    severity = dg.AssetCheckSeverity.ERROR if old else dg.AssetCheckSeverity.WARN
    return Finding(FRESHNESS_CHECK, current and not behind, f"medvec run --dataset {spec.id}", numbers, severity)


def standing(found: Standing) -> Finding:
    """The answer of `medvec status` as a check: an error if something is broken, a warning if all is only stale."""
    rows = [
        f"| {one.name} | {one.count} | {one.what} | {'<br>'.join(one.sample)} | `{one.remedy}` |"
        for one in found.problems
    ]
    head = ["| problem | count | what | for example | what to do |", "|---|---|---|---|---|"]
    numbers: dict[str, Any] = {
        "partitions": found.partitions,
        "partitions_current": found.current,
        "partitions_running": found.running,
        "partitions_never_asked_for": found.unasked,
        **{one.name: one.count for one in found.problems},
        **({"problems": dg.MetadataValue.md("\n".join([*head, *rows]))} if rows else {}),
        **({"note": found.note} if found.note else {}),
    }
    broken = any(one.broken for one in found.problems)
    severity = dg.AssetCheckSeverity.ERROR if broken else dg.AssetCheckSeverity.WARN
    remedy = "; ".join(dict.fromkeys(one.remedy for one in found.problems))
    return Finding(STANDING_CHECK, found.ok, remedy, numbers, severity)


def _schema(ctx: Context, table: TableSpec, where: pc.Expression | None) -> Finding:
    snapshot = ctx.lake.snapshot(table)
    if snapshot is None:
        return Finding("schema", False, "materialize the asset: its table does not exist", {})
    drift = snapshot.schema_drift()
    required = [name for name in table.schema.names if not table.schema.field(name).nullable]
    nulls = pc.field(required[0]).is_null()
    for name in required[1:]:
        nulls = nulls | pc.field(name).is_null()
    rows = snapshot.count(nulls if where is None else where & nulls)
    remedy = (
        "the table was written by another version of medvec: rebuild it, or migrate it where resources/tables.py says"
    )
    return Finding("schema", not drift and rows == 0, remedy, {"drift": drift, "rows_with_nulls": rows})


def _unique(name: str, keys: pl.Series) -> Finding:
    repeated = keys.filter(keys.is_duplicated()).n_unique() if keys.len() else 0
    return Finding(name, repeated == 0, "materialize again; if it stays, report it", {"repeated": repeated})


def _share(bad: int, total: int, threshold: float) -> Finding:
    share = bad / total if total else 0.0
    remedy = (
        "look at the codes in the quarantine table; mend the source or the parser, or let the spec's `known_bad` say "
        "what is accepted of this cohort"
    )
    numbers = {"quarantined": bad, "objects": total, "share": round(share, 4), "threshold": threshold}
    return Finding("quarantine_share", share <= threshold, remedy, numbers)


def _deid_scored(ctx: Context, spec: DatasetSpec, partition: str) -> Finding:
    """The partition's kept score (scorer.scores). What leaked is named by kind and place, never with what stands around it."""
    score = scores.latest(ctx, spec, partition)
    if score is None:
        return Finding("deid_scored", False, "materialize the records of this partition again: they were never scored")
    places = json.loads(score["leak_places"])
    names = ("planted", "kinds", "places", "copies", "records", "leaks", "profile", "seed_digest")
    numbers = {name: score[name] for name in names}
    numbers |= {"leaked": places[:MAX_NAMED], "not_plantable": json.loads(score["not_plantable"])}
    remedy = "mend the rule that let it through and move its version, then materialize the records again: "
    if score["failure"]:
        remedy = "the scored copies could not be run, so nothing is proved; mend what ended them: "
        places = [score["failure"]]
    return Finding("deid_scored", verdicts.passed(score), remedy + "; ".join(places[:MAX_NAMED]), numbers)


def _records_with_input(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> int:
    snapshot = ctx.lake.snapshot(tables.records(spec.id))
    assert snapshot is not None
    digests = snapshot.read(["content_digests"], pc.field("partition") == partition)["content_digests"]
    return digests.len() - digests.str.json_path_match(f"$.{space}").null_count()


def _vector_pieces(
    ctx: Context, table: TableSpec, version: str, partition: str, dim: int
) -> Iterator[tuple[list[str], int]]:
    """(vector ids, how many of their vectors are wrong), a batch at a time."""
    snapshot = ctx.lake.snapshot(table)
    assert snapshot is not None
    where = (pc.field("space_version") == version) & (pc.field("partition") == partition)
    for batch in snapshot.scan(["vector_id", "vector"], where):
        lengths = pc.list_value_length(batch["vector"]).to_numpy(zero_copy_only=False)
        bad = int((lengths != dim).sum())
        if not bad:
            block = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            norms = np.linalg.norm(block, axis=1)
            bad = int((~(np.abs(norms - 1) <= UNIT_NORM_TOLERANCE)).sum())  # NaN compares false: counted
        yield batch["vector_id"].to_pylist(), bad
