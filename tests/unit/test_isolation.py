"""A caller of one dataset learns nothing of another: over every route, what was not granted answers as what does not exist,
with the same work, and what was granted answers as if nothing else were there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from helpers.callers_world import Desk, desk
from helpers.image_world import PNG, InProcess, png
from helpers.query_world import A1, A2, B1, C1, R1, World, built_world, empty_world, use_fake_encoder, versions_of

from api.app import create_app
from api.auth import permission_of
from medvec_assets.query.forms import Form
from medvec_assets.query.held import HeldRecords
from medvec_assets.query.search.cache import AnswerCache
from resources import tables
from resources.api_keys import Role, create_key
from resources.lakehouse import Lakehouse
from resources.lakehouse.snapshot import Snapshot

HIDDEN, GRANTED = "tcia_radiology", "tcia_catalog"
NOWHERE = "moon"
NO_VECTOR = "0" * 32
OF_NO_DATASET = {"/openapi.json", "/metrics", "/livez", "/readyz"}

SEARCH, IMAGE, REPLAY, COUNTS = "/v1/search", "/v1/search/image", "/v1/replay", "/v1/cohorts/neighbours"
MCP = "/mcp"


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    """A call of the protocol for assistants."""
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


# Route, what is sent of a hidden dataset, and what of one that does not exist. The answers differ in these words only.
APART: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (SEARCH, {"text": "x", "datasets": [HIDDEN]}, {"text": "x", "datasets": [NOWHERE]}),
    (SEARCH, {"text": "x", "datasets": [GRANTED, HIDDEN]}, {"text": "x", "datasets": [GRANTED, NOWHERE]}),
    (SEARCH, {"vector": [1, 0, 0], "datasets": [HIDDEN]}, {"vector": [1, 0, 0], "datasets": [NOWHERE]}),
    (SEARCH, {"vector": [1, 0, 0]}, {"vector": [1, 0, 0, 0, 0]}),
    (SEARCH, {"record_id": R1.record_id}, {"record_id": NOWHERE}),
    (SEARCH, {"record_id": R1.record_id, "space": "image"}, {"record_id": NOWHERE, "space": "nowhere"}),
    (SEARCH, {"vector_id": R1.vector_id}, {"vector_id": NO_VECTOR}),
    (SEARCH, {"queries": [{"text": "x"}, {"record_id": "r1"}]}, {"queries": [{"text": "x"}, {"record_id": NOWHERE}]}),
    (SEARCH, {"text": "x", "space": "image"}, {"text": "x", "space": "nowhere"}),
    (SEARCH, {"text": "x", "cohorts": [R1.cohort]}, {"text": "x", "cohorts": [NOWHERE]}),
    (SEARCH, {"text": "x", "modalities": ["MR"]}, {"text": "x", "modalities": [NOWHERE]}),
    (SEARCH, {"text": "x", "attributes": {"rows": {"gte": 1}}}, {"text": "x", "attributes": {"moons": {"gte": 1}}}),
    (SEARCH, {"text": "x", "cursor": "{cursor}"}, {"text": "x", "cursor": "A" * 90}),
    (IMAGE, {"datasets": HIDDEN}, {"datasets": NOWHERE}),
    (IMAGE, {"space": "image"}, {"space": "nowhere"}),
    (IMAGE, {"cohorts": R1.cohort}, {"cohorts": NOWHERE}),
    (f"/v1/hits/{R1.vector_id}/members", {}, {}),
    (f"/v1/hits/{R1.vector_id}/members", {"after": "a", "limit": 1}, {"after": "a", "limit": 1}),
    *((f"/v1/lineage/{R1.vector_id}", {"format": form}, {"format": form}) for form in Form),
    (f"/v1/datasets/{HIDDEN}", {}, {}),
    (f"/v1/datasets/{HIDDEN}/map", {"space": "image"}, {"space": "image"}),
    (f"/v1/thumbnails/{R1.vector_id}", {}, {}),
    (MCP, tool("search", text="x", datasets=[HIDDEN]), tool("search", text="x", datasets=[NOWHERE])),
    (MCP, tool("lineage", vector_id=R1.vector_id), tool("lineage", vector_id=NO_VECTOR)),
    (REPLAY, {"text": "x", "as_of": {f"{HIDDEN}/image": 1}}, {"text": "x", "as_of": {f"{NOWHERE}/image": 1}}),
    (REPLAY, {"vector_id": R1.vector_id, "as_of": "{now}"}, {"vector_id": NO_VECTOR, "as_of": "{now}"}),
    (REPLAY, {"text": "x", "cohorts": [R1.cohort], "as_of": "{now}"}, {"text": "x", "cohorts": ["moon"], "as_of": "{now}"}),
    (REPLAY, {"text": "x", "as_of": {"tcia_catalog/image": 1}}, {"text": "x", "as_of": {"tcia_catalog/moon": 1}}),
    (COUNTS, {"dataset": HIDDEN, "cohort": R1.cohort, "top_k": 1}, {"dataset": NOWHERE, "cohort": "x", "top_k": 1}),
    (COUNTS, {"dataset": GRANTED, "cohort": R1.cohort, "top_k": 1}, {"dataset": GRANTED, "cohort": "x", "top_k": 1}),
    (COUNTS, {"dataset": GRANTED, "record_ids": ["r1"], "top_k": 1}, {"dataset": GRANTED, "record_ids": ["x"], "top_k": 1}),
    (COUNTS, {"dataset": GRANTED, "cohort": "lung", "space": "image", "top_k": 1},
     {"dataset": GRANTED, "cohort": "lung", "space": "moon", "top_k": 1}),
]  # fmt: skip
# What a caller of the one dataset asks and is answered: the same as where there is no other dataset.
SEEN: list[tuple[str, dict[str, Any]]] = [
    (SEARCH, {"text": "x", "explain": True}),
    (SEARCH, {"text": "x", "limit": 1}),
    (SEARCH, {"text": "x", "group_by": "subject", "modalities": ["CT"]}),
    (SEARCH, {"record_id": "a1"}),
    (SEARCH, {"vector": [1, 0, 0, 0]}),
    (SEARCH, {"queries": [{"text": "x"}, {"vector_id": C1.vector_id}]}),
    (IMAGE, {}),
    (f"/v1/hits/{A1.vector_id}/members", {}),
    *((f"/v1/lineage/{A1.vector_id}", {"format": form}) for form in Form),
    ("/v1/datasets", {}),
    (f"/v1/datasets/{GRANTED}", {}),
    (f"/v1/datasets/{GRANTED}/map", {"space": "text"}),
    (MCP, tool("search", text="x")),
    (MCP, tool("datasets")),
    (REPLAY, {"text": "x", "as_of": "{now}"}),
    (COUNTS, {"dataset": GRANTED, "cohort": "lung", "top_k": 2}),
]
# What differs between two answers to one question: a moment, a nonce.
_OWN = re.compile(r'"(cursor|timings_ms|uuid)":("[^"]*"|\{[^}]*\})')


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same without the hidden dataset."""
    world = empty_world(tmp_path_factory.mktemp("alone"))
    world.publish(A1, A2, B1, C1)
    return world


@pytest.fixture(scope="module", autouse=True)
def _stand_ins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        use_fake_encoder(patched)
        patched.setattr("api.service.Decoder", InProcess)
        # Work is counted: none of it at a moment of its own, none saved as an earlier answer was kept.
        patched.setattr("medvec_assets.query.search.engine.HeldRecords", partial(HeldRecords, background=False))
        patched.setattr(AnswerCache, "get", lambda *_: None)
        yield


@dataclass
class Asking:
    """The service over a world, and a key of the one dataset."""

    world: World
    at: Desk
    key: str


def asking(world: World) -> Iterator[Asking]:
    with desk(world) as at:
        yield Asking(world, at, create_key(world.lake, "jane", [Role.READER], [GRANTED], 1)[1])


@pytest.fixture(scope="module")
def one(world: World) -> Iterator[Asking]:
    yield from asking(world)


@pytest.fixture(scope="module")
def both(world: World, alone: World) -> Iterator[list[Asking]]:
    """Beside the hidden dataset, and without it."""
    with contextmanager(asking)(world) as beside, contextmanager(asking)(alone) as without:
        yield [beside, without]


def ask(at: Desk, key: str, path: str, sent: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    if path == IMAGE:
        return at.client.post(path, content=png(), params=sent, headers=headers | {"Content-Type": PNG})
    if path == MCP:
        headers |= {"Accept": "application/json, text/event-stream"}
    if path in (SEARCH, REPLAY, COUNTS, MCP):
        return at.client.post(path, json=sent, headers=headers)
    return at.client.get(path, params=sent, headers=headers)


def filled(sent: dict[str, Any], asked: Asking) -> dict[str, Any]:
    """`sent` with a cursor of one who may see all, and the present version of the dataset that was granted."""
    here: dict[str, Any] = {"{now}": versions_of(asked.world.lake, [(GRANTED, "text")])}
    if sent.get("cursor"):
        operator = (asked.world.settings.home / "keys" / "api.key").read_text()
        here["{cursor}"] = ask(asked.at, operator, SEARCH, {"text": "x", "limit": 1}).json()["cursor"]
    return {name: here.get(value, value) if isinstance(value, str) else value for name, value in sent.items()}


@contextmanager
def work(world: World) -> Iterator[list[str]]:
    """What is asked of the lake and the index meanwhile: each call with its table."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        snapshot = Lakehouse.snapshot
        patched.setattr(
            Lakehouse, "snapshot", lambda self, spec, *rest: done.append(spec.path) or snapshot(self, spec, *rest)
        )
        for name in ("scan", "read", "count"):
            real = getattr(Snapshot, name)
            patched.setattr(Snapshot, name, _counted(real, done))
        for name in ("describe", "search"):
            patched.setattr(world.index, name, _noted(getattr(world.index, name), name, done))
        yield done
    # At a moment of their own the access log is sealed and the keys are read again.
    own = (tables.access().path, tables.api_keys().path)
    done[:] = [one for one in done if not any(path in one for path in own)]


def _counted(real: Any, done: list[str]) -> Any:
    def counted(self: Snapshot, *args: Any, **named: Any) -> Any:
        done.append(f"{real.__name__} {self.spec.path}")
        return real(self, *args, **named)

    return counted


def _noted(real: Any, name: str, done: list[str]) -> Any:
    def noted(*args: Any, **named: Any) -> Any:
        done.append(f"{name} {args[0]}")
        return real(*args, **named)

    return noted


def told(answer: Any, *words: str) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers, without what every answer has of its own and what was asked with."""
    text = _OWN.sub("", answer.text)
    for word in words:
        text = text.replace(word, "ASKED")
    own = ("x-medvec-event", "x-correlation-id", "content-length")
    return answer.status_code, text, {name: value for name, value in answer.headers.items() if name not in own}


@pytest.mark.parametrize(("path", "hidden", "missing"), APART, ids=[f"{one[0]} {one[1]}"[:70] for one in APART])
def test_what_was_not_granted_answers_as_what_does_not_exist(
    one: Asking, path: str, hidden: dict[str, Any], missing: dict[str, Any]
) -> None:
    other = path.replace(R1.vector_id, NO_VECTOR).replace(HIDDEN, NOWHERE)
    hidden, missing = filled(hidden, one), filled(missing, one)
    ask(one.at, one.key, other, missing)  # what is read once and kept is there then
    with work(one.world) as of_missing:
        second = ask(one.at, one.key, other, missing)
    with work(one.world) as of_hidden:
        first = ask(one.at, one.key, path, hidden)
    words = (HIDDEN, NOWHERE, R1.vector_id, NO_VECTOR, R1.cohort, R1.record_id, "has 3 dim", "has 5 dim")
    assert told(first, *words) == told(second, *words)
    assert of_hidden == of_missing
    assert not [call for call in of_hidden if HIDDEN in call]
    assert not {name for name in one.at.look.versions if not name.startswith(GRANTED)}
    assert HIDDEN not in first.text


@pytest.mark.parametrize(("path", "sent"), SEEN, ids=[f"{one[0]} {one[1]}"[:70] for one in SEEN])
def test_what_was_granted_answers_as_if_nothing_else_were_there(
    both: list[Asking], path: str, sent: dict[str, Any]
) -> None:
    answers, done = [], []
    for one in both:
        asked = filled(sent, one)
        with work(one.world) as calls:
            answer = ask(one.at, one.key, path, asked)
        assert answer.status_code == 200 or path == IMAGE
        assert one.at.look.subjects <= {f"subject-of-{item.record_id}" for item in (A1, A2, B1, C1)}
        answers.append(told(answer))
        done.append(calls)
    assert answers[0] == answers[1]
    assert done[0] == done[1]
    assert HIDDEN not in answers[0][1]


def test_the_tables_have_every_route(world: World) -> None:
    """A route that is added and not asked above fails here."""
    app = create_app(world.settings)
    assert isinstance(app, FastAPI)
    asked = {path for path, *_ in (*APART, *SEEN)}
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", route.path))
        if permission_of(route.dependant) is not None and route.path not in OF_NO_DATASET:
            assert any(pattern.fullmatch(path) for path in asked), route.path


def test_the_document_is_the_same_for_all(one: Asking) -> None:
    operator = (one.world.settings.home / "keys" / "api.key").read_text()
    shown = [ask(one.at, key, "/openapi.json", {}).text for key in (one.key, operator)]
    assert shown[0] == shown[1] and HIDDEN not in shown[0]
    assert ask(one.at, one.key, "/metrics", {}).status_code == 403
