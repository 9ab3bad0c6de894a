"""Numbers of the access log: what is not sealed is counted as it is written; what the last look found is told with its time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from helpers.access_world import KEYS, settled
from helpers.query_world import World, empty_world, opened

from api import last_look, telemetry
from api.app import create_app
from medvec_assets.query.harvesting import keep
from resources.access_log import Event, Writer
from resources.access_log.alerts import Alert
from resources.access_log.keeping import AccessLog
from resources.access_log.places import Place
from resources.access_log.sealing import seal
from resources.errors import StorageError
from resources.lakehouse import Lakehouse

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def alert(who: str, rule: str) -> Alert:
    return Alert(who, "tcia_catalog", rule, NOON, NOON, 60, 0.3, 500)


def numbers(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if line.startswith(("medvec_access_un", "medvec_harvesting")))
    return {name: float(value) for name, value in told.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return empty_world(tmp_path)


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with TestClient(create_app(world.settings, lambda _: opened(world.index)), base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = (world.settings.home / "keys" / "api.key").read_text()
        yield client


# -- what is not sealed


def lines_of(place: Place, writer: str) -> int:
    return sum(data.count(b"\n") for data in place.data(writer).values())


def test_what_is_not_sealed_is_what_is_in_the_folder(tmp_path: Path) -> None:
    lake, place = Lakehouse(str(tmp_path / "lake")), Place(tmp_path / "access")
    told: list[tuple[int, float]] = []
    writer = Writer(place, KEYS, rotate_bytes=2_000)
    writer.unsealed.listen(lambda events, since: told.append((events, since)))
    first = told[-1][1]
    for number in range(30):
        writer.submit(Event(who="ann", results=number)).result()
        assert told[-1] == (lines_of(place, writer.name), first) == (number + 2, first)
    settled(writer, 3)
    own = writer.name, writer.segment
    seal(lake, place, KEYS, own)
    writer.unsealed.sealed_before(own[1])
    assert told[-1][0] == lines_of(place, writer.name) < 31
    assert told[-1][1] > first
    writer.close()
    seal(lake, place, KEYS)
    writer.unsealed.sealed_before(None)
    assert told[-1] == (0, math.inf) and lines_of(place, writer.name) == 0


def test_what_the_lake_does_not_take_stays_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    log = AccessLog(world.settings)
    log.unsealed.listen(lambda events, since: told.append(events))

    def away(*arguments: Any) -> Any:
        raise StorageError("the bucket does not answer", remedy="wait", retryable=True)

    monkeypatch.setattr("resources.access_log.keeping.sealing.seal", away)
    log.close()
    assert told[-1] == lines_of(Place.of(world.settings), log.writer.name) > 0


def test_the_service_tells_what_it_has_not_sealed(client: TestClient) -> None:
    before = numbers(client)
    for _ in range(3):
        assert client.get("/v1/datasets").status_code == 200
    after = numbers(client)
    log = client.app_state["service"].access_log  # type: ignore[index]
    assert after["medvec_access_unsealed_events"] == lines_of(log._place, log.writer.name) >= 3
    assert math.isfinite(after["medvec_access_unsealed_since_timestamp_seconds"])
    assert before.keys() == after.keys()


# -- the last look for harvesting


def test_a_look_is_told_by_rule_with_its_time_and_no_name(world: World, client: TestClient) -> None:
    assert numbers(client)["medvec_harvesting_look_timestamp_seconds"] == 0
    keep(world.lake, [alert("mallory", "walk"), alert("eve", "share"), alert("eve", "walk")])
    told = numbers(client)
    assert told['medvec_harvesting_alerts{rule="share"}'] == 1 and told['medvec_harvesting_alerts{rule="walk"}'] == 2
    assert abs(told["medvec_harvesting_look_timestamp_seconds"] - datetime.now(UTC).timestamp()) < 600
    keep(world.lake, [])
    told = numbers(client)
    assert [told[f'medvec_harvesting_alerts{{rule="{rule}"}}'] for rule in ("share", "walk")] == [0, 0]
    assert "mallory" not in client.get("/metrics").text


def test_a_lake_that_does_not_answer_holds_no_scrape_up(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(world.lake, [alert("eve", "walk")])
    assert numbers(client)['medvec_harvesting_alerts{rule="walk"}'] == 1
    asked, answers = [], threading.Event()

    def hanging(*arguments: Any) -> Any:
        asked.append(1)
        assert answers.wait(60)
        raise StorageError("the bucket does not answer", remedy="wait", retryable=True)

    monkeypatch.setattr(last_look, "WAIT_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(Lakehouse, "snapshot", hanging)
        for _ in range(3):
            assert numbers(client)['medvec_harvesting_alerts{rule="walk"}'] == 1
        assert len(asked) == 1, "one thread waits, however often somebody scrapes"
        answers.set()
        while client.app_state["last_look"]._reading.locked():  # type: ignore[index]
            pass
    monkeypatch.setattr(last_look, "WAIT_SECONDS", 60)
    keep(world.lake, [])
    assert numbers(client)['medvec_harvesting_alerts{rule="walk"}'] == 0


# -- several workers

WORKER = """
import os, signal
from prometheus_client import Gauge
Gauge("medvec_access_unsealed_events", "", multiprocess_mode="livesum").set(5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_worker_is_counted_until_its_successor_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WORKER], env=shared, check=False)
    own = tmp_path / f"gauge_livesum_{os.getpid()}.db"
    own.touch()
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    telemetry._forget_killed()
    assert list(tmp_path.iterdir()) == [own]
