"""The main job on S3 over TLS, Milvus with TLS and users, and PostgreSQL: the laptop's state, also through their bad days."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command import (
    COLLECTION,
    DATASET,
    SPACE,
    Home,
    Undisturbed,
    finished,
    index_state,
    lake_state,
    sources,
    wait_until,
)

from resources.object_store import ObjectStore
from tests.services import Milvus, Postgres, SeaweedFS, Server

CLUSTER = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


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


def test_the_main_job_on_servers_ends_where_it_ends_on_a_laptop(cluster: Home, undisturbed: Undisturbed) -> None:
    told = cluster.fine("run", "--dataset", DATASET)
    assert told["datasets"] == undisturbed.run.json["datasets"]
    assert lake_state(cluster) == undisturbed.lake
    assert index_state(cluster) == undisturbed.index
    assert cluster.fine("verify", "--vectors")["ok"]

    commits = logged(cluster)
    again = cluster.fine("run", "--dataset", DATASET)["datasets"][DATASET]["spaces"][SPACE]
    assert (again["embeddings_computed"], again["vectors_upserted"]) == (0, 0)
    assert logged(cluster) == commits
    [hit] = cluster.fine("search", "CT of the lung", "--limit", "1")["hits"]
    assert cluster.fine("lineage", hit["vector_id"])["upstream"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("seaweedfs_tls", "check that the lake's URI answers"),
        ("milvus_secured", "check that Milvus runs there"),
        ("postgres", "check that the database of HOME/dagster/dagster.yaml answers"),
    ],
)
def test_a_server_that_dies_during_a_run_is_named_and_the_next_run_converges(
    name: str, told: str, cluster: Home, undisturbed: Undisturbed, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(name)
    process = cluster.start("run", "--dataset", DATASET)
    wait_until(lambda: len(logged(cluster)) >= 12, process)
    server.kill()
    try:
        result = finished(process)
    finally:
        server.start()
    assert result.code == 1, result.stderr
    assert told in result.stderr and "Traceback" not in result.stderr, result.stderr
    if server is not request.getfixturevalue("postgres"):  # it does not try partition after partition in vain
        assert result.stderr.count("the run stopped") == 1, result.stderr
    cluster.fine("run", "--dataset", DATASET)
    assert lake_state(cluster) == undisturbed.lake
    assert index_state(cluster) == undisturbed.index


def logged(home: Home) -> list[str]:
    """Every commit of every table of the lake."""
    store = ObjectStore(home.settings().lake)
    return sorted(found.key for found in store.list("") if "/_delta_log/" in found.key and found.key.endswith(".json"))
