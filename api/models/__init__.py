"""The bodies of the service: what may be sent and what is answered, with examples for OpenAPI; a module a subject.

Belongs here: JSON shapes and bounds. Does not belong here: rules that need the lake (medvec_assets.query has them).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("a number is needed")
    return value


NUMBER = BeforeValidator(_number)
"""With Field(strict=False): what JSON Schema calls an integer in a strict body, 10 and 10.0, but not "10"."""


class Answer(BaseModel):
    """An answer, read from the attributes of what the query packages return."""

    model_config = ConfigDict(from_attributes=True)


def given(*names: str) -> dict[str, Any]:
    """The JSON schema of objects that have all of `names`, neither null nor an empty list."""
    something = {"not": {"type": "null"}, "minItems": 1}
    return {"required": list(names), "properties": dict.fromkeys(names, something)}


def exactly_one(*names: str) -> dict[str, Any]:
    """Of objects that have one of `names` and none of the others."""
    return {"oneOf": [given(name) for name in names]}
