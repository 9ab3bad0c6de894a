"""Fills a dataset's space by its own stages, one partition after the other: what the integration tests look at."""

from __future__ import annotations

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings, manifest, records, vectors
from medvec_assets.stages.context import Context


def fill(ctx: Context, spec: DatasetSpec, space: str) -> None:
    for partition in manifest.refresh(ctx, spec).plan["partition"]:
        records.build(ctx, spec, partition)
        embeddings.build(ctx, spec, space, partition)
        vectors.build(ctx, spec, space, partition)
