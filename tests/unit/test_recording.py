"""The service's own record: one event for every answer and refusal, written before it leaves, or nothing is answered."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from helpers.query_world import World, built_world, copy_of, opened, use_fake_encoder

from api.access import look_of
from api.app import MAX_BODY_BYTES, SECURITY_HEADERS, create_app
from medvec_assets.query.search import SearchEngine
from resources.access_log import Keys
from resources.access_log import writer as writer_module
from resources.access_log.events import Line
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.access_log.verifying import verify

SECRET = "JANE-DOE"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    return copy_of(built, tmp_path / "home")


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    use_fake_encoder(monkeypatch)
    app = create_app(world.settings, lambda _: opened(world.index))

    @app.get("/looks")
    def looks(request: Request) -> str:
        look = look_of(request)
        look.who, look.key_id, look.roles, look.purpose = "ann", "key-1", {"steward", "reader"}, "HRESCH"
        look.question, look.results = SECRET, 2
        look.versions, look.subjects = {"tcia_catalog/text": 3}, {"pseudonym-b", "pseudonym-a"}
        return SECRET

    with TestClient(app, base_url="http://127.0.0.1:8087", raise_server_exceptions=False) as client:
        client.headers["X-API-Key"] = (world.settings.home / "keys" / "api.key").read_text().strip()
        yield client


def lines(world: World) -> list[Line]:
    place, keys = Place.of(world.settings), Keys.of(world.settings)
    span = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    return [one for one in events(world.lake, place, keys, *span) if one.facts["kind"] == "answer"]


def line_of(world: World, answer: Any) -> Line:
    """The event that the answer's receipt names."""
    writer, sequence, prefix = answer.headers["x-medvec-event"].split(":")
    [line] = [one for one in lines(world) if (one.writer, one.sequence) == (writer, int(sequence))]
    assert line.hash.startswith(prefix) and len(prefix) == 16
    return line


def test_an_event_says_who_looked_at_what(client: TestClient, world: World) -> None:
    answer = client.get("/looks")
    assert answer.status_code == 200
    facts = dict(line_of(world, answer).facts)
    assert datetime.fromisoformat(facts.pop("at")).tzinfo == UTC
    assert len(facts.pop("question")) == len(facts.pop("request")) == 64
    assert facts == {
        "kind": "answer",
        "who": "ann",
        "key_id": "key-1",
        "roles": ["reader", "steward"],
        "purpose": "HRESCH",
        "client": "testclient",
        "method": "GET",
        "route": "/looks",
        "status": 200,
        "outcome": "answered",
        "datasets": ["tcia_catalog"],
        "versions": {"tcia_catalog/text": 3},
        "subjects": ["pseudonym-a", "pseudonym-b"],
        "results": 2,
        "correlation": answer.headers["x-correlation-id"],
    }


def test_equal_questions_have_equal_hashes_and_nobody_else_can_make_them(client: TestClient, world: World) -> None:
    first, again, other = (
        line_of(world, client.post("/v1/search", json={"text": text})).facts["request"] for text in ("a", "a", "b")
    )
    assert first == again != other
    asked = line_of(world, client.get("/looks")).facts["question"]
    assert asked == Keys.of(world.settings).asked(SECRET.encode()) != Keys(b"x" * 32).asked(SECRET.encode())


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "reason", "who"),
    [
        ("POST", "/v1/search", {"json": {"text": SECRET}}, 200, None, "key:operator"),
        ("GET", "/v1/datasets", {}, 200, None, "key:operator"),
        ("GET", "/v1/datasets", {"headers": {"X-API-Key": SECRET}}, 401, "key_wrong", None),
        ("GET", f"/v1/lineage/{'0' * 32}", {}, 404, "not_found", "key:operator"),
        ("GET", f"/{SECRET}", {}, 404, "not_found", None),
        ("PUT", "/v1/search", {}, 405, "method_not_allowed", None),
        ("POST", "/v1/search", {"json": {"text": SECRET, "limit": 0}}, 422, "request_invalid", "key:operator"),
        ("POST", "/v1/search", {"content": b"x" * (MAX_BODY_BYTES + 1)}, 413, "request_entity_too_large", None),
        ("GET", "/v1/datasets", {"headers": {"Host": "evil.example"}}, 400, "bad_request", None),
    ],
)
def test_every_answer_and_refusal_is_one_event(
    client: TestClient,
    world: World,
    method: str,
    path: str,
    sent: Any,
    status: int,
    reason: str | None,
    who: str | None,
) -> None:
    answer = client.request(method, path, **sent)
    assert answer.status_code == status
    facts = line_of(world, answer).facts
    outcome = "answered" if status == 200 else "refused"
    assert (facts["status"], facts["outcome"], facts.get("reason"), facts.get("who")) == (status, outcome, reason, who)
    assert len(lines(world)) == 1
    assert SECRET not in json.dumps([dict(one.facts) for one in lines(world)])


def test_an_unexpected_error_is_an_event_too(client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: SearchEngine, request: Any, grants: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(SearchEngine, "search", broken)
    facts = line_of(world, client.post("/v1/search", json={"text": "x"})).facts
    assert (facts["status"], facts["outcome"], facts["reason"]) == (500, "failed", "internal")


def test_health_is_not_recorded(client: TestClient, world: World) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert "x-medvec-event" not in client.get(path).headers
    assert lines(world) == []


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"X-Correlation-Id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"}, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"),
        ({"traceparent": f"00-{'4bf92f3577b34da6' * 2}-00f067aa0ba902b7-01"}, "4bf92f3577b34da6" * 2),
        ({"X-Correlation-Id": SECRET}, None),
        ({"X-Correlation-Id": "a" * 65}, None),
        ({}, None),
    ],
)
def test_a_request_keeps_its_correlation_id_or_is_given_one(
    client: TestClient, world: World, sent: dict[str, str], expected: str | None
) -> None:
    answers = [client.get("/v1/datasets", headers=sent) for _ in range(2)]
    told = [answer.headers["x-correlation-id"] for answer in answers]
    assert told == [line_of(world, answer).facts["correlation"] for answer in answers]
    assert (set(told) == {expected}) if expected else len(set(told)) == 2 and SECRET not in told


# -- fail closed


def test_what_cannot_be_recorded_is_not_answered(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytearray) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(writer_module, "write_durably", full)
        for path, headers in (("/looks", {}), ("/v1/datasets", {"X-API-Key": "wrong"})):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
            assert answer.headers["retry-after"] == "1" and "x-medvec-event" not in answer.headers
            assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
            assert SECRET not in answer.text
        assert client.get("/livez").status_code == 200
        unready = client.get("/readyz")
        assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
        assert "access log" in unready.json()["detail"]
    assert client.get("/readyz").status_code == 200
    assert client.get("/looks").text == f'"{SECRET}"'
    assert verify(world.lake, Place.of(world.settings), Keys.of(world.settings)).ok


def test_an_event_that_takes_longer_than_the_budget_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, real = threading.Event(), writer_module.write_durably
    settings = world.settings.model_copy(update={"access_budget_ms": 50})
    with TestClient(create_app(settings, lambda _: opened(world.index)), base_url="http://127.0.0.1") as client:

        def slow(descriptor: int, data: bytearray) -> None:
            go.wait(10)
            real(descriptor, data)

        monkeypatch.setattr(writer_module, "write_durably", slow)
        answers = [client.get("/v1/datasets") for _ in range(3)]
        assert {(one.status_code, one.json()["code"]) for one in answers} == {(503, "audit_unavailable")}
        assert client.get("/readyz").status_code == 503
        go.set()
        monkeypatch.setattr(writer_module, "write_durably", real)
        assert client.get("/v1/datasets").status_code == 401
    assert verify(world.lake, Place.of(world.settings), Keys.of(world.settings)).ok


def test_a_service_that_ends_leaves_a_closed_and_sealed_chain(world: World) -> None:
    for _ in range(2):
        with TestClient(
            create_app(world.settings, lambda _: opened(world.index)), base_url="http://127.0.0.1"
        ) as client:
            assert client.get("/v1/datasets").status_code == 401
    report = verify(world.lake, Place.of(world.settings), Keys.of(world.settings))
    assert report.ok and (report.writers, report.open_segments, report.killed) == (2, 0, [])
    assert report.events == 6
