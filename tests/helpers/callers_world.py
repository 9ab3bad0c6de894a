"""The service for callers with keys and tokens: its app over query_world, and what it noted of each request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient

from api.access import Look
from api.app import create_app
from api.identity.callers import Caller
from api.service import Service
from helpers.query_world import World, opened


@dataclass
class Desk:
    """`ask` sends one credential; `noted` is what the access log finds of each request."""

    client: TestClient
    service: Service
    noted: list[Look]
    callers: list[Caller]

    def ask(
        self, credential: str | None, path: str = "/v1/datasets", headers: Mapping[str, str] | None = None, **body: Any
    ) -> Any:
        sent = {name: value.encode() for name, value in (headers or {}).items()}
        if credential is not None:
            sent["Authorization"] = f"Bearer {credential}".encode()
        return self.client.request("POST" if body else "GET", path, headers=sent, **({"json": body} if body else {}))

    @property
    def look(self) -> Look:
        return self.noted[-1]

    @property
    def caller(self) -> Caller:
        """Whom the route was given last."""
        return self.callers[-1]


@contextmanager
def desk(world: World, address: str = "198.51.100.7", **changed: Any) -> Iterator[Desk]:
    app = create_app(world.settings.model_copy(update=changed), lambda _: opened(world.index))
    noted: list[Look] = []
    callers: list[Caller] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http":
            noted.append(scope["state"]["look"])
            callers.extend(scope["state"].get("permitted", ())[1:])

    with TestClient(watched, base_url="http://127.0.0.1", client=(address, 50_000)) as client:
        yield Desk(client, client.app_state["service"], noted, callers)
