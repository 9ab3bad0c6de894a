"""Is it alive, is it ready, what can it do. Does not belong here: what is looked at (service)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from api.auth import Guarded, Reader, Serving
from api.models.health import Alive, Ready
from api.problems import document, responses
from resources.errors import AuditUnavailable, IndexUnavailable, MedvecError

router = APIRouter(tags=["health"], route_class=Guarded)


@router.get("/livez", responses=responses(400))
async def livez() -> Alive:
    """The process answers. Looks at nothing else, and waits for no thread of the pool."""
    return Alive()


@router.get("/readyz", responses=responses(400, 503))
def readyz(service: Serving) -> Ready:
    """Access log, lake and index answer. Asked without a key, so it does not tell where they are."""
    try:
        service.check_ready()
    except MedvecError as error:
        parts = {IndexUnavailable: "index", AuditUnavailable: "access log"}
        part = parts.get(type(error), "lake or index")
        raise IndexUnavailable(
            f"not ready: the {part} does not answer ({error.code})", remedy="run medvec doctor", code="not_ready"
        ) from error
    return Ready()


@router.get("/openapi.json", include_in_schema=False)
async def openapi(reader: Reader, service: Serving, request: Request) -> JSONResponse:
    """The service's own description. No interactive page: it would load scripts from elsewhere."""
    return JSONResponse(document(request.app, service.settings))
