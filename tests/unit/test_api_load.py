"""What the service does when there is too much to do, or an index that does not answer: the breaker, load, the end."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from helpers.query_world import World, built_world, opened, use_fake_encoder
from hypothesis import given
from hypothesis import strategies as st

from api import load
from api.app import create_app
from api.draining import Drain
from api.index_door import FAILURES, REST_SECONDS, Breaker, IndexDoor
from api.server import log_config
from resources.errors import IndexInvalid, IndexUnavailable
from resources.settings import Settings

DOWN = IndexUnavailable("no answer", remedy="wait")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


def key(settings: Settings) -> str:
    return (settings.home / "keys" / "api.key").read_text().strip()


# -- the breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.sampled_from(["ok", "down", "rest"]), max_size=60))
def test_the_circuit_is_open_exactly_after_enough_failures_in_a_row(events: list[str]) -> None:
    clock, failures = Clock(), 0
    breaker = Breaker(clock)
    for event in events:
        if event == "rest":
            clock.now += REST_SECONDS
            continue
        try:
            breaker.enter()
        except IndexUnavailable as refused:
            assert failures >= FAILURES and refused.retryable
            continue
        if event == "ok":
            breaker.succeeded()
            failures = 0
        else:
            breaker.failed()
            failures += 1
        assert breaker.is_open == (failures >= FAILURES)


def test_one_call_at_a_time_tries_a_resting_index() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed()
    clock.now += REST_SECONDS
    breaker.enter()
    with pytest.raises(IndexUnavailable):
        breaker.enter()


class DyingIndex:
    """An embedded index that can die, and then never answers again."""

    def __init__(self) -> None:
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def collections(self) -> list[str]:
        if not self.alive:
            raise DOWN
        return ["one"]

    def describe(self, name: str) -> None:
        raise IndexInvalid("no such collection", remedy="look")


def test_a_dead_embedded_index_is_opened_again_and_a_refusal_opens_no_circuit(tmp_path: Any) -> None:
    made: list[DyingIndex] = []

    @contextmanager
    def open_one(settings: Settings) -> Iterator[Any]:
        made.append(DyingIndex())
        yield made[-1]

    door = IndexDoor(Settings(home=tmp_path), open_one)
    assert door.collections() == ["one"]
    made[0].alive = False
    with pytest.raises(IndexUnavailable):
        door.collections()
    assert door.collections() == ["one"] and len(made) == 2
    for _ in range(FAILURES + 1):
        with pytest.raises(IndexInvalid):
            door.describe("two")
    assert not door.breaker.is_open


def test_a_resting_index_is_a_503_with_retry_after_and_a_metric(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    asked = []

    def down(*args: object, **named: object) -> Any:
        asked.append(1)
        raise DOWN

    with TestClient(
        create_app(world.settings, lambda _: opened(world.index)), base_url="http://127.0.0.1:8087"
    ) as client:
        client.headers["X-API-Key"] = key(world.settings)
        monkeypatch.setattr(type(world.index), "describe", down)
        answers = [client.post("/v1/search", json={"text": "x"}) for _ in range(FAILURES + 5)]
        assert {one.status_code for one in answers} == {503}
        assert {one.headers["retry-after"] for one in answers} == {"5"}
        assert [one.json()["code"] for one in answers] == ["index_unavailable"] * FAILURES + ["index_resting"] * 5
        assert len(asked) == FAILURES
        numbers = client.get("/metrics").text
        assert "medvec_index_resting 1.0" in numbers
        assert 'medvec_step_seconds_count{outcome="ok",step="access_log.write"}' in numbers
        assert (
            'medvec_request_seconds_count{method="POST",route="/v1/search",status="503"} ' + f"{FAILURES + 5}.0"
            in numbers
        )
        assert f'medvec_step_seconds_count{{outcome="failed",step="index.describe"}} {FAILURES}.0' in numbers


# -- load


def test_more_than_can_wait_is_refused_and_the_rest_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    settings = world.settings.model_copy(update={"api_concurrency": 2, "api_queue": 3})
    working, most, go = 0, 0, threading.Event()
    guard = threading.Lock()
    described = type(world.index).describe

    def slow(self: object, name: str) -> Any:
        nonlocal working, most
        with guard:
            working += 1
            most = max(most, working)
        assert go.wait(30)
        with guard:
            working -= 1
        return described(self, name)  # type: ignore[arg-type]

    monkeypatch.setattr(type(world.index), "describe", slow)
    app = create_app(settings, lambda _: opened(world.index))

    async def ask() -> list[httpx.Response]:
        headers = {"X-API-Key": key(world.settings)}
        async with (
            app.router.lifespan_context(app) as state,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(_with_state(app, state)), base_url="http://127.0.0.1", headers=headers
            ) as client,
        ):
            asked = [asyncio.create_task(client.post("/v1/search", json={"text": "x"})) for _ in range(9)]
            while most < 2 or sum(one.done() for one in asked) < 4:
                assert not any(one.done() and one.result().status_code != 503 for one in asked)
                await asyncio.sleep(0.01)
            assert (await client.get("/livez")).status_code == 200
            go.set()
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(ask())
    assert sorted(one.status_code for one in answers) == [200] * 5 + [503] * 4
    assert most == 2
    refused = [one for one in answers if one.status_code == 503]
    assert {(one.json()["code"], one.headers["retry-after"]) for one in refused} == {("overloaded", "1")}


def _with_state(app: Any, state: Any) -> Any:
    """httpx' transport knows no lifespan state."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return wrapped


def test_a_body_that_does_not_arrive_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "BODY_SECONDS", 0.05)
    app = create_app(world.settings, lambda _: opened(world.index))
    sent: list[Any] = []

    async def ask() -> None:
        async def never() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.router.lifespan_context(app) as state:
            headers = [(b"host", b"127.0.0.1"), (b"content-length", b"10")]
            scope = {"type": "http", "method": "POST", "path": "/v1/search", "query_string": b"", "headers": headers}
            await app({**scope, "scheme": "http", "server": ("127.0.0.1", 80), "state": state}, never, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 408 and json.loads(sent[1]["body"])["code"] == "request_timeout"


# -- the end, and lines


def test_a_service_that_drains_is_alive_and_not_ready(world: World) -> None:
    app = create_app(world.settings, lambda _: opened(world.index))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/readyz").status_code == 200
        state: Any = client.app_state
        drain: Drain = state["service"].drain
        drain.begun = True
        assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)


def test_an_answer_is_counted_by_dataset(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    app = create_app(world.settings, lambda _: opened(world.index))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = key(world.settings)
        assert client.post("/v1/search", json={"text": "x", "datasets": ["tcia_catalog"]}).status_code == 200
        numbers = client.get("/metrics").text
        assert 'medvec_answers_total{dataset="tcia_catalog",outcome="answered"} 1.0' in numbers
        assert 'medvec_step_seconds_count{outcome="ok",step="encode"} 1.0' in numbers


def test_lines_in_ecs_hold_the_route_and_never_the_path(world: World) -> None:
    import ecs_logging

    assert log_config("ecs")["formatters"]["ecs"]["()"] == "ecs_logging.StdlibFormatter"
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(ecs_logging.StdlibFormatter().format(record))

    handler = Kept()
    logging.getLogger("medvec.api").addHandler(handler)
    logging.getLogger("medvec.api").setLevel(logging.INFO)
    try:
        app = create_app(world.settings, lambda _: opened(world.index))
        with TestClient(app, base_url="http://127.0.0.1") as client:
            trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            client.get("/v1/JANE?name=JANE", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    finally:
        logging.getLogger("medvec.api").removeHandler(handler)
    [line] = [json.loads(one) for one in lines]
    assert "JANE" not in lines[0]
    assert line["http"]["route"] == "unmatched" and line["http"]["response"]["status_code"] == 404
    assert line["event"]["duration"] > 0 and line["trace"]["id"] == trace and line["ecs.version"]
