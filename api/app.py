"""create_app(settings): the whole service on one screen.

Belongs here: middleware, lifespan, and the perimeter that every request passes. Does not belong here: endpoints
(routes), permissions (auth). Importing this module opens nothing; the lifespan makes the key and closes the index.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.routes import ROUTERS
from api.service import OpenIndex, Service
from api.uploading import UploadLimit
from resources.errors import ConfigError
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.vector_index import VectorIndex

MAX_BODY_BYTES = 1 << 20  # a vector of 16,384 numbers in JSON is under 400 kB
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


@contextmanager
def _configured_index(settings: Settings) -> Iterator[VectorIndex]:
    from resources.vector_index import open_index

    with open_index(settings) as index:
        yield index


def create_app(settings: Settings, open_index: OpenIndex = _configured_index) -> FastAPI:
    """The service. Raises ConfigError if `settings.api_host` is not a loopback address.

    Opens nothing itself: lake and index are opened when first needed. No CORS headers are ever sent, so a browser lets
    no foreign page read an answer; the host check stops a foreign name that was rebound to loopback.
    """
    hosts = _loopback_hosts(settings.api_host)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        service = Service(settings, open_index)
        try:
            yield {"service": service}
        finally:
            service.close()

    app = FastAPI(
        title="medvec",
        summary="Search and lineage over a medical vector lakehouse.",
        version=version("medvec"),
        lifespan=lifespan,
        openapi_url=None,  # served by a route that asks for the key
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Perimeter),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES),
            Middleware(UploadLimit, max_body_size=settings.api_upload_bytes),
        ],
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _loopback_hosts(api_host: str) -> list[str]:
    """The Host headers that are answered. Raises ConfigError for an address that others can reach."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if api_host == "localhost" else api_host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ConfigError(
            f"MEDVEC_API_HOST is {api_host!r}, which is not a loopback address",
            remedy="use 127.0.0.1, ::1 or localhost; others reach the service through a proxy with TLS",
        )
    return ["127.0.0.1", "localhost", "[::1]", f"[{address}]" if address.version == 6 else str(address)]


class Perimeter:
    """Outermost of ours: security headers, refusals of the libraries as problems, unexpected errors, the access log.

    An unexpected error is logged as its type and place under an incident id: its text may quote a question or a record.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(send)
        started = time.perf_counter()
        try:
            await self.app(scope, receive, response.send)
        except Exception as error:  # noqa: BLE001 - the last one before the server: nothing may pass with its text
            await self._unexpected(error, response, scope, receive)
        milliseconds = (time.perf_counter() - started) * 1_000
        log.info("%s %s %s %.0f ms", scope["method"], _template(scope), response.status, milliseconds)

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

    def __init__(self, send: Send) -> None:
        self._send = send
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
            headers.update(SECURITY_HEADERS)
            await self._send({**message, "headers": headers.raw})
            if body is not None:
                await self._send({"type": "http.response.body", "body": body})
        elif not self._replaced:
            await self._send(message)


def _as_problem(status: int) -> tuple[bytes, MutableHeaders]:
    details = {400: "the Host header is not this service's", 413: "the body is too large"}
    answer = problems.problem(status, details.get(status, "refused"))
    return bytes(answer.body), MutableHeaders(raw=list(answer.raw_headers))


def _template(scope: MutableMapping[str, Any]) -> str:
    """The route's template, never the path that was asked: a path may hold anything."""
    return str(getattr(scope.get("route"), "path", "unmatched"))
