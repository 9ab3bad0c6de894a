"""Records and vectors of a few chosen rows, made again from their source objects by the very code that made them.

Belongs here: running modality and encoder on what is stored at the source, and comparing. Does not belong here: choosing
the rows (audit), the encoder's own code.

What vectors may differ by: the same weights on the same input differ in the last digits with the batch, the CPU and the
thread count (253 vectors of the samples, ten encoders, CPU: at most 5e-8 of cosine); bf16 has 8 bits of mantissa.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog.spec import SYNTHETIC
from medvec_assets.json_columns import with_mark
from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.modalities import RECORD_FRAME, make_records, modality
from medvec_assets.query.rows import one_of
from medvec_assets.stages import encoding
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context
from medvec_assets.stages.embeddings import Target
from medvec_assets.stages.payloads import Payloads
from resources.errors import MedvecError
from resources.lakehouse import Snapshot

TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}
"""1 - cosine that is forgiven between a stored vector and the one computed now, by the precision computed in now."""


def partition(
    ctx: Context, ledger: Ledger, aim: Target, tables: tuple[Snapshot, Snapshot, Snapshot], name: str, chosen: list[str]
) -> list[float]:
    """Cosines of the vectors `chosen` (ids) of one partition with those computed now. `tables`: gold, silver, manifest."""
    gold, silver, listed = tables
    here = pc.field("partition") == name
    own = (pc.field("space_version") == aim.space_version) & here & one_of("vector_id", chosen)
    rows = gold.read(["vector_id", "record_id", "fingerprint", "vector"], own)
    stored = silver.read(None, here & one_of("record_id", rows["record_id"]))
    wanted = stored["object_ids"].explode().drop_nulls().unique()
    refs = listed.read(["object_id", "record_ref"], here & one_of("object_id", wanted))
    objects = listed.read(None, here & one_of("record_ref", refs["record_ref"]))
    objects = objects.filter(pl.col("removed_in_version").is_null()).sort("record_ref", "object_id")
    where = {"space": aim.space, "partition": name}
    try:
        made = _records(ctx, aim, name, objects).filter(pl.col("record_id").is_in(stored["record_id"].implode()))
        _compare(ledger, stored, made, name)
        frame = _jobs(made, objects, rows)
        found = list(_vectors(ctx, aim, name, frame))
    except MedvecError as failure:
        ledger.add("vector_again", rows["vector_id"], **where, detail=f"could not be made again: {failure.code}")
        return []
    return _cosines(ledger, aim, rows, dict(found), where)


def _records(ctx: Context, aim: Target, name: str, objects: pl.DataFrame) -> pl.DataFrame:
    read = records_stage.reader(ctx, aim.spec, name)
    # Nothing is landed: a payload's name tells whether its bytes are the same.
    name_of = Payloads(ctx.lake.root, aim.spec.id).uri_of
    made, _ = make_records(modality(aim.spec.modality), objects, read, ctx.pseudonyms(aim.spec), name_of)
    if ctx.is_synthetic(aim.spec):
        made = made.with_columns(with_mark(made["attributes"], SYNTHETIC))
    return made.select([pl.col(column).cast(kind) for column, kind in RECORD_FRAME.items()])


def _compare(ledger: Ledger, stored: pl.DataFrame, made: pl.DataFrame, name: str) -> None:
    lost = stored.filter(~pl.col("record_id").is_in(made["record_id"].implode()))["record_id"]
    ledger.add("record_again", lost, partition=name, detail="the objects give no such record")
    both = stored.select(RECORD_FRAME.keys()).join(made, on="record_id", suffix="_again")
    for column in RECORD_FRAME:
        if column == "record_id":
            continue
        kept = pl.col(column), pl.col(f"{column}_again")
        if isinstance(RECORD_FRAME[column], pl.List):
            kept = kept[0].list.join("\x1f"), kept[1].list.join("\x1f")
        ledger.add("record_again", both.filter(kept[0].ne_missing(kept[1]))["record_id"], partition=name, detail=column)


def _jobs(made: pl.DataFrame, objects: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """`made` as encoding wants it: with the URIs of its objects and the fingerprint that its vector has."""
    listed = made.select("record_id", object_id="object_ids").explode("object_id")
    uris = listed.join(objects.select("object_id", "uri"), on="object_id", maintain_order="left")
    of_record = uris.group_by("record_id", maintain_order=True).agg(object_uris="uri")
    prints = rows.select("record_id", "fingerprint")
    return made.join(of_record, on="record_id").join(prints, on="record_id").unique("fingerprint", maintain_order=True)


def _vectors(ctx: Context, aim: Target, name: str, frame: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    read = records_stage.reader(ctx, aim.spec, name)
    for names, vectors, _ in encoding.encode(ctx, aim, name, iter([frame]), read, frame.height):
        yield from zip(names, vectors, strict=True)


def _cosines(
    ledger: Ledger, aim: Target, rows: pl.DataFrame, found: dict[str, np.ndarray], where: dict[str, str]
) -> list[float]:
    cosines = []
    for row in rows.iter_rows(named=True):
        again, stored = found.get(row["fingerprint"]), np.asarray(row["vector"], np.float64)
        if again is None or again.shape != stored.shape:
            ledger.add("vector_again", [row["vector_id"]], **where, detail="the source objects give no vector now")
            continue
        norm = float(np.linalg.norm(stored) * np.linalg.norm(again)) or 1.0
        cosine = float(stored @ again.astype(np.float64)) / norm
        cosines.append(cosine)
        if not cosine >= 1 - TOLERANCE[aim.precision]:
            ledger.add("vector_again", [row["vector_id"]], **where, detail=f"cosine {cosine:.6f}")
    return cosines
