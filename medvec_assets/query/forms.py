"""The forms in which a chain is told: their names, media types and makers.

Belongs here: this list, which a command line may load at no cost. Does not belong here: a form itself (lineage).
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any


class Form(StrEnum):
    JSON = "json"
    PROV = "prov"
    OPENLINEAGE = "openlineage"
    SVG = "svg"
    HTML = "html"


MEDIA_TYPES = {
    Form.JSON: "application/json",
    Form.PROV: "application/prov+json",
    Form.OPENLINEAGE: "application/vnd.openlineage+json",
    Form.SVG: "image/svg+xml",
    Form.HTML: "text/html",
}


def as_text(told: dict[str, Any], form: Form) -> str:
    """`told`, a chain as lineage.lineage gives it, in another form."""
    match form:
        case Form.JSON:
            return json.dumps(told, indent=2)
        case Form.PROV:
            from medvec_assets.query.lineage import prov

            return prov.as_json(told)
        case Form.OPENLINEAGE:
            from medvec_assets.query.lineage import openlineage

            return json.dumps(openlineage.events(told), indent=2)
        case Form.SVG:
            from medvec_assets.query.lineage import picture

            return picture.svg(told)
        case Form.HTML:
            from medvec_assets.query.lineage import page

            return page.html(told)
