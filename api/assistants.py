"""The endpoint for assistants: a few questions as tools of the Model Context Protocol, over HTTP without sessions.

Belongs here: what each tool asks and what it says of itself. Does not belong here: the protocol (the `mcp` package), the
route and its permission (routes.assistants).

Each call is one POST with the caller's own credential, so an assistant sees what its user may see, is charged like it, and
is recorded like it: one event a call. No session is kept, so any worker or replica may answer the next one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import Field
from starlette.requests import Request

from api.access import Look, look_of
from api.identity.callers import Caller, Refused
from api.identity.limits import cost_of_search
from api.service import Service
from medvec_assets.query.lineage import trace
from medvec_assets.query.search import MAX_TEXT_CHARS, SearchRequest
from resources.errors import MedvecError

log = logging.getLogger("medvec.api")
MAX_HITS = 50  # an assistant reads them all
INSTRUCTIONS = (
    "Similarity search over medical images, genomes and records. General-purpose encoders support no clinical statement; "
    "records marked synthetic are made up. Name the licence and the lineage of what you use."
)
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, description="a question in words")]
VectorId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="the vector_id of a hit")]
Datasets = Annotated[
    list[str] | None, Field(max_length=100, description="ids of `datasets`; none: all that may be seen")
]
Cohorts = Annotated[list[str] | None, Field(max_length=100, description="none: every cohort")]
Limit = Annotated[int, Field(ge=1, le=MAX_HITS)]
GroupBy = Annotated[
    Literal["subject", "study"] | None, Field(description="only the best hit of each; studies are imaging datasets'")
]


@asynccontextmanager
async def assistants(service: Service) -> AsyncIterator[StreamableHTTPSessionManager]:
    """Answers the requests that are handed to it, as long as the app lives."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # its lines hold what was asked
    server = MCPServer("medvec", instructions=INSTRUCTIONS)

    @server.tool()
    def search(
        ctx: Context[Any, Any],
        text: Text,
        datasets: Datasets = None,
        cohorts: Cohorts = None,
        limit: Limit = 10,
        group_by: GroupBy = None,
    ) -> dict[str, Any]:
        """Records whose content is nearest to a text, best first, each with score, licence and provenance."""
        with _asking(ctx) as (caller, look):
            asked = SearchRequest(
                text=text,
                datasets=tuple(datasets or ()),
                cohorts=tuple(cohorts or ()),
                limit=limit,
                group_by=group_by,
            )
            return _search(service, caller, look, asked)

    @server.tool()
    def more_like_this(
        ctx: Context[Any, Any], vector_id: VectorId, limit: Limit = 10, group_by: GroupBy = None
    ) -> dict[str, Any]:
        """Records like a hit of an earlier search."""
        with _asking(ctx) as (caller, look):
            asked = SearchRequest(vector_id=vector_id, limit=limit, group_by=group_by)
            return _search(service, caller, look, asked)

    @server.tool()
    def lineage(ctx: Context[Any, Any], vector_id: VectorId) -> dict[str, Any]:
        """Where a hit comes from: embedding, record, source objects with checksums, release, licence, commits and runs."""
        with _asking(ctx) as (caller, look):
            look.question = f"lineage {vector_id}"
            found = trace(vector_id, service.settings, service.lake, caller.datasets)
            look.results, look.subjects, look.versions = 1, set(found.subjects), found.versions
            return found.told

    @server.tool()
    def datasets(ctx: Context[Any, Any]) -> list[dict[str, Any]]:
        """What is here and may be seen: title, how many, under which licence, how to cite."""
        with _asking(ctx) as (caller, look):
            found = service.catalogue.entries(caller.datasets)
            look.question, look.results = "datasets", len(found)
            return [_listed(one) for one in found]

    manager = StreamableHTTPSessionManager(server._lowlevel_server, json_response=True, stateless=True)
    async with manager.run():
        yield manager


def _search(service: Service, caller: Caller, look: Look, asked: SearchRequest) -> dict[str, Any]:
    look.question = asked.canonical()
    service.desk.limits.charge(caller, cost_of_search(1, asked.limit))
    found = service.engine.search(asked, caller.datasets)
    look.versions, look.subjects, look.results = found.versions, found.subjects, len(found.hits)
    return {"hits": [hit.shown() for hit in found.hits]}


def _listed(one: Any) -> dict[str, Any]:
    names = ("id", "title", "description", "kind", "access_tier", "licenses", "citation")
    spaces, cohorts = [space.space for space in one.spaces], [cohort.cohort for cohort in one.cohorts]
    return {name: getattr(one, name) for name in names} | {"spaces": spaces, "cohorts": cohorts}


@contextmanager
def _asking(ctx: Any) -> Iterator[tuple[Caller, Look]]:
    """Who the route let in, and this request's look. What goes wrong is told as a problem is: never an error's own text."""
    request: Request = ctx.request_context.request
    caller: Caller = request.state.permitted[1]
    look = look_of(request)
    try:
        yield caller, look
    except MedvecError as error:
        look.refusal = error.code
        raise ToolError(f"{error.message}; {error.remedy}") from None
    except Refused as refused:
        look.refusal = refused.reason
        raise ToolError(str(refused.detail)) from None
    except Exception as error:  # noqa: BLE001 - the last one before the protocol, which would tell its text
        look.refusal = "internal"
        log.error("a tool failed: %s", type(error).__name__)
        raise ToolError("something unexpected failed; run medvec doctor") from None
