"""What the Dagster UI shows of a partition: a map of its vectors, a histogram of neighbours' scores, thumbnails.

Belongs here: choosing a bounded sample and turning figures into metadata. Does not belong here: drawing (figures).
"""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow.compute as pc

from medvec_assets import figures
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import Rejected, modality
from medvec_assets.modalities.imaging import thumbnail
from medvec_assets.stages import encoding
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context
from resources import tables

SAMPLE_ROWS = 3_000
THUMBNAILS = 24


def of_partition(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> dict[str, Any]:
    """Metadata entries with pictures of one partition; empty if it holds no vectors."""
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    if gold is None:
        return {}
    where = (pc.field("space_version") == spec.spaces[space].version) & (pc.field("partition") == partition)
    vectors, labels, rows = [], [], 0
    for batch in gold.scan(["vector", "modality"], where, batch_rows=SAMPLE_ROWS):
        vectors.append(batch["vector"].flatten().to_numpy().reshape(batch.num_rows, -1))
        labels += batch["modality"].to_pylist()
        rows += batch.num_rows
        if rows >= SAMPLE_ROWS:
            break
    if not rows:
        return {}
    block = np.concatenate(vectors)[:SAMPLE_ROWS]
    entries = {"map of vectors": _image(figures.vector_map(block, labels[:SAMPLE_ROWS]))}
    if len(block) > 1:
        entries["scores of nearest neighbours"] = _image(figures.score_histogram(figures.neighbour_scores(block)))
    if space == "image":
        entries |= _thumbnails(ctx, spec, space, partition)
    return entries


def _thumbnails(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> dict[str, Any]:
    records = ctx.lake.snapshot(tables.records(spec.id))
    assert records is not None  # embeddings were made from it
    where = pc.field("partition") == partition
    some = records.read(["record_id"], where).sort("record_id").head(THUMBNAILS)
    jobs = encoding.jobs(ctx, spec, partition, records, some.with_columns(pl.col("record_id").alias("fingerprint")))
    read = records_stage.reader(ctx, spec, partition)
    thumbnails, captions = [], []
    form = modality(spec.modality)
    for frame in jobs:
        modalities = records.read(["record_id", "modality", "attributes"], where)
        known = {row["record_id"]: row for row in modalities.iter_rows(named=True)}
        for record_id, item in zip(frame["record_id"], form.model_inputs(frame, space, read), strict=True):
            if isinstance(item, Rejected):
                continue
            body_part = json.loads(known[record_id]["attributes"]).get("body_part", "")
            thumbnails.append(thumbnail(item))
            captions.append(f"{known[record_id]['modality']} {body_part}".strip())
    return {"thumbnails": _image(figures.thumbnail_sheet(thumbnails, captions))} if thumbnails else {}


def _image(png: bytes) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"![picture]({figures.data_uri(png)})")
