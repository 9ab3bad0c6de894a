"""Pictures: a map of a space. Does not belong here: drawing (the page), which vectors (query.maps)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.pictures import MapAnswer
from api.problems import responses
from medvec_assets.query.maps import space_map

router = APIRouter(prefix="/v1", tags=["pictures"], route_class=Guarded)

Space = Annotated[str, Query(min_length=1, max_length=64, examples=["text"])]


@router.get("/datasets/{dataset_id}/map", responses=responses(401, 403, 404, 422, 429, 503))
def map_of(reader: Reader, service: Serving, looking: Looking, dataset_id: str, space: Space) -> MapAnswer:
    """A sample of the space's vectors in two dimensions, to browse."""
    looking.question = f"map of {dataset_id}/{space}"
    found = space_map(dataset_id, space, service.settings, service.lake, reader.datasets)
    looking.versions, looking.subjects, looking.results = found.versions, set(found.subjects), len(found.points)
    return MapAnswer.model_validate(found)
