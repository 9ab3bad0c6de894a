"""Bodies of neighbour counts. Belongs here: a set, and counts. Does not belong here: what may be counted (query.cohorts)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.models import NUMBER, Answer, exactly_one
from medvec_assets.query.cohorts import MAX_K, SETS, NeighboursRequest
from medvec_assets.query.small_cells import MAX_AXES

Name = Annotated[str, Field(min_length=1, max_length=255)]
MAX_RECORDS, MAX_DIM = 10_000, 16_384


class NeighboursBody(BaseModel):
    """A set (exactly one of record_ids, cohort and vector), and how near: top_k or min_score."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "allOf": [exactly_one(*SETS), exactly_one("top_k", "min_score")],
            "examples": [
                {"dataset": "tcia_catalog", "cohort": "tcga_lihc", "top_k": 20, "by": ["cohort"]},
                {"dataset": "tcia_catalog", "record_ids": ["1.3.6.1.4.1"], "min_score": 0.8, "by": ["modality"]},
            ],
        },
    )

    dataset: Name
    space: Name | None = Field(default=None, description="needed only where the dataset has several")
    record_ids: Annotated[list[Name], Field(min_length=1, max_length=MAX_RECORDS)] | None = None
    cohort: Name | None = None
    vector: (
        Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=MAX_DIM)] | None
    ) = None
    top_k: Annotated[int, Field(strict=False, ge=1, le=MAX_K), NUMBER] | None = Field(
        default=None, description="neighbours of each vector; in steps of the source's minimum"
    )
    min_score: float | None = Field(
        default=None, ge=-1, le=1, allow_inf_nan=False, description="cosine; in steps of 0.05 where there is a minimum"
    )
    by: Annotated[list[Name], Field(min_length=1, max_length=MAX_AXES)] = ["cohort"]

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if sum(getattr(self, name) is not None for name in SETS) != 1:
            raise ValueError(f"give exactly one of {', '.join(SETS)}")
        if (self.top_k is None) == (self.min_score is None):
            raise ValueError("give exactly one of top_k and min_score")
        return self

    def request(self) -> NeighboursRequest:
        return NeighboursRequest(
            dataset=self.dataset,
            by=tuple(self.by),
            space=self.space,
            record_ids=tuple(self.record_ids) if self.record_ids is not None else None,
            cohort=self.cohort,
            vector=self.vector,
            top_k=self.top_k,
            min_score=self.min_score,
        )


class NeighboursAnswer(Answer):
    """Distinct subjects among the neighbours, by attribute; `all` is a total. Never an id."""

    dataset: str = Field(examples=["tcia_catalog"])
    space: str = Field(examples=["text"])
    by: list[str] = Field(examples=[["cohort"]])
    smallest_count: int = Field(description="smaller counts are null, and so is what would tell them", examples=[1])
    queries: int = Field(description="vectors that were asked with", examples=[420])
    delta_version: int = Field(description="of the embeddings", examples=[11])
    counts: list[dict[str, str | int | None]] = Field(
        examples=[[{"cohort": "lidc_idri", "subjects": 31}, {"cohort": "all", "subjects": 31}]]
    )
