"""What is published: the live generation of every space that this deployment may show, as the lake tells it.

Belongs here: which datasets are visible, which collections answer for them, which partitions a cohort has.
Does not belong here: what could be materialized (catalog, Dagster), the search itself, or a caller's permissions (api).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import SYNTHETIC, AccessTier, DatasetSpec
from medvec_assets.query.rows import read, read_of
from resources import encoders, tables
from resources.errors import NotFound, PolicyRefused
from resources.policy import refusal
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse, Snapshot

LIVE = "live"
Grants = frozenset[str] | None
"""The datasets that a caller may see; None: all that the deployment may show."""


@dataclass(frozen=True)
class LiveSpace:
    """One collection that answers questions: the live generation of a dataset's space in one access tier."""

    spec: DatasetSpec = field(hash=False)  # holds a dict
    space: str
    space_version: str  # the encoder's reference, name@version
    access_tier: str
    generation: int
    collection: str

    @property
    def dataset(self) -> str:
        return self.spec.id

    @property
    def comparable(self) -> tuple[str, str]:
        """Vectors may be compared only where this is equal."""
        return (self.space, self.space_version)


@dataclass(frozen=True)
class PublishedSpace:
    space: str
    encoder: str
    query_kind: str  # what its encoder takes: text | image
    dim: int
    medical: bool  # False: general-purpose weights, which support no clinical statement
    note: str
    access_tier: str
    collection: str


@dataclass(frozen=True)
class PublishedCohort:
    cohort: str
    objects: int | None  # None: so few persons that the source forbids to say
    partitions: int


@dataclass(frozen=True)
class PublishedDataset:
    """A visible dataset; `spaces` and `cohorts` are empty until it has been materialized."""

    id: str
    source: str
    title: str
    description: str
    citation: str
    kind: str  # real | synthetic
    access_tier: str
    licenses: tuple[str, ...]
    spaces: tuple[PublishedSpace, ...]
    cohorts: tuple[PublishedCohort, ...]


def visible(spec: DatasetSpec, settings: Settings, access_tier: str | None = None) -> bool:
    """Whether this deployment may show rows of `spec` (of `access_tier`, by default the dataset's own).

    Deny is the default: rows that are not open are shown only where the agreement they require is on file, or inside
    the enclave they must not leave, or where they are made up.
    """
    if spec.is_synthetic(settings.sources):
        return True
    residency = spec.residency
    if refusal(settings, spec.terms, datetime.now(UTC).date()) is not None:
        return False
    if (access_tier or spec.access_tier) == AccessTier.OPEN:
        return True
    return residency.agreement is not None or residency.where.startswith("enclave:")


def granted(spec: DatasetSpec, grants: Grants) -> bool:
    return grants is None or spec.id in grants


def dataset_of(name: str, grants: Grants) -> DatasetSpec:
    """The dataset of that name. One that was not granted is refused as one that does not exist: NotFound, which names
    no other."""
    for spec in CATALOG:
        if spec.id == name and granted(spec, grants):
            return spec
    raise NotFound(
        "there is no dataset of that name that you may see",
        remedy="ask for one of those in GET /v1/datasets, or of medvec status",
    )


def require_visible(spec: DatasetSpec, settings: Settings) -> None:
    """Raises PolicyRefused where nothing of `spec` may be shown."""
    if not visible(spec, settings):
        raise PolicyRefused(
            f"dataset {spec.id} may not be searched here: its tier is {spec.access_tier.value}, its residency "
            f"{spec.residency.where}",
            remedy="ask where its agreement holds, or file the agreement (MEDVEC_AGREEMENTS)",
            rule="visibility",
        )


def live_rows(snapshot: Snapshot | None) -> pl.DataFrame:
    """The newest live generation of every (dataset, space, access_tier), in that order."""
    rows = read_of(snapshot, tables.generations(), where=pc.field("state") == LIVE)
    newest = rows.sort("generation").unique(["dataset", "space", "access_tier"], keep="last")
    return newest.sort("dataset", "space", "access_tier")


def live_spaces(settings: Settings, lake: Lakehouse, grants: Grants = None) -> list[LiveSpace]:
    """Every visible, granted live space in the order of (dataset, space, tier). Empty before the first promotion."""
    return granted_spaces(declared_spaces(live_rows(lake.snapshot(tables.generations()))), settings, grants)


def declared_spaces(rows: pl.DataFrame) -> list[LiveSpace]:
    """Those of `live_rows` that the catalogue still has."""
    specs = {spec.id: spec for spec in CATALOG}
    fields = ("space", "space_version", "access_tier", "generation", "collection")
    return [
        LiveSpace(spec, *(row[name] for name in fields))
        for row in rows.iter_rows(named=True)
        if (spec := specs.get(row["dataset"])) is not None and row["space"] in spec.spaces
    ]


def granted_spaces(spaces: Iterable[LiveSpace], settings: Settings, grants: Grants) -> list[LiveSpace]:
    """Those that may be shown here, today, and to this caller."""
    return [one for one in spaces if granted(one.spec, grants) and visible(one.spec, settings, one.access_tier)]


@dataclass(frozen=True)
class PlannedCohort:
    """Where a cohort's records are: its partitions, and their share (0 to 1) of the dataset's objects."""

    partitions: tuple[str, ...]
    share: float


def cohorts_of(plan: pl.DataFrame, cohorts: Iterable[str]) -> dict[str, PlannedCohort]:
    """Those of `cohorts` that a dataset has by its `plan`: columns cohort, partition, objects."""
    share = pl.col("objects").sum() / plan["objects"].sum()
    asked = plan.filter(pl.col("cohort").is_in(list(cohorts))).sort("partition")
    found = asked.group_by("cohort").agg("partition", share=share)
    return {cohort: PlannedCohort(tuple(partitions), of_all) for cohort, partitions, of_all in found.iter_rows()}


def seen(settings: Settings, grants: Grants) -> list[DatasetSpec]:
    """The datasets that may be seen here and were granted."""
    return [spec for spec in CATALOG if granted(spec, grants) and visible(spec, settings)]


def published(spec: DatasetSpec, live: Iterable[LiveSpace], settings: Settings, lake: Lakehouse) -> PublishedDataset:
    """A dataset with its spaces, those of `live`, and its cohorts."""
    return PublishedDataset(
        id=spec.id,
        source=spec.source,
        title=spec.title,
        description=spec.description,
        citation=spec.citation,
        kind=SYNTHETIC if spec.is_synthetic(settings.sources) else "real",
        access_tier=spec.access_tier.value,
        licenses=tuple(sorted(spec.licenses)),
        spaces=tuple(_published(space, settings) for space in live if space.dataset == spec.id),
        cohorts=_cohorts(lake, spec.id),
    )


def _published(live: LiveSpace, settings: Settings) -> PublishedSpace:
    card = encoders.card(live.space_version, settings)
    return PublishedSpace(
        space=live.space,
        encoder=live.space_version,
        query_kind=card.input_kind,
        dim=card.dim,
        medical=card.medical,
        note=card.note,
        access_tier=live.access_tier,
        collection=live.collection,
    )


def _cohorts(lake: Lakehouse, dataset: str) -> tuple[PublishedCohort, ...]:
    rows = read(lake, tables.partitions(dataset), ["cohort", "partition", "objects"])
    summed = rows.group_by("cohort").agg(pl.col("objects").sum(), pl.len().alias("partitions")).sort("cohort")
    return tuple(PublishedCohort(**row) for row in summed.iter_rows(named=True))
