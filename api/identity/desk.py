"""The desk every request passes: who is it, within which limits, what for do they ask.

Belongs here: what these questions are answered with for the app's life. Does not belong here: their order, and the role
that a route needs (api.auth).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from api.identity.callers import Caller, Refused, unauthenticated
from api.identity.keys import KeyRing
from api.identity.limits import Limits
from api.identity.tokens import TokenVerifier, looks_like_token
from resources.api_keys import read_keys
from resources.errors import QueryInvalid
from resources.lakehouse import Lakehouse
from resources.settings import Settings, secret_file


class Desk:
    """One per app. The operator's key of HOME/keys/api.key is made, and opens anything, only where none but this machine
    can reach the service."""

    def __init__(self, settings: Settings, lake: Callable[[], Lakehouse]) -> None:
        self._settings = settings
        operator = secret_file(operator_key(settings)) if settings.api_is_local else None
        self._keys = KeyRing(lambda: read_keys(lake()), operator)
        self._tokens = TokenVerifier(settings) if settings.oidc_issuer else None
        self.limits = Limits(settings)

    async def identified(self, given: str | None, address: str) -> Caller:
        """Who sent the credential `given` from the client `address`. Refused: 401, 429 after too many of them, or 503."""
        try:
            return await self._known(given)
        except Refused as refused:
            if refused.status_code == 401:
                await self.limits.failure(address)
            raise

    async def _known(self, given: str | None) -> Caller:
        if not given:
            raise unauthenticated("credential_missing")
        if self._tokens is not None and looks_like_token(given):
            return await self._tokens.caller(given)
        return await self._keys.caller(given)

    def purpose(self, given: str | None) -> str:
        """The purpose of use that was given; empty if none was. Raises QueryInvalid for one that is not allowed."""
        allowed = ", ".join(sorted(self._settings.api_purposes))
        if given is None and self._settings.api_purpose_required:
            raise QueryInvalid("no purpose of use was given", remedy=f"send X-Purpose-Of-Use, one of: {allowed}")
        if given is not None and given not in self._settings.api_purposes:
            raise QueryInvalid("that purpose of use is not allowed here", remedy=f"use one of: {allowed}")
        return given or ""


def operator_key(settings: Settings) -> Path:
    return settings.home / "keys" / "api.key"
