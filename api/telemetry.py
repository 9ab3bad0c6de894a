"""What operators see of the service: spans, the metrics made of them, and log lines.

Belongs here: one tracer and one Prometheus registry a worker, and what each span becomes. Spans are opened where the work
is done (resources.tracing); here each that ends is counted, and exported where that is wanted, so that a thing is measured
in one place and seen in both. Does not belong here: the record of who looked at what (the access log), which is evidence.

Never in a span, a label or a line: a path, a query string, a question, an id of a record; only a route's template.
Where OTEL_EXPORTER_OTLP_ENDPOINT is set, spans go there. Several workers share their numbers through files in
PROMETHEUS_MULTIPROC_DIR, which api.server sets.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from starlette.responses import Response

from medvec_assets.query.harvesting import Look
from resources.tracing import use

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """The meters of one app. Made once an app, so that two in one process (tests) do not meet in one registry."""

    def __init__(self) -> None:
        _forget_killed()
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "medvec_request_seconds",
            "From the first byte to the last, by route, method and status.",
            ["route", "method", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.steps = Histogram(
            "medvec_step_seconds",
            "Parts of a request, by span: index, encode, lake.read, access_log.write.",
            ["step", "outcome"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answers = Counter(
            "medvec_answers_total", "Answers by dataset and outcome.", ["dataset", "outcome"], registry=self.registry
        )
        self.shed = Counter("medvec_shed_total", "Requests refused because of load.", registry=self.registry)
        self.working = Gauge(
            "medvec_requests_working", "At work now.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.waiting = Gauge(
            "medvec_requests_waiting", "Waiting for a place.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.resting = Gauge(
            "medvec_index_resting",
            "Workers that leave the index alone: their circuit is open.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.unsealed = Gauge(
            "medvec_access_unsealed_events",
            "Events of the access log that are written and not sealed in the lake.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.unsealed_since = Gauge(
            "medvec_access_unsealed_since_timestamp_seconds",
            "When the oldest of them was written; +Inf if there is none.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.harvesting = Gauge(
            "medvec_harvesting_alerts",
            "Callers, each with a dataset, who met a rule within 7 days before the last look.",
            ["rule"],
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )
        self.harvesting_looked = Gauge(
            "medvec_harvesting_look_timestamp_seconds",
            "When the job access_audit last looked; 0: never, as far as this service knows.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._provider = _exporting()
        use(self._step, self._provider)

    def _step(self, name: str, outcome: str, seconds: float) -> None:
        self.steps.labels(name, outcome).observe(seconds)

    def not_sealed(self, events: int, since: float) -> None:
        self.unsealed.set(events)
        self.unsealed_since.set(since)

    def looked(self, look: Look) -> None:
        for rule, alerts in look.alerts.items():
            self.harvesting.labels(rule).set(alerts)
        self.harvesting_looked.set(look.at.timestamp())

    def exposition(self) -> Response:
        """All numbers in Prometheus' text format, of all workers where there are several."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def close(self) -> None:
        """Sends what is left to send, and takes this worker out of what is counted now."""
        if self._provider is not None:
            self._provider.shutdown()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _forget_killed() -> None:
    """What a worker that was killed counted as its own at that moment, it could not take out: its successor does."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        files = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*.db")
        for pid in {int(one.stem.rpartition("_")[2]) for one in files}:
            with suppress(PermissionError, FileNotFoundError):  # another user's by now; another successor was faster
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _exporting() -> TracerProvider | None:
    """Takes spans to where OTEL_EXPORTER_OTLP_ENDPOINT says; None if it does not say."""
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "medvec-api"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
