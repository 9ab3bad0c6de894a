"""What the index should hold for a partition: entities derived from its rows of gold. Pure but for reading gold.

Belongs here: which contents are one entity, its fields, fingerprint and vector, the digest of a set of entities.
Does not belong here: what the index holds, receipts, writing (vectors).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json, to_json

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from resources.lakehouse import Snapshot
from resources.vector_index import ENTITY_FIELDS, ENTITY_SCHEMA

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
WRITE_ROWS = 8_192  # entities handed to the index at a time: 12 MB of 384 float32, and few calls for few entities
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
    """What gold holds for one partition of one collection: `rows` as gold_rows reads them."""

    gold: Snapshot
    space_version: str
    partition: str
    access_tier: str
    rows: pl.DataFrame


def definition(spec: DatasetSpec) -> str:
    """Digest of what makes entities of a partition's rows of gold: equal definitions, equal entities of equal rows."""
    return fingerprints.input_digest(VERSION, ",".join(sorted(spec.index_attributes)))


def desired(spec: DatasetSpec, gold: Snapshot, space_version: str, partition: str) -> pl.DataFrame:
    """One row per distinct content of the partition: every entity field but the vector, and the representative's
    `vector_id`, by which its vector is found in gold."""
    return of_rows(spec, gold_rows(gold, space_version, partition), partition)


def gold_rows(gold: Snapshot, space_version: str, partition: str) -> pl.DataFrame:
    """The partition's rows by record id, without their vectors."""
    where = (pc.field("space_version") == space_version) & (pc.field("partition") == partition)
    return gold.read(_GOLD_COLUMNS, where).sort("record_id")


def of_rows(spec: DatasetSpec, rows: pl.DataFrame, partition: str) -> pl.DataFrame:
    """What `desired` says, of rows as gold_rows reads them."""
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


def moved(before: pl.DataFrame, now: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of two states of a partition's rows those whose entity may differ: all rows of every content that a row of one
    state and not of the other has."""
    sides = ((before, now), (now, before))
    lone = [one.join(other, on=_GOLD_COLUMNS, how="anti", nulls_equal=True) for one, other in sides]
    contents = pl.concat(lone).select(_CONTENT).unique()
    touched = (side.join(contents, on=_CONTENT, how="semi", nulls_equal=True) for side in (before, now))
    return next(touched).sort("record_id"), next(touched).sort("record_id")


def row_fingerprints(entities: pl.DataFrame) -> dict[str, str]:
    """entity_id -> row_fingerprint: what both sides of a diff are compared by."""
    return dict(entities.select("entity_id", "row_fingerprint").rows())


def digest(of: Mapping[str, str]) -> str:
    """Digest of entity_id -> row_fingerprint, whichever side it was read from."""
    return moved_digest(fingerprints.set_digest(()), added=of)


def moved_digest(
    before: str, *, added: Mapping[str, str] | None = None, removed: Mapping[str, str] | None = None
) -> str:
    """What `digest` gives after entities were removed from and added to those of digest `before`."""
    return fingerprints.moved_digest(before, added=_lines(added or {}), removed=_lines(removed or {}))


def _lines(of: Mapping[str, str]) -> Iterator[str]:
    return (f"{entity}\x1f{fingerprint}" for entity, fingerprint in of.items())


def batches(held: Held, entities: pl.DataFrame) -> Iterator[pa.RecordBatch]:
    """`entities` with their vectors from gold, in batches of ENTITY_SCHEMA of about WRITE_ROWS."""
    position = {vector_id: number for number, vector_id in enumerate(entities["vector_id"])}
    fields = entities.with_columns(pl.lit(held.gold.version).cast(pl.Int64).alias("delta_version"))
    scalars = fields.select([name for name in ENTITY_FIELDS if name != "vector"]).to_arrow()
    where = (pc.field("space_version") == held.space_version) & (pc.field("partition") == held.partition)
    pieces: list[pa.Table] = []
    for batch in held.gold.scan(["vector_id", "vector"], where):
        places = [position.get(vector_id, -1) for vector_id in batch["vector_id"].to_pylist()]
        keep = [number for number, place in enumerate(places) if place >= 0]
        piece = scalars.take(pa.array([places[number] for number in keep], pa.int64()))
        piece = piece.append_column("vector", batch["vector"].take(pa.array(keep, pa.int64())))
        pieces.append(piece.select(ENTITY_SCHEMA.names).cast(ENTITY_SCHEMA))
        if sum(len(held_back) for held_back in pieces) >= WRITE_ROWS:
            yield from pa.concat_tables(pieces).combine_chunks().to_batches()
            pieces = []
    if pieces:
        yield from pa.concat_tables(pieces).combine_chunks().to_batches()


def _allowed(attributes: str, allowed: frozenset[str]) -> str:
    # Gold's keys are sorted, and stay so. pydantic's parser takes a third of json's time, which is a sync's largest part.
    kept = {name: value for name, value in from_json(attributes).items() if name in allowed}
    return to_json(kept).decode()
