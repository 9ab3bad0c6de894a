"""The Model Context Protocol. Does not belong here: the tools (assistants)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.auth import Guarded, Reader

router = APIRouter(tags=["assistants"], route_class=Guarded)


class _Handed(Response):
    """The answer is the protocol's own, to a request whose caller is known by now."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._request.state.assistants.handle_request(scope, receive, send)


@router.post("/mcp", include_in_schema=False)  # the protocol describes itself: initialize, tools/list
async def assistants(reader: Reader, request: Request) -> Response:
    """One JSON-RPC message of the Model Context Protocol (streamable HTTP, no session): tools search, more_like_this,
    lineage, datasets."""
    return _Handed(request)
