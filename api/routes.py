"""The endpoints. Each signature shows who may call; what blocks is a plain `def`, which runs in the thread pool.

Belongs here: one short function per route. Does not belong here: logic (medvec_assets.query), error shapes (problems).
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from api.auth import Reader, Serving
from api.models import Alive, DatasetModel, DatasetsAnswer, HitModel, LineageAnswer, Ready, SearchAnswer, SearchBody
from api.problems import document, responses
from medvec_assets.query.lineage import lineage
from medvec_assets.query.published import published_datasets
from resources.errors import IndexUnavailable, MedvecError

health = APIRouter(tags=["health"])
v1 = APIRouter(prefix="/v1", tags=["query"])


@health.get("/livez")
async def livez() -> Alive:
    """The process answers. Looks at nothing else, and waits for no thread of the pool."""
    return Alive()


@health.get("/readyz", responses=responses(503))
def readyz(service: Serving) -> Ready:
    """Lake and index answer. Asked without a key, so it does not tell where they are."""
    try:
        service.check_ready()
    except MedvecError as error:
        part = "index" if isinstance(error, IndexUnavailable) else "lake or index"
        raise IndexUnavailable(
            f"not ready: the {part} does not answer ({error.code})", remedy="run medvec doctor", code="not_ready"
        ) from error
    return Ready()


@health.get("/openapi.json", include_in_schema=False)
async def openapi(reader: Reader, request: Request) -> JSONResponse:
    """The service's own description. No interactive page: it would load scripts from elsewhere."""
    return JSONResponse(document(request.app))


@v1.post("/search", responses=responses(401, 403, 404, 413, 422, 503))
def search(reader: Reader, service: Serving, body: SearchBody) -> SearchAnswer:
    """Neighbours of a text, a record, a stored vector or a vector, best first, each with its provenance."""
    hits = service.engine.search(body.request())
    return SearchAnswer(hits=[HitModel.model_validate(hit) for hit in hits])


@v1.get("/lineage/{vector_id}", responses=responses(401, 404, 422))
def lineage_of(reader: Reader, service: Serving, vector_id: str) -> LineageAnswer:
    """Where a vector came from: source object, licence, release, commits, weights, runs."""
    return LineageAnswer.model_validate(lineage(vector_id, service.settings, service.lake))


@v1.get("/datasets", responses=responses(401))
def datasets(reader: Reader, service: Serving) -> DatasetsAnswer:
    """What can be searched here: datasets, their live spaces and their cohorts."""
    published = published_datasets(service.settings, service.lake)
    return DatasetsAnswer(datasets=[DatasetModel.model_validate(one) for one in published])
