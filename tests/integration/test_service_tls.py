"""The service as others meet it: a real process on every address, over TLS, with keys of the lake and an issuer's tokens."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from standins.oidc import AUDIENCE, Issuer

from resources.api_keys import Role, create_key, revoke_key
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from tests.services.tls import Certificates, make_certificates

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    client: httpx.Client
    port: int
    pem: Certificates
    settings: Settings
    issuer: Issuer


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    pem = make_certificates(home / "pem")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with Issuer("ES256") as issuer:
        named = {
            "MEDVEC_HOME": str(home),
            "MEDVEC_API_HOST": "0.0.0.0",
            "MEDVEC_API_PORT": str(port),
            "MEDVEC_API_HOSTS": json.dumps(["localhost"]),
            "MEDVEC_API_TLS_CERT": str(pem.certificate),
            "MEDVEC_API_TLS_KEY": str(pem.key),
            "MEDVEC_OIDC_ISSUER": issuer.base,
            "MEDVEC_OIDC_AUDIENCE": AUDIENCE,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")} | named
        log = home / "service.log"
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=out, stderr=out)
        try:
            trusting = ssl.create_default_context(cafile=pem.ca)
            with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting, timeout=30) as client:
                _wait_until_alive(client, process, log)
                yield Running(client, port, pem, Settings(home=home), issuer)
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_alive(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/livez").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"not alive in {PATIENCE_SECONDS} s: {log.read_text()}")


def _status(service: Running, credential: str) -> int:
    return service.client.get("/v1/datasets", headers={"Authorization": f"Bearer {credential}"}).status_code


def test_a_key_made_beside_the_running_service_opens_it_until_it_is_revoked(service: Running) -> None:
    lake = Lakehouse.open(service.settings)
    key, secret = create_key(lake, "jane", [Role.READER], ["tcia_catalog"], 1)
    _until(service, secret, 200)
    answer = service.client.get("/v1/datasets", headers={"X-API-Key": secret})
    assert [one["id"] for one in answer.json()["datasets"]] == ["tcia_catalog"]
    assert answer.headers["strict-transport-security"]
    revoke_key(lake, key.id)
    _until(service, secret, 401)


def _until(service: Running, credential: str, status: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (told := _status(service, credential)) != status:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def test_a_token_opens_it_and_the_operators_key_does_not(service: Running) -> None:
    assert _status(service, service.issuer.token()) == 200
    assert _status(service, service.issuer.token(aud="another-service")) == 401
    assert not (service.settings.home / "keys" / "api.key").exists()


def test_only_tls_of_today_and_its_own_name_are_answered(service: Running) -> None:
    assert service.client.get("/livez", headers={"Host": "127.0.0.1"}).status_code == 400
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{service.port}/livez")
    old = ssl.create_default_context(cafile=service.pem.ca)
    old.set_ciphers("ECDHE+AES:!AESGCM")  # CBC suites, which TLS 1.2 still knows
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("localhost", service.port)) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw, server_hostname="localhost")
