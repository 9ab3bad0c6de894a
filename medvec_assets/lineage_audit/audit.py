"""One dataset's audit, and that of all of them: which rows are looked at, at which versions, by every rule.

Tables are read once, a partition at a time, whole columns of it: 35,561 vectors of the catalogue take seconds, and what
is in memory is one partition (at most 50,000 objects by the sharding rule), the ids of its vectors and four columns of
the manifest.

Belongs here: the order of the work and the numbers of the report. Does not belong here: a rule (the other modules).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.lineage_audit import again, indexed, recorded, rules, sources
from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.query.rows import one_of
from medvec_assets.stages import embeddings, generations, quarantine
from medvec_assets.stages.context import Context
from medvec_assets.stages.embeddings import Target
from resources import tables
from resources.lakehouse import Snapshot

_ROWS = (
    *("vector_id", "record_id", "part_kind", "part_index", "encoder", "weights_digest", "content_digest"),
    *("fingerprint", *rules.COPIED),
)
_RECORDS = ("record_id", "object_ids", "text", "content_digests", "payload_uri", *rules.COPIED)
_LISTED = (
    *("object_id", "partition", "uri", "license", "checksum", "checksum_kind"),
    *("upstream_version", "removed_in_version"),
)
SUSPECTED = frozenset({"entity_vector", "vector_shared", "vector_valid"})
"""Rules that say that a vector is wrong and not which copy of it: these are made again first."""


@dataclass(frozen=True)
class Scope:
    """How far the audit goes. `sample`: so many vectors of each space, chosen by `seed`; None: all of them. `recompute`:
    so many of a space are made again from their source objects."""

    sample: int | None = None
    recompute: int = 0
    seed: int = 0


@dataclass
class Audited:
    """One dataset. `note` says why it was not looked at; counts are of what was."""

    dataset: str
    ledger: Ledger
    smallest_count: int = 1  # of persons that may be shown
    note: str = ""
    versions: dict[str, int] = field(default_factory=dict)  # table -> Delta version
    counts: dict[str, int] = field(default_factory=dict)
    lowest_cosine: float | None = None

    def count(self, name: str, more: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    @property
    def ok(self) -> bool:
        return not self.ledger.total


def run(ctx: Context, specs: Iterable[DatasetSpec], scope: Scope) -> list[Audited]:
    return [of_dataset(ctx, spec, scope) for spec in specs]


def of_dataset(ctx: Context, spec: DatasetSpec, scope: Scope) -> Audited:
    """`spec`'s audit. Where something is broken and a run committed meanwhile, it is looked at once more: what differed may
    only have been read on both sides of a commit."""
    found = _look(ctx, spec, scope)
    if not found.ok and _versions(_open(ctx, spec)) != found.versions:
        found = _look(ctx, spec, scope)
    return found


@dataclass
class _Dataset:
    """What the parts of one look share."""

    ctx: Context
    spec: DatasetSpec
    scope: Scope
    found: Audited
    heads: recorded.Heads
    silver: Snapshot
    manifest: Snapshot
    listed: Mapping[Any, pl.DataFrame]
    suppressed: pl.Series
    read: sources.Read = field(default_factory=sources.Read)


def _look(ctx: Context, spec: DatasetSpec, scope: Scope) -> Audited:
    found = Audited(spec.id, Ledger(spec.id), spec.smallest_count)
    refusal = ctx.refusal(spec)
    if refusal is not None:
        found.note = f"not looked at: {refusal.message}"
        return found
    opened = _open(ctx, spec)
    heads = ctx.audit.latest(spec.id)
    found.versions = _versions(opened)
    found.count("audit_rows", recorded.chains(ctx, found.ledger))
    silver, manifest = opened.get(tables.records(spec.id).path), opened.get(tables.manifest(spec.id).path)
    plan = opened.get(tables.partitions(spec.id).path)
    if silver is None or manifest is None or plan is None:
        found.note = "never materialized"
        return found
    recorded.manifest(ctx, found.ledger, heads, manifest, plan)
    names = sorted(silver.partition_values("partition"))
    listed = manifest.read(_LISTED, one_of("partition", names)).partition_by("partition", as_dict=True)
    gone = ctx.lake.snapshot(tables.suppression())
    suppressed = gone.read(["subject_key"])["subject_key"] if gone else pl.Series([], dtype=pl.String)
    look = _Dataset(ctx, spec, scope, found, heads, silver, manifest, listed, suppressed)
    for space in spec.spaces:
        gold = opened.get(tables.embeddings(spec.id, space).path)
        for version in generations.maintained_versions(ctx, spec, space) if gold is not None else ():
            assert gold is not None
            _space(look, embeddings.target(ctx, spec, space, version), gold, names)
    if scope.sample is None:
        for name in names:
            recorded.of_records(ctx, found.ledger, heads, silver, name)
    found.counts |= {
        "objects_read": look.read.objects,
        "payloads_read": look.read.payloads,
        "bytes_read": look.read.size_bytes,
        "objects_without_checksum_of_bytes": look.read.without_checksum,
    }
    return found


def _open(ctx: Context, spec: DatasetSpec) -> dict[str, Snapshot]:
    """The tables of the chain, gold first: what is read later is never older than what it was made from."""
    wanted = [tables.embeddings(spec.id, space) for space in spec.spaces]
    wanted += [tables.records(spec.id), tables.manifest(spec.id), tables.partitions(spec.id)]
    snapshots = {table.path: ctx.lake.snapshot(table) for table in wanted}
    return {path: snapshot for path, snapshot in snapshots.items() if snapshot is not None}


def _versions(opened: Mapping[str, Snapshot]) -> dict[str, int]:
    return {path: snapshot.version for path, snapshot in opened.items()}


def _space(look: _Dataset, aim: Target, gold: Snapshot, names: list[str]) -> None:
    """Every partition of one space at one version, and the vectors made again."""
    ctx, found, scope = look.ctx, look.found, look.scope
    chosen = _chosen(aim, gold, scope)
    collections = [
        one
        for one in generations.of_space(ctx, aim.spec, aim.space)
        if one["space_version"] == aim.space_version and one["state"] in generations.MAINTAINED
    ]
    here = sorted({*names, *gold.partition_values("partition")})
    for name in here if chosen is None else sorted(chosen):
        only = None if chosen is None else pl.Series(chosen[name], dtype=pl.String)
        _partition(look, aim, gold, name, only)
        for generation in collections if ctx.index is not None else ():
            held, compared = indexed.partition(ctx, found.ledger, aim, gold, generation, name, only)
            found.count("entities", held)
            found.count("entity_vectors_compared", compared)
        ctx.progress(f"{aim.spec.id} {aim.space} lineage", found.counts.get("vectors", 0), 0)
    for name, ids in _to_recompute(look, aim, gold).items():
        cosines = again.partition(ctx, found.ledger, aim, (gold, look.silver, look.manifest), name, ids)
        found.count("vectors_made_again", len(cosines))
        if cosines:
            known = [] if found.lowest_cosine is None else [found.lowest_cosine]
            found.lowest_cosine = min(known + cosines)


def _partition(look: _Dataset, aim: Target, gold: Snapshot, name: str, only: pl.Series | None) -> None:
    """The rows of one partition by every rule within the tables. Rules of rows take the whole partition, whose columns are
    read anyway; `only` narrows what costs a read each: source objects and floats."""
    ctx, found, spec = look.ctx, look.found, look.spec
    here = pc.field("partition") == name
    own = here & (pc.field("space_version") == aim.space_version)
    rows = gold.read([*_ROWS], own)
    records = look.silver.read([*_RECORDS], here)
    listed = look.listed.get((name,))
    listed = listed if listed is not None else next(iter(look.listed.values()), pl.DataFrame()).clear()
    ledger = found.ledger
    recorded.of_embeddings(ctx, ledger, look.heads, gold, aim.space, aim.space_version, name)
    rules.ids(ledger, aim, rows, name)
    stage = quarantine.stage_of(embeddings.chain_of(aim.space, aim.space_version, name))
    rules.records(ledger, aim, rows, records, quarantine.read(ctx, spec, stage, name)["object_id"], name)
    is_first = aim.space == next(iter(spec.spaces)) and aim.space_version == spec.spaces[aim.space].version
    if is_first:  # what is of records alone is told once, not for every space
        rules.sources(ledger, records, listed, spec.licenses, name)
        left = records.filter(pl.col("subject_key").is_in(look.suppressed.implode()))
        ledger.add("suppressed", left["record_id"], partition=name)
        found.count("records", records.height)
        if look.scope.sample is not None:
            recorded.of_records(ctx, ledger, look.heads, look.silver, name)
    named = rows if only is None else rows.filter(pl.col("vector_id").is_in(only.implode()))
    batches = gold.scan(["vector_id", "fingerprint", "vector"], own)
    found.count("vectors", rules.vectors(ledger, aim, batches, name))
    if is_first:
        of = records.filter(pl.col("record_id").is_in(named["record_id"].implode())) if only is not None else records
        wanted = of["object_ids"].explode().drop_nulls().unique()
        objects = listed.filter(pl.col("object_id").is_in(wanted.implode())).sort("object_id")
        sources.check(ctx, ledger, spec, objects, name, look.read)
        sources.check_payloads(ctx, ledger, spec, of, name, look.read)


def _chosen(aim: Target, gold: Snapshot, scope: Scope) -> dict[str, list[str]] | None:
    """partition -> ids of the sampled vectors; None: all."""
    if scope.sample is None:
        return None
    return _sampled(aim, gold, scope.sample, scope.seed)


def _sampled(aim: Target, gold: Snapshot, size: int, seed: int) -> dict[str, list[str]]:
    """`size` vectors of the space, chosen by `seed`: the same ones from the same table."""
    rows = gold.read(["partition", "vector_id"], pc.field("space_version") == aim.space_version).sort("vector_id")
    places = sorted(random.Random(seed).sample(range(rows.height), min(size, rows.height)))
    picked = rows[places].group_by("partition").agg("vector_id")
    return dict(picked.iter_rows())


def _to_recompute(look: _Dataset, aim: Target, gold: Snapshot) -> dict[str, list[str]]:
    """partition -> ids of the vectors to be made again: those under suspicion first, then a sample."""
    size = look.scope.recompute
    if not size:
        return {}
    suspected = [one for one in look.found.ledger.named if one.rule in SUSPECTED and one.space == aim.space][:size]
    chosen: dict[str, list[str]] = {}
    for one in suspected:
        chosen.setdefault(one.partition, []).append(one.object)
    for name, ids in _sampled(aim, gold, size - len(suspected), look.scope.seed).items():
        chosen.setdefault(name, []).extend(ids)
    return {name: sorted(set(ids)) for name, ids in chosen.items()}
