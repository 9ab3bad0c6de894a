"""The bodies of the service: what may be sent and what is answered, with examples for OpenAPI; a module a subject.

Belongs here: JSON shapes and bounds. Does not belong here: rules that need the lake (medvec_assets.query has them).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer, read from the attributes of what the query packages return."""

    model_config = ConfigDict(from_attributes=True)
