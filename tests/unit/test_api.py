"""The service over its real app: answers, permissions, health, logs. The lake is real, the index a fake."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from helpers.api_world import asking, key, problem
from helpers.query_world import A1, World, built_world, use_fake_encoder

from api.access import Look
from api.app import create_app
from api.auth import Guarded, permission_of
from api.models.search import SearchAnswer
from api.server import log_config
from medvec_assets.query.search import HIT_FIELDS, SearchEngine
from resources.api_keys import Role
from resources.errors import IndexUnavailable
from resources.settings import Settings

OPEN_TO_ALL = {"/livez", "/readyz", "/", "/page/{name}"}
READERS = {Role.READER, Role.STEWARD, Role.ADMIN}
ROLES = {  # who may call what: a new route is written down here
    "/openapi.json": READERS,
    "/metrics": {Role.METRICS, Role.AUDITOR, Role.ADMIN},
    "/v1/search": READERS,
    "/v1/search/image": READERS,
    "/v1/hits/{vector_id}/members": READERS,
    "/v1/lineage/{vector_id}": READERS,
    "/v1/datasets": READERS,
    "/v1/datasets/{dataset_id}/map": READERS,
    "/v1/thumbnails/{vector_id}": READERS,
    "/v1/datasets/{dataset_id}": READERS,
    "/v1/replay": READERS,
    "/mcp": READERS,
    "/v1/cohorts/neighbours": READERS,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    use_fake_encoder(monkeypatch)
    with asking(world) as client:
        yield client


# -- answers


def test_search_answers_exactly_the_designed_fields(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"text": "chest CT", "limit": 2})
    assert answer.status_code == 200
    hits = answer.json()["hits"]
    assert [hit["record_id"] for hit in hits] == ["a1", "b1"]
    assert list(hits[0]) == list(HIT_FIELDS)


def test_search_by_record_vector_id_and_vector(client: TestClient) -> None:
    for question in ({"record_id": "a1"}, {"vector_id": A1.vector_id}):
        answer = client.post("/v1/search", json=question)
        assert [hit["record_id"] for hit in answer.json()["hits"]] == ["b1", "c1"]
    answer = client.post("/v1/search", json={"vector": [0, 3, 0, 0], "datasets": ["tcia_catalog"], "limit": 1})
    assert [hit["record_id"] for hit in answer.json()["hits"]] == ["c1"]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Look]:
    """The look of every request from now on."""
    made: list[Look] = []

    def kept(*_: Any) -> Look:
        made.append(Look())
        return made[-1]

    monkeypatch.setattr("api.access.Look", kept)
    return made


def test_a_search_leaves_its_evidence(client: TestClient, looks: list[Look]) -> None:
    client.post("/v1/search", json={"text": "chest CT", "limit": 2})
    client.get(f"/v1/hits/{A1.vector_id}/members")
    client.post("/v1/search", json={"text": "chest CT", "cohorts": ["moon"]})
    first, second, refused = looks
    assert json.loads(first.question)["questions"] == [{"text": "chest CT"}]
    assert (first.results, first.subjects) == (2, {"subject-of-a1", "subject-of-b1"})
    assert first.versions.keys() == {"tcia_catalog/text"}
    assert (second.question, second.results, second.subjects) == (A1.vector_id, 2, {"subject-of-a1", "subject-of-a2"})
    assert "moon" in refused.question and refused.results == 0


def test_every_answer_is_as_the_document_says(client: TestClient) -> None:
    questions: list[dict[str, Any]] = [
        {"text": "chest CT", "limit": 1, "explain": True},
        {"queries": [{"text": "chest"}, {"record_id": "a1"}], "datasets": ["tcia_catalog"]},
        {
            "text": "chest",
            "group_by": "subject",
            "attributes": {"modality": {"in": ["CT", "MR"]}},
            "modalities": ["CT"],
        },
    ]
    for question in questions:
        answer = client.post("/v1/search", json=question)
        assert answer.status_code == 200, answer.text
        SearchAnswer.model_validate_json(answer.content, extra="forbid")
        assert "subject-of" not in answer.text
    assert [
        [hit["record_id"] for hit in hits] for hits in client.post("/v1/search", json=questions[1]).json()["answers"]
    ] == [
        ["a1", "b1", "c1"],
        ["b1", "c1"],
    ]


def test_pages_go_on_and_a_gone_one_is_a_410(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.post("/v1/search", json={"text": "chest", "limit": 2}).json()
    asked = {"text": "chest", "limit": 2, "cursor": first["cursor"]}
    assert [hit["record_id"] for hit in client.post("/v1/search", json=asked).json()["hits"]] == ["c1"]
    assert problem(client.post("/v1/search", json=asked | {"text": "liver"}), 422)["code"] == "cursor_invalid"
    monkeypatch.setattr("medvec_assets.query.search.pages.time.time", lambda: 1e11)
    assert problem(client.post("/v1/search", json=asked), 410)["code"] == "cursor_gone"


def test_members_of_a_hit(client: TestClient) -> None:
    told = client.get(f"/v1/hits/{A1.vector_id}/members", params={"limit": 1}).json()
    assert [one["record_id"] for one in told["records"]] == ["a1"]
    assert (told["members"], told["after"]) == (2, "a1")
    problem(client.get("/v1/hits/" + "0" * 32 + "/members"), 404)
    problem(client.get("/v1/hits/nonsense/members"), 422)


def test_lineage_of_a_hit(client: TestClient) -> None:
    hit = client.post("/v1/search", json={"text": "chest"}).json()["hits"][0]
    told = client.get(f"/v1/lineage/{hit['vector_id']}").json()
    assert list(told) == ["vector", "embedding", "record", "objects", "upstream", "commits", "runs"]
    assert told["embedding"]["weights_digest"] == hit["weights_digest"]


def test_datasets(client: TestClient) -> None:
    told = client.get("/v1/datasets").json()["datasets"]
    spaces = {one["id"]: one["spaces"] for one in told}
    assert list(spaces) == sorted(spaces) and {"tcia_catalog", "tcia_radiology"} <= spaces.keys()
    assert spaces["tcia_catalog"][0]["encoder"] == "minilm@1"


def test_openapi_has_examples_and_problem_responses(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["schemas"]["SearchBody"]["examples"]
    answers = document["paths"]["/v1/search"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "408", "410", "413", "422", "429", "503"} == answers.keys()
    for status, answer in answers.items():
        media_type = "application/json" if status == "200" else "application/problem+json"
        assert answer["content"].keys() == {media_type}
        assert status == "200" or answer["content"][media_type]["example"]["status"] == int(status)
    assert "HTTPValidationError" not in json.dumps(document)


# -- permission


def test_no_route_but_the_health_ones_is_open(client: TestClient) -> None:
    """Whatever is added without a permission type in its signature, or reads a body before it asks, fails here."""
    app = client.app
    assert isinstance(app, FastAPI)
    every = list(iter_route_contexts(app.routes))
    assert [one.path for one in every if not isinstance(one.original_route, Guarded)] == []
    needs = {one.path: permission_of(one.dependant) for one in every}
    assert {path for path, permission in needs.items() if permission is None} == OPEN_TO_ALL
    assert {path: permission.roles for path, permission in needs.items() if permission} == ROLES
    del client.headers["Authorization"]
    for one in every:
        assert one.path and one.methods
        path = one.path.replace("{vector_id}", "0" * 32).replace("{name}", "app.js")
        for method in sorted(one.methods):
            for sent in ({"json": {"text": "x"}}, {"content": b"{", "headers": {"Content-Type": "application/json"}}):
                answer = client.request(method, path, **sent)
                assert answer.status_code == (200 if one.path in OPEN_TO_ALL else 401)


def test_there_is_nothing_else(client: TestClient) -> None:
    for path in (
        "/docs",
        "/redoc",
        "/page/../app.py",
        "/page/x.js",
        "/page/__init__.py",
        "/v1",
        "/v1/search/",
        "/static/x",
    ):
        problem(client.get(path), 404)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic {key}"},
        {"Authorization": "{key}"},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": "k\u00e9y"},
        {"Authorization": "Bearer wrong", "X-API-Key": "{key}"},
    ],
)
def test_without_the_right_key_nothing_is_answered(client: TestClient, world: World, headers: dict[str, str]) -> None:
    del client.headers["Authorization"]
    raw = {name: value.format(key=key(world.settings)).encode("latin-1") for name, value in headers.items()}
    answer = client.get("/v1/datasets", headers=raw)
    assert problem(answer, 401)["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_key_is_taken_from_either_header(client: TestClient, world: World) -> None:
    del client.headers["Authorization"]
    assert client.get("/v1/datasets", headers={"X-API-Key": key(world.settings)}).status_code == 200


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    path = tmp_path / "keys" / "api.key"
    app = create_app(settings)
    assert not path.exists()
    with TestClient(app, base_url="http://127.0.0.1"):
        first = path.read_text()
    with TestClient(create_app(settings), base_url="http://127.0.0.1"):
        assert path.read_text() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first) == 64


# -- health


def test_alive_but_not_ready_while_the_index_is_down_and_ready_again_after(world: World) -> None:
    down = True

    @contextmanager
    def flaky(settings: Settings) -> Iterator[Any]:
        if down:
            raise IndexUnavailable("the index at /secret/place does not answer", remedy="start it")
        yield world.index

    with TestClient(create_app(world.settings, flaky), base_url="http://127.0.0.1") as client:
        assert client.get("/livez").json() == {"alive": True}
        answer = client.get("/readyz")
        assert problem(answer, 503)["code"] == "not_ready"
        assert answer.headers["retry-after"]
        assert "/secret/place" not in answer.text
        down = False
        assert client.get("/readyz").json() == {"ready": True}


def test_one_index_connection_lives_as_long_as_the_app(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    events: list[str] = []

    @contextmanager
    def watched(settings: Settings) -> Iterator[Any]:
        events.append("opened")
        yield world.index
        events.append("closed")

    with TestClient(create_app(world.settings, watched), base_url="http://127.0.0.1") as client:
        assert events == []
        for _ in range(3):
            client.post("/v1/search", json={"text": "x"}, headers={"X-API-Key": key(world.settings)})
        assert events == ["opened"]
    assert events == ["opened", "closed"]


# -- what is never told


def test_an_unexpected_error_tells_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: SearchEngine, request: Any, grants: Any) -> Any:
        raise RuntimeError(f"could not answer {request.text}")

    monkeypatch.setattr(SearchEngine, "search", broken)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/v1/search", json={"text": "JANE-DOE"})
    told = problem(answer, 500)
    assert "JANE-DOE" not in answer.text and "RuntimeError" not in answer.text
    assert "JANE-DOE" not in caplog.text
    incident = told["detail"].split("incident ")[1].rstrip(")")
    [line] = [record.getMessage() for record in caplog.records if incident in record.getMessage()]
    assert "RuntimeError at " in line and "test_api.py" in line


def test_no_log_line_holds_a_question_a_path_or_a_query_string(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="medvec"):
        client.post("/v1/search?name=JANE-DOE", json={"text": "JANE-DOE"})
        client.post("/v1/search", json={"text": "JANE-DOE", "limit": 0})
        client.get("/v1/lineage/JANE-DOE")
        client.get("/JANE-DOE")
    lines = [record.getMessage() for record in caplog.records if record.name == "medvec.api"]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "POST /v1/search 200",
        "POST /v1/search 422",
        "GET /v1/lineage/{vector_id} 422",
        "GET unmatched 404",
    ]
    assert "JANE-DOE" not in "".join(lines)
    assert "uvicorn.access" not in log_config("line")["loggers"]
