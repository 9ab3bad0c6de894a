"""Checks an API key against the hashes in the lake, and the operator's own against HOME/keys/api.key.

Belongs here: finding and comparing. Does not belong here: making keys (resources.api_keys).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from api.identity.callers import Caller, unauthenticated, unavailable
from api.identity.remembered import Remembered
from resources.api_keys import ApiKey, Role, hash_of, split

REREAD_SECONDS = 5.0  # so long a revoked key may still be answered
BELIEVED_SECONDS = 60.0  # and so long if the lake cannot be read
OPERATOR = "operator"

_NEVER, _FOREVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_NOBODY = ApiKey("", "", frozenset(), frozenset(), hash_of(""), _NEVER, _NEVER)


class KeyRing:
    """`read` gives every key by id; `operator` is the secret of HOME/keys/api.key, or None where it opens nothing."""

    def __init__(self, read: Callable[[], Mapping[str, ApiKey]], operator: str | None) -> None:
        self.remembered = Remembered(read, pause_seconds=REREAD_SECONDS, believed_seconds=BELIEVED_SECONDS)
        self._operator = _operators(operator) if operator else None

    async def caller(self, given: str) -> Caller:
        """Whose key it is. Refused: 401 whatever is wrong with it, 503 if that cannot be told."""
        key_id, secret = split(given)
        if key_id:
            await self.remembered.read_again()
            keys = self.remembered.value
            if keys is None:
                raise unavailable("keys_unavailable")
            key = keys.get(key_id)
        else:
            key = self._operator
        # An unknown id is compared too, and in the same time wherever the first difference is.
        same = hmac.compare_digest(hash_of(secret).encode(), (key or _NOBODY).secret_sha256.encode())
        if key is None or not same:
            raise unauthenticated("key_wrong" if key else "key_unknown")
        if key.expires_at <= datetime.now(UTC):
            raise unauthenticated("key_revoked" if key.event == "revoked" else "key_expired")
        credential = OPERATOR if key.id == OPERATOR else f"key:{key.id}"
        return Caller(key.owner, key.datasets, key.roles, credential)


def _operators(secret: str) -> ApiKey:
    return ApiKey(OPERATOR, OPERATOR, frozenset({Role.ADMIN}), None, hash_of(secret), _NEVER, _FOREVER)
