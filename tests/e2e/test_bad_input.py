"""Bad usage, an index that is down, a lake that is full: what is said, the exit code, and that nothing is harmed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from command import (
    DATASET,
    SPACE,
    Home,
    Undisturbed,
    assert_nothing_left_over,
    commits,
    index_state,
    lake_partitions,
    lake_state,
    sources,
)

NOWHERE = "http://127.0.0.1:1"  # nothing listens there
SILVER_AND_GOLD = (f"silver/{DATASET}/records", f"gold/{DATASET}/{SPACE}_embeddings")


@pytest.fixture(scope="module")
def untouched(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home that no test here changes, with its index server up."""
    home = undisturbed.home.copy(tmp_path_factory.mktemp("untouched") / "home")
    with home.server_up():
        yield home


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("run", "--dataset", "tcia_nothing"), {}),
        (("run", "--partition", "lctsc"), {}),
        (("run", "--dataset", DATASET, "--partition", "nowhere"), {}),
        (("partitions", "tcia_nothing"), {}),
        (("partitions", DATASET, "--split", "nowhere"), {}),
        (("partitions", DATASET, "--split", "lctsc.2"), {}),
        (("search", "liver", "--limit", "0"), {}),
        (("lineage", "not-an-id"), {}),
        (("run", "--dataset", DATASET), {"MEDVEC_SOURCES": json.dumps({DATASET: "nowhere.parquet"})}),
        (("run", "--dataset", DATASET), {"MEDVEC_SOURCES": "not json"}),
        (("verify",), {"MEDVEC_THREADS": "many"}),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_usage_exits_2_with_a_remedy(
    untouched: Home, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    before = commits(untouched)
    result = untouched.medvec(*arguments, **variables)
    assert result.code == 2, result.stderr
    assert "What to do:" in result.stderr or "Usage:" in result.stderr
    assert "Traceback" not in result.stderr
    assert commits(untouched) == before


def test_what_a_blocking_check_stopped_goes_no_further_the_next_time_either(
    fresh: Home, catalogue: Path, tmp_path: Path
) -> None:
    rows = pl.read_parquet(catalogue)
    unknown = (pl.col("collection_id") == "lctsc") & (pl.int_range(pl.len()) % 2 == 0)
    source = tmp_path / "unlicensed.parquet"
    licence = pl.when(unknown).then(pl.lit("none given")).otherwise("license_short_name")
    rows.with_columns(license_short_name=licence).write_parquet(source)
    for _ in range(2):
        result = fresh.medvec("run", "--dataset", DATASET, **sources(source))
        assert result.code == 1
        assert "quarantine_share" in result.stderr and "What to do:" in result.stderr, result.stderr
        assert lake_partitions(fresh) == {"tcga_lihc"}


def test_an_index_that_is_down_fails_before_any_commit(done: Home, catalogue: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.parquet"
    rows = pl.read_parquet(catalogue)
    pl.concat([rows, _copies(rows.filter(pl.col("collection_id") == "lctsc").head(5))]).write_parquet(more)
    before = commits(done)

    down = Home(done.path, sources(more)).medvec("run", "--dataset", DATASET, "--json", MEDVEC_INDEX_URI=NOWHERE)
    assert (down.code, down.stdout) == (1, "")
    assert NOWHERE in down.stderr and "[index_unavailable]" in down.stderr and "What to do:" in down.stderr
    assert commits(done) == before

    grown = Home(done.path, sources(more))
    report = grown.fine("run", "--dataset", DATASET)["datasets"][DATASET]
    assert report["records"] == lake_rows(done)
    # Their descriptors are known ones: five more records, no vector to compute, their entities count more members.
    assert report["spaces"][SPACE]["embeddings_computed"] == 0
    assert grown.fine("verify", "--dataset", DATASET)["ok"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of its own for a lake, of 64 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_commits_nothing_and_heals(
    undisturbed: Undisturbed, fresh: Home, small_disk: Path
) -> None:
    lake = small_disk / "lake"
    home = Home(fresh.path, {**fresh.variables, "MEDVEC_LAKE_URI": str(lake)})
    # Room for everything but the vectors of the last partition.
    _resize(small_disk, _bytes(undisturbed.home.lake) - 64 * 1024)

    full = home.medvec("run", "--dataset", DATASET, "--json")
    assert full.code == 1
    assert "[disk_full]" in full.stderr and "What to do: free space" in full.stderr, full.stderr
    failed = [sentence for sentence in full.json["failures"] if "[disk_full]" in sentence]
    assert failed
    whole, partial = undisturbed.lake, lake_state(home)
    for table in SILVER_AND_GOLD:
        assert all(row in whole[table] for row in partial[table])
    assert len(partial[SILVER_AND_GOLD[1]]) < len(whole[SILVER_AND_GOLD[1]])

    _resize(small_disk, 64 << 20)
    home.fine("run", "--dataset", DATASET)
    assert lake_state(home) == whole
    assert index_state(home) == undisturbed.index
    assert_nothing_left_over(home)


def test_a_full_home_is_named_too(fresh: Home, small_disk: Path) -> None:
    """The default layout: Dagster's databases are on the same volume, and meet its end before the lake does."""
    _resize(small_disk, 300 * 1024)
    full = Home(small_disk / "home", fresh.variables).medvec("run", "--dataset", DATASET, "--json")
    assert (full.code, full.stdout) == (1, "")
    assert "[disk_full]" in full.stderr and "What to do: free space" in full.stderr, full.stderr
    assert "Traceback" not in full.stderr


def _resize(volume: Path, size_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_bytes // 1024}k", volume], check=True)


def _bytes(folder: Path) -> int:
    """What the files below `folder` take on a tmpfs: whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def _copies(rows: pl.DataFrame) -> pl.DataFrame:
    """The same descriptors as series of their own."""
    return rows.with_columns(pl.col("SeriesInstanceUID") + ".9", pl.col("crdc_series_uuid") + "-9")


def lake_rows(home: Home) -> int:
    return len(lake_state(home)[SILVER_AND_GOLD[0]])
