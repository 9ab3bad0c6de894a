"""Bodies of lineage. Belongs here: the chain as JSON. Does not belong here: walking it (query.lineage)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class LineageAnswer(BaseModel):
    """From the vector back to the source: each layer's row, the commits that hold them and the runs that made them."""

    vector: dict[str, Any]
    embedding: dict[str, Any]
    record: dict[str, Any]
    objects: list[dict[str, Any]]
    upstream: dict[str, Any]
    commits: list[dict[str, Any]]
    runs: list[dict[str, Any]]
