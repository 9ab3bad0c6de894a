"""Bodies of search. Belongs here: a question, a hit. Does not belong here: what a question means (query.search)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

from api.models import NUMBER, Answer, exactly_one, given
from medvec_assets.query.search import (
    MAX_DIM,
    MAX_LIMIT,
    MAX_QUERIES,
    MAX_TEXT_CHARS,
    Question,
    SearchRequest,
    Upload,
    filters,
)
from resources.vector_index.filters import CONTAINS, EQUALS, Condition, Value

CONDITIONS = ("equals", "in", "contains", "gte", "lte", "gt", "lt")
QUESTIONS = ("text", "record_id", "vector_id", "vector")
MAX_CURSOR_CHARS = 8_192

Name = Annotated[str, Field(min_length=1, max_length=255)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]
Vector = Annotated[list[Number], Field(min_length=1, max_length=MAX_DIM)]
Limited = Annotated[str, StringConstraints(strict=True, max_length=filters.MAX_VALUE_CHARS)]
Given = Limited | StrictBool | StrictInt | StrictFloat
Bound = StrictInt | StrictFloat


class QuestionModel(BaseModel):
    """Exactly one of its fields."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=exactly_one(*QUESTIONS))

    text: Text | None = Field(default=None, description="a question in words")
    record_id: Name | None = Field(default=None, description="more like this record, which is not among the hits")
    vector_id: Name | None = Field(default=None, description="more like this vector of an earlier hit")
    vector: Vector | None = Field(default=None, description="a vector made by the space's encoder; any norm but zero")

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if sum(getattr(self, name) is not None for name in QUESTIONS) != 1:
            raise ValueError(f"give exactly one of {', '.join(QUESTIONS)}")
        return self

    def question(self) -> Question:
        return Question(**{name: getattr(self, name) for name in QUESTIONS})


class ConditionModel(BaseModel):
    """What an attribute must be, all of it. A record that lacks the attribute fits nothing."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        populate_by_name=False,
        json_schema_extra={"anyOf": [given(name) for name in CONDITIONS], "not": given("equals", "in")},
    )

    equals: Given | None = None
    any_of: list[Given] | None = Field(default=None, alias="in", min_length=1, max_length=filters.MAX_VALUES)
    contains: Given | None = Field(default=None, description="its list has this value")
    gte: Bound | None = None
    lte: Bound | None = None
    gt: Bound | None = None
    lt: Bound | None = None

    def conditions(self, attribute: str) -> list[Condition]:
        asked: dict[str, list[Value] | None] = {
            EQUALS: self.any_of if self.equals is None else [self.equals],
            CONTAINS: None if self.contains is None else [self.contains],
        }
        asked |= {
            op: None if value is None else [value]
            for op, value in ((">=", self.gte), ("<=", self.lte), (">", self.gt), ("<", self.lt))
        }
        return [filters.condition(attribute, op, values) for op, values in asked.items() if values is not None]

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if not given or {"equals", "any_of"} <= given:
            raise ValueError("give equals or in, contains, or bounds (gte, lte, gt, lt)")
        return self


class Narrowed(BaseModel):
    """What every search can be narrowed by, and how its answer is cut."""

    model_config = ConfigDict(extra="forbid")

    datasets: list[Name] = Field(default=[], max_length=100, description="empty: every dataset that may be seen")
    space: Name | None = Field(default=None, description="needed only where the question would reach several spaces")
    cohorts: list[Name] = Field(default=[], max_length=1_000, description="empty: every cohort")
    modalities: list[Name] = Field(default=[], max_length=100, description="empty: every modality")
    licenses: list[Name] = Field(default=[], max_length=100, description="empty: every licence")
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT)
    group_by: Literal["subject", "study"] | None = Field(
        default=None,
        description="only the best hit of each subject or study; `group` names it within this answer. A study is an imaging "
        "dataset's (`GET /v1/datasets` tells which have them); a record of none is alone",
    )
    cursor: str | None = Field(
        default=None,
        max_length=MAX_CURSOR_CHARS,
        description="of an earlier answer to the same question: the hits that follow",
    )
    explain: bool = Field(default=False, description="tell timings, collections and index settings")

    def narrowing(self) -> dict[str, Any]:
        return {
            "datasets": tuple(self.datasets),
            "space": self.space,
            "cohorts": tuple(self.cohorts),
            "modalities": tuple(self.modalities),
            "licenses": tuple(self.licenses),
            "limit": self.limit,
            "group_by": self.group_by,
            "cursor": self.cursor,
        }


class SearchBody(Narrowed):
    """One question: exactly one of text, record_id, vector_id and vector; or several in queries."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            **exactly_one(*QUESTIONS, "queries"),
            "examples": [
                {"text": "contrast enhanced CT of the liver", "limit": 5},
                {"record_id": "1.3.6.1.4.1.14519.5.2.1.1", "datasets": ["tcia_catalog"], "cohorts": ["tcga_lihc"]},
                {
                    "text": "MR of the brain",
                    "datasets": ["tcia_catalog"],
                    "modalities": ["MR"],
                    "attributes": {"body_part": {"in": ["BRAIN", "HEAD"]}, "instances": {"gte": 20, "lt": 400}},
                    "group_by": "subject",
                },
                {"vector_id": "0123456789abcdef0123456789abcdef", "group_by": "study"},
                {"queries": [{"text": "CT of the liver"}, {"text": "MR of the brain"}], "limit": 3, "explain": True},
            ],
        },
    )

    text: Text | None = Field(default=None, description="a question in words")
    record_id: Name | None = Field(default=None, description="more like this record, which is not among the hits")
    vector_id: Name | None = Field(default=None, description="more like this vector of an earlier hit")
    vector: Vector | None = Field(default=None, description="a vector made by the space's encoder; any norm but zero")
    limit: Annotated[int, Field(strict=False, ge=1, le=MAX_LIMIT), NUMBER] = 10
    queries: list[QuestionModel] = Field(
        default=[], max_length=MAX_QUERIES, description="several questions of one space, answered one by one"
    )
    attributes: dict[Name, ConditionModel] = Field(
        default={}, max_length=filters.MAX_CONDITIONS, description="by attributes that hits show"
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = sum(getattr(self, name) is not None for name in QUESTIONS)
        if asked + bool(self.queries) != 1:
            raise ValueError(f"give exactly one of {', '.join(QUESTIONS)} and queries")
        return self

    def request(self) -> SearchRequest:
        conditions = [one for name, model in self.attributes.items() for one in model.conditions(name)]
        return SearchRequest(
            **{name: getattr(self, name) for name in QUESTIONS},
            queries=tuple(one.question() for one in self.queries),
            attributes=tuple(conditions),
            **self.narrowing(),
        )


class ImageQuery(Narrowed):
    """What a search by an image is narrowed by, in the query string; lists are given by saying a name again."""

    filter: list[Annotated[str, Field(max_length=400)]] = Field(
        default=[], max_length=filters.MAX_CONDITIONS, description=filters.WRITTEN, examples=[["body_part=CHEST"]]
    )

    def request(self, image: Upload) -> SearchRequest:
        return SearchRequest(image=image, attributes=self.conditions(), **self.narrowing())

    def conditions(self) -> tuple[Condition, ...]:
        return tuple(filters.written(line) for line in self.filter)


class HitModel(Answer):
    """One neighbour, with what is needed to defend it."""

    score: float = Field(description="cosine similarity", examples=[0.8312])
    vector_id: str = Field(examples=["5b7c0f0e7a1f4a6f9b3a8a1f0f6e2d11"])
    members: int = Field(description="records with this identical content; the hit is one of them", examples=[3])
    dataset: str = Field(examples=["tcia_catalog"])
    cohort: str = Field(examples=["tcga_lihc"])
    record_id: str
    modality: str = Field(examples=["CT"])
    source_uri: str = Field(examples=["s3://idc-open-data/00000000-0000-0000-0000-000000000000/*"])
    thumbnail: str | None = Field(description="where to see it small; null where it is no image")
    license: str = Field(examples=["CC BY 3.0"])
    encoder: str = Field(examples=["minilm@1"])
    weights_digest: str = Field(description="SHA-256 of the weights")
    delta_version: int = Field(description="version of the embeddings table the index was reconciled with")
    upstream_version: str = Field(description="the source's release that the record was made of", examples=["v18"])
    deid_profile: str = Field(description="how the record was de-identified", examples=["technical-1"])
    attributes: dict[str, Any] = Field(examples=[{"modality": "CT", "body_part": "LIVER"}])
    group: str | None = Field(
        description="its subject or study, called by a number of this answer", examples=["study 1"]
    )
    group_size: int | None = Field(description="hits of the group among those looked at", examples=[4])


class SearchedModel(Answer):
    """A collection that was asked, and how widely it looked."""

    dataset: str = Field(examples=["tcia_catalog"])
    space: str = Field(examples=["text"])
    collection: str = Field(examples=["tcia_catalog__text__open__g1"])
    generation: int
    delta_version: int = Field(description="version of the embeddings table that the collection was last brought up to")
    index_type: str = Field(examples=["IVF_FLAT"])
    params: dict[str, int] = Field(examples=[{"nprobe": 32}])


class ExplainModel(Answer):
    timings_ms: dict[str, float] = Field(examples=[{"encode": 12.1, "index": 4.0, "lake": 0.4, "total": 16.9}])
    collections: list[SearchedModel]
    cached: bool = Field(description="whether it is an answer that was kept")
    coalesced: int = Field(description="questions that the widest index call answered together")


class SearchAnswer(BaseModel):
    """`hits` of the one question, or `answers` with the hits of each of queries."""

    hits: list[HitModel]
    answers: list[list[HitModel]] | None = None
    cursor: str | None = Field(
        default=None, description="asks for the hits that follow; null: there are none, or 1,000 were given"
    )
    explain: ExplainModel | None = None


class MemberModel(Answer):
    vector_id: str
    record_id: str
    cohort: str
    license: str
    source_uri: str


class MembersAnswer(Answer):
    """Records whose content is identical to a hit's, in the order of their ids."""

    vector_id: str
    members: int = Field(description="how many there are that may be shown")
    records: list[MemberModel]
    after: str | None = Field(description="give it as `after` for those that follow; null: there are none")
