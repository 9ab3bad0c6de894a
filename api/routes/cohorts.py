"""Neighbour sets for cohorts. Does not belong here: counting and suppression (query.cohorts, query.small_cells)."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Looking
from api.auth import Charge, Guarded, Reader, Serving
from api.identity.limits import COST_OF_SCAN
from api.models.cohorts import NeighboursAnswer, NeighboursBody
from api.problems import WITH_BODY, responses
from medvec_assets.query.cohorts import neighbour_counts

router = APIRouter(prefix="/v1/cohorts", tags=["datasets"], route_class=Guarded)


@router.post("/neighbours", responses=responses(*WITH_BODY, 404))
def neighbours(
    reader: Reader, service: Serving, looking: Looking, charge: Charge, body: NeighboursBody
) -> NeighboursAnswer:
    """How many subjects are near a set of records, a cohort or a vector, by attribute: counts only, none below the source's
    minimum."""
    charge(COST_OF_SCAN)
    looking.question = body.model_dump_json(exclude_none=True)
    found = neighbour_counts(body.request(), service.settings, service.lake, reader.datasets)
    # Nobody surfaced: of whom the counts are, they do not tell.
    looking.versions = {f"{found.dataset}/{found.space}": found.delta_version}
    looking.results = len(found.counts)
    return NeighboursAnswer.model_validate(found)
