"""Real rows of the real catalogue, few enough for a test, and one home where the main job ran undisturbed."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from command import (
    COHORTS,
    COLLECTION,
    DATASET,
    Home,
    Undisturbed,
    assert_nothing_left_over,
    index_state,
    lake_state,
    sources,
)

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.services`, whatever folder pytest was started in
sys.path.insert(0, str(Path(__file__).parents[1]))  # and `helpers`

from helpers.made_once import made_once

from tests.services import Milvus, Postgres, SeaweedFS
from tests.services.fixtures import milvus, milvus_secured, postgres, seaweedfs, seaweedfs_tls

CLUSTER = Path(__file__).parents[2] / "deploy" / "dagster.yaml"

__all__ = ["milvus", "milvus_secured", "postgres", "seaweedfs", "seaweedfs_tls"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of each cohort as the installed index has them."""

    def make(folder: Path) -> None:
        import idc_index_data

        index = pl.scan_parquet(str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH))
        rows = [
            index.filter(pl.col("collection_id") == name).sort("SeriesInstanceUID").head(n)
            for name, n in COHORTS.items()
        ]
        pl.concat(rows).collect().write_parquet(folder / "idc_index.parquet")

    return made_once(tmp_path_factory, "catalogue", make) / "idc_index.parquet"


@pytest.fixture(scope="session")
def undisturbed(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """This worker's copy of the one home: a search in it starts a server, while another worker may be copying."""

    def make(folder: Path) -> None:
        home = Home(folder / "home", sources(catalogue))
        run = home.medvec("run", "--dataset", DATASET, "--json")
        assert run.code == 0, run.stderr
        assert_nothing_left_over(home)
        found = Undisturbed(home, run, lake_state(home), index_state(home))
        (folder / "found.pickle").write_bytes(pickle.dumps(found))

    found = pickle.loads((made_once(tmp_path_factory, "undisturbed", make) / "found.pickle").read_bytes())
    return replace(found, home=found.home.copy(tmp_path_factory.mktemp("undisturbed") / "home"))


@pytest.fixture
def fresh(catalogue: Path, tmp_path: Path) -> Home:
    """A home where nothing ran yet."""
    return Home(tmp_path / "home", sources(catalogue))


@pytest.fixture
def done(undisturbed: Undisturbed, tmp_path: Path) -> Home:
    """A home where the main job ran to its end, to do with as one likes."""
    return undisturbed.home.copy(tmp_path / "home")


@pytest.fixture
def cluster(
    catalogue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seaweedfs_tls: SeaweedFS,
    milvus_secured: Milvus,
    postgres: Postgres,
) -> Home:
    """A home that keeps its lake, index and Dagster's history on servers, as nobody used them before."""
    milvus, aws = milvus_secured, seaweedfs_tls.environment()
    for name, value in aws.items():  # for what the test itself reads
        monkeypatch.setenv(name, value)
    own = {
        "MEDVEC_LAKE_URI": f"s3://lake/{tmp_path.name}",
        "MEDVEC_INDEX_URI": milvus.uri,
        "MEDVEC_INDEX_TOKEN": milvus.token,
        "MEDVEC_INDEX_CA": str(milvus.ca),
        "MEDVEC_DAGSTER_POSTGRES_URL": postgres.database(),
    }
    home = Home(tmp_path / "home", sources(catalogue) | aws | own)
    folder = home.path / "dagster"
    folder.mkdir(parents=True)
    storage = yaml.safe_load(CLUSTER.read_text())["storage"]
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))
    with home.index() as index:
        index.drop(COLLECTION)  # of the test before
    return home
