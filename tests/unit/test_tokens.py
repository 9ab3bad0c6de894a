"""An issuer's tokens: what is accepted, what each wrong one is refused for, and what an issuer's outage does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers.callers_world import Desk, desk
from helpers.query_world import World, empty_world
from standins.oidc import AUDIENCE, KEYS, Issuer
from standins.scripted import Answer

from api.identity import tokens
from api.identity.remembered import Remembered
from resources.api_keys import Role
from resources.errors import ConfigError, SourceUnavailable
from resources.settings import Settings

MINUTE = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return empty_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as issuer:
        yield issuer


@pytest.fixture
def at(world: World, issuer: Issuer) -> Iterator[Desk]:
    with desk(world, oidc_issuer=issuer.base, oidc_audience=AUDIENCE) as opened:
        yield opened


def test_a_token_says_who_asks_and_what_was_granted(at: Desk, issuer: Issuer) -> None:
    token = issuer.token(roles=["reader", "auditor", "of-the-hospital"], datasets="tcia_catalog kgp_genotypes")
    for _ in range(3):
        assert at.ask(token).status_code == 200
    assert (at.caller.name, at.caller.credential, at.caller.id) == ("jane", "token", "token:jane")
    assert at.caller.roles == {Role.READER, Role.AUDITOR}
    assert at.caller.datasets == {"tcia_catalog", "kgp_genotypes"}
    assert len(issuer.asked(KEYS)) == 1


def test_what_is_not_granted_is_not_granted(at: Desk, issuer: Issuer) -> None:
    assert (at.ask(issuer.token(roles=None)).status_code, at.look.refusal) == (403, "role_missing")
    assert at.ask(issuer.token(roles=[["reader"]])).status_code == 403
    for said, granted in ((None, frozenset()), ([], frozenset()), ({"a": 1}, frozenset()), (["*"], None)):
        assert at.ask(issuer.token(datasets=said)).status_code == 200
        assert at.caller.datasets == granted


def test_claims_may_be_nested_and_named_as_the_hospital_does(world: World, issuer: Issuer) -> None:
    named = {"oidc_roles_claim": "realm_access.roles", "oidc_role_names": {"GRP-RADIOLOGY": "reader"}}
    with desk(world, oidc_issuer=issuer.base, oidc_audience=AUDIENCE, **named) as at:
        assert at.ask(issuer.token(realm_access={"roles": ["GRP-RADIOLOGY"]})).status_code == 200
        assert at.ask(issuer.token(realm_access={"roles": ["reader"]})).status_code == 403
        assert at.ask(issuer.token(realm_access="GRP-RADIOLOGY")).status_code == 403


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_asymmetric_algorithms_are_accepted(world: World, algorithm: str) -> None:
    with Issuer(algorithm) as issuer:
        named = {"oidc_issuer": issuer.base, "oidc_audience": AUDIENCE, "oidc_jwks_uri": f"{issuer.base}{KEYS}"}
        with desk(world, **named) as at:
            assert at.ask(issuer.token()).status_code == 200
            assert [one.path for one in issuer.seen] == [f"{issuer.root}{KEYS}"]  # no discovery needed


def _part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signed_with_the_public_key(issuer: Issuer) -> str:
    """The old confusion: the public key, which everybody has, as an HMAC secret."""
    key_id, (_, private) = next(iter(issuer.keys.items()))
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_part({'alg': 'HS256', 'kid': key_id})}.{_part(issuer.claims())}"
    return f"{signed}.{_part(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _forged(issuer: Issuer, **header: Any) -> str:
    """Signed by a key of the forger's own."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return jwt.encode(issuer.claims(), private, "RS256", headers=header)


def test_every_wrong_token_is_told_the_same_and_noted_apart(at: Desk, issuer: Issuer) -> None:
    now, good = int(time.time()), issuer.token()
    head, claims, signature = good.split(".")
    other = _part(issuer.claims(roles=["admin"]))
    wrong = {
        issuer.token(exp=now - 2 * MINUTE): "token_expired_signature",
        issuer.token(nbf=now + 2 * MINUTE): "token_immature_signature",
        issuer.token(iat=now + 2 * MINUTE): "token_immature_signature",
        issuer.token(aud="another-service"): "token_invalid_audience",
        issuer.token(iss="https://elsewhere.example"): "token_invalid_issuer",
        issuer.token(iss=issuer.base + "/"): "token_invalid_issuer",
        issuer.token(sub=["jane"]): "token_invalid_subject",
        **{
            issuer.token(**{name: None}): "token_missing_required_claim" for name in ("exp", "iat", "aud", "iss", "sub")
        },
        f"{head}.{other}.{signature}": "token_invalid_signature",
        f"{head}.{claims}.": "token_invalid_signature",
        f"{_part({'alg': 'none', 'kid': 'ES256-0'})}.{claims}.": "token_malformed",
        _signed_with_the_public_key(issuer): "token_malformed",
        _forged(issuer, kid="ES256-0"): "token_invalid_algorithm",
        _forged(issuer): "token_malformed",
        _forged(issuer, kid="ES256-0", jku="https://elsewhere.example/keys", jwk={}): "token_invalid_algorithm",
        _forged(issuer, kid="unknown"): "token_key_unknown",
        "a.b.c": "token_malformed",
        "..": "token_malformed",
        good + "x" * tokens.MAX_TOKEN_CHARS: "token_malformed",
    }
    answers = []
    for token, reason in wrong.items():
        answers.append(at.ask(token))
        assert (answers[-1].status_code, at.look.refusal, at.look.who) == (401, reason, ""), reason
    for one in answers:  # what every answer has of its own
        del one.headers["x-medvec-event"], one.headers["x-correlation-id"]
    assert len({(one.text, str(sorted(one.headers.items()))) for one in answers}) == 1
    assert at.ask(good).status_code == 200


def test_clocks_may_differ_by_the_setting_and_no_more(world: World, issuer: Issuer) -> None:
    for leeway, answers in ((60, [200, 200, 401]), (0, [401, 401, 401])):
        named = {"oidc_issuer": issuer.base, "oidc_audience": AUDIENCE, "oidc_leeway_seconds": leeway}
        now = int(time.time())
        sent = [issuer.token(exp=now - 20), issuer.token(iat=now + 20, nbf=now + 20), issuer.token(exp=now - 120)]
        with desk(world, **named) as at:
            assert [at.ask(token).status_code for token in sent] == answers


def test_a_new_key_is_picked_up_and_one_taken_back_is_refused(
    at: Desk, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = issuer.token()
    assert at.ask(old).status_code == 200
    fresh = issuer.token(issuer.add_key("RS256"))
    issuer.keys.pop("ES256-0")
    assert (at.ask(fresh).status_code, at.look.refusal) == (401, "token_key_unknown")  # asked less than 10 s ago
    assert len(issuer.asked(KEYS)) == 1
    _pass_time(at, tokens.UNKNOWN_KEY_PAUSE_SECONDS)
    assert at.ask(fresh).status_code == 200
    assert at.ask(old).status_code == 401
    assert len(issuer.asked(KEYS)) == 2


def _pass_time(at: Desk, seconds: float) -> None:
    """Seconds go by for the key set, without waiting."""
    remembered = at.service.desk._tokens.keys
    clock = remembered._clock
    remembered._clock = lambda: clock() + seconds


def test_made_up_key_ids_ask_the_issuer_once_in_a_while(at: Desk, issuer: Issuer) -> None:
    for number in range(20):
        assert at.ask(_forged_cheaply(number)).status_code == 401
    assert len(issuer.asked(KEYS)) == 1


def _forged_cheaply(number: int) -> str:
    return f"{_part({'alg': 'RS256', 'kid': f'made-up-{number}'})}.{_part({})}.{_part(b'x')}"


@pytest.mark.parametrize(
    "outage",
    [
        Answer(status=500),
        Answer(b"<html>"),
        Answer(b"[]"),
        Answer(b'{"keys": []}'),
        Answer(b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "ES256-0"}, 7, {"kty": "EC"}]}'),
        Answer(status=302, headers={"Location": "http://127.0.0.1:1/keys"}),
    ],
)
def test_an_issuer_that_does_not_answer_is_a_503_and_no_acceptance(at: Desk, issuer: Issuer, outage: Answer) -> None:
    issuer.plan.append((KEYS, outage))
    answer = at.ask(issuer.token())
    if b"oct" in outage.body:  # a set without a key of ours is an answer
        assert (answer.status_code, at.look.refusal) == (401, "token_key_unknown")
    else:
        assert (answer.status_code, answer.headers["retry-after"], at.look.refusal) == (503, "5", "issuer_unavailable")
        assert at.ask(issuer.token()).status_code == 503  # and it is left in peace for a while
    assert len(issuer.asked(KEYS)) == 1
    _pass_time(at, tokens.UNKNOWN_KEY_PAUSE_SECONDS)
    assert at.ask(issuer.token()).status_code == 200


def test_known_keys_are_believed_for_a_while_without_the_issuer_and_then_no_more(at: Desk, issuer: Issuer) -> None:
    token = issuer.token()
    assert at.ask(token).status_code == 200
    issuer.plan += [(KEYS, Answer(status=500))] * 9
    _pass_time(at, tokens.REREAD_SECONDS + 1)
    assert at.ask(token).status_code == 200
    unknown = issuer.token(issuer.add_key("ES256"))
    assert at.ask(unknown).status_code == 503  # nobody can tell
    _pass_time(at, tokens.BELIEVED_SECONDS)
    assert (at.ask(token).status_code, at.look.refusal) == (503, "issuer_unavailable")


@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "https://elsewhere.example", "jwks_uri": "BASE/keys"},
        {"issuer": "BASE"},
        {"issuer": "BASE", "jwks_uri": "EXPOSED/keys"},  # reaches the same keys, and is not loopback
        {"issuer": "BASE", "jwks_uri": "file:///etc/passwd"},
    ],
)
def test_a_discovery_document_of_another_or_without_safe_keys_is_not_followed(
    at: Desk, issuer: Issuer, told: dict[str, str]
) -> None:
    exposed = issuer.base.replace("127.0.0.1", "0.0.0.0")
    body = json.dumps(told).replace("BASE", issuer.base).replace("EXPOSED", exposed).encode()
    issuer.plan.append(("/.well-known/", Answer(body)))
    assert (at.ask(issuer.token()).status_code, at.look.refusal) == (503, "issuer_unavailable")
    assert issuer.asked(KEYS) == []


@pytest.mark.parametrize(
    "named",
    [
        {"oidc_issuer": "https://issuer.example"},
        {"oidc_issuer": "http://issuer.example", "oidc_audience": "medvec"},
        {
            "oidc_issuer": "https://issuer.example",
            "oidc_audience": "medvec",
            "oidc_jwks_uri": "http://issuer.example/k",
        },
        {"oidc_issuer": "https://issuer.example", "oidc_audience": "medvec", "oidc_role_names": {"x": "emperor"}},
        {"oidc_issuer": "https://issuer.example", "oidc_audience": "medvec", "oidc_ca": "/nowhere.pem"},
    ],
)
def test_settings_that_would_let_others_in_stop_the_start(world: World, named: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tokens.TokenVerifier(Settings(home=world.settings.home, **named))


def test_keys_beside_tokens_still_work(at: Desk, world: World) -> None:
    assert at.ask((world.settings.home / "keys" / "api.key").read_text()).status_code == 200


# -- what is remembered


def test_those_who_come_during_a_reading_wait_for_it_and_one_who_leaves_does_not_end_it() -> None:
    began = 0

    async def story() -> None:
        nonlocal began
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def read() -> int:
            nonlocal began
            began += 1
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
            return 7

        remembered = Remembered(read, pause_seconds=60, believed_seconds=60)
        waiting = [asyncio.ensure_future(remembered.read_again()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in done] == [asyncio.CancelledError] + [type(None)] * 19
        assert remembered.value == 7

    asyncio.run(story())
    assert began == 1


def test_what_could_not_be_read_again_is_believed_only_so_long() -> None:
    now, fails = 0.0, False

    def read() -> str:
        if fails:
            raise SourceUnavailable("gone", remedy="wait")
        return f"at {now}"

    remembered = Remembered(read, pause_seconds=5, believed_seconds=60, clock=lambda: now)

    def later(seconds: float, failing: bool) -> str | None:
        nonlocal now, fails
        now, fails = seconds, failing
        asyncio.run(remembered.read_again())
        return remembered.value

    assert [later(at, False) for at in (0.0, 4.0, 5.0)] == ["at 0.0", "at 0.0", "at 5.0"]
    assert [later(at, True) for at in (10.0, 65.0, 66.0)] == ["at 5.0", "at 5.0", None]
    assert later(70.0, False) == "at 70.0"


def test_a_slow_reading_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.identity.remembered.WAIT_SECONDS", 0.0)

    async def story() -> None:
        loop, gate = asyncio.get_running_loop(), asyncio.Event()
        answers = iter([1, 2])

        def read() -> int:
            if (answer := next(answers)) == 2:
                asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
            return answer

        remembered = Remembered(read, pause_seconds=0, believed_seconds=60)
        while remembered.value is None:
            await remembered.read_again()
            await asyncio.sleep(0.001)
        await remembered.read_again()
        assert remembered.value == 1
        gate.set()
        while remembered.value == 1:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(story(), 30))
