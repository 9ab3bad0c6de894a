"""What the service refuses over its real app: problems, limits, names, headers. The lake is real, the index a fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from helpers.api_world import asking, problem
from helpers.query_world import World, built_world, use_fake_encoder

from api.app import MAX_BODY_BYTES, SECURITY_HEADERS, create_app
from resources.errors import ConfigError
from resources.settings import Settings

MALFORMED = [
    {},
    {"text": ""},
    {"text": "  "},
    {"text": "x" * 8_193},
    {"text": 7},
    {"text": "x", "record_id": "y"},
    {"text": "x", "limit": 0},
    {"text": "x", "limit": 1_001},
    {"text": "x", "limit": "ten"},
    {"text": "x", "surprise": 1},
    {"text": "x", "datasets": "tcia_catalog"},
    {"vector": []},
    {"vector": ["a"]},
    {"vector": [1.0] * 16_385},
    {"vector": [1.0, 2.0], "space": "text"},
    {"vector": [0.0] * 4, "space": "text"},
    {"queries": []},
    {"queries": [{}]},
    {"queries": [{"text": "x"}], "text": "x"},
    {"queries": [{"text": "x"}] * 65},
    {"queries": [{"text": "x"}], "cursor": "x"},
    {"text": "x", "cursor": "x"},
    {"text": "x", "group_by": "study"},  # of a dataset that has none
    {"text": "x", "group_by": "record_id"},
    {"text": "x", "attributes": {"body_part": {}}},
    {"text": "x", "attributes": {"body_part": {"equals": None}}},
    {"text": "x", "attributes": {"body_part": {"equals": 1, "in": [1]}}},
    {"text": "x", "attributes": {"body_part": {"gte": "1"}}},
    {"text": "x", "attributes": {"body_part": {"equals": [1]}}},
    {"text": "x", "attributes": {"body_part": {"in": ["x"] * 101}}},
    {"text": "x", "attributes": {"body_part": {"equals": "\u0000"}}},
    {"text": "x", "attributes": {"body_part": {"equals": 10**400}}},
    {"text": "x", "attributes": {'x"] or true': {"equals": 1}}},
    {"text": "x", "attributes": {"record_id": {"equals": "x"}}},
    {"text": "x", "modalities": ["\u0000"]},
    [],
    "x",
    None,
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    use_fake_encoder(monkeypatch)
    with asking(world) as client:
        yield client


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: json.dumps(body)[:40])
def test_a_malformed_question_is_a_422(client: TestClient, body: Any) -> None:
    told = problem(client.post("/v1/search", json=body), 422)
    assert told["code"] in {"request_invalid", "query_invalid", "cursor_invalid"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": ', 422),
        (b'{"vector": [NaN, 1, 1, 1]}', 422),
        (b'{"vector": [1e999, 1, 1, 1]}', 422),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "x", "\\ud800": 1}', 422),
        (b'{"text": ' + b"[" * 100_000, 400),
        (b"", 422),
    ],
)
def test_bytes_that_are_no_json_question_are_refused(client: TestClient, body: bytes, status: int) -> None:
    problem(client.post("/v1/search", content=body, headers={"Content-Type": "application/json"}), status)


def test_a_question_in_another_media_type_is_refused(client: TestClient) -> None:
    problem(client.post("/v1/search", content=b'{"text": "x"}', headers={"Content-Type": "text/plain"}), 422)


def test_a_refusal_names_fields_and_never_quotes_them(client: TestClient) -> None:
    answer = client.post("/v1/search", json={"text": "JANE-DOE " * 2_000, "limit": "SECRET"})
    told = problem(answer, 422)
    assert {one["field"] for one in told["errors"]} == {"body.text", "body.limit"}
    assert "JANE-DOE" not in answer.text and "SECRET" not in answer.text


def test_a_refusal_of_many_fields_stays_small(client: TestClient) -> None:
    assert len(client.post("/v1/search", json={"vector": ["x"] * 16_384}).content) < 4_096


def test_domain_errors_keep_their_code_and_remedy(client: TestClient) -> None:
    told = problem(client.post("/v1/search", json={"text": "x", "cohorts": ["moon"]}), 404)
    assert (told["code"], "medvec partitions" in told["remedy"]) == ("not_found", True)
    problem(client.get("/v1/lineage/" + "0" * 32), 404)
    problem(client.get("/v1/lineage/nonsense"), 422)


def test_a_wrong_method_or_a_preflight_is_a_405_without_cors(client: TestClient) -> None:
    assert problem(client.get("/v1/search"), 405)["code"] == "method_not_allowed"
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/search", headers=asked)
    problem(answer, 405)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_large_body_is_refused_announced_or_streamed(client: TestClient) -> None:
    body = b'{"text": "' + b"x" * MAX_BODY_BYTES + b'"}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for content in (body, pieces()):
        problem(client.post("/v1/search", content=content, headers={"Content-Type": "application/json"}), 413)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8087", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_a_name_rebound_to_loopback_is_refused(client: TestClient, host: str) -> None:
    problem(client.get("/livez", headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8087", "[::1]:8087"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_the_service_does_not_leave_loopback(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="not a loopback address"):
        create_app(Settings(home=tmp_path, api_host=host))


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    answers = [
        client.get("/livez"),
        client.get("/v1/datasets"),
        client.get("/nowhere"),
        client.get("/livez", headers={"Host": "evil.example"}),
        client.post("/v1/search", content=b"x" * (MAX_BODY_BYTES + 1)),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 400, 413]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
