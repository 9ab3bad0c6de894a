"""Files as request bodies: how large they may be, how long they may take to come, and what they say they are.

Belongs here: what is HTTP about an upload. Does not belong here: reading the file (query.uploads and query.decoder).
"""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from medvec_assets.query.uploads import MEDIA_TYPES

PATH = "/v1/search/image"


class UploadLimit:
    """Inside the limit of all bodies: uploads have a limit of their own."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = app
        self._limited = RequestBodyLimitMiddleware(app, max_body_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = scope["type"] == "http" and scope["path"] == PATH
        await (self._limited if is_upload else self._app)(scope, receive, send)


def requested_kind(request: Request) -> str:
    """The modality whose files are of this media type; 415 if there is none."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise HTTPException(415, "the body's Content-Type is none that is taken here")
    return MEDIA_TYPES[media_type]


async def received(request: Request, seconds: float) -> bytes:
    """The whole body, in memory; 408 if it does not come within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before its end") from None
