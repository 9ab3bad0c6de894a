"""What a dataset is, as data: one frozen, validated `DatasetSpec` per dataset.

Belongs here: the vocabulary of specs and the rules a spec must satisfy by itself.
Does not belong here: Dagster, I/O, network, torch; how a connector lists or a modality reads.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from resources.policy import Terms

DATASET_ID = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
ENCODER_REF = re.compile(r"[a-z][a-z0-9_]*@[0-9]+")
STUDY = "study"  # the attribute that holds a record's study, a keyed pseudonym; it stays in the lake
SYNTHETIC = "synthetic"  # the attribute that marks a made-up row, from the manifest to the answer


class AccessTier(StrEnum):
    OPEN = "open"
    REGISTERED = "registered"
    CONTROLLED = "controlled"


class Withdrawal(StrEnum):
    """What happens to a subject that the source removes."""

    ARCHIVE = "archive"  # leaves silver, gold and index; the manifest keeps a dated tombstone
    ERASE = "erase"  # leaves every layer, bronze too


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Space(_Frozen):
    """What makes two vectors comparable: one encoder at one version.

    How its collection is laid out is planned by its size (resources.vector_index.plan); what is given here stands.
    """

    encoder: str = Field(description="registry reference, name@version")
    expected_entities: int | None = Field(
        default=None, ge=1, description="plan for so many vectors; None: one for each object of the dataset's plan"
    )
    index_type: Literal["FLAT", "HNSW", "IVF_FLAT"] | None = None
    shards: int | None = Field(default=None, ge=1, le=16)  # 16 is what a server accepts as shipped
    num_partitions: int | None = Field(default=None, ge=1, le=1_024)  # of the partition key's values, by their hash
    nlist: int | None = Field(default=None, ge=1, le=65_536)
    nprobe: int | None = Field(default=None, ge=1, le=65_536)
    hnsw_m: int | None = Field(default=None, ge=4, le=64)
    ef_construction: int | None = Field(default=None, ge=16)
    ef_search: int | None = Field(default=None, ge=16)

    @field_validator("encoder")
    @classmethod
    def _named(cls, value: str) -> str:
        if not ENCODER_REF.fullmatch(value):
            raise ValueError(f"encoder {value!r} must look like name@1")
        return value

    @property
    def version(self) -> str:
        """The key under which this space's rows stand in gold, side by side with other versions."""
        return self.encoder


class Freshness(_Frozen):
    """How old a partition may be, and how often the source is looked at (cron, UTC)."""

    max_age: timedelta
    observe_cron: str


class Sharding(_Frozen):
    """When a cohort is split by one more bit of H(subject). 100 GB is a 10-60 minute GPU run (DESIGN 3)."""

    max_objects: int = Field(default=50_000, ge=1)
    max_bytes: int | None = Field(default=100_000_000_000, ge=1)


class Residency(_Frozen):
    """Where vectors may be: `anywhere`, with `holders` of an agreement, or only at one `enclave:<site>`."""

    where: str = Field(default="anywhere", pattern=r"^(anywhere|holders|enclave:[a-z0-9_-]+)$")
    agreement: str | None = None

    @model_validator(mode="after")
    def _agreement_named(self) -> Residency:
        if self.where == "holders" and self.agreement is None:
            raise ValueError("residency 'holders' needs the agreement that makes somebody a holder")
        return self


class DatasetSpec(_Frozen):
    """One dataset, complete: the factory derives assets, checks, automation and docs from this and nothing else."""

    id: str
    source: str
    title: str
    citation: str
    description: str
    homepage: str = Field(description="where the source describes this dataset", pattern=r"^https://")
    access: str = Field(min_length=1, description="how somebody gets access, in one or two sentences")
    raw_terabytes: float = Field(gt=0, description="size at the source, as it is planned for")
    connector: str = Field(description="name in medvec_assets.connectors")
    modality: str = Field(description="name in medvec_assets.modalities")
    spaces: dict[str, Space]
    licenses: frozenset[str] = Field(description="licences whose objects may become vectors; deny by default")
    access_tier: AccessTier
    residency: Residency = Residency()
    withdrawal: Withdrawal = Withdrawal.ARCHIVE
    withdrawal_grace: timedelta = Field(
        default=timedelta(0),
        ge=timedelta(0),
        description="from a removal at the source to the day it must be gone here",
    )
    smallest_count: int = Field(
        default=1, ge=1, description="no count of persons below it may leave (`medvec count --export`)"
    )
    sharding: Sharding = Sharding()
    freshness: Freshness
    owners: tuple[str, ...]
    index_attributes: tuple[str, ...] = Field(description="record attributes that may stand in an index entity")
    has_studies: bool = Field(
        default=False, description="records name their study, so that hits can be grouped by it; no answer shows it"
    )
    quarantine_threshold: float = Field(
        default=0.01, ge=0, le=1, description="share of objects; above it a check fails"
    )
    known_bad: dict[str, float] = Field(
        default={}, description="cohort -> its own threshold, where its source is known to be bad and will stay so"
    )
    sample_cohorts: tuple[str, ...] | None = Field(
        default=None, description="the cohorts `medvec run` takes without --all; None means every cohort"
    )
    sample: Literal["real", "synthetic"] = Field(
        default="real", description="what the bundle holds that is read without a source in the settings"
    )

    @field_validator("id", "source")
    @classmethod
    def _parses(cls, value: str) -> str:
        if not DATASET_ID.fullmatch(value) or "__" in value:
            raise ValueError(f"{value!r} must be lower_snake_case (it names tables, asset keys and collections)")
        return value

    @field_validator("spaces")
    @classmethod
    def _has_spaces(cls, value: dict[str, Space]) -> dict[str, Space]:
        if not value:
            raise ValueError("a dataset needs at least one space")
        for name in value:
            if not DATASET_ID.fullmatch(name):
                raise ValueError(f"space {name!r} must be lower_snake_case")
        return value

    @field_validator("index_attributes")
    @classmethod
    def _marks_synthetic(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """What is made up says so in every row and answer (stages.manifest writes the mark)."""
        return value if SYNTHETIC in value else (*value, SYNTHETIC)

    @model_validator(mode="after")
    def _studies_stay(self) -> DatasetSpec:
        """Shown, a study would tell across answers which hits are one person's."""
        if self.has_studies and STUDY in self.index_attributes:
            raise ValueError(f"the attribute {STUDY!r} groups hits and is shown in none")
        return self

    @property
    def terms(self) -> Terms:
        return Terms(self.id, self.residency.where, self.residency.agreement)

    def is_synthetic(self, sources: Container[str]) -> bool:
        """Whether what is read is made up: the sample bundle, `sources` naming no other place, and that is synthetic."""
        return self.sample == SYNTHETIC and self.id not in sources

    @model_validator(mode="after")
    def _starts_with_source(self) -> DatasetSpec:
        if not self.id.startswith(f"{self.source}_"):
            raise ValueError(f"dataset id {self.id!r} must start with its source {self.source!r} and an underscore")
        return self
