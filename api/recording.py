"""The recording of every answer: held until its event is durable, or refused.

Belongs here: the outermost layer of the app, what of a request and its answer goes into the event. Does not belong here:
what a route looked at (access), how events are kept (resources.access_log).

A route fills its look before it begins to answer: the event is written when the first bytes of the answer are there, and
nothing of it has left by then. The health routes, the metrics and the files of the page show no data: they are not recorded.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.access import Look
from api.service import Service
from resources.access_log import Event, Receipt
from resources.errors import AuditUnavailable
from resources.tracing import span

UNRECORDED = frozenset({"/livez", "/readyz", "/metrics", "/"})
PAGE = "/page/"
RECEIPT, CORRELATION = "X-Medvec-Event", "X-Correlation-Id"
# Digits of a number and nothing that could be a name: it stands in logs and in the event.
_CORRELATION = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{14,62}[0-9a-fA-F]")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


class Recording:
    """Outside of everything that can answer."""

    def __init__(self, app: ASGIApp, headers: MutableMapping[str, str]) -> None:
        self.app = app
        self._headers = headers  # of the refusal that is made here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNRECORDED or scope["path"].startswith(PAGE):
            await self.app(scope, receive, send)
            return
        held = _Held(scope, receive, send, self._headers)
        await self.app(scope, held.receive, held.send)


class _Held:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: MutableMapping[str, str]) -> None:
        self._scope, self._receive, self._send, self._refusal_headers = scope, receive, send, headers
        self._start: Message | None = None
        self._refused = False
        service: Service = scope["state"]["service"]
        self._log = service.access_log
        self._asked = self._log.keys.asking()
        self._asked.update(b"%s\0%s\0%s\0" % (scope["method"].encode(), scope["path"].encode(), scope["query_string"]))
        self._headers = Headers(scope=scope)
        self._correlation = scope["state"]["correlation"] = _correlation(self._headers)

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked.update(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            try:
                receipt = await self._record(start, message)
            except (AuditUnavailable, TimeoutError):
                self._refused = True
                await self._refuse()
                return
            headers = MutableHeaders(raw=list(start["headers"]))
            headers[RECEIPT], headers[CORRELATION] = str(receipt), self._correlation
            await self._send({**start, "headers": headers.raw})
        await self._send(message)

    async def _record(self, start: Message, first: Message) -> Receipt:
        with span("access_log.write"):
            return await asyncio.wait_for(self._log.submit(self._event(start, first)), self._log.budget_seconds)

    def _event(self, start: Message, first: Message) -> Event:
        look: Look = self._scope["state"].get("look") or Look()
        status = start["status"]
        return Event(
            who=look.who,
            key_id=look.key_id,
            roles=tuple(sorted(look.roles)),
            purpose=look.purpose,
            client=(self._scope.get("client") or ("",))[0],
            method=self._scope["method"] if self._scope["method"].isalpha() else "",
            route=template(self._scope),
            status=status,
            outcome="failed" if status >= 500 else "refused" if status >= 400 or look.refusal else "answered",
            reason=look.refusal or (_reason(start, first) if status >= 400 else ""),
            question=self._log.keys.asked(look.question.encode("utf-8", "surrogatepass")) if look.question else "",
            request=self._asked.hexdigest(),
            versions=look.versions,
            datasets=tuple(sorted({name.partition("/")[0] for name in look.versions})),
            subjects=tuple(sorted(look.subjects)),
            results=look.results,
            correlation=self._correlation,
        )

    async def _refuse(self) -> None:
        refusal = problems.problem(
            503,
            "the access log cannot be written, and what is not recorded is not answered",
            remedy="try again; if it goes on, whoever runs the service finds the reason in its log",
            code="audit_unavailable",
            headers={**self._refusal_headers, CORRELATION: self._correlation, "Retry-After": "1"},
        )
        await refusal({"type": "http"}, self._receive, self._send)


def template(scope: MutableMapping[str, Any]) -> str:
    """The route's template, never the path that was asked: a path may hold anything."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _correlation(headers: Headers) -> str:
    """The caller's id of this request, if it is one; its trace's; or a new one."""
    given = headers.get(CORRELATION, "")
    if _CORRELATION.fullmatch(given):
        return given
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return trace[1] if trace else uuid.uuid4().hex


def _reason(start: Message, first: Message) -> str:
    """The code of the problem that is answered, where nobody gave a closer reason."""
    if Headers(raw=start["headers"]).get("content-type") != problems.MEDIA_TYPE:
        return ""
    try:
        return str(json.loads(first.get("body", b""))["code"])
    except (ValueError, KeyError, TypeError):
        return ""
