"""Search. Does not belong here: choosing, fan-out, merge (query.search), reading a file (query.uploads)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from api.access import Look, Looking
from api.auth import Charge, Guarded, Reader, Serving
from api.identity.callers import Caller
from api.identity.limits import cost_of_search
from api.models.lineage import VectorId
from api.models.search import ImageQuery, MembersAnswer, Name, SearchAnswer, SearchBody
from api.problems import GUARDED, WITH_BODY, responses
from api.service import Service
from api.uploading import PATH, received, requested_kind
from medvec_assets.query.search import MAX_LIMIT, SearchRequest
from medvec_assets.query.uploads import MEDIA_TYPES

router = APIRouter(prefix="/v1", tags=["search"], route_class=Guarded)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE = {"requestBody": {"required": True, "content": dict.fromkeys(sorted(MEDIA_TYPES), _BINARY)}}


@router.post("/search", response_model=SearchAnswer, responses=responses(*WITH_BODY, 404, 410))
def search(reader: Reader, service: Serving, looking: Looking, charge: Charge, body: SearchBody) -> Response:
    """Neighbours of a text, a record, a stored vector or a vector, best first, each with its provenance."""
    charge(cost_of_search(max(1, len(body.queries)), body.limit))
    return _answer(service, reader, looking, body.request(), body.explain)


@router.post(
    PATH.removeprefix("/v1"),
    response_model=SearchAnswer,
    responses=responses(*WITH_BODY, 404, 410, 415),
    openapi_extra=_FILE,
)
async def search_by_image(
    reader: Reader,
    service: Serving,
    looking: Looking,
    charge: Charge,
    asked: Annotated[ImageQuery, Query()],
    request: Request,
) -> Response:
    """Neighbours of a DICOM, PNG, JPEG or NIfTI file, which is the body. It is read in memory, taken the way that stored
    images took, de-identification included, and forgotten."""
    kind = requested_kind(request)
    looking.question = asked.model_dump_json(exclude_defaults=True)  # of a file that is refused, all there is to tell
    asked.conditions()  # refused before the file is read
    await run_in_threadpool(charge, cost_of_search(1, asked.limit))
    with service.decoder.place():
        data = await received(request, service.settings.api_upload_seconds)
        image = await run_in_threadpool(service.decoder.decode, kind, data)
    return await run_in_threadpool(_answer, service, reader, looking, asked.request(image), asked.explain)


@router.get("/hits/{vector_id}/members", responses=responses(*GUARDED, 404))
def members(
    reader: Reader,
    service: Serving,
    looking: Looking,
    charge: Charge,
    vector_id: VectorId,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    after: Annotated[Name | None, Query(description="the `after` of an earlier answer")] = None,
) -> MembersAnswer:
    """The records whose identical content a hit stands for."""
    looking.question = vector_id
    charge(cost_of_search(1, limit))
    found = service.engine.members(vector_id, reader.datasets, limit, after)
    looking.versions, looking.results = found.versions, len(found.records)
    looking.subjects = {one.subject_key for one in found.records}
    return MembersAnswer.model_validate(found)


def _answer(service: Service, reader: Caller, looking: Look, request: SearchRequest, explain: bool) -> Response:
    """What was found, written at once: to validate each hit twice, as for a model, takes longer than a kept answer does."""
    looking.question = request.canonical()
    found = service.engine.search(request, reader.datasets)
    looking.versions, looking.subjects, looking.results = found.versions, found.subjects, len(found.hits)
    hits = [[hit.shown() for hit in hits] for hits in found.answers]
    told: dict[str, Any] = {
        "hits": [] if request.queries else hits[0],
        "answers": hits if request.queries else None,
        "cursor": found.cursor,
        "explain": found.explain if explain else None,
    }
    return Response(to_json(told), media_type="application/json")
