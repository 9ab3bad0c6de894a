"""Who may call: permissions as types, so that a route's signature shows its rule.

    def search(reader: Reader, ...) -> ...      # a caller who may read
    def livez() -> ...                          # nobody is asked

Belongs here: reading and checking credentials. Does not belong here: what a dataset's policy allows (query.published).
One key, made at first start in HOME/keys/api.key (mode 0600), sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from api.access import Looking
from api.service import Service
from medvec_assets.query.published import Grants

_BEARER = HTTPBearer(auto_error=False, description="the key in HOME/keys/api.key")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="the key in HOME/keys/api.key")


@dataclass(frozen=True)
class Caller:
    """Somebody who may call. `datasets` are those that were granted; None: all that this deployment may show."""

    name: str
    datasets: Grants = None


def service_of(request: Request) -> Service:
    return cast(Service, request.state.service)


def may_read(
    service: Annotated[Service, Depends(service_of)],
    looking: Looking,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    header: Annotated[str | None, Security(_HEADER)],
) -> Caller:
    """The caller, if one of the two headers holds the key; 401 otherwise."""
    given = bearer.credentials if bearer is not None else header
    # compare_digest takes the same time wherever the first difference is; bytes, because it refuses non-ASCII text.
    if given is None or not hmac.compare_digest(given.encode(), service.api_key.encode()):
        raise HTTPException(401, "this needs the API key", headers={"WWW-Authenticate": "Bearer"})
    looking.who = "api-key"
    return Caller(looking.who)


Serving = Annotated[Service, Depends(service_of)]
Reader = Annotated[Caller, Depends(may_read)]
