"""The page. Open to anybody, as it holds nothing: what it shows it asks of /v1, with the key of whoever looks.

Does not belong here: the page itself (api.page), thumbnails and maps (routes.pictures).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.auth import Guarded
from api.problems import responses

router = APIRouter(include_in_schema=False, route_class=Guarded)

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# Only its own scripts and styles; pictures are fetched with the key and shown from memory (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def page() -> Response:
    """The page's frame."""
    return _file("index.html")


@router.get("/page/{name}", responses=responses(404))
async def part(name: str) -> Response:
    """A script or the style sheet of the page."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in _names():
        raise HTTPException(404, "the page has no such part")
    kind = MEDIA_TYPES[name.rsplit(".", 1)[1]]
    return Response(_bytes(name), media_type=kind, headers={"Content-Security-Policy": POLICY})


@cache
def _names() -> frozenset[str]:
    return frozenset(one.name for one in files("api.page").iterdir() if one.name.rsplit(".", 1)[-1] in MEDIA_TYPES)


@cache
def _bytes(name: str) -> bytes:
    return files("api.page").joinpath(name).read_bytes()
