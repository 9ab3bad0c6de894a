"""create_app(settings): the whole service on one screen.

Belongs here: middleware, lifespan, and the perimeter that every request passes. Does not belong here: endpoints
(routes), permissions (auth). Importing this module opens nothing; the lifespan makes the key and closes the index.
"""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, TypedDict

from fastapi import FastAPI
from opentelemetry.trace import Span
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.access import Look
from api.assistants import assistants
from api.exposure import allowed_hosts, security_headers
from api.index_door import OpenIndex
from api.last_look import LastLook
from api.load import Load
from api.recording import Recording, template
from api.routes import ROUTERS
from api.service import Service
from api.telemetry import Telemetry
from api.uploading import UploadLimit
from resources.settings import Settings
from resources.tracing import continued, span, trace_id

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from resources.vector_index import VectorIndex

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # others are anybody's text
MAX_BODY_BYTES = 1 << 20  # a vector of 16,384 numbers in JSON is under 400 kB
SPARE_THREADS = 8  # health and metrics are answered while every place is taken
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
log = logging.getLogger("medvec.api")


class State(TypedDict):
    """What a request finds in `request.state`."""

    service: Service
    telemetry: Telemetry
    last_look: LastLook
    assistants: StreamableHTTPSessionManager
    threads: ThreadPoolExecutor  # run the routes that block


@contextmanager
def _configured_index(settings: Settings) -> Iterator[VectorIndex]:
    from resources.vector_index import Patience, open_index

    with open_index(settings, Patience(attempts=1, read_seconds=settings.api_index_seconds)) as index:
        yield index


def create_app(settings: Settings, open_index: OpenIndex = _configured_index) -> FastAPI:
    """The service. Raises ConfigError where others would reach it unprotected (api.exposure).

    Opens nothing itself: lake and index are opened when first needed. No CORS headers are ever sent, so a browser lets
    no foreign page read an answer; the host check stops a foreign name that was rebound to this address.
    """
    hosts = allowed_hosts(settings)
    telemetry = Telemetry()
    headers = SECURITY_HEADERS | security_headers(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        service = Service(settings, open_index)
        service.door.breaker.on_change = lambda is_open: telemetry.resting.set(is_open)
        service.access_log.unsealed.listen(telemetry.not_sealed)
        last_look = LastLook(lambda: service.lake, telemetry.looked)
        service.drain.install()
        threads = ThreadPoolExecutor(settings.api_concurrency + SPARE_THREADS, "route")
        try:
            async with assistants(service) as manager:
                state: State = {
                    "service": service,
                    "telemetry": telemetry,
                    "last_look": last_look,
                    "assistants": manager,
                    "threads": threads,
                }
                yield state
        finally:
            threads.shutdown()
            service.close()
            telemetry.close()

    app = FastAPI(
        title="medvec",
        summary="Search and lineage over a medical vector lakehouse.",
        version=version("medvec"),
        lifespan=lifespan,
        openapi_url=None,  # served by a route that asks for the key
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its spans hold paths and queries
        middleware=[
            Middleware(Recording, headers),
            Middleware(Perimeter, telemetry, headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES),
            Middleware(UploadLimit, max_body_size=settings.api_upload_bytes),
            Middleware(Load, settings.api_concurrency, settings.api_queue, telemetry),
        ],
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


class Perimeter:
    """Outermost but for the recording: security headers, refusals of the libraries as problems, unexpected errors, a log line.

    An unexpected error is logged as its type and place under an incident id: its text may quote a question or a record.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, headers: Mapping[str, str]) -> None:
        self.app = app
        self._telemetry = telemetry
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(send, self._headers)
        started = time.perf_counter()
        with continued(Headers(scope=scope)), span("http.request") as current:
            try:
                await self.app(scope, receive, response.send)
            except Exception as error:  # noqa: BLE001 - the last one before the server: nothing may pass with its text
                await self._unexpected(error, response, scope, receive)
            seconds = time.perf_counter() - started
            self._tell(scope, response.status or 0, seconds, current)

    def _tell(self, scope: Scope, status: int, seconds: float, current: Span) -> None:
        method, route = scope["method"] if scope["method"] in METHODS else "other", template(scope)
        facts = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        current.set_attributes(facts)
        self._telemetry.requests.labels(route, method, str(status)).observe(seconds)
        look: Look | None = scope.get("state", {}).get("look")
        for dataset in {name.partition("/")[0] for name in look.versions} if look is not None else ():
            self._telemetry.answers.labels(dataset, "answered" if status < 400 else "refused").inc()
        told = {**facts, "event.duration": int(seconds * 1e9), "trace.id": trace_id()}
        log.info("%s %s %s %.0f ms", method, route, status, seconds * 1_000, extra=told)

    async def _unexpected(self, error: Exception, response: _Response, scope: Scope, receive: Receive) -> None:
        incident = uuid.uuid4().hex
        places = " < ".join(
            f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)[-5:])
        )
        log.error("incident %s: %s at %s", incident, type(error).__name__, places)
        if response.status is None:
            answer = problems.problem(500, f"something unexpected failed (incident {incident})", code="internal")
            await answer(scope, receive, response.send)


class _Response:
    """Passes a response on, with the security headers; a library's plain-text refusal is said again as a problem."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = headers
        self._replaced = False
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message["headers"]))
            body: bytes | None = None
            if message["status"] >= 400 and headers.get("content-type", "").startswith("text/plain"):
                body, headers = _as_problem(message["status"])
                self._replaced = True
            for name, value in self._headers.items():
                headers.setdefault(name, value)  # a page of ours may allow its own style, and says so itself
            await self._send({**message, "headers": headers.raw})
            if body is not None:
                await self._send({"type": "http.response.body", "body": body})
        elif not self._replaced:
            await self._send(message)


def _as_problem(status: int) -> tuple[bytes, MutableHeaders]:
    details = {400: "the Host header is not this service's", 413: "the body is too large"}
    answer = problems.problem(status, details.get(status, "refused"))
    return bytes(answer.body), MutableHeaders(raw=list(answer.raw_headers))
