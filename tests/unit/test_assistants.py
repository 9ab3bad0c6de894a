"""The endpoint for assistants, asked with the protocol's own client: same permission, same charge, same record."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from helpers.query_world import A1, World, built_world, opened, use_fake_encoder

from api.app import create_app
from medvec_assets.query.search import SearchEngine
from resources.access_log import Keys
from resources.access_log.places import Place
from resources.access_log.reading import events

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    use_fake_encoder(monkeypatch)
    app = create_app(world.settings, lambda _: opened(world.index))
    with TestClient(app, base_url="http://127.0.0.1:8087") as client:
        key = (world.settings.home / "keys" / "api.key").read_text().strip()
        client.headers |= {"Authorization": f"Bearer {key}", **HEADERS}
        yield client


def call(client: TestClient, method: str, **params: Any) -> Any:
    answer = client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert answer.status_code == 200, answer.text
    assert "x-medvec-event" in answer.headers
    return answer.json()["result"]


def tool(client: TestClient, name: str, **arguments: Any) -> Any:
    return call(client, "tools/call", name=name, arguments=arguments)


def test_the_tools_say_what_they_do(client: TestClient) -> None:
    tools = {one["name"]: one for one in call(client, "tools/list")["tools"]}
    assert tools.keys() == {"search", "more_like_this", "lineage", "datasets"}
    assert all(one["description"] for one in tools.values())
    assert tools["search"]["inputSchema"]["required"] == ["text"]


def test_an_assistant_finds_and_follows_what_its_user_may_see(client: TestClient) -> None:
    hits = tool(client, "search", text="chest CT", limit=2)["structuredContent"]["hits"]
    assert [hit["record_id"] for hit in hits] == ["a1", "b1"] and "subject_key" not in hits[0]
    like = tool(client, "more_like_this", vector_id=hits[0]["vector_id"])["structuredContent"]["hits"]
    assert "a1" not in [hit["record_id"] for hit in like]
    grouped = tool(client, "more_like_this", vector_id=hits[0]["vector_id"], group_by="subject")["structuredContent"]
    assert [hit["group"] for hit in grouped["hits"]] == ["subject 1", "subject 2"]
    chain = tool(client, "lineage", vector_id=A1.vector_id)["structuredContent"]
    assert chain["record"]["record_id"] == "a1"
    listed = tool(client, "datasets")["structuredContent"]["result"]
    assert "tcia_catalog" in [one["id"] for one in listed]


def test_each_call_is_an_event_of_who_looked_at_what(client: TestClient, world: World) -> None:
    before = len(recorded(world))
    tool(client, "search", text="JANE-DOE", datasets=["tcia_catalog"])
    [event] = recorded(world)[before:]
    assert event["who"] == "key:operator" and event["route"] == "/mcp" and event["results"] > 0
    assert event["datasets"] == ["tcia_catalog"] and event["subjects"]
    assert "JANE-DOE" not in json.dumps(event)


def test_what_goes_wrong_is_told_with_a_remedy_and_never_in_its_own_words(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = tool(client, "lineage", vector_id="0" * 32)
    assert refused["isError"] and "check the id" in refused["content"][0]["text"]
    assert recorded(world)[-1]["reason"] == "not_found"
    assert tool(client, "search", text="x", limit=51)["isError"]

    def broken(self: SearchEngine, request: Any, grants: Any) -> Any:
        raise RuntimeError("JANE-DOE")

    monkeypatch.setattr(SearchEngine, "search", broken)
    failed = tool(client, "search", text="x")
    assert failed["isError"] and "JANE-DOE" not in json.dumps(failed) and "JANE-DOE" not in caplog.text


def test_without_a_key_nothing_is_told(client: TestClient) -> None:
    del client.headers["Authorization"]
    answer = client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
    assert answer.status_code == 401


def test_the_protocols_own_client_is_served(client: TestClient) -> None:
    """A session from initialize to a call, by the package's client, over the app itself."""
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def ask() -> Any:
        app, state = client.app, client.app_state

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state)
        headers = {"Authorization": client.headers["Authorization"]}
        async with (
            httpx.AsyncClient(transport=transport, headers=headers) as http,
            streamable_http_client("http://127.0.0.1:8087/mcp", http_client=http) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            return await session.call_tool("search", {"text": "chest CT", "limit": 1})

    found = client.portal.call(ask)  # type: ignore[union-attr]
    assert [hit["record_id"] for hit in found.structured_content["hits"]] == ["a1"]


def recorded(world: World) -> list[dict[str, Any]]:
    from datetime import UTC, datetime

    place, keys = Place.of(world.settings), Keys.of(world.settings)
    span = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    return [dict(one.facts) for one in events(world.lake, place, keys, *span) if one.facts["kind"] == "answer"]
