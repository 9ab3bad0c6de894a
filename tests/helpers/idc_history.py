"""Imaging Data Commons as it was at each of its releases, from the two tables that the package idc-index-data ships.

The index tells of every series that is published now since when it is; the list of prior versions of every revision that is
no more: between which releases it stood. What a removed series was called is not kept: it is given its modality, and the
licence that most series of its collection have.
"""

from __future__ import annotations

from functools import cache

import idc_index_data
import polars as pl

from helpers.tiny_source import INDEX_SCHEMA

NEWEST = 25  # of idc-index-data 25


@cache
def _tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    index = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH, columns=list(INDEX_SCHEMA))
    return index, pl.read_parquet(idc_index_data.PRIOR_VERSIONS_INDEX_PARQUET_FILEPATH)


def collections_with_removals() -> list[str]:
    """Every collection from which a series was removed for good."""
    index, prior = _tables()
    gone = prior.join(index.select("SeriesInstanceUID"), on="SeriesInstanceUID", how="anti")
    return sorted(gone["collection_id"].unique())


def release(version: int, collections: list[str]) -> pl.DataFrame:
    """Columns of INDEX_SCHEMA: the series of `collections` as release `version` had them."""
    index, prior = (table.filter(pl.col("collection_id").is_in(collections)) for table in _tables())
    licenses = index.group_by("collection_id").agg(pl.col("license_short_name").mode().sort().first())
    now = index.filter(pl.col("series_revised_idc_version") <= version)
    stood = prior.filter((pl.col("min_idc_version") <= version) & (pl.col("max_idc_version") >= version))
    stood = stood.join(now.select("SeriesInstanceUID"), on="SeriesInstanceUID", how="anti")
    named = index.select("SeriesInstanceUID", *_DESCRIPTIVE)
    then = (
        stood.sort("min_idc_version")
        .unique("SeriesInstanceUID", keep="last", maintain_order=True)
        .join(named, on="SeriesInstanceUID", how="left")
        .join(licenses, on="collection_id", how="left")
        .with_columns(
            pl.coalesce("license_short_name", pl.lit("CC BY 4.0")),
            pl.col("instanceCount").fill_null(1),
            pl.col("min_idc_version").alias("series_init_idc_version"),
            pl.col("min_idc_version").alias("series_revised_idc_version"),
        )
    )
    frames = [frame.select(pl.col(name).cast(kind) for name, kind in INDEX_SCHEMA.items()) for frame in (now, then)]
    return pl.concat(frames)


_DESCRIPTIVE = (
    "source_DOI",
    "StudyDescription",
    "BodyPartExamined",
    "sop_class_name",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "instanceCount",
)
