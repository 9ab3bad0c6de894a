"""The main job on an S3 store that has a bad day: lost answers, broken connections, and a minute of 503s."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import DATASET, Home, Undisturbed, commits, finished, index_state, lake_state, sources, wait_until

from resources.audit import Audit
from resources.lakehouse import Lakehouse
from tests.services import SeaweedFS, proxy
from tests.services.proxy import Proxy

OUTAGE_SECONDS = 60


@pytest.fixture
def between(seaweedfs: SeaweedFS) -> Iterator[Proxy]:
    with Proxy(seaweedfs.port) as between:
        yield between


@pytest.fixture
def home(
    between: Proxy, seaweedfs: SeaweedFS, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Home:
    """A home whose commands reach the lake through the proxy, and the test by itself."""
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    aws = seaweedfs.environment() | {"AWS_ENDPOINT_URL": between.endpoint}
    return Home(tmp_path / "home", sources(catalogue) | aws | {"MEDVEC_LAKE_URI": f"s3://lake/{tmp_path.name}"})


def test_a_minute_of_503s_is_survived_by_the_run_that_meets_it(
    home: Home, between: Proxy, undisturbed: Undisturbed
) -> None:
    process = home.start("run", "--dataset", DATASET, "--json")
    wait_until(lambda: sum(commits(home).values()) >= 12, process)
    between.fault = proxy.refuse(503, "SlowDown")
    time.sleep(OUTAGE_SECONDS)
    between.fault = proxy.none
    result = finished(process)
    assert (result.code, result.stderr) == (0, "")
    assert_as_undisturbed(home, undisturbed)


def test_lost_answers_and_broken_connections_lose_and_double_nothing(
    home: Home, between: Proxy, undisturbed: Undisturbed
) -> None:
    between.fault = proxy.lose_answer(proxy.committed_table)
    result = home.medvec("run", "--dataset", DATASET, "--json")
    assert result.code == 0, result.stderr
    assert_as_undisturbed(home, undisturbed)
    between.fault = proxy.reset_every(50)
    for _ in range(5):
        result = home.medvec("run", "--dataset", DATASET, "--all", "--json")
        if result.code == 0:
            break
        assert "What to do: check that the lake's URI answers" in result.stderr, result.stderr
    between.fault = proxy.none
    assert home.fine("run", "--dataset", DATASET, "--all")["datasets"][DATASET]["partitions"] > 2
    assert home.fine("verify", "--vectors")["ok"]


def assert_as_undisturbed(home: Home, undisturbed: Undisturbed) -> None:
    assert lake_state(home) == undisturbed.lake
    assert index_state(home) == undisturbed.index
    assert Audit(Lakehouse.open(home.settings())).broken_chains(DATASET) == []
