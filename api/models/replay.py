"""Bodies of a replay. Belongs here: a question and the versions it was answered from. Does not belong here: what they
mean (query.as_of)."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.models import NUMBER, Answer, exactly_one
from api.models.search import Name, Text, Vector
from medvec_assets.query.as_of import QUESTIONS, PastRequest
from medvec_assets.query.search import MAX_LIMIT

MAX_SPACES = 20

Space = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,127}/[a-z0-9_]{1,127}$")]
Version = Annotated[int, Field(strict=False, ge=0, lt=2**53), NUMBER]


class ReplayBody(BaseModel):
    """An earlier question (exactly one of text, vector_id and vector), and the versions its answer named."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            **exactly_one(*QUESTIONS),
            "examples": [
                {"text": "contrast enhanced CT of the liver", "as_of": {"tcia_catalog/text": 11}, "limit": 5},
                {"vector_id": "29add84a6398e57b73e5b9e559597cfc", "as_of": {"tcia_catalog/text": 11}},
            ],
        },
    )

    as_of: dict[Space, Version] = Field(
        min_length=1,
        max_length=MAX_SPACES,
        description="dataset/space -> Delta version, all of one space",
        json_schema_extra={"additionalProperties": False},
    )
    text: Text | None = None
    vector_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    vector: Vector | None = None
    encoder: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,60}@[0-9]{1,6}$")] | None = Field(
        default=None, description="the hits' encoder, where readers see another one today", examples=["minilm@1"]
    )
    cohorts: list[Name] = Field(default=[], max_length=1_000)
    limit: Annotated[int, Field(strict=False, ge=1, le=MAX_LIMIT), NUMBER] = 10

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if sum(getattr(self, name) is not None for name in QUESTIONS) != 1:
            raise ValueError(f"give exactly one of {', '.join(QUESTIONS)}")
        return self

    def request(self) -> PastRequest:
        return PastRequest(
            as_of=self.as_of,
            text=self.text,
            vector_id=self.vector_id,
            vector=self.vector,
            encoder=self.encoder,
            cohorts=tuple(self.cohorts),
            limit=self.limit,
        )


class PastHitModel(Answer):
    """One neighbour of then that may still be shown."""

    score: float = Field(description="cosine similarity, by exact search", examples=[0.7753])
    vector_id: str = Field(examples=["29add84a6398e57b73e5b9e559597cfc"])
    members: int = Field(description="records with this identical content that may still be shown", examples=[1])
    dataset: str = Field(examples=["tcia_catalog"])
    cohort: str = Field(examples=["tcga_lihc"])
    record_id: str
    source_uri: str
    license: str = Field(examples=["CC BY 3.0"])
    encoder: str = Field(examples=["minilm@1"])
    weights_digest: str
    delta_version: int = Field(examples=[11])
    attributes: dict[str, Any]


class ReplayAnswer(Answer):
    hits: list[PastHitModel]
    complete: bool = Field(description="false: something that stood among the hits was withdrawn or suppressed since")
    versions: dict[str, int] = Field(examples=[{"tcia_catalog/text": 11}])
