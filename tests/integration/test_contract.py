"""What OpenAPI says against what the service does: schemathesis with all its checks over the real app.

Data that fit the schema and data that do not, every operation's examples, its borders, what chance brings, and chains of
calls. MEDVEC_CONTRACT_EXAMPLES: how many of chance for each operation.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from helpers.image_world import InProcess
from helpers.query_world import A1, World, built_world, opened, use_fake_encoder, versions_of
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from api.app import create_app
from api.auth import permission_of
from api.problems import document
from resources.settings import Settings, secret_file

pytestmark = pytest.mark.integration

EXAMPLES = int(os.environ.get("MEDVEC_CONTRACT_EXAMPLES", "3"))
NO_LIMIT = "1000000000/minute"
# A question that fits the schema may ask what the lake cannot answer: of two spaces at once, by a file that is no image. Its
# refusal has a code of its own: `request_invalid` is that of the schema alone, and `fits` finds it.
UNANSWERABLE = ["410", "422"]
ACCEPTED = ["2xx", "401", "403", "404", "429", *UNANSWERABLE]


@schemathesis.check
def fits(ctx: Any, response: Any, case: Any) -> None:
    """What fits the schema is not refused for breaking it."""
    is_positive = case.meta is not None and case.meta.generation.mode.is_positive
    assert not (is_positive and b"request_invalid" in response.content), (
        "the schema lets it through, the route does not"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def settings(world: World, monkeypatch: pytest.MonkeyPatch) -> Settings:
    use_fake_encoder(monkeypatch)
    monkeypatch.setattr("api.service.Decoder", InProcess)
    limits = ("api_rate_limit", "api_cost_limit", "api_failure_limit")
    # A loaded machine must not change the outcome: the access log's budget is not tested here.
    return world.settings.model_copy(update=dict.fromkeys(limits, NO_LIMIT) | {"access_budget_ms": 60_000})


def described(app: FastAPI, world: World, settings: Settings) -> dict[str, Any]:
    """The document, with examples of what this lake holds."""
    told = json.dumps(document(app, settings))
    [version] = versions_of(world.lake, [("tcia_catalog", "text")]).values()
    here = {
        '"29add84a6398e57b73e5b9e559597cfc"': f'"{A1.vector_id}"',
        '"tcga_lihc"': '"lung"',
        '{"tcia_catalog/text": 11}': f'{{"tcia_catalog/text": {version}}}',
        '"1.3.6.1.4.1.14519.5.2.1.1"': '"a1"',
        '"1.3.6.1.4.1"': '"a1"',
    }
    for shown, held in here.items():
        assert shown in told
        told = told.replace(shown, held)
    found: dict[str, Any] = json.loads(told)
    return found


def test_the_service_does_what_its_document_says(
    world: World, settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    app = create_app(settings, lambda _: opened(world.index))
    told = described(app, world, settings)
    key = secret_file(settings.home / "keys" / "api.key")
    config = {
        "base-url": "http://127.0.0.1",
        "headers": {"Authorization": f"Bearer {key}"},
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
        "continue-on-failure": True,
        "request-timeout": 120.0,  # a machine may be loaded: how long an answer takes is not what is tested
    }
    schema = schemathesis.openapi.from_dict(told, config=SchemathesisConfig.from_dict(config))
    schema.app = app
    statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
    failures = list(_failures(schema, statuses))
    record_property("cases", sum(sum(one.values()) for one in statuses.values()))
    assert failures == []
    assert statuses.keys() == {f"{method.upper()} {path}" for path, one in told["paths"].items() for method in one}
    answered = {operation for operation, seen in statuses.items() if seen[200]}
    of_images = {"POST /v1/search/image", "GET /v1/thumbnails/{vector_id}"}
    assert answered == statuses.keys() - of_images, "chance makes no image, and this lake's have no source"


def _failures(schema: Any, statuses: dict[str, Counter[int]]) -> Iterator[str]:
    """What each check found, and each error; counts the answers of every operation meanwhile."""
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            yield f"{event.label}: {event.value}"
        elif isinstance(event, events.FatalError):
            yield str(event.exception)
        elif isinstance(event, events.ScenarioFinished):
            recorded = event.recorder
            for name, interaction in recorded.interactions.items():
                if interaction.response is not None:
                    statuses[recorded.cases[name].value.operation.label][interaction.response.status_code] += 1
            for name, checks in recorded.checks.items():
                for check in checks:
                    if check.failure_info is not None:
                        case, failure = recorded.cases[name].value, check.failure_info.failure
                        sent = f"{case.path_parameters} {case.query} {case.headers} {str(case.body)[:400]}"
                        answer = recorded.interactions[name].response if name in recorded.interactions else None
                        sent += f" -> {answer.status_code} {answer.text[:200]}" if answer is not None else ""
                        yield f"{case.operation.label}: {check.name}: {failure.title}: {failure.message} ({sent})"


def test_every_guarded_route_declares_what_it_can_be_refused_with(world: World) -> None:
    app = create_app(world.settings, lambda _: opened(world.index))
    paths = document(app, world.settings)["paths"]
    for route in iter_route_contexts(app.routes):
        for method in (route.methods or set()) if route.path in paths else ():
            operation = paths[route.path][method.lower()]
            needed = {400}
            if permission_of(route.dependant):
                needed |= {401, 403, 422, 429, 503}
            if "requestBody" in operation:
                needed |= {408, 413}
            assert {str(status) for status in needed} <= operation["responses"].keys(), route.path
