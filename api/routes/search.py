"""Search. Does not belong here: choosing, fan-out, merge (query.search)."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Looking
from api.auth import Reader, Serving
from api.models.search import HitModel, SearchAnswer, SearchBody
from api.problems import responses

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/search", responses=responses(401, 403, 404, 413, 422, 503))
def search(reader: Reader, service: Serving, looking: Looking, body: SearchBody) -> SearchAnswer:
    """Neighbours of a text, a record, a stored vector or a vector, best first, each with its provenance."""
    hits = service.engine.search(body.request(), reader.datasets)
    looking.results = len(hits)
    return SearchAnswer(hits=[HitModel.model_validate(hit) for hit in hits])
