"""Spans around what takes time: one line where the work is done, nearly free of cost until a service asks for them.

    with span("index.search", dataset="tcia_catalog"):
        ...

Belongs here: measuring a span, and who is told. Does not belong here: exporters and metrics (api.telemetry).
A span's attributes are names of the catalogue and counts: never an id, a question or a path.

OpenTelemetry's spans are made only where something exports them: one costs 14 us, this 0.5.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType

from opentelemetry import context, propagate, trace
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode, Tracer, TracerProvider

Observe = Callable[[str, str, float], object]
"""Told the name, outcome (ok, failed) and seconds of each span that ends."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_NO_TRACE = "0" * 32
_observe: Observe | None = None
_tracer: Tracer | None = None
_trace_id: ContextVar[str] = ContextVar("trace_id", default=_NO_TRACE)


def use(observe: Observe, provider: TracerProvider | None) -> None:
    """From now on `observe` is told of spans, and they go to `provider` if there is one. Not OpenTelemetry's global one,
    which can be set only once a process."""
    global _observe, _tracer
    _observe, _tracer = observe, provider.get_tracer("medvec") if provider is not None else None


class span:
    """A span of `name`, a child of the current one. An error marks it with its type; its text stays out."""

    __slots__ = ("_attributes", "_began", "_exported", "_name")

    def __init__(self, name: str, **attributes: str | int | float) -> None:
        self._name, self._attributes = name, attributes
        self._exported: AbstractContextManager[Span] | None = None

    def __enter__(self) -> Span:
        current: Span = INVALID_SPAN  # takes attributes and forgets them
        if _tracer is not None:
            self._exported = _exported(_tracer, self._name, self._attributes)
            current = self._exported.__enter__()
        self._began = time.perf_counter()
        return current

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if _observe is not None:
            _observe(self._name, "ok" if kind is None else "failed", time.perf_counter() - self._began)
        if self._exported is not None:
            self._exported.__exit__(kind, error, place)


@contextmanager
def _exported(tracer: Tracer, name: str, attributes: Mapping[str, str | int | float]) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


@contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans inside are of the caller's trace, if `headers` hold a traceparent; else of a new one."""
    if _tracer is not None:
        token = context.attach(propagate.extract(headers))
        try:
            yield
        finally:
            context.detach(token)
        return
    given = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    _trace_id.set(given[1] if given and given[1] != _NO_TRACE else f"{random.getrandbits(128):032x}")
    yield


def trace_id() -> str:
    """Of the current span, 32 hex digits; zeros where there is none."""
    if _tracer is None:
        return _trace_id.get()
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
