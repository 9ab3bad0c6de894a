"""How routes are run: values read off the request, threads for what blocks, and JSON that is read fast and the same."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st

from api.auth import Permission
from api.served import Arriving, lean
from api.threads import Threads
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
        with closing(Threads(1)) as threads:
            yield {"threads": threads}

    app = FastAPI(lifespan=lifespan)
    app.get("/{name}")(endpoint)
    [described] = [route for route in app.router.routes if getattr(route, "path", "") == "/{name}"]
    app.router.routes[:] = [lean(described, {host: lambda request: request.url.hostname})]  # type: ignore[arg-type]
    with TestClient(app, base_url="http://here") as client:
        assert client.get("/a?number=3").json() == ["a", "here", 3, 6, in_thread]
        assert client.get("/a?number=x").status_code == 422


CALLER: ContextVar[str] = ContextVar("caller", default="")


def test_threads_give_back_what_a_call_gives_or_raises_in_its_callers_context() -> None:
    def empty() -> None:
        next(iter(()))

    async def asked(threads: Threads, name: str) -> str:
        CALLER.set(name)
        return await threads.run(CALLER.get)

    async def all_of_it(threads: Threads) -> None:
        names = [str(number) for number in range(100)]
        assert await asyncio.gather(*(asked(threads, name) for name in names)) == names
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(threads.run(empty), 30)

    with closing(Threads(3)) as threads:
        asyncio.run(all_of_it(threads))


def test_threads_outlive_a_caller_who_left_and_end_after_what_is_at_work() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(30)
        ended.set()

    async def left(threads: Threads) -> int:
        call = asyncio.ensure_future(threads.run(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.wait({call})
        may_end.set()
        return await threads.run(lambda: 7)

    threads = Threads(1)
    assert asyncio.run(left(threads)) == 7
    begun.clear(), may_end.clear(), ended.clear()
    with pytest.raises(TimeoutError):  # the loop is closed before the call ends
        asyncio.run(asyncio.wait_for(threads.run(work), 0.05))
    may_end.set()
    threads.close()
    assert ended.is_set()


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
