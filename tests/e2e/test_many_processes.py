"""Many runs at once, each with partitions of its own, on one S3 lake and one Milvus.

The suite runs 4 processes of 3 partitions; by hand, as docs/benchmarks.md tells: MEDVEC_TEST_PROCESSES=8x25 python -m
pytest tests/e2e/test_many_processes.py
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from command import COLLECTION, DATASET, DEADLINE_SECONDS, Home, finished, index_state, lake_state, sources

from resources import tables
from resources.audit import Audit
from resources.lakehouse import Lakehouse
from tests.services import Milvus, SeaweedFS

PROCESSES, EACH = map(int, os.environ.get("MEDVEC_TEST_PROCESSES", "4x3").split("x"))
SERIES = 6  # of each cohort


@pytest.fixture
def shares(tmp_path: Path) -> tuple[Path, list[list[str]]]:
    """An index of cohorts that anybody may use, and which of them each process gets: real series, each collection cut in
    two, because 200 cohorts are more than there are collections."""
    import idc_index_data

    index = pl.scan_parquet(str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH))
    free = pl.col("license_short_name").is_in(["CC BY 3.0", "CC BY 4.0"]).all() & (pl.len() >= 2 * SERIES)
    names = index.group_by("collection_id").agg(free.alias("free")).filter("free").select("collection_id").collect()
    chosen = names["collection_id"].sort().head(-(-PROCESSES * EACH // 2)).to_list()
    rows = index.filter(pl.col("collection_id").is_in(chosen)).sort("SeriesInstanceUID").collect()
    number = pl.int_range(pl.len()).over("collection_id")
    halves = rows.filter(number < 2 * SERIES).with_columns(
        collection_id=pl.col("collection_id") + pl.when(number < SERIES).then(pl.lit("_a")).otherwise(pl.lit("_b"))
    )
    path = tmp_path / "idc_index.parquet"
    halves.write_parquet(path)
    cohorts = sorted(set(halves["collection_id"]))[: PROCESSES * EACH]
    assert len(cohorts) == PROCESSES * EACH
    return path, [cohorts[number::PROCESSES] for number in range(PROCESSES)]


def test_processes_that_share_a_lake_and_a_server_end_where_one_ends_alone(
    shares: tuple[Path, list[list[str]]],
    seaweedfs: SeaweedFS,
    milvus: Milvus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalogue, cohorts = shares
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    own = {"MEDVEC_LAKE_URI": f"s3://lake/{tmp_path.name}", "MEDVEC_INDEX_URI": milvus.uri}
    homes = [Home(tmp_path / f"home{number}", sources(catalogue) | own) for number in range(PROCESSES)]
    with homes[0].index() as index:
        index.drop(COLLECTION)  # of the test before

    def arguments(names: list[str]) -> list[str]:
        return ["run", "--dataset", DATASET, "--json", *(word for name in names for word in ("--partition", name))]

    # Lists the source: before it there are no partitions to ask for.
    homes[0].fine("run", "--dataset", DATASET, "--partition", cohorts[0][0])
    running = [home.start(*arguments(names)) for home, names in zip(homes, cohorts, strict=True)]
    results = [finished(process, DEADLINE_SECONDS + 60 * EACH) for process in running]
    assert [(result.code, result.stderr) for result in results] == [(0, "")] * PROCESSES

    alone = Home(tmp_path / "alone", sources(catalogue))
    result = finished(alone.start("run", "--dataset", DATASET, "--all"), DEADLINE_SECONDS + 10 * PROCESSES * EACH)
    assert (result.code, result.stderr) == (0, "")
    assert lake_state(homes[0]) == lake_state(alone)
    assert index_state(homes[0]) == index_state(alone)
    lake = Lakehouse.open(homes[0].settings())
    assert Audit(lake).broken_chains(DATASET) == []
    done = lake.ensure(tables.materializations()).read(["asset", "partition"])
    assert done.filter(pl.col("partition") != "-").is_duplicated().sum() == 0, "a partition was made twice"
