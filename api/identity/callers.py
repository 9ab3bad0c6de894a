"""Who a caller is, and why one was refused.

Belongs here: the value that every route gets, and the refusals. A refusal tells its caller the same whatever the reason;
the reason is for the access log. Does not belong here: finding either out (keys, tokens, limits).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from medvec_assets.query.published import Grants
from resources.api_keys import Role

RETRY_SECONDS = 5


@dataclass(frozen=True)
class Caller:
    """Somebody who may call. `datasets` are those that were granted; None: all that this deployment may show.

    `name` is a key's owner or a token's subject, `credential` how it was proved: `key:ID`, `operator` or `token`.
    `purpose` is the HL7 PurposeOfUse code that was given, or empty.
    """

    name: str
    datasets: Grants = frozenset()
    roles: frozenset[Role] = frozenset()
    credential: str = ""
    purpose: str = ""

    @property
    def id(self) -> str:
        """Tells callers apart: an owner's keys are one caller, a token's subject of the same name another."""
        return f"{'token' if self.credential == 'token' else 'key'}:{self.name}"


class Refused(HTTPException):
    """A caller's refusal. `reason` is for the access log only: which rule, never what was sent."""

    def __init__(self, status: int, detail: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.reason = reason


def unauthenticated(reason: str) -> Refused:
    return Refused(401, "this needs a valid credential", reason, {"WWW-Authenticate": "Bearer"})


def forbidden(reason: str) -> Refused:
    return Refused(403, "your roles do not allow this", reason)


def unavailable(reason: str) -> Refused:
    """What would tell who asks does not answer: nobody is let in meanwhile."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return Refused(503, "the credential cannot be checked right now", reason, headers)
