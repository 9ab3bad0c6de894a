"""The catalogue driven through Imaging Data Commons' real releases: what was removed is gone everywhere after each, and
just what is new is computed. MEDVEC_TEST_HISTORY=all takes every collection from which anything was ever removed, but for
nlst, whose half a million series would take hours 24 times.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import polars as pl
import pytest
from helpers import idc_history
from helpers.memory_lake import MemoryLake
from helpers.pipeline import Pipeline

from medvec_assets.stages.withdrawal import overdue
from resources import tables
from resources.lakehouse import Lakehouse

ALL = os.environ.get("MEDVEC_TEST_HISTORY") == "all"
LAKE = Lakehouse if ALL else MemoryLake
# 1,636 series published today, 238 removed and 556 revised in 24 steps.
SOME = ["anti_pd_1_lung", "cmb_aml", "cmb_gec", "cptac_gbm", "htan_hms"]
FIRST = 2
FAR = datetime(2100, 1, 1, tzinfo=UTC)  # later than every deadline


@pytest.fixture
def collections() -> list[str]:
    return [name for name in idc_history.collections_with_removals() if name != "nlst"] if ALL else SOME


def test_each_release_leaves_just_what_it_publishes(pipeline: Pipeline, collections: list[str]) -> None:
    before: set[str] = set()
    known: set[str] = set()  # contents that gold held before the step
    removed: set[str] = set()
    for version in range(FIRST, idc_history.NEWEST + 1):
        published = idc_history.release(version, collections)
        if published.is_empty():
            continue
        path = pipeline.home / "source" / "idc_index.parquet"
        path.parent.mkdir(exist_ok=True)
        published.write_parquet(path)
        pipeline.encoders.encoded.clear()
        pipeline.run()

        series = set(published["SeriesInstanceUID"])
        silver, gold = pipeline.silver, pipeline.gold
        aside = set(pipeline.quarantine.filter(pl.col("disposition") == "quarantined")["object_id"])
        assert set(silver["record_id"]) == series - aside, f"records of v{version}"
        assert set(gold["record_id"]) == set(silver["record_id"]), f"embeddings of v{version}"
        assert sum(one["members"] for one in pipeline.entities.values()) == gold.height, f"index of v{version}"
        representatives = {one["record_id"] for one in pipeline.entities.values()}
        assert representatives <= series, f"the index shows a removed series after v{version}"
        assert len(pipeline.encoders.encoded) == len(set(gold["content_digest"]) - known), f"computed for v{version}"
        known, removed, before = set(gold["content_digest"]), removed | (before - series), series
        assert overdue(pipeline.context(), pipeline.spec, FAR) == [], f"past its deadline after v{version}"

    noted = set(pipeline.read(tables.withdrawals())["object_id"])
    assert noted == removed and len(removed) > 200
