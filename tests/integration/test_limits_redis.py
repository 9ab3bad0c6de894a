"""Limits counted in a real Redis: once for all replicas, refused while it is away, and never with its password told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_service_load import serving

from api.identity.callers import Caller, Refused
from api.identity.limits import Limits
from resources.settings import Settings
from tests.services import Redis
from tests.services.redis import PASSWORD

pytestmark = pytest.mark.integration


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def replica(home: Path, uri: str) -> Limits:
    return Limits(Settings(home=home, api_limits_uri=uri, api_rate_limit="5/hour", api_cost_limit="30/hour"))


def refusal(limits: Limits, who: Caller) -> Refused | None:
    try:
        asyncio.run(limits.request(who))
    except Refused as refused:
        return refused
    return None


def test_two_replicas_count_together_and_refuse_while_nobody_counts(tmp_path: Path, redis: Redis) -> None:
    one, two, ann, bob = replica(tmp_path, redis.url), replica(tmp_path, redis.url), Caller("ann"), Caller("bob")
    assert [refusal(limits, ann) for limits in (one, two, one, two, two)] == [None] * 5
    for limits in (one, two):
        refused = refusal(limits, ann)
        assert refused is not None and refused.status_code == 429 and refused.headers is not None
        assert 0 < int(refused.headers["Retry-After"]) <= 3_600
    one.charge(bob, 20)
    with pytest.raises(Refused):
        two.charge(bob, 11)
    two.charge(bob, 10)
    redis.kill()
    for limits in (one, two):
        refused = refusal(limits, bob)
        assert refused is not None and refused.status_code == 503 and refused.reason == "limits_unavailable"
        assert PASSWORD not in str(vars(refused)) and str(redis.port) not in str(vars(refused))
    redis.start()
    assert refusal(one, bob) is None
    refused = refusal(two, ann)
    assert refused is not None and refused.status_code == 429, "what was counted outlived the kill"


def test_two_workers_of_a_service_count_together(tmp_path: Path, redis: Redis) -> None:
    limits = {"MEDVEC_API_LIMITS_URI": redis.url, "MEDVEC_API_RATE_LIMIT": "20/hour", "MEDVEC_API_WORKERS": "2"}
    with serving(tmp_path, **limits) as (_, url, headers):
        # A connection of its own each: the kernel gives it to whichever worker accepts first.
        found = Counter(httpx.get(f"{url}/v1/datasets", headers=headers).status_code for _ in range(40))
        redis.kill()
        assert httpx.get(f"{url}/v1/datasets", headers=headers).status_code == 503
        log = (tmp_path / "service.log").read_text()
    assert found == {200: 20, 429: 20}
    assert PASSWORD not in log
