"""The main job through the death of each server that it stands on: told by name, and made up for by the next run."""

from __future__ import annotations

import pytest
from command import DATASET, Home, Undisturbed, commits, finished, index_state, lake_state, wait_until

from tests.services import Server


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
    wait_until(lambda: sum(commits(cluster).values()) >= 12, process)
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
