"""Spans around what takes time: one line where the work is done, free of cost until a service asks for them.

    with span("index.search", dataset="tcia_catalog"):
        ...

Belongs here: opening a span, and which provider gets it. Does not belong here: exporters and metrics (api.telemetry).
A span's attributes are names of the catalogue and counts: never an id, a question or a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, StatusCode, TracerProvider

_tracer = trace.NoOpTracerProvider().get_tracer("medvec")


def use_provider(provider: TracerProvider) -> None:
    """From now on spans go to `provider`. Not OpenTelemetry's global one, which can be set only once a process."""
    global _tracer
    _tracer = provider.get_tracer("medvec")


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[Span]:
    """A span of `name`, a child of the current one. An error marks it with its type; its text stays out."""
    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


@contextmanager
def continued(headers: dict[str, str]) -> Iterator[None]:
    """Spans inside are children of the caller's, if `headers` hold a traceparent."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def trace_id() -> str:
    """Of the current span, 32 hex digits; zeros where there is none."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
