"""Bodies of the catalogue. Belongs here: datasets, spaces, cohorts. Does not belong here: what is visible (query.published)."""

from __future__ import annotations

from datetime import datetime

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
    objects: int | None = Field(description="null: so few persons that the source forbids to say", examples=[420])
    partitions: int = Field(examples=[1])


class FreshnessModel(Answer):
    """Of what was listed last; the source is not asked."""

    last_materialized_at: datetime | None
    upstream_version: str | None = Field(examples=["IDC v25"])
    listed_at: datetime | None
    max_age_hours: float = Field(examples=[240.0])
    partitions: int = Field(description="materialized ones", examples=[14])
    partitions_behind: int = Field(description="of them, those that are not made from what was listed", examples=[0])
    met: bool | None = Field(description="none has been behind for longer than max_age_hours; null: nothing is here")


class CountsModel(Answer):
    """null: a count of persons that the source forbids to show, or what would tell one."""

    objects: int | None = Field(examples=[1057399])
    records: int | None = Field(examples=[35561])
    quarantined: int | None = Field(examples=[0])
    vectors: dict[str, int | None] = Field(examples=[{"text": 35561}])


class AgreementModel(Answer):
    needed: str | None = Field(description="id of the agreement that the source demands", examples=[None])
    on_file: bool
    expires: str | None = Field(examples=[None])


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
    homepage: str
    access: str = Field(description="how somebody gets access at the source")
    residency: str = Field(description="where its vectors may be", examples=["anywhere"])
    smallest_count: int = Field(description="no smaller count of persons is shown", examples=[1])
    has_studies: bool = Field(description="its hits can be grouped by study", examples=[False])
    agreement: AgreementModel
    freshness: FreshnessModel
    counts: CountsModel
    spaces: list[SpaceModel]
    cohorts: list[CohortModel]


class DatasetsAnswer(BaseModel):
    datasets: list[DatasetModel]
