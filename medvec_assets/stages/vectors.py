"""The vectors stage: reconcile a partition's index entities with its embeddings. Level-triggered, never a replay.

Belongs here: what the index should hold, the diff against what it holds, the receipt, `verify`.
Does not belong here: talking to Milvus (resources.vector_index), which generation readers see (generations).

desired = the partition's entities derived from gold at one Delta version; actual = what the collection holds for that
partition. Missing or different entities are written, extra ones deleted, always scoped by partition. A receipt lets the
next run skip, but only if the collection is the very instance it was written for and still counts the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json, to_json

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings as embeddings_stage
from medvec_assets.stages import generations
from medvec_assets.stages.context import Context, is_ahead
from resources import encoders, tables
from resources.errors import CommitConflict, NotFound, StorageError
from resources.lakehouse import Snapshot
from resources.vector_index import ENTITY_FIELDS, ENTITY_SCHEMA, CollectionInfo, CollectionSpec, VectorIndex

_GOLD_COLUMNS = (
    "vector_id",
    "record_id",
    "cohort",
    "modality",
    "license",
    "access_tier",
    "attributes",
    "content_digest",
    "fingerprint",
    "part_kind",
    "part_index",
)
VERSION = "entity-1"  # declared by hand: it moves when the same gold would make other entities
UNFINISHED = -1  # the count of a receipt that says no more than that somebody has begun to write
# Every field of an entity that a reader can see, but for the Delta version at which it was written.
_SEEN = (
    "fingerprint",
    "record_id",
    "members",
    "cohort",
    "modality",
    "license",
    "part_kind",
    "part_index",
    "attributes",
)
_CONTENT = ("license", "access_tier", "content_digest", "part_kind", "part_index")


@dataclass(frozen=True)
class Held:
    """What gold holds for one partition of one collection: the desired side of a diff."""

    gold: Snapshot
    space_version: str
    partition: str
    access_tier: str
    entities: pl.DataFrame


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


def build(ctx: Context, spec: DatasetSpec, space: str, partition: str, *, full: bool = False) -> list[Synced]:
    """Reconcile one partition in every maintained generation of a space. `full` diffs even where a receipt agrees."""
    ctx.require_allowed(spec)
    done: list[Synced] = []
    for version in generations.maintained_versions(ctx, spec, space):
        head, gold = _upstream(ctx, spec, space, version, partition)
        settled = None if full else _settled(ctx, spec, space, head)
        if settled is not None:
            done += settled
            continue
        desired = desired_entities(spec, gold, version, partition)
        synced = [
            _reconcile(
                ctx,
                spec,
                Held(gold, version, partition, tier, desired.filter(pl.col("access_tier") == tier)),
                ensure_collection(ctx, spec, space, tier, version),
                full,
            )
            for tier in _tiers(ctx, spec, space, version, desired)
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


def desired_entities(spec: DatasetSpec, gold: Snapshot, space_version: str, partition: str) -> pl.DataFrame:
    """One row per distinct content of the partition: every entity field but the vector, and the representative's
    `vector_id`, by which its vector is found in gold."""
    where = (pc.field("space_version") == space_version) & (pc.field("partition") == partition)
    rows = gold.read(_GOLD_COLUMNS, where).sort("record_id")
    # The representative is the member with the smallest record id: it changes only when that member goes.
    entities = rows.group_by(_CONTENT, maintain_order=True).agg(
        pl.all().first(), pl.len().cast(pl.Int64).alias("members")
    )
    allowed = frozenset(spec.index_attributes)
    attributes = [_allowed(value, allowed) for value in entities["attributes"]]
    entities = entities.with_columns(
        pl.Series("attributes", attributes, pl.String),
        pl.col("part_index").cast(pl.Int64),
        pl.lit(partition).alias("partition"),
    )
    part = pl.format("{}-{}", "part_kind", "part_index").alias("part")
    content = entities.select("partition", "license", "access_tier", "content_digest", part)
    seen = entities.select(pl.col(_SEEN).cast(pl.String))
    return entities.with_columns(
        pl.Series("entity_id", fingerprints.hashed_rows("entity", content), pl.String),
        pl.Series("row_fingerprint", fingerprints.hashed_rows("row", seen), pl.String),
    )


def ensure_collection(ctx: Context, spec: DatasetSpec, space: str, tier: str, version: str) -> CollectionInfo:
    """The generation's collection, made if it is not there, and the alias if this generation is live."""
    generation = generations.ensure(ctx, spec, space, tier, version)
    card, shape, index = encoders.card(version, ctx.settings), spec.spaces[space], _index(ctx)
    info = index.ensure(
        CollectionSpec(
            name=generation["collection"],
            dim=card.dim,
            metric=card.metric,
            hnsw_m=shape.hnsw_m,
            ef_construction=shape.ef_construction,
            properties={
                "medvec.dataset": spec.id,
                "medvec.space": space,
                "medvec.access_tier": tier,
                "medvec.generation": str(generation["generation"]),
                "medvec.encoder": card.ref,
                "medvec.weights_digest": card.weights_digest,
                "medvec.ef_search": str(shape.ef_search),
            },
        )
    )
    alias = generations.alias_name(spec, space, tier)
    if generation["state"] == "live" and index.alias_target(alias) != info.name:
        index.set_alias(alias, info.name)
    return info


def expected_input(spec: DatasetSpec, asset: str, embedded: Mapping[str, Any], collections: str) -> str:
    """Digest of what decides a partition's entities: the embeddings' last materialization, the attributes that may be
    shown, and where they go."""
    shown = ",".join(sorted(spec.index_attributes))
    return fingerprints.input_digest(asset, VERSION, embedded["output_digest"], shown, collections)


def receipts(ctx: Context, spec: DatasetSpec) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest receipt of every (collection, partition)."""
    snapshot = ctx.lake.snapshot(tables.index_receipts())
    if snapshot is None:
        return {}
    rows = snapshot.read(where=pc.field("dataset") == spec.id).sort("reconciled_at")
    return {(row["collection"], row["partition"]): row for row in rows.iter_rows(named=True)}


def entities_digest(entities: dict[str, str]) -> str:
    """Digest of entity_id -> row_fingerprint, whichever side it was read from."""
    return fingerprints.set_digest(f"{entity}\x1f{fingerprint}" for entity, fingerprint in entities.items())


def indexed_entities(index: VectorIndex, collection: str, partition: str) -> dict[str, str]:
    """entity_id -> row_fingerprint, as the index holds them for a partition."""
    actual: dict[str, str] = {}
    for piece in index.fingerprints(collection, partition):
        actual.update(piece)
    return actual


def _reconcile(ctx: Context, spec: DatasetSpec, held: Held, info: CollectionInfo, full: bool) -> Synced:
    index, partition = _index(ctx), held.partition
    desired: dict[str, str] = dict(held.entities.select("entity_id", "row_fingerprint").rows())
    digest = entities_digest(desired)
    receipt = receipts(ctx, spec).get((info.name, partition))
    agreed = receipt is not None and agrees(index, info, receipt, digest)
    if agreed and not full:
        return Synced(info.name, partition, 0, 0, len(desired), digest, skipped=True)
    actual = None if full else _proved(ctx, spec, held, info, receipt)
    if actual is None:
        actual = indexed_entities(index, info.name, partition)
    stale = {entity for entity, fingerprint in desired.items() if actual.get(entity) != fingerprint}
    extra = sorted(actual.keys() - desired.keys())
    if (stale or extra) and receipt is not None and receipt["collection_uuid"] == info.uuid:
        # Killed between here and the new receipt, the old one would be believed again once gold goes back to it.
        write_receipt(ctx, spec, info, partition, held.gold.version, UNFINISHED, "")
    if extra:
        index.delete(info.name, partition, extra)
    if stale:
        index.write(info.name, partition, entity_batches(held, stale))
    if stale or extra or not agreed:
        index.settle(info.name)
        write_receipt(ctx, spec, info, partition, held.gold.version, len(desired), digest)
    ctx.progress(f"{spec.id} {partition} index", len(desired), len(desired))
    return Synced(info.name, partition, len(stale), len(extra), len(desired) - len(stale), digest)


def _proved(
    ctx: Context, spec: DatasetSpec, held: Held, info: CollectionInfo, receipt: dict[str, Any] | None
) -> dict[str, str] | None:
    """The entities that the receipt proves the index to hold, read from gold as it was then; None if it proves nothing.

    Gold tells them 50 times faster than the index (100k rows in 25 ms), so a small change costs about its own size.
    """
    if receipt is None or receipt["entities"] == UNFINISHED:
        return None
    try:
        before = ctx.lake.snapshot(held.gold.spec, receipt["delta_version"])
        assert before is not None  # the table exists: held.gold is a later version of it
        entities = desired_entities(spec, before, held.space_version, held.partition)
    except StorageError:  # vacuumed since: the index itself must tell
        return None
    entities = entities.filter(pl.col("access_tier") == held.access_tier)
    proved: dict[str, str] = dict(entities.select("entity_id", "row_fingerprint").rows())
    return proved if agrees(_index(ctx), info, receipt, entities_digest(proved)) else None


def agrees(index: VectorIndex, info: CollectionInfo, receipt: dict[str, Any], digest: str) -> bool:
    return bool(
        receipt["collection_uuid"] == info.uuid
        and receipt["entities_digest"] == digest
        and index.count(info.name, receipt["partition"]) == receipt["entities"]
    )


def entity_batches(held: Held, wanted: set[str]) -> Iterator[pa.RecordBatch]:
    rows = held.entities.filter(pl.col("entity_id").is_in(list(wanted)))
    position = {vector_id: number for number, vector_id in enumerate(rows["vector_id"])}
    fields = rows.with_columns(pl.lit(held.gold.version).cast(pl.Int64).alias("delta_version"))
    scalars = fields.select([name for name in ENTITY_FIELDS if name != "vector"]).to_arrow()
    where = (pc.field("space_version") == held.space_version) & (pc.field("partition") == held.partition)
    for batch in held.gold.scan(["vector_id", "vector"], where):
        places = [position.get(vector_id, -1) for vector_id in batch["vector_id"].to_pylist()]
        keep = [number for number, place in enumerate(places) if place >= 0]
        if not keep:
            continue
        piece = scalars.take(pa.array([places[number] for number in keep]))
        piece = piece.append_column("vector", batch["vector"].take(pa.array(keep)))
        yield from piece.select(ENTITY_SCHEMA.names).cast(ENTITY_SCHEMA).combine_chunks().to_batches()


def _tiers(ctx: Context, spec: DatasetSpec, space: str, version: str, desired: pl.DataFrame) -> list[str]:
    """Tiers present now, and tiers that have a collection from before: what left a tier must leave its index."""
    known = [g["access_tier"] for g in generations.of_space(ctx, spec, space) if g["space_version"] == version]
    return sorted({*desired["access_tier"], *known})


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


def _allowed(attributes: str, allowed: frozenset[str]) -> str:
    # Gold's keys are sorted, and stay so. pydantic's parser takes a third of json's time, which is a sync's largest part.
    kept = {name: value for name, value in from_json(attributes).items() if name in allowed}
    return to_json(kept).decode()


def _index(ctx: Context) -> VectorIndex:
    assert ctx.index is not None, "the vectors stage needs a context with an index"
    return ctx.index
