"""What the Dagster UI shows of a partition: a map of its vectors, a histogram of neighbours' scores, thumbnails.

Belongs here: choosing a bounded sample and turning figures into metadata. Does not belong here: drawing (figures).
"""

from __future__ import annotations

import json

import dagster as dg
import numpy as np
import polars as pl
import pyarrow.compute as pc

from medvec_assets import figures
from medvec_assets.catalog.spec import AccessTier, DatasetSpec
from medvec_assets.modalities import Rejected, modality
from medvec_assets.modalities.imaging import thumbnail
from medvec_assets.stages import encoding
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context
from resources import tables

SAMPLE_ROWS = 3_000


def of_partition(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> dict[str, dg.MarkdownMetadataValue]:
    """One metadata entry, `pictures`, that the UI opens with one click; none if the partition holds no vectors."""
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    if gold is None:
        return {}
    where = (pc.field("space_version") == spec.spaces[space].version) & (pc.field("partition") == partition)
    vectors, labels = [], []
    for batch in gold.scan(["vector", "modality"], where, batch_rows=SAMPLE_ROWS):
        vectors.append(batch["vector"].flatten().to_numpy().reshape(batch.num_rows, -1))
        labels += batch["modality"].to_pylist()
        if len(labels) >= SAMPLE_ROWS:
            break
    if not labels:
        return {}
    block = np.concatenate(vectors)[:SAMPLE_ROWS]
    drawn = [_image("map of vectors", figures.vector_map(block, labels[:SAMPLE_ROWS]))]
    if len(block) > 1:
        scores = figures.score_histogram(figures.neighbour_scores(block))
        drawn.append(_image("scores of nearest neighbours", scores))
    # Pixels may hold burnt-in names, and Dagster's log has no access tiers: only what anybody may see is shown.
    if space == "image" and spec.access_tier is AccessTier.OPEN:
        drawn += _thumbnails(ctx, spec, space, partition)
    return {"pictures": dg.MetadataValue.md("\n\n".join(drawn))}


def _thumbnails(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> list[str]:
    records = ctx.lake.snapshot(tables.records(spec.id))
    assert records is not None  # embeddings were made from it
    is_open = pc.field("access_tier") == AccessTier.OPEN.value
    some = records.read(["record_id", "modality", "attributes"], (pc.field("partition") == partition) & is_open)
    some = some.sort("record_id").head(figures.MAX_THUMBNAILS)
    captions = {record_id: _caption(modality_name, attributes) for record_id, modality_name, attributes in some.rows()}
    # A job is found by record; its fingerprint is not looked at here.
    jobs = encoding.jobs(ctx, spec, partition, records, some.with_columns(fingerprint=pl.col("record_id")))
    form, read = modality(spec.modality), records_stage.reader(ctx, spec, partition)
    shown = [
        (item, captions[record_id])
        for frame in jobs
        for record_id, item in zip(frame["record_id"], form.model_inputs(frame, space, read), strict=True)
        if not isinstance(item, Rejected)
    ]
    if not shown:
        return []
    sheet = figures.thumbnail_sheet([thumbnail(item) for item, _ in shown], [text for _, text in shown])
    return [_image("thumbnails", sheet)]


def _caption(modality_name: str, attributes: str) -> str:
    return f"{modality_name} {json.loads(attributes).get('body_part', '')}".strip()


def _image(name: str, png: bytes) -> str:
    return f"![{name}]({figures.data_uri(png)})"
