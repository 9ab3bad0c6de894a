"""The vectors stage: reconcile a partition's index entities with its embeddings. Level-triggered, never a replay.

Belongs here: the diff of what the index should hold against what it holds, writing it, the receipt.
Does not belong here: what the index should hold (entities), talking to Milvus (resources.vector_index), which generation
readers see (generations), telling without healing (verify).

desired = the partition's entities derived from gold at one Delta version; actual = what the collection holds for that
partition. Missing or different entities are written, extra ones deleted, always scoped by partition. A receipt lets the
next run skip, or look only at the rows of gold that differ from those it was written for; but only if the collection is
the very instance it was written for and still counts the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings as embeddings_stage
from medvec_assets.stages import entities, generations
from medvec_assets.stages.context import Context, is_ahead
from medvec_assets.stages.entities import Held
from resources import encoders, tables
from resources.errors import CommitConflict, NotFound, StorageError
from resources.lakehouse import Snapshot
from resources.vector_index import CollectionInfo, CollectionSpec, Layout, VectorIndex, planned

FLOAT_TOLERANCE = 1e-6
UNFINISHED = -1  # the count of a receipt that says no more than that somebody has begun to write


@dataclass(frozen=True)
class Diff:
    """Both sides of a partition but for what they are known to share: `same` entities of the digest `same_digest`."""

    desired: pl.DataFrame
    actual: dict[str, str]
    same: int = 0
    same_digest: str = fingerprints.set_digest(())
    proved: bool = False


@dataclass(frozen=True)
class Synced:
    """What reconciling one partition of one collection did, in entities."""

    collection: str
    partition: str
    upserted: int
    deleted: int
    unchanged: int
    entities_digest: str
    skipped: bool = False


def asset_name(space: str) -> str:
    return f"{space}_vectors"


def build(
    ctx: Context, spec: DatasetSpec, space: str, partition: str, *, full: bool = False, floats: bool = False
) -> list[Synced]:
    """Reconcile one partition in every maintained generation of a space.

    `full` diffs even where a receipt agrees; `floats` also compares each vector, which a fingerprint only stands for.
    """
    ctx.require_allowed(spec, asset_name(space), partition, no_leak=True)
    full = full or floats
    done: list[Synced] = []
    for version in generations.maintained_versions(ctx, spec, space):
        head, gold = _upstream(ctx, spec, space, version, partition)
        settled = None if full else _settled(ctx, spec, space, head)
        if settled is not None:
            done += settled
            continue
        rows = entities.gold_rows(gold, version, partition)
        synced = [
            _reconcile(
                ctx,
                spec,
                Held(gold, version, partition, tier, rows.filter(pl.col("access_tier") == tier)),
                ensure_collection(ctx, spec, space, tier, version),
                full,
                floats,
            )
            for tier in _tiers(ctx, spec, space, version, rows)
        ]
        done += synced
        _record(ctx, spec, asset_name(space), head, gold.version, synced)
    return done


def _settled(ctx: Context, spec: DatasetSpec, space: str, embedded: Mapping[str, Any]) -> list[Synced] | None:
    """What to answer without reading gold: the last sync was of these very embeddings and every receipt still agrees."""
    version, partition = embedded["space_version"], embedded["partition"]
    head = ctx.audit.latest(spec.id).get((asset_name(space), version, partition))
    if head is None or head["input_digest"] != expected_input(spec, asset_name(space), embedded, head["table_path"]):
        return None
    found = receipts(ctx, spec)
    told = [found.get((name, partition)) for name in head["table_path"].split(",") if name]
    standing = [receipt for receipt in told if receipt is not None]
    if head["output_digest"] != fingerprints.set_digest(receipt["entities_digest"] for receipt in standing):
        return None
    for receipt in standing:
        tier = receipt["collection"].split("__")[2]
        info = ensure_collection(ctx, spec, space, tier, version)
        if info.name != receipt["collection"] or not agrees(_index(ctx), info, receipt, receipt["entities_digest"]):
            return None
    return [
        Synced(r["collection"], partition, 0, 0, r["entities"], r["entities_digest"], skipped=True) for r in standing
    ]


def _upstream(
    ctx: Context, spec: DatasetSpec, space: str, version: str, partition: str
) -> tuple[dict[str, Any], Snapshot]:
    """The last materialization of the partition's embeddings, and the gold it tells of."""
    chain = embeddings_stage.chain_of(space, version, partition)
    head = ctx.audit.latest(spec.id).get(chain)
    asset = f"{spec.id}/{chain[0]}"
    if head is None:
        raise NotFound(
            f"partition {partition!r} of {spec.id} has no {space} embeddings yet",
            remedy=f"materialize {asset} for this partition first",
        )
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    assert gold is not None  # its materialization is in the audit
    if is_ahead(chain, head, gold):
        raise CommitConflict(
            f"the {space} embeddings of {spec.id}/{partition} were committed by a run that did not end",
            remedy=f"materialize {asset} for this partition, then run again",
        )
    return head, gold


def ensure_collection(ctx: Context, spec: DatasetSpec, space: str, tier: str, version: str) -> CollectionInfo:
    """The generation's collection, made if it is not there, and the alias if this generation is live."""
    generation = generations.ensure(ctx, spec, space, tier, version)
    card, index = encoders.card(version, ctx.settings), _index(ctx)
    info = index.ensure(
        CollectionSpec(
            name=generation["collection"],
            dim=card.dim,
            metric=card.metric,
            layout=planned_layout(ctx, spec, space, card.dim),
            properties={
                "medvec.dataset": spec.id,
                "medvec.space": space,
                "medvec.access_tier": tier,
                "medvec.generation": str(generation["generation"]),
                "medvec.encoder": card.ref,
                "medvec.weights_digest": card.weights_digest,
            },
        )
    )
    alias = generations.alias_name(spec, space, tier)
    if generation["state"] == "live" and index.alias_target(alias) != info.name:
        index.set_alias(alias, info.name)
    return info


def planned_layout(ctx: Context, spec: DatasetSpec, space: str, dim: int) -> Layout:
    """The layout for a collection of all objects of the dataset's plan, or for what the spec says instead.

    All of them, whatever part is embedded today: a collection that was laid out for its first cohort would be wrong
    for the last one.
    """
    shape = spec.spaces[space]
    entities_expected = shape.expected_entities
    if entities_expected is None:
        plan = ctx.lake.snapshot(tables.partitions(spec.id))
        entities_expected = int(plan.read(["objects"])["objects"].sum()) if plan else 0
    given = {field.name: getattr(shape, field.name) for field in fields(Layout)}
    return planned(entities_expected, dim, **given)


def expected_input(spec: DatasetSpec, asset: str, embedded: Mapping[str, Any], collections: str) -> str:
    """Digest of what decides a partition's entities: the embeddings' last materialization, the attributes that may be
    shown, and where they go."""
    shown = ",".join(sorted(spec.index_attributes))
    return fingerprints.input_digest(asset, entities.VERSION, embedded["output_digest"], shown, collections)


def receipts(ctx: Context, spec: DatasetSpec) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest receipt of every (collection, partition)."""
    snapshot = ctx.lake.snapshot(tables.index_receipts())
    if snapshot is None:
        return {}
    rows = snapshot.read(where=pc.field("dataset") == spec.id).sort("reconciled_at")
    return {(row["collection"], row["partition"]): row for row in rows.iter_rows(named=True)}


def indexed_entities(index: VectorIndex, collection: str, partition: str) -> dict[str, str]:
    """entity_id -> row_fingerprint, as the index holds them for a partition."""
    actual: dict[str, str] = {}
    for piece in index.fingerprints(collection, partition):
        actual.update(piece)
    return actual


def _reconcile(ctx: Context, spec: DatasetSpec, held: Held, info: CollectionInfo, full: bool, floats: bool) -> Synced:
    index, partition = _index(ctx), held.partition
    receipt = receipts(ctx, spec).get((info.name, partition))
    diff = None if full else _proved(ctx, spec, held, info, receipt)
    if diff is None:
        desired = entities.of_rows(spec, held.rows, partition)
        digest = entities.digest(entities.row_fingerprints(desired))
        agreed = receipt is not None and agrees(index, info, receipt, digest)
        if agreed and not full:
            return Synced(info.name, partition, 0, 0, desired.height, digest, skipped=True)
        diff = Diff(desired, indexed_entities(index, info.name, partition), proved=agreed)
    wanted = entities.row_fingerprints(diff.desired)
    stale = {entity for entity, fingerprint in wanted.items() if diff.actual.get(entity) != fingerprint}
    extra = sorted(diff.actual.keys() - wanted.keys())
    if floats:
        stale |= other_vectors(index, info.name, held, diff.desired)
    count, digest = diff.same + len(wanted), entities.moved_digest(diff.same_digest, added=wanted)
    if diff.proved and not (stale or extra):
        return Synced(info.name, partition, 0, 0, count, digest, skipped=not full)
    if (stale or extra) and receipt is not None and receipt["collection_uuid"] == info.uuid:
        # Killed between here and the new receipt, the old one would be believed again once gold goes back to it.
        write_receipt(ctx, spec, info, partition, held.gold.version, UNFINISHED, "")
    if extra:
        index.delete(info.name, partition, extra)
    if stale:
        rows = diff.desired.filter(pl.col("entity_id").is_in(list(stale)))
        empty = not (diff.actual or diff.same)
        index.write(info.name, partition, entities.batches(held, rows), expected=rows.height, empty=empty)
    index.settle(info.name)
    write_receipt(ctx, spec, info, partition, held.gold.version, count, digest)
    ctx.progress(f"{spec.id} {partition} index", count, count)
    return Synced(info.name, partition, len(stale), len(extra), count - len(stale), digest)


def settle(ctx: Context, spec: DatasetSpec) -> None:
    """Settle every maintained collection of the dataset: also what a run that was killed had put off."""
    index = _index(ctx)
    for space in spec.spaces:
        for generation in generations.of_space(ctx, spec, space):
            if generation["state"] in generations.MAINTAINED and index.describe(generation["collection"]) is not None:
                index.settle(generation["collection"])


def other_vectors(index: VectorIndex, collection: str, held: Held, chosen: pl.DataFrame) -> set[str]:
    """Ids of those `chosen` entities (rows of `entities.desired`) that the index holds with another vector than gold.

    Streams; float32 comes back as it was written, so that only a rounding of the last digits is forgiven.
    """
    differ: set[str] = set()
    for batch in entities.batches(held, chosen):
        ids = batch["entity_id"].to_pylist()
        wanted = dict(zip(ids, batch["vector"].flatten().to_numpy().reshape(len(ids), -1), strict=True))
        for entity in index.get(collection, ids):
            if not np.allclose(entity["vector"], wanted[entity["entity_id"]], rtol=0, atol=FLOAT_TOLERANCE):
                differ.add(str(entity["entity_id"]))
    return differ


def _proved(
    ctx: Context, spec: DatasetSpec, held: Held, info: CollectionInfo, receipt: dict[str, Any] | None
) -> Diff | None:
    """The diff to what the receipt proves the index to hold, by the rows of gold that moved since; None if it proves
    nothing.

    Gold tells its rows 50 times faster than the index (100k in 25 ms), and only what moved is made into entities: a
    small change costs about its own size.
    """
    if receipt is None or receipt["entities"] == UNFINISHED or receipt["definition"] != entities.definition(spec):
        return None
    if not agrees(_index(ctx), info, receipt, receipt["entities_digest"]):
        return None
    try:
        gold = ctx.lake.snapshot(held.gold.spec, receipt["delta_version"])
        assert gold is not None  # the table exists: held.gold is a later version of it
        rows = entities.gold_rows(gold, held.space_version, held.partition)
    except StorageError:  # vacuumed since: the index itself must tell
        return None
    before, now = entities.moved(rows.filter(pl.col("access_tier") == held.access_tier), held.rows)
    actual = entities.row_fingerprints(entities.of_rows(spec, before, held.partition))
    return Diff(
        entities.of_rows(spec, now, held.partition),
        actual,
        same=receipt["entities"] - len(actual),
        same_digest=entities.moved_digest(receipt["entities_digest"], removed=actual),
        proved=True,
    )


def agrees(index: VectorIndex, info: CollectionInfo, receipt: dict[str, Any], digest: str) -> bool:
    return bool(
        receipt["collection_uuid"] == info.uuid
        and receipt["entities_digest"] == digest
        and index.count(info.name, receipt["partition"]) == receipt["entities"]
    )


def _tiers(ctx: Context, spec: DatasetSpec, space: str, version: str, rows: pl.DataFrame) -> list[str]:
    """Tiers present now, and tiers that have a collection from before: what left a tier must leave its index."""
    known = [g["access_tier"] for g in generations.of_space(ctx, spec, space) if g["space_version"] == version]
    return sorted({*rows["access_tier"].unique(), *known})


def write_receipt(
    ctx: Context, spec: DatasetSpec, info: CollectionInfo, partition: str, delta_version: int, count: int, digest: str
) -> None:
    row = {
        "dataset": spec.id,
        "collection": info.name,
        "partition": partition,
        "collection_uuid": info.uuid,
        "delta_version": delta_version,
        "entities": count,
        "entities_digest": digest,
        "run_id": ctx.run_id,
        "reconciled_at": datetime.now(UTC),
        "definition": entities.definition(spec),
    }
    table = pa.Table.from_pylist([row], schema=tables.INDEX_RECEIPTS)
    ctx.lake.append(tables.index_receipts(), table, {"asset": "index_receipts", "run_id": ctx.run_id})


def _record(
    ctx: Context, spec: DatasetSpec, asset: str, upstream: dict[str, Any], delta_version: int, synced: list[Synced]
) -> None:
    """The audit's row: written when the index moved, or when no row says that this state was reached."""
    collections = ",".join(one.collection for one in synced)
    key = expected_input(spec, asset, upstream, collections)
    head = ctx.audit.latest(spec.id).get((asset, upstream["space_version"], upstream["partition"]))
    upserted, deleted = sum(one.upserted for one in synced), sum(one.deleted for one in synced)
    if head is not None and head["input_digest"] == key and not upserted and not deleted:
        return
    unchanged = sum(one.unchanged for one in synced)
    ctx.record(
        dataset=spec.id,
        asset=asset,
        partition=upstream["partition"],
        space_version=upstream["space_version"],
        table_path=collections,
        table_version=delta_version,
        upstream_version=upstream["upstream_version"],
        encoder=upstream["encoder"],
        weights_digest=upstream["weights_digest"],
        deid_profile=upstream["deid_profile"],
        rows_in=int(upstream["rows_out"]),
        rows_out=upserted + unchanged,
        rows_computed=upserted,
        rows_skipped=unchanged,
        input_digest=key,
        output_digest=fingerprints.set_digest(one.entities_digest for one in synced),
    )


def _index(ctx: Context) -> VectorIndex:
    assert ctx.index is not None, "the vectors stage needs a context with an index"
    return ctx.index
