"""Lineage. Does not belong here: walking it, its forms (query.lineage)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.lineage import LineageAnswer, VectorId
from api.problems import GUARDED, responses
from medvec_assets.query import html
from medvec_assets.query.forms import MEDIA_TYPES, Form, as_text
from medvec_assets.query.lineage import trace

router = APIRouter(prefix="/v1", tags=["lineage"], route_class=Guarded)
PAGE_POLICY = f"{html.POLICY}; frame-ancestors 'none'"

_SCHEMAS: dict[str, Any] = {
    MEDIA_TYPES[Form.PROV]: {"type": "object", "description": "W3C PROV-JSON"},
    MEDIA_TYPES[Form.OPENLINEAGE]: {
        "type": "array",
        "items": {"type": "object"},
        "description": "OpenLineage run events, upstream first",
    },
    MEDIA_TYPES[Form.SVG]: {"type": "string"},
    MEDIA_TYPES[Form.HTML]: {"type": "string"},
}
_OTHER_FORMS = {"content": {media_type: {"schema": schema} for media_type, schema in _SCHEMAS.items()}}


@router.get(
    "/lineage/{vector_id}",
    response_model=LineageAnswer,
    responses={200: _OTHER_FORMS, **responses(*GUARDED, 404)},
)
def lineage_of(
    reader: Reader,
    service: Serving,
    looking: Looking,
    vector_id: VectorId,
    form: Annotated[Form, Query(alias="format", description="how the chain is told")] = Form.JSON,
) -> Response | LineageAnswer:
    """Where a vector came from: embedding row, record, source objects, release, commits, weights, code, runs."""
    looking.question = vector_id
    found = trace(vector_id, service.settings, service.lake, reader.datasets)
    looking.results, looking.subjects, looking.versions = 1, set(found.subjects), found.versions
    if form is Form.JSON:
        return LineageAnswer.model_validate(found.told)
    headers = {"Content-Security-Policy": PAGE_POLICY} if form is Form.HTML else None
    return Response(as_text(found.told, form), media_type=MEDIA_TYPES[form], headers=headers)
