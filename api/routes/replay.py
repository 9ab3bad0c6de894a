"""An earlier answer again. Does not belong here: what an old version answers (query.as_of)."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Looking
from api.auth import Charge, Guarded, Reader, Serving
from api.identity.limits import COST_OF_SCAN
from api.models.replay import ReplayAnswer, ReplayBody
from api.problems import WITH_BODY, responses
from medvec_assets.query.as_of import replay as as_of

router = APIRouter(prefix="/v1", tags=["search"], route_class=Guarded)


@router.post("/replay", responses=responses(*WITH_BODY, 404, 410))
def replay(reader: Reader, service: Serving, looking: Looking, charge: Charge, body: ReplayBody) -> ReplayAnswer:
    """What a question found at the Delta versions of then, less what was withdrawn or suppressed since; 410 once those
    versions are deleted."""
    charge(COST_OF_SCAN)
    looking.question = body.model_dump_json(exclude_none=True)
    found = as_of(body.request(), service.settings, service.lake, reader.datasets)
    looking.versions, looking.subjects, looking.results = found.versions, set(found.subjects), len(found.hits)
    return ReplayAnswer.model_validate(found)
