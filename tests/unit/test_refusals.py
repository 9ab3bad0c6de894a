"""Every credential that is not good enough, at every route: refused alike, nothing asked of the lake or the index for it, and
one event in the access log that says why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.callers_world import Desk, desk
from helpers.query_world import A1, World, append, built_world
from standins.oidc import AUDIENCE, Issuer

from medvec_assets.query.search import SearchEngine
from resources import tables
from resources.access_log import Keys
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.api_keys import Role, create_key, hash_of, revoke_key

ALL_TIME = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/datasets", {}),
    ("GET", "/v1/datasets/tcia_catalog", {}),
    ("GET", f"/v1/lineage/{A1.vector_id}", {}),
    ("GET", f"/v1/hits/{A1.vector_id}/members", {}),
    ("POST", "/v1/search", {"json": {"text": "x"}}),
    ("POST", "/v1/search/image", {"content": b"\x89PNG", "headers": {"Content-Type": "image/png"}}),
    ("POST", "/v1/replay", {"json": {"text": "x", "as_of": {"tcia_catalog/text": 1}}}),
    ("POST", "/v1/cohorts/neighbours", {"json": {"dataset": "tcia_catalog", "cohort": "lung", "top_k": 1}}),
    ("GET", "/openapi.json", {}),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def credentials(world: World, issuer: Issuer) -> dict[str, tuple[str | None, str]]:
    """What is wrong with it -> the credential, and the reason that is recorded."""
    good = create_key(world.lake, "jane", [Role.READER], None, 1)[1]
    revoked = create_key(world.lake, "jane", [Role.READER], None, 1)[1]
    revoke_key(world.lake, revoked.split("_")[1])
    past = datetime.now(UTC) - timedelta(seconds=1)
    row = {"key_id": "e" * 16, "owner": "old", "roles": ["reader"], "secret_sha256": hash_of("f" * 64)}
    append(world.lake, tables.api_keys(), row | {"created_at": past, "expires_at": past, "recorded_at": past})
    now = int(time.time())
    head, claims, _ = issuer.token().split(".")
    return {
        "none": (None, "credential_missing"),
        "unknown key": (f"medvec_{'0' * 16}_{'0' * 64}", "key_unknown"),
        "wrong key": (f"medvec_{good.split('_')[1]}_{'0' * 64}", "key_wrong"),
        "expired key": (f"medvec_{'e' * 16}_{'f' * 64}", "key_expired"),
        "revoked key": (revoked, "key_revoked"),
        "key of another role": (create_key(world.lake, "amy", [Role.AUDITOR], None, 1)[1], "role_missing"),
        "expired token": (issuer.token(exp=now - 600), "token_expired_signature"),
        "token for another service": (issuer.token(aud="elsewhere"), "token_invalid_audience"),
        "token of another issuer": (issuer.token(iss="https://elsewhere.example"), "token_invalid_issuer"),
        "unsigned token": (f"{head}.{claims}.", "token_invalid_signature"),
        "token without a role": (issuer.token(roles=[]), "role_missing"),
    }


@pytest.fixture(scope="module")
def at(world: World, issuer: Issuer) -> Iterator[Desk]:
    patient = {"access_budget_ms": 60_000, "api_failure_limit": "10000/minute"}
    with desk(world, oidc_issuer=issuer.base, oidc_audience=AUDIENCE, **patient) as opened:
        yield opened


def event_of(world: World, answer: Any) -> dict[str, Any]:
    writer, sequence, _ = answer.headers["x-medvec-event"].split(":")
    found = events(world.lake, Place.of(world.settings), Keys.of(world.settings), *ALL_TIME)
    [line] = [one for one in found if (one.writer, one.sequence) == (writer, int(sequence))]
    return dict(line.facts)


def ask(at: Desk, credential: str | None, method: str, path: str, sent: dict[str, Any]) -> Any:
    shown = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    return at.client.request(method, path, **{**sent, "headers": sent.get("headers", {}) | shown})


@pytest.mark.parametrize(("method", "path", "sent"), ROUTES, ids=[one[1] for one in ROUTES])
def test_it_is_refused_alike_and_recorded_with_its_reason(
    world: World,
    at: Desk,
    credentials: dict[str, tuple[str | None, str]],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    sent: dict[str, Any],
) -> None:
    monkeypatch.setattr(SearchEngine, "search", None)  # nobody gets so far
    told: dict[int, set[str]] = {401: set(), 403: set()}
    calls = world.index.calls
    for what, (credential, reason) in credentials.items():
        answer = ask(at, credential, method, path, sent)
        assert answer.status_code == (403 if reason == "role_missing" else 401), what
        own = {name: value for name, value in answer.headers.items() if not name.startswith(("x-medvec-", "x-correl"))}
        told[answer.status_code].add(answer.text + json.dumps(own))
        event = event_of(world, answer)
        assert (event["status"], event["outcome"], event["reason"]) == (answer.status_code, "refused", reason), what
        assert event.keys().isdisjoint({"datasets", "versions", "subjects", "results", "question"}), what
        assert ("who" in event) == (answer.status_code == 403), what
        assert credential is None or credential not in json.dumps(event)
    assert [len(one) for one in told.values()] == [1, 1], "which of them it was cannot be told"
    assert world.index.calls == calls
