"""Where the service listens, by which names it is reached, and what protects the way there.

    loopback, alone          nothing needed; the operator's key is enough
    any other address        TLS here (api_tls_cert, api_tls_key) or at an edge (api_behind_proxy), and the names it has
    behind a proxy           X-Forwarded-* is believed from api_proxies only

Belongs here: these rules, and uvicorn's options that follow from them. Does not belong here: who may call (auth).
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from typing import Any

from resources.errors import ConfigError
from resources.settings import Settings

# Forward secrecy and authenticated encryption only; TLS 1.3's suites are all of that kind. 1.2 is Python's least.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
HSTS = {"Strict-Transport-Security": "max-age=31536000"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\]")


def allowed_hosts(settings: Settings) -> list[str]:
    """The Host headers that are answered. Raises ConfigError where others could reach the service unprotected."""
    _require_usable_certificate(settings)
    if wrong := sorted(name for name in settings.api_hosts if not _NAME.fullmatch(name)):
        raise ConfigError(
            f"MEDVEC_API_HOSTS has no plain host name in {wrong[0]!r}",
            remedy="list full names in lower case, without port and without *",
        )
    address = _address(settings.api_host)
    own = ["127.0.0.1", "localhost", "[::1]", f"[{address}]" if address.version == 6 else str(address)]
    if settings.api_is_local:
        return [*own, *settings.api_hosts]
    if not (settings.api_tls_cert or settings.api_behind_proxy):
        raise _not_loopback(settings.api_host)
    if not settings.api_hosts:
        raise ConfigError(
            "others reach the service, and MEDVEC_API_HOSTS does not say by which name",
            remedy="set it, such as MEDVEC_API_HOSTS='[\"medvec.example.org\"]'",
        )
    return list(settings.api_hosts)


def security_headers(settings: Settings) -> dict[str, str]:
    """What TLS adds to the headers of every answer."""
    return HSTS if settings.api_tls_cert or settings.api_behind_proxy else {}


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Certificate, and whose X-Forwarded-* is believed: by default uvicorn would believe anybody on loopback."""
    for proxy in settings.api_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise ConfigError(
                f"MEDVEC_API_PROXIES: {proxy!r} is no address or network", remedy="list them, such as 10.0.0.0/24"
            ) from None
    proxies = sorted(settings.api_proxies)
    options: dict[str, Any] = {"proxy_headers": bool(proxies), "forwarded_allow_ips": proxies}
    if settings.api_tls_cert:
        options |= {
            "ssl_certfile": settings.api_tls_cert,
            "ssl_keyfile": settings.api_tls_key,
            "ssl_ciphers": CIPHERS,
        }
    return options


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise _not_loopback(host) from None


def _not_loopback(host: str) -> ConfigError:
    return ConfigError(
        f"MEDVEC_API_HOST is {host!r}, which is not a loopback address",
        remedy="use 127.0.0.1, ::1 or localhost; or, for others, an address with MEDVEC_API_TLS_CERT and _KEY, or with "
        "MEDVEC_API_BEHIND_PROXY=true where an edge ends TLS",
    )


def _require_usable_certificate(settings: Settings) -> None:
    cert, key = settings.api_tls_cert, settings.api_tls_key
    if (cert is None) != (key is None):
        raise ConfigError("a certificate and its key belong together", remedy="set MEDVEC_API_TLS_CERT and _KEY")
    if cert is None or key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate {cert} and its key cannot be used ({type(error).__name__})",
            remedy="check that both are PEM, readable by this user, and belong together",
        ) from None
