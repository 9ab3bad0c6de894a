"""A throw-away lake with real catalogue rows, for the other benchmarks.

Belongs here: building the input. Does not belong here: timing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import idc_index_data
import polars as pl

from medvec_assets.catalog.spec import DatasetSpec, Sharding
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Settings

COHORT = "bench"
_DESCRIPTOR = ("Modality", "BodyPartExamined", "SeriesDescription", "StudyDescription", "collection_id")


@contextmanager
def home(series: int, *, distinct: bool) -> Iterator[tuple[Settings, DatasetSpec]]:
    """Settings of an empty home whose catalogue is `series` real rows in one cohort and one partition."""
    folder = Path(tempfile.mkdtemp(prefix="medvec-bench-"))
    try:
        frame = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
        frame = frame.filter(~pl.col("SeriesDescription").fill_null("").str.contains(r"[\x00-\x1f]"))
        if distinct:
            frame = frame.unique(_DESCRIPTOR, keep="first", maintain_order=True)
        step = max(1, frame.height // series)
        chosen = frame.gather_every(step).head(series)
        # Different collections become one cohort; what told them apart stays in the text.
        study = pl.concat_str([pl.col("StudyDescription").fill_null(""), pl.col("collection_id")], separator=" ")
        chosen.with_columns(study.alias("StudyDescription"), pl.lit(COHORT).alias("collection_id")).write_parquet(
            folder / "index.parquet"
        )
        settings = Settings(home=folder / "home", sources={"tcia_catalog": str(folder / "index.parquet")})
        spec = TCIA_CATALOG.model_copy(update={"sharding": Sharding(max_objects=10 * series, max_bytes=None)})
        yield settings, spec
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def context(settings: Settings, index: object | None = None) -> Context:
    return Context(settings, Lakehouse.open(settings), "bench", index=index)  # type: ignore[arg-type]
