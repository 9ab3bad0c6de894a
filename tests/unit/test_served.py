"""How routes are run: values read off the request, threads for what blocks, and JSON that is read fast and the same."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from api.auth import Permission
from api.served import Arriving, lean
from resources.api_keys import Role


def host(request: Request) -> str:
    raise AssertionError("what is read off the request is not solved")


def twice(number: int) -> int:
    return 2 * number


Host, Twice = Annotated[str, Depends(host)], Annotated[int, Depends(twice)]


def blocking(name: str, where: Host, number: int, doubled: Twice) -> list[Any]:
    return [name, where, number, doubled, threading.current_thread().name.startswith("route")]


async def waiting(name: str, request: Request, number: int, where: Host, doubled: Twice) -> list[Any]:
    return [name, where, number, doubled, request.url.path != f"/{name}"]


@pytest.mark.parametrize(("endpoint", "in_thread"), [(blocking, True), (waiting, False)])
def test_a_route_gets_its_values_and_blocks_only_a_thread(endpoint: Callable[..., Any], in_thread: bool) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with ThreadPoolExecutor(1, "route") as threads:
            yield {"threads": threads}

    app = FastAPI(lifespan=lifespan)
    app.get("/{name}")(endpoint)
    [described] = [route for route in app.router.routes if getattr(route, "path", "") == "/{name}"]
    app.router.routes[:] = [lean(described, {host: lambda request: request.url.hostname})]  # type: ignore[arg-type]
    with TestClient(app, base_url="http://here") as client:
        assert client.get("/a?number=3").json() == ["a", "here", 3, 6, in_thread]
        assert client.get("/a?number=x").status_code == 422


class Told(BaseModel):
    name: str = "a"
    nothing: str | None = None


def test_a_route_answers_as_it_was_described() -> None:
    described = APIRoute("/a", Told, response_model=Told, response_model_exclude_none=True, status_code=201)
    run = lean(described, {})
    assert (run.response_model_exclude_none, run.response_model, run.status_code) == (True, Told, 201)


def test_a_permission_lets_nobody_in_whom_another_one_checked() -> None:
    asked, other = Permission(frozenset({Role.ADMIN})), Permission(frozenset({Role.READER}))
    request = Request({"type": "http", "state": {"permitted": (other, "somebody")}})
    assert other.caller(request) == "somebody"
    with pytest.raises(RuntimeError, match="Guarded"):
        asked.caller(request)
    with pytest.raises(AttributeError):
        asked.caller(Request({"type": "http", "state": {}}))


def read(kind: type[Request], body: bytes) -> str:
    """What `kind` makes of a body, or the type of its error."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    try:
        return repr(asyncio.run(kind({"type": "http"}, receive).json()))
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__} {getattr(error, 'pos', '')}"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


NEARLY = st.text('[]{}",:.-+eE019nutrflasNI \\').map(str.encode)


@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary() | NEARLY)
@example(b'{"a": 1, "a": [2]}')
@example(b"[NaN, Infinity, -Infinity, 1e400, -0, 5e-324, 0.30000000000000004, 123456789012345678901234567890]")
@example(b'"\\ud800"')  # half of a character
@example('{"a": 1}'.encode("utf-16"))
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 300 + b"]" * 300)
@example(b"1" * 5_000)
def test_json_is_read_as_the_usual_parser_reads_it(body: bytes) -> None:
    assert read(Arriving, body) == read(Request, body)
