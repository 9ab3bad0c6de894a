"""Numbers for Prometheus. Does not belong here: what they are (telemetry)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.auth import Guarded, Scraper
from api.last_look import LastLook
from api.problems import GUARDED, responses
from api.telemetry import Telemetry

router = APIRouter(tags=["health"], route_class=Guarded)


@router.get("/metrics", responses=responses(*GUARDED), response_class=Response)
def metrics(scraper: Scraper, request: Request) -> Response:
    """Requests, steps, answers and load in Prometheus' text format; no name of a caller, no question."""
    last_look: LastLook = request.state.last_look
    last_look.refresh()
    telemetry: Telemetry = request.state.telemetry
    return telemetry.exposition()
