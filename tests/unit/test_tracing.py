"""Spans: counted without OpenTelemetry, and exported by it where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resources import tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    monkeypatch.setattr(tracing, "_observe", None)
    monkeypatch.setattr(tracing, "_tracer", None)
    found: list[tuple[str, str]] = []

    def observe(name: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        found.append((name, outcome))

    tracing.use(observe, None)
    yield found


def nested() -> str:
    """A span in another, which fails; answers the trace's id inside."""
    with tracing.continued(HEADERS), tracing.span("outer") as outer:
        outer.set_attributes({"http.route": "/v1/search"})
        try:
            with tracing.span("inner", dataset="tcia_catalog"):
                raise ValueError("JANE")
        except ValueError:
            return tracing.trace_id()


def test_a_span_is_counted_where_nothing_exports(counted: list[tuple[str, str]]) -> None:
    assert nested() == TRACE
    assert counted == [("inner", "failed"), ("outer", "ok")]


@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": "JANE"}, {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}]
)
def test_without_a_trace_of_the_callers_there_is_a_new_one(counted: list[object], headers: dict[str, str]) -> None:
    ids = set()
    for _ in range(2):
        with tracing.continued(headers):
            ids.add(tracing.trace_id())
    assert len(ids) == 2 and all(len(one) == 32 and int(one, 16) for one in ids)


def test_spans_are_exported_as_children_and_without_an_errors_text(counted: list[tuple[str, str]]) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(lambda *told: counted.append(told[:2]), provider)
    assert nested() == TRACE
    inner, outer = exporter.get_finished_spans()
    assert (inner.name, outer.name) == ("inner", "outer") and f"{outer.context.trace_id:032x}" == TRACE
    assert inner.parent is not None and inner.parent.span_id == outer.context.span_id
    assert dict(inner.attributes or {}) == {"dataset": "tcia_catalog", "error.type": "ValueError"}
    assert not inner.status.is_ok and "JANE" not in inner.to_json() and outer.status.is_unset
    assert counted == [("inner", "failed"), ("outer", "ok")]
