"""Load: how many requests are at work, how many may wait, and how long a body may take to arrive.

Belongs here: refusing early what could only be answered late. Does not belong here: what one caller may ask (identity),
the index that does not answer (index_door).

A place is taken once a request of ordinary size has arrived, so that slow senders hold none; the rest of a large one
streams to its route, which has asked for the key by then. Health and metrics need no place:
they must be answered while everything else is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem
from api.telemetry import Telemetry

BODY_SECONDS = 30.0  # 64 MiB at 17 Mbit/s
EARLY_BYTES = 1 << 20  # what may be held of somebody whose key nobody has seen
WAIT_SECONDS = 5.0  # who has waited so long has mostly gone
ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})


class Load:
    """At most `places` requests at work and `queue` waiting; others get 503 with Retry-After, and a slow body 408."""

    def __init__(self, app: ASGIApp, places: int, queue: int, telemetry: Telemetry) -> None:
        self.app = app
        self._places = asyncio.Semaphore(places)
        self._queue = queue
        self._waiting = 0
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
            return
        body = _Body(receive)
        try:
            await body.begin()
        except HTTPException as error:
            await problem(error.status_code, error.detail)(scope, receive, send)
            return
        if not await self._place():
            self._telemetry.shed.inc()
            answer = problem(
                503,
                "the service has more to do than it can",
                remedy="ask again in a moment, one question at a time",
                code="overloaded",
                headers={"Retry-After": "1"},
            )
            await answer(scope, receive, send)
            return
        with self._telemetry.working.track_inprogress():
            try:
                await self.app(scope, body.receive, send)
            finally:
                self._places.release()

    async def _place(self) -> bool:
        if not self._places.locked():
            return await self._places.acquire()
        if self._waiting >= self._queue:
            return False
        self._waiting += 1
        try:
            with self._telemetry.waiting.track_inprogress():
                async with asyncio.timeout(WAIT_SECONDS):
                    return await self._places.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1


class _Body:
    """What arrives: its first EARLY_BYTES at once, the rest as it is asked for, all of it within BODY_SECONDS."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._early: deque[Message] = deque()
        self._ended = False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def begin(self) -> None:
        held = 0
        while not self._ended and held < EARLY_BYTES:
            self._early.append(await self._next())
            held += len(self._early[-1].get("body", b""))

    async def receive(self) -> Message:
        if self._early:
            return self._early.popleft()
        return await (self._receive() if self._ended else self._next())

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not arrive in time") from None
        self._ended = not message.get("more_body", False)
        return message
