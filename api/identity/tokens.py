"""Checks an issuer's JWT: signature by its current key set, issuer, audience, times; then what it grants.

Belongs here: OIDC's side of a caller. Does not belong here: a login page, or keeping a token: each is checked anew.
An issuer that does not answer is a 503 for those whose key is not known, never an acceptance.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet

from api.identity.callers import Caller, unauthenticated, unavailable
from api.identity.remembered import Remembered
from resources.api_keys import Role, roles_named
from resources.errors import ConfigError, SourceUnavailable
from resources.settings import Settings

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
REQUIRED = ["exp", "iat", "aud", "iss", "sub"]  # nbf is checked where it is: several issuers never send one
REREAD_SECONDS = 300.0  # so long a key that the issuer took back may still be accepted
BELIEVED_SECONDS = 900.0  # and so long if the issuer does not answer
UNKNOWN_KEY_PAUSE_SECONDS = 10.0  # a new key id makes us ask the issuer, but not more often
TIMEOUT_SECONDS = 5.0
MAX_TOKEN_CHARS = 16_384
EVERY_DATASET = "*"

Keys = dict[str, PyJWK]
_REMEDY = "check MEDVEC_OIDC_ISSUER, MEDVEC_OIDC_JWKS_URI, MEDVEC_OIDC_CA and the network"


class TokenVerifier:
    """Raises ConfigError for settings that no token could be checked by."""

    def __init__(self, settings: Settings) -> None:
        if not settings.oidc_audience:
            raise ConfigError(
                "an issuer without an audience: tokens meant for others would be accepted",
                remedy="set MEDVEC_OIDC_AUDIENCE to this service's name at the issuer",
            )
        for uri in filter(None, (settings.oidc_issuer, settings.oidc_jwks_uri)):
            _require_secure(uri)
        if unknown := sorted(set(settings.oidc_role_names.values()) - set(Role)):
            raise ConfigError(
                f"MEDVEC_OIDC_ROLE_NAMES: {unknown[0]!r} is no role", remedy=f"use one of: {', '.join(Role)}"
            )
        self._settings = settings
        self._tls = _trusting(settings.oidc_ca) if settings.oidc_ca else None
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        self.keys = Remembered(
            self._read_keys, pause_seconds=UNKNOWN_KEY_PAUSE_SECONDS, believed_seconds=BELIEVED_SECONDS
        )

    async def caller(self, token: str) -> Caller:
        """Whose token it is. Refused: 401 whatever is wrong with it, 503 if that cannot be told."""
        key = await self._key(token)
        try:
            claims = self._jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=self._settings.oidc_leeway_seconds,
                options={"require": REQUIRED},
            )
        except jwt.PyJWTError as error:
            raise unauthenticated(_reason(error)) from None
        return self._granted(claims)

    async def _key(self, token: str) -> PyJWK:
        try:
            header = jwt.get_unverified_header(token) if len(token) <= MAX_TOKEN_CHARS else {}
        except jwt.PyJWTError:
            header = {}
        key_id = header.get("kid")
        if not isinstance(key_id, str) or header.get("alg") not in ALGORITHMS:
            raise unauthenticated("token_malformed")
        if self.keys.age_seconds > REREAD_SECONDS or key_id not in (self.keys.value or {}):
            await self.keys.read_again()
        known = self.keys.value
        if known is None or (key_id not in known and not self.keys.succeeded):
            raise unavailable("issuer_unavailable")
        if key_id not in known:
            raise unauthenticated("token_key_unknown")
        return known[key_id]

    def _granted(self, claims: dict[str, Any]) -> Caller:
        names = self._settings.oidc_role_names
        values = _claim(claims, self._settings.oidc_roles_claim)
        roles = roles_named([names.get(value, "") for value in values] if names else values)
        datasets = _claim(claims, self._settings.oidc_datasets_claim)
        return Caller(claims["sub"], None if EVERY_DATASET in datasets else datasets, roles, "token")

    def _read_keys(self) -> Keys:
        """The issuer's signing keys by id. Blocks. Raises SourceUnavailable."""
        try:
            found = PyJWKSet.from_dict(self._fetched(self._settings.oidc_jwks_uri or self._discovered()))
        except (jwt.PyJWTError, OSError, ValueError):
            raise SourceUnavailable(
                "the issuer's keys cannot be read", remedy=_REMEDY, code="issuer_unavailable"
            ) from None
        usable = [key for key in found if key.algorithm_name in ALGORITHMS and key.public_key_use in ("sig", None)]
        return {key.key_id: key for key in usable if key.key_id}

    def _discovered(self) -> str:
        issuer = self._settings.oidc_issuer
        told = self._fetched(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != issuer or not isinstance(told.get("jwks_uri"), str):
            raise ValueError("the discovery document is of another issuer")
        _require_secure(told["jwks_uri"])
        return str(told["jwks_uri"])

    def _fetched(self, uri: str) -> dict[str, Any]:
        # PyJWKClient as a JSON reader that follows no redirect; when to read is ours (Remembered says why).
        client = PyJWKClient(uri, cache_jwk_set=False, timeout=TIMEOUT_SECONDS, ssl_context=self._tls)
        found: dict[str, Any] = client.fetch_data()
        return found


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"MEDVEC_OIDC_CA {ca} cannot be used", remedy="name a PEM file of certificates") from None


def looks_like_token(given: str) -> bool:
    return given.count(".") == 2


def _claim(claims: dict[str, Any], name: str) -> frozenset[str]:
    """The claim's words: a list, or one string with spaces. `a.b` also means b within a, as Keycloak has it."""
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    words = value.split() if isinstance(value, str) else value
    return frozenset(word for word in words if isinstance(word, str)) if isinstance(words, list) else frozenset()


def _reason(error: jwt.PyJWTError) -> str:
    """For the access log: the check that failed, `token_expired_signature`; never the claim's value."""
    name = type(error).__name__.removesuffix("Error")
    return "token" + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _require_secure(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            "an issuer's address is not https: whoever is between could sign tokens", remedy="use https://"
        )
