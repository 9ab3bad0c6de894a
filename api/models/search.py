"""Bodies of search. Belongs here: a question, a hit. Does not belong here: what a question means (query.search)."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.models import Answer
from medvec_assets.query.search import MAX_DIM, MAX_LIMIT, MAX_TEXT_CHARS, SearchRequest

QUESTIONS = ("text", "record_id", "vector_id", "vector")

Name = Annotated[str, Field(min_length=1, max_length=255)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)]


class SearchBody(BaseModel):
    """One question: exactly one of text, record_id, vector_id and vector."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "contrast enhanced CT of the liver", "limit": 5},
                {"record_id": "1.3.6.1.4.1.14519.5.2.1.1", "datasets": ["tcia_catalog"], "cohorts": ["tcga_lihc"]},
            ]
        },
    )

    text: Text | None = Field(default=None, description="a question in words")
    record_id: Name | None = Field(default=None, description="more like this record, which is not among the hits")
    vector_id: Name | None = Field(default=None, description="more like this vector of an earlier hit")
    vector: Annotated[list[Number], Field(min_length=1, max_length=MAX_DIM)] | None = Field(
        default=None, description="a vector made by the space's encoder; any norm but zero"
    )
    datasets: list[Name] = Field(default=[], max_length=100, description="empty: every dataset that may be seen")
    space: Name | None = Field(default=None, description="needed only where the question would reach several spaces")
    cohorts: list[Name] = Field(default=[], max_length=1_000, description="empty: every cohort")
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT)

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if sum(getattr(self, name) is not None for name in QUESTIONS) != 1:
            raise ValueError(f"give exactly one of {', '.join(QUESTIONS)}")
        return self

    def request(self) -> SearchRequest:
        return SearchRequest(
            text=self.text,
            record_id=self.record_id,
            vector_id=self.vector_id,
            vector=self.vector,
            datasets=tuple(self.datasets),
            space=self.space,
            cohorts=tuple(self.cohorts),
            limit=self.limit,
        )


class HitModel(Answer):
    """One neighbour, with what is needed to defend it."""

    score: float = Field(description="cosine similarity", examples=[0.8312])
    vector_id: str = Field(examples=["5b7c0f0e7a1f4a6f9b3a8a1f0f6e2d11"])
    members: int = Field(description="records with this identical content; the hit is one of them", examples=[3])
    dataset: str = Field(examples=["tcia_catalog"])
    cohort: str = Field(examples=["tcga_lihc"])
    record_id: str
    source_uri: str = Field(examples=["s3://idc-open-data/00000000-0000-0000-0000-000000000000/*"])
    license: str = Field(examples=["CC BY 3.0"])
    encoder: str = Field(examples=["minilm@1"])
    weights_digest: str = Field(description="SHA-256 of the weights")
    delta_version: int = Field(description="version of the embeddings table the index was reconciled with")
    attributes: dict[str, Any] = Field(examples=[{"modality": "CT", "body_part": "LIVER"}])


class SearchAnswer(BaseModel):
    hits: list[HitModel]
