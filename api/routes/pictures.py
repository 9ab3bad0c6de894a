"""Pictures: a map of a space, a thumbnail. Does not belong here: making them (query.maps, query.thumbnails), the page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.lineage import VectorId
from api.models.pictures import MapAnswer
from api.problems import GUARDED, responses
from medvec_assets.query.maps import space_map
from medvec_assets.query.thumbnails import thumbnail

router = APIRouter(prefix="/v1", tags=["pictures"], route_class=Guarded)

Space = Annotated[str, Query(min_length=1, max_length=64, examples=["text"])]


@router.get("/datasets/{dataset_id}/map", responses=responses(*GUARDED, 404))
def map_of(reader: Reader, service: Serving, looking: Looking, dataset_id: str, space: Space) -> MapAnswer:
    """A sample of the space's vectors in two dimensions, to browse."""
    looking.question = f"map of {dataset_id}/{space}"
    found = space_map(dataset_id, space, service.settings, service.lake, reader.datasets)
    looking.versions, looking.subjects, looking.results = found.versions, set(found.subjects), len(found.points)
    return MapAnswer.model_validate(found)


@router.get(
    "/thumbnails/{vector_id}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **responses(*GUARDED, 404)},
)
def thumbnail_of(reader: Reader, service: Serving, looking: Looking, vector_id: VectorId) -> Response:
    """What the encoder saw of an image, as a PNG of 224 pixels a side."""
    looking.question = vector_id
    found = thumbnail(vector_id, service.settings, service.lake, reader.datasets)
    looking.versions = {f"{found.dataset}/{found.space}": found.delta_version}
    looking.subjects, looking.results = {found.subject_key}, 1
    return Response(found.png, media_type="image/png")
