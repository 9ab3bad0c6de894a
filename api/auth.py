"""Who may call: permissions as types, so that a route's signature shows its rule.

    def search(reader: Reader, ...) -> ...      # a caller who may read
    def export(auditor: Auditor, ...) -> ...    # one who may see who asked what
    def livez() -> ...                          # nobody is asked

    Reader   search, lineage, datasets, counts of a cohort     reader, steward, admin
    Steward  answering for a dataset                           steward, admin
    Auditor  the access log: reading, export, verify           auditor, admin
    Admin    the service itself                                admin
    Scraper  metrics                                           metrics, auditor, admin

An auditor is no reader: who sees who asked needs not see what was asked for. One who is both has both roles.

Belongs here: the types, and reading the headers. Does not belong here: checking a credential (identity), what a
dataset's policy allows (query.published), how a route is run (served).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Request, Response, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.access import look_of
from api.identity.callers import Caller, Refused, forbidden
from api.problems import PURPOSE
from api.served import Arriving, Read, lean
from api.service import Service
from resources.api_keys import Role
from resources.errors import QueryInvalid

_BEARER = HTTPBearer(auto_error=False, description="an API key of `medvec keys create`, or a token of the OIDC issuer")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="an API key of `medvec keys create`")

PERMISSIONS: dict[Callable[..., Any], Permission] = {}
"""Every permission by its dependency. A route among whose dependencies there is none of them is open to all."""
_READ: dict[Callable[..., Any], Read] = {}
"""Every dependency that needs nothing but the request, and what is called in its place."""


def service_of(request: Request) -> Service:
    return cast(Service, request.state.service)


@dataclass(frozen=True)
class Permission:
    """Lets callers with one of `roles` in."""

    roles: frozenset[Role]

    async def check(self, request: Request) -> Caller:
        """The caller. Refused: 401, 403, 429 or 503; QueryInvalid for a purpose of use that is none."""
        bearer = await _BEARER(request)
        given = bearer.credentials if bearer is not None else await _HEADER(request)
        desk = service_of(request).desk
        look, address = look_of(request), request.client.host if request.client else ""
        try:
            caller = await desk.identified(given, address)
            look.who, look.key_id, look.roles = (
                caller.id,
                caller.credential,
                set(caller.roles),
            )  # of one refused below too
            await desk.limits.request(caller)
            if not caller.roles & self.roles:
                raise forbidden("role_missing")
            look.purpose = desk.purpose(request.headers.get(PURPOSE))
            caller = replace(caller, purpose=look.purpose)
        except Refused as refused:
            look.refusal = refused.reason
            raise
        except QueryInvalid:
            look.refusal = "purpose_invalid"
            raise
        request.state.permitted = (self, caller)
        return caller

    def caller(self, request: Request) -> Caller:
        """Whom this permission, and no other, let in before the route began."""
        by, caller = request.state.permitted
        if by is not self:
            raise RuntimeError("a route asks for a permission that was not checked: name one, and use Guarded")
        return cast(Caller, caller)


def _needs(*roles: Role) -> Callable[..., Caller]:
    permission = Permission(frozenset(roles))

    def permitted(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],  # these three for OpenAPI
        header: Annotated[str | None, Security(_HEADER)],
        purpose: Annotated[str | None, Header(alias=PURPOSE, description="HL7 PurposeOfUse code")] = None,
    ) -> Caller:
        return permission.caller(request)

    PERMISSIONS[permitted] = permission
    _READ[permitted] = permission.caller
    return permitted


def permission_of(dependant: Dependant) -> Permission | None:
    """The permission that a route's signature names; None if it names none."""
    if dependant.call in PERMISSIONS:
        return PERMISSIONS[dependant.call]
    return next(filter(None, map(permission_of, dependant.dependencies)), None)


class Guarded(APIRoute):
    """A route whose permission is asked before its body is read: FastAPI would parse what a stranger sent first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, permission = self._answer, permission_of(self.dependant)

        async def guarded(request: Request) -> Response:
            if permission is not None:
                await permission.check(request)
            return await answer(Arriving(request.scope, request.receive))

        return guarded

    @cached_property
    def _answer(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return lean(self, _READ).get_route_handler()


def charge_of(request: Request) -> Callable[[int], None]:
    """Charges a cost to the caller that this request's permission let in; 429 if it is too much."""

    def charge(cost: int) -> None:
        try:
            service_of(request).desk.limits.charge(request.state.permitted[1], cost)
        except Refused as refused:
            look_of(request).refusal = refused.reason
            raise

    return charge


_READ |= {service_of: service_of, charge_of: charge_of, look_of: look_of}
Serving = Annotated[Service, Depends(service_of)]
Reader = Annotated[Caller, Depends(_needs(Role.READER, Role.STEWARD, Role.ADMIN))]
Steward = Annotated[Caller, Depends(_needs(Role.STEWARD, Role.ADMIN))]
Auditor = Annotated[Caller, Depends(_needs(Role.AUDITOR, Role.ADMIN))]
Admin = Annotated[Caller, Depends(_needs(Role.ADMIN))]
Scraper = Annotated[Caller, Depends(_needs(Role.METRICS, Role.AUDITOR, Role.ADMIN))]
Charge = Annotated[Callable[[int], None], Depends(charge_of)]
