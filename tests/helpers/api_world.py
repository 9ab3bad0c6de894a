"""The service over its real app, asked with the operator's key, and the shape of its problems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient

from api.app import create_app
from helpers.query_world import World, opened
from resources.settings import Settings


@contextmanager
def asking(world: World) -> Iterator[TestClient]:
    app = create_app(world.settings, lambda _: opened(world.index))
    with TestClient(app, base_url="http://127.0.0.1:8087") as client:
        client.headers["Authorization"] = f"Bearer {key(world.settings)}"
        yield client


def key(settings: Settings) -> str:
    return (settings.home / "keys" / "api.key").read_text().strip()


def problem(response: Any, status: int) -> dict[str, Any]:
    """The response's problem, checked for shape."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "remedy", "code"} <= told.keys()
    assert told["status"] == status
    assert told["type"] == f"urn:medvec:problem:{told['code']}"
    assert all(told[name] for name in ("title", "detail", "remedy"))
    return told
