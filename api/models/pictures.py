"""Bodies of maps. Belongs here: points. Does not belong here: which vectors (query.maps)."""

from __future__ import annotations

from pydantic import Field

from api.models import Answer


class PointModel(Answer):
    """A vector on the map, each axis from -1 to 1."""

    x: float
    y: float
    vector_id: str
    record_id: str
    cohort: str = Field(examples=["tcga_lihc"])
    modality: str = Field(examples=["CT"])


class MapAnswer(Answer):
    """A sample of a space's live vectors on their first two principal axes."""

    dataset: str = Field(examples=["tcia_catalog"])
    space: str = Field(examples=["text"])
    encoder: str = Field(examples=["minilm@1"])
    vectors: int = Field(description="how many there are; at most 3,000 of them are points", examples=[35561])
    variance: tuple[float, float] = Field(description="share of the variance on each axis", examples=[[0.18, 0.11]])
    points: list[PointModel]
