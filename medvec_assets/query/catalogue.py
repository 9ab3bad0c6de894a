"""The catalogue: what is here, how fresh, how many, under which terms.

Numbers come from the plan and the newest audit rows, not from scans. Where the source forbids small counts of persons,
cohorts are hidden as small_cells hides them; of the other numbers all but the objects are hidden as soon as one of them,
or the difference of two, is small: records = objects - quarantined would tell.

Belongs here: these facts of a dataset. Does not belong here: which datasets may be seen (published), what is stale and why
(stages.standing): the source itself is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query import small_cells
from medvec_assets.query.published import Grants, PublishedCohort, PublishedDataset, published_datasets
from medvec_assets.stages import embeddings, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import PartitionState, partition_states
from medvec_assets.stages.manifest import CHAIN as MANIFEST_CHAIN
from resources import policy
from resources.audit import ChainKey
from resources.errors import NotFound
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

Heads = Mapping[ChainKey, Mapping[str, Any]]


@dataclass(frozen=True)
class Freshness:
    """`met`: no partition has been behind the listed release for longer than `max_age_hours`; None if nothing is here."""

    last_materialized_at: datetime | None
    upstream_version: str | None
    listed_at: datetime | None
    max_age_hours: float
    partitions: int
    partitions_behind: int
    met: bool | None


@dataclass(frozen=True)
class Counts:
    """None where the number may not be shown. `vectors`: space -> rows of the space's present version."""

    objects: int | None
    records: int | None
    quarantined: int | None
    vectors: dict[str, int | None]


@dataclass(frozen=True)
class AgreementFact:
    needed: str | None
    on_file: bool
    expires: str | None


@dataclass(frozen=True)
class Entry(PublishedDataset):
    homepage: str
    access: str
    residency: str
    smallest_count: int
    agreement: AgreementFact
    freshness: Freshness
    counts: Counts


def entries(settings: Settings, lake: Lakehouse, grants: Grants = None, now: datetime | None = None) -> list[Entry]:
    """Every dataset that may be seen here and was granted."""
    from medvec_assets.catalog import CATALOG

    specs = {spec.id: spec for spec in CATALOG}
    ctx = Context(settings, lake, run_id="catalogue")
    at = now or datetime.now(UTC)
    return [_entry(ctx, specs[one.id], one, at) for one in published_datasets(settings, lake, grants)]


def entry(dataset_id: str, settings: Settings, lake: Lakehouse, grants: Grants = None) -> Entry:
    """One of them. Raises NotFound: also for one that exists and may not be seen."""
    seen = frozenset({dataset_id}) if grants is None else grants & {dataset_id}
    found = entries(settings, lake, seen)
    if not found:
        raise NotFound(
            "there is no dataset of that name that you may see", remedy="ask for one of those in GET /v1/datasets"
        )
    return found[0]


def _entry(ctx: Context, spec: DatasetSpec, published: PublishedDataset, now: datetime) -> Entry:
    heads, states = ctx.audit.latest(spec.id), partition_states(ctx, spec)
    agreement = policy.agreement_of(ctx.settings, spec.terms)
    counts, cohorts = _counts(spec, heads, states), published.cohorts
    if spec.smallest_count > 1:
        counts, cohorts = _without_small(ctx, spec, counts, cohorts)
    return Entry(
        **vars(replace(published, cohorts=cohorts)),
        homepage=spec.homepage,
        access=spec.access,
        residency=spec.residency.where,
        smallest_count=spec.smallest_count,
        agreement=AgreementFact(
            spec.residency.agreement, agreement is not None, str(agreement.expires) if agreement else None
        ),
        freshness=_freshness(spec, heads, states, now),
        counts=counts,
    )


def _freshness(spec: DatasetSpec, heads: Heads, states: list[PartitionState], now: datetime) -> Freshness:
    made = {one.partition: heads.get(records.chain_of(one.partition)) for one in states}
    here = [one for one in states if made[one.partition] is not None]
    behind = [one for one in here if one.state != "current"]
    since = [head["finished_at"] for one in behind if (head := made[one.partition]) is not None]
    listed = heads.get(MANIFEST_CHAIN)
    return Freshness(
        last_materialized_at=max((head["finished_at"] for head in heads.values()), default=None),
        upstream_version=listed["upstream_version"] if listed else None,
        listed_at=listed["finished_at"] if listed else None,
        max_age_hours=spec.freshness.max_age.total_seconds() / 3600,
        partitions=len(here),
        partitions_behind=len(behind),
        met=all(now - at <= spec.freshness.max_age for at in since) if here else None,
    )


def _counts(spec: DatasetSpec, heads: Heads, states: list[PartitionState]) -> Counts:
    """Of the planned partitions, as their newest audit rows say."""
    made = [heads.get(records.chain_of(one.partition)) for one in states]
    here = [head for head in made if head is not None]
    vectors: dict[str, int | None] = {}
    for name, space in spec.spaces.items():
        chains = (embeddings.chain_of(name, space.version, one.partition) for one in states)
        vectors[name] = sum(int(heads[chain]["rows_out"]) for chain in chains if chain in heads)
    return Counts(
        objects=sum(one.objects for one in states),
        records=sum(int(head["rows_out"]) for head in here),
        quarantined=sum(int(head["rows_quarantined"]) for head in here),
        vectors=vectors,
    )


def _without_small(
    ctx: Context, spec: DatasetSpec, counts: Counts, cohorts: tuple[PublishedCohort, ...]
) -> tuple[Counts, tuple[PublishedCohort, ...]]:
    """Both without what is a small count of persons, or would tell one."""
    table = small_cells.counts(ctx.lake, spec, ["cohort"])
    shown = {cohort for cohort, subjects in table.iter_rows() if subjects is not None}
    few = spec.smallest_count
    cohorts = tuple(
        one if one.cohort in shown and (one.objects or 0) >= few else replace(one, objects=None) for one in cohorts
    )
    numbers = [one or 0 for one in (counts.objects, counts.records, counts.quarantined, *counts.vectors.values())]
    objects = counts.objects if small_cells.ALL in shown and numbers[0] >= few else None
    if any(0 < abs(one - other) < few for one in (0, *numbers) for other in numbers):
        return Counts(objects, None, None, dict.fromkeys(counts.vectors)), cohorts
    return replace(counts, objects=objects), cohorts
