"""Who may call what, over HTTP: keys, roles, grants, purposes and limits; what is told and what is only noted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from helpers.callers_world import Desk, desk
from helpers.query_world import A1, R1, World, append, built_world, use_fake_encoder
from hypothesis import strategies as st
from limits import parse

from api.identity import keys
from api.identity.callers import Refused
from api.identity.limits import Limits
from api.identity.windows import Windows
from resources import tables
from resources.api_keys import Role, create_key, hash_of, revoke_key, rotate_key
from resources.errors import ConfigError, StorageError
from resources.lakehouse import Lakehouse
from resources.settings import Settings

CATALOG, RADIOLOGY = "tcia_catalog", "tcia_radiology"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def at(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    use_fake_encoder(monkeypatch)
    monkeypatch.setattr(keys, "REREAD_SECONDS", 0.0)
    with desk(world) as opened:
        yield opened


def made(world: World, *roles: Role, datasets: list[str] | None = None) -> str:
    return create_key(world.lake, "jane", roles or [Role.READER], datasets, 1)[1]


def expired(world: World) -> str:
    past = datetime.now(UTC) - timedelta(seconds=1)
    row = {"key_id": "e" * 16, "owner": "old", "roles": ["reader"], "secret_sha256": hash_of("f" * 64)}
    append(world.lake, tables.api_keys(), row | {"created_at": past, "expires_at": past, "recorded_at": past})
    return f"medvec_{'e' * 16}_{'f' * 64}"


# -- keys


def test_every_refused_credential_is_told_the_same_and_noted_apart(world: World, at: Desk) -> None:
    good = made(world)
    key_id, revoked = good.split("_")[1], made(world)
    revoke_key(world.lake, revoked.split("_")[1])
    wrong = {
        None: "credential_missing",
        "": "credential_missing",
        "medvec": "key_wrong",  # no key's shape: compared with the operator's
        f"medvec_{'0' * 16}_{'0' * 64}": "key_unknown",
        f"medvec_{key_id}_{'0' * 64}": "key_wrong",
        f"medvec_{key_id.upper()}_{good[-64:]}": "key_wrong",
        good + "\u00e9": "key_wrong",
        expired(world): "key_expired",
        revoked: "key_revoked",
        "a.b.c": "key_wrong",  # a token, where no issuer is named
    }
    answers = []
    for given, reason in wrong.items():
        answers.append(at.ask(given))
        assert (answers[-1].status_code, at.look.refusal, at.look.who) == (401, reason, ""), given
    for one in answers:  # what every answer has of its own
        del one.headers["x-medvec-event"], one.headers["x-correlation-id"]
    assert len({(one.text, str(sorted(one.headers.items()))) for one in answers}) == 1
    assert at.ask(good).status_code == 200 and at.look.refusal == ""


def test_a_key_is_known_by_its_owner_and_id(world: World, at: Desk) -> None:
    good = made(world, datasets=[CATALOG])
    assert at.ask(None, headers={"X-API-Key": good}).status_code == 200
    assert (at.look.who, at.look.key_id) == ("key:jane", f"key:{good.split('_')[1]}")
    assert (at.caller.name, at.caller.credential) == ("jane", at.look.key_id)
    assert (at.caller.roles, at.caller.datasets) == ({Role.READER}, {CATALOG})


def test_a_rotated_key_and_its_successor_both_open_until_the_overlap_ends(world: World, at: Desk) -> None:
    first = made(world)
    _, _, second = rotate_key(world.lake, first.split("_")[1], timedelta(hours=1))
    assert [at.ask(one).status_code for one in (first, second)] == [200, 200]
    _, _, third = rotate_key(world.lake, second.split("_")[1], timedelta(0))
    assert [at.ask(one).status_code for one in (first, second, third)] == [200, 401, 200]


def test_a_lake_that_cannot_be_read_lets_nobody_new_in(world: World, at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    good, operator = made(world), (world.settings.home / "keys" / "api.key").read_text()
    assert at.ask(good, "/openapi.json").status_code == 200

    def broken(self: Lakehouse, *_: Any) -> Any:
        raise StorageError("/secret/place is gone", remedy="mount it")

    monkeypatch.setattr(Lakehouse, "snapshot", broken)
    assert at.ask(good, "/openapi.json").status_code == 200  # believed for a while
    assert at.ask(operator, "/openapi.json").status_code == 200
    with desk(world) as fresh:
        answer = fresh.ask(good, "/openapi.json")
        assert (answer.status_code, answer.headers["retry-after"], fresh.look.refusal) == (503, "5", "keys_unavailable")
        assert "/secret/place" not in answer.text
        assert fresh.ask(operator, "/openapi.json").status_code == 200


def test_the_operators_key_opens_nothing_where_others_come(world: World) -> None:
    with desk(world) as alone:
        operator = (world.settings.home / "keys" / "api.key").read_text()
        assert alone.ask(operator).status_code == 200
        assert alone.caller.credential == "operator"
    edge = {"api_behind_proxy": True, "api_hosts": frozenset({"127.0.0.1"})}
    with desk(world, **edge) as exposed:
        assert (exposed.ask(operator).status_code, exposed.look.refusal) == (401, "key_unknown")
        assert exposed.ask(made(world)).status_code == 200


# -- roles


@pytest.mark.parametrize("role", Role)
def test_a_role_opens_what_its_permission_types_say(world: World, at: Desk, role: Role) -> None:
    good = made(world, role)
    may = role in {Role.READER, Role.STEWARD, Role.ADMIN}
    answers = [
        at.ask(good, "/v1/datasets"),
        at.ask(good, f"/v1/lineage/{A1.vector_id}"),
        at.ask(good, "/v1/search", text="x"),
    ]
    assert {one.status_code for one in answers} == ({200} if may else {403})
    assert len({one.text for one in answers}) == (3 if may else 1)
    assert at.look.refusal == ("" if may else "role_missing")
    assert (at.look.who, at.look.roles) == ("key:jane", {role})  # of one refused too


# -- grants


def test_a_caller_of_one_dataset_sees_nothing_of_another(world: World, at: Desk) -> None:
    one, none, every = (made(world, datasets=granted) for granted in ([CATALOG], [], None))
    shown = {name: [d["id"] for d in at.ask(key).json()["datasets"]] for name, key in (("one", one), ("none", none))}
    assert shown == {"one": [CATALOG], "none": []}
    assert {CATALOG, RADIOLOGY} <= {d["id"] for d in at.ask(every).json()["datasets"]}
    assert {hit["dataset"] for hit in at.ask(one, "/v1/search", text="x").json()["hits"]} == {CATALOG}
    assert at.ask(one, f"/v1/lineage/{A1.vector_id}").status_code == 200


def test_what_was_not_granted_answers_as_what_does_not_exist_before_anything_of_it_is_read(
    world: World, at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(world, datasets=[CATALOG])
    at.ask(one)
    read: list[str] = []
    snapshot = Lakehouse.snapshot
    monkeypatch.setattr(
        Lakehouse, "snapshot", lambda self, spec, *rest: read.append(spec.path) or snapshot(self, spec, *rest)
    )
    world.index.searched.clear()
    asked = (
        ("/v1/search", {"text": "x", "datasets": [RADIOLOGY]}, {"text": "x", "datasets": ["moon"]}),
        ("/v1/search", {"record_id": R1.record_id}, {"record_id": "moon"}),
        ("/v1/search", {"vector_id": R1.vector_id}, {"vector_id": "0" * 32}),
        (f"/v1/lineage/{R1.vector_id}", {}, {}),
    )
    for path, hidden, missing in asked:
        answers = [at.ask(one, path, **hidden), at.ask(one, path.replace(R1.vector_id, "0" * 32), **missing)]
        assert [answer.status_code for answer in answers] == [404, 404]
        told, other = (answer.text.replace(R1.vector_id, "0" * 32) for answer in answers)
        assert told == other
    assert at.ask(one).status_code == 200
    assert read and not [path for path in read if RADIOLOGY in path]
    assert world.index.searched == []


# -- purpose of use


def test_a_purpose_is_kept_and_an_unknown_one_refused(world: World, at: Desk) -> None:
    good = made(world)
    assert at.ask(good, headers={"X-Purpose-Of-Use": "HRESCH"}).status_code == 200
    assert at.caller.purpose == at.look.purpose == "HRESCH"
    answer = at.ask(good, headers={"X-Purpose-Of-Use": "JANE-DOE"})
    assert (answer.status_code, at.look.refusal) == (422, "purpose_invalid")
    assert "HRESCH" in answer.json()["remedy"] and "JANE-DOE" not in answer.text
    assert at.look.who == "key:jane"


def test_a_purpose_can_be_required(world: World) -> None:
    with desk(world, api_purpose_required=True, api_purposes=frozenset({"TREAT"})) as strict:
        good = made(world)
        assert strict.ask(good).status_code == 422
        assert strict.ask(good, headers={"X-Purpose-Of-Use": "HRESCH"}).status_code == 422
        assert strict.ask(good, headers={"X-Purpose-Of-Use": "TREAT"}).status_code == 200
        assert strict.ask(None).status_code == 401  # the list is for callers


# -- limits


def limited(answer: Any, name: str) -> bool:
    headers = answer.headers
    return (
        answer.status_code == 429
        and answer.json()["code"] == "too_many_requests"
        and 1 <= int(headers["retry-after"]) <= 3_636
        and headers["ratelimit-policy"].startswith(f'"{name}";q=3;w=3600')
        and headers["ratelimit"].startswith(f'"{name}";r=')
    )


def test_a_callers_requests_are_limited_over_all_their_keys_and_no_one_elses(world: World) -> None:
    jane, again = made(world), made(world)
    rex = create_key(world.lake, "rex", [Role.READER], None, 1)[1]
    with desk(world, api_rate_limit="3/hour") as at:
        assert [at.ask(key).status_code for key in (jane, again, jane)] == [200] * 3
        assert limited(at.ask(again), "rate") and at.look.refusal == "limit_rate"
        assert at.look.who == "key:jane"
        assert at.ask(rex).status_code == 200


def test_long_answers_cost_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    good = made(world)
    with desk(world, api_cost_limit="3/hour") as at:
        assert at.ask(good, "/v1/search", text="x", limit=100).status_code == 200
        assert limited(at.ask(good, "/v1/search", text="x", limit=100), "cost") and at.look.refusal == "limit_cost"
        assert at.ask(good, "/v1/search", text="x", limit=10).status_code == 200
        assert at.ask(good).status_code == 200


def test_wrong_credentials_are_limited_by_address_and_never_shut_out_a_right_one(world: World) -> None:
    good = made(world)
    with desk(world, "2001:db8:1:2::1", api_failure_limit="3/hour") as at:
        assert [at.ask("wrong").status_code for _ in range(3)] == [401] * 3
        assert limited(at.ask("wrong"), "failures") and at.look.refusal == "limit_failures"
        assert limited(at.ask(None), "failures")
        assert at.ask(good).status_code == 200


@hypothesis.given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), max_size=60))
def test_no_window_ever_holds_more_than_its_limit(asked: list[tuple[float, int]]) -> None:
    now, limit, let_in = 1_000.0, parse("5/10 second"), list[tuple[float, int]]()
    windows = Windows(lambda: now)
    for pause, cost in asked:
        now += pause
        if windows.hit(limit, "rate", "somebody", cost=cost):
            let_in.append((now, cost))
            assert sum(cost for at, cost in let_in if at > now - 10) <= 5
        else:  # a hundredth of the window late at most
            assert sum(cost for at, cost in let_in if at >= now - 10.2) + cost > 5
        told = windows.get_window_stats(limit, "rate", "somebody")
        assert 0 <= told.remaining <= 5 and now <= told.reset_time <= now + 10.2
    assert windows.hit(limit, "rate", "somebody else", cost=5)
    now += 100
    windows.hit(limit, "rate", "a third")
    assert len(windows._windows) == 1


def test_one_host_is_one_however_many_addresses_of_its_network_it_uses(world: World) -> None:
    limits = Limits(world.settings.model_copy(update={"api_failure_limit": "1/hour"}))

    def refused(address: str) -> bool:
        try:
            asyncio.run(limits.failure(address))
        except Refused as refusal:
            return refusal.status_code == 429
        return False

    addresses = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "unix")
    assert [refused(one) for one in addresses] == [False, True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_rate_limit", "many"),
        ("api_cost_limit", ""),
        ("api_limits_uri", "memcached://:hunter2@127.0.0.1"),  # its client is no dependency
        ("api_limits_uri", "carrier-pigeon://"),
    ],
)
def test_limits_that_cannot_be_counted_stop_the_start(tmp_path: Path, name: str, value: str) -> None:
    settings = Settings(home=tmp_path, **{name: value})  # type: ignore[arg-type]
    with (
        pytest.raises(ConfigError, match="MEDVEC_API_") as told,
        desk(World(settings, Lakehouse.open(settings), None)),  # type: ignore[arg-type]
    ):
        pass
    assert "hunter2" not in str(told.value)
