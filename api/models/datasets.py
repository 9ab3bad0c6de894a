"""Bodies of the catalogue. Belongs here: datasets, spaces, cohorts. Does not belong here: what is visible (query.published)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.models import Answer


class SpaceModel(Answer):
    space: str = Field(examples=["text"])
    encoder: str = Field(examples=["minilm@1"])
    query_kind: str = Field(description="what can be asked besides ids and vectors", examples=["text"])
    dim: int = Field(examples=[384])
    medical: bool = Field(description="false: general-purpose weights, which support no clinical statement")
    note: str
    access_tier: str = Field(examples=["open"])
    collection: str = Field(examples=["tcia_catalog__text__open__g1"])


class CohortModel(Answer):
    cohort: str = Field(examples=["tcga_lihc"])
    objects: int
    partitions: int


class DatasetModel(Answer):
    """One dataset that may be seen here; spaces and cohorts are empty until it is materialized."""

    id: str = Field(examples=["tcia_catalog"])
    source: str
    title: str
    description: str
    citation: str
    kind: str = Field(description="real or synthetic")
    access_tier: str
    licenses: list[str]
    spaces: list[SpaceModel]
    cohorts: list[CohortModel]


class DatasetsAnswer(BaseModel):
    datasets: list[DatasetModel]
