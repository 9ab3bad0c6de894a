"""Lineage. Does not belong here: walking it (query.lineage)."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.lineage import LineageAnswer
from api.problems import responses
from medvec_assets.query.lineage import lineage

router = APIRouter(prefix="/v1", tags=["lineage"], route_class=Guarded)


@router.get("/lineage/{vector_id}", responses=responses(401, 403, 404, 422, 429, 503))
def lineage_of(reader: Reader, service: Serving, looking: Looking, vector_id: str) -> LineageAnswer:
    """Where a vector came from: source object, licence, release, commits, weights, runs."""
    found = lineage(vector_id, service.settings, service.lake, reader.datasets)
    looking.question, looking.results = vector_id, 1
    return LineageAnswer.model_validate(found)
