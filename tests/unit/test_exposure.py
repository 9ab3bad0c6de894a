"""Where the service may listen: nobody reaches it unprotected, and no stranger says who the client is."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

sys.path.insert(0, str(Path(__file__).parents[2]))

from api.app import create_app
from api.exposure import allowed_hosts, uvicorn_options
from resources.errors import ConfigError
from resources.settings import Settings
from tests.services.tls import Certificates, make_certificates


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def tls(pem: Certificates) -> dict[str, Any]:
    return {"api_tls_cert": pem.certificate, "api_tls_key": pem.key}


NAMES = frozenset({"medvec.example.org"})


def test_others_need_tls_here_or_at_an_edge_and_a_name(tmp_path: Path, tls: dict[str, Any]) -> None:
    for protection in (tls, {"api_behind_proxy": True}):
        for host in ("0.0.0.0", "::", "192.0.2.7"):
            settings = Settings(home=tmp_path, api_host=host, api_hosts=NAMES, **protection)
            assert allowed_hosts(settings) == ["medvec.example.org"]
            with pytest.raises(ConfigError, match="by which name"):
                allowed_hosts(settings.model_copy(update={"api_hosts": frozenset()}))
    with pytest.raises(ConfigError, match="not a loopback address"):
        allowed_hosts(Settings(home=tmp_path, api_host="0.0.0.0", api_hosts=NAMES))


@pytest.mark.parametrize("name", ["*", "*.example.org", "", "Medvec.example.org", "medvec.example.org:443", "a b"])
def test_a_pattern_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="MEDVEC_API_HOSTS"):
        create_app(Settings(home=tmp_path, api_hosts=frozenset({name})))


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, pem: Certificates, tls: dict[str, Any]
) -> None:
    missing = tmp_path / "none.pem"
    for wrong in ({"api_tls_key": None}, {"api_tls_cert": None}, {"api_tls_key": missing}, {"api_tls_key": pem.ca}):
        with pytest.raises(ConfigError, match="certificate"):
            create_app(Settings(home=tmp_path, **(tls | wrong)))


def test_the_operators_key_is_made_only_where_no_other_machine_can_come(tmp_path: Path, tls: dict[str, Any]) -> None:
    for name, changed, local in (
        ("alone", {}, True),
        ("tls", tls, True),
        ("edge", {"api_behind_proxy": True, "api_hosts": NAMES}, False),
        ("open", tls | {"api_host": "0.0.0.0", "api_hosts": NAMES}, False),
    ):
        settings = Settings(home=tmp_path / name, **changed)
        assert settings.api_is_local is local
        with TestClient(create_app(settings), base_url="http://medvec.example.org"):
            assert (tmp_path / name / "keys" / "api.key").exists() is local


def test_tls_is_asked_for_again_by_browsers(tmp_path: Path, tls: dict[str, Any]) -> None:
    for changed, told in (({}, None), (tls, "max-age=31536000")):
        with TestClient(create_app(Settings(home=tmp_path, **changed)), base_url="http://127.0.0.1") as client:
            assert client.get("/livez").headers.get("strict-transport-security") == told


@pytest.fixture
def forwarded_anywhere() -> Iterator[None]:
    os.environ["FORWARDED_ALLOW_IPS"] = "*"  # uvicorn's own variable must not widen it
    yield
    del os.environ["FORWARDED_ALLOW_IPS"]


@pytest.mark.usefixtures("forwarded_anywhere")
@pytest.mark.parametrize(
    ("proxies", "peer", "client"),
    [
        (frozenset(), "127.0.0.1", "127.0.0.1"),
        ({"10.0.0.0/24"}, "10.0.0.9", "203.0.113.5"),
        ({"10.0.0.0/24"}, "10.0.1.9", "10.0.1.9"),
        ({"10.0.0.9"}, "10.0.0.9", "203.0.113.5"),
    ],
)
def test_who_the_client_is_says_only_a_proxy_that_was_named(
    tmp_path: Path, proxies: Any, peer: str, client: str
) -> None:
    options = uvicorn_options(Settings(home=tmp_path, api_proxies=frozenset(proxies)))
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    served = ProxyHeadersMiddleware(app, options["forwarded_allow_ips"]) if options["proxy_headers"] else app
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", b"203.0.113.5")], "scheme": "http"}
    asyncio.run(served(scope, None, None))  # type: ignore[arg-type]
    assert seen == [client]


@pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "10.0.0.9/24"])
def test_a_proxy_is_an_address_or_a_network(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(ConfigError, match="MEDVEC_API_PROXIES"):
        uvicorn_options(Settings(home=tmp_path, api_proxies=frozenset({proxy})))
