"""Every refusal as problem+json (RFC 9457): type, title, status, detail, remedy, code.

Belongs here: turning errors into responses. A problem names the rule and the remedy; it never quotes what was sent, and
an unexpected error tells nothing of the inside. Does not belong here: which errors exist (resources.errors).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from resources.errors import MedvecError
from resources.settings import Settings

MEDIA_TYPE = "application/problem+json"

MAX_FIELD_ERRORS = 20  # a vector of 16,384 strings would be answered with megabytes
GUARDED = (400, 401, 403, 422, 429, 503)  # what every route that asks for a credential can answer
WITH_BODY = (*GUARDED, 408, 413)
PURPOSE = "X-Purpose-Of-Use"
log = logging.getLogger("medvec.api")

_REMEDIES = {
    400: "send valid JSON in UTF-8, to a host name that the service has",
    401: "send a key of `medvec keys create`, on this machine that of HOME/keys/api.key, or your issuer's token, as "
    "'Authorization: Bearer ...'; keys also as 'X-API-Key: KEY'",
    403: "ask for the role: `medvec keys create --role`, or at your issuer",
    404: "see GET /openapi.json for the routes",
    408: "send the body faster, or send less",
    405: "see GET /openapi.json for the routes and their methods",
    410: "ask the question again, without a cursor",
    413: "send a body of at most 1 MiB, or an image of at most MEDVEC_API_UPLOAD_BYTES",
    415: "send application/json to search, and the file itself to search by image; GET /openapi.json lists its types",
    422: "mend the fields named in errors; GET /openapi.json has the schema and examples",
    429: "wait as long as Retry-After says",
    500: "look for the incident in the service's log, or run medvec doctor",
    503: "try again after Retry-After",
}


class FieldError(BaseModel):
    field: str = Field(examples=["body.limit"])
    rule: str = Field(examples=["Input should be less than or equal to 1000"])


class Problem(BaseModel):
    """What every error answer looks like."""

    type: str = Field(examples=["urn:medvec:problem:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no cohort lung in tcia_catalog"])
    remedy: str = Field(examples=["list the cohorts: medvec partitions DATASET, or GET /v1/datasets"])
    code: str = Field(examples=["not_found"])
    errors: list[FieldError] | None = Field(default=None, description="the fields that broke a rule (422 only)")


def problem(
    status: int,
    detail: str,
    *,
    remedy: str | None = None,
    code: str | None = None,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem+json response; title, and where not given remedy and code, follow from the status."""
    title = HTTPStatus(status).phrase
    code = code or title.lower().replace(" ", "_")
    body = Problem(
        type=f"urn:medvec:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        remedy=remedy or _REMEDIES.get(status, "run medvec doctor"),
        code=code,
        errors=errors,
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, dict(headers or {}), MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems that a route can answer with."""
    return {status: {"description": HTTPStatus(status).phrase, "model": Problem} for status in statuses}


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The app's OpenAPI document, of this deployment's purposes of use. FastAPI lists every model as application/json;
    problems have their own media type."""
    described = app.openapi()
    purposes = {"type": "string", "enum": sorted(settings.api_purposes)}
    for methods in described["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == PURPOSE:
                    parameter |= {"required": settings.api_purpose_required, "schema": purposes}
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and "application/json" in answer["content"]:
                    answer["content"] = {
                        MEDIA_TYPE: answer["content"].pop("application/json") | {"example": _example(int(status))}
                    }
    return described


def _example(status: int) -> dict[str, Any]:
    """What such a problem looks like."""
    details = {
        401: "this needs the API key",
        403: "dataset aimi_chest_xray may not be searched here: its tier is registered, its residency holders",
        404: "there is no cohort lung in tcia_catalog",
        410: "the cursor has ended",
        422: "limit is 0",
        503: "the vector index at http://127.0.0.1:19530 cannot search (UNAVAILABLE)",
    }
    answer = problem(status, details.get(status, HTTPStatus(status).phrase.lower()))
    shown: dict[str, Any] = json.loads(bytes(answer.body))
    return shown


def install(app: FastAPI) -> None:
    """Make every error that reaches `app` a problem. What is unexpected is caught further out (api.app.Perimeter)."""

    @app.exception_handler(MedvecError)
    def medvec_error(request: Request, error: MedvecError) -> JSONResponse:
        headers = {"Retry-After": "5"} if error.retryable else None
        if error.status >= 500:
            log.error("%s: %s", type(error).__name__, error.code)  # the message may name more than a log should
        return problem(error.status, error.message, remedy=error.remedy, code=error.code, headers=headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Only where and which rule: pydantic's `input` and `ctx` would send the question back.
        errors = [FieldError(field=_field(one["loc"]), rule=one["msg"]) for one in error.errors()[:MAX_FIELD_ERRORS]]
        return problem(422, "the request breaks the schema", code="request_invalid", errors=errors)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, error.detail, headers=error.headers)


def _field(location: Sequence[str | int]) -> str:
    """`body.vector.3`; a field nobody knows is named as far as it can be printed."""
    return ".".join(str(step).encode("ascii", "replace").decode()[:80] for step in location)
