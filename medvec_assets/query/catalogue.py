"""The catalogue: what is here, how fresh, how many, under which terms.

Numbers come from the plan and the newest audit rows, not from scans. Where the source forbids small counts of persons,
cohorts are hidden as small_cells hides them; of the other numbers all but the objects are hidden as soon as one of them,
or the difference of two, is small: records = objects - quarantined would tell.

Belongs here: these facts of a dataset. Does not belong here: which datasets may be seen (published), what is stale and why
(stages.standing): the source itself is not asked.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query import small_cells
from medvec_assets.query.published import (
    Grants,
    PublishedCohort,
    PublishedDataset,
    live_spaces,
    published,
    seen,
)
from medvec_assets.stages import embeddings, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import PartitionState, partition_states
from medvec_assets.stages.manifest import CHAIN as MANIFEST_CHAIN
from resources import policy, tables
from resources.audit import ChainKey
from resources.errors import NotFound
from resources.settings import Settings
from resources.tables import TableSpec

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse, Snapshot

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
    has_studies: bool
    agreement: AgreementFact
    freshness: Freshness
    counts: Counts


class Catalogue:
    """Of one lake. Safe between threads, one of which works out at a time what has changed: 100 ms and more a dataset."""

    def __init__(self, settings: Settings, lake: Lakehouse) -> None:
        self._settings, self._lake = settings, lake
        self._context = Context(settings, lake, run_id="catalogue")
        self._lock = threading.Lock()
        self._made: dict[str, _Made] = {}

    def entries(self, grants: Grants = None, now: datetime | None = None) -> list[Entry]:
        """Every dataset that may be seen here and was granted."""
        at = now or datetime.now(UTC)
        with self._lock:
            made = [self._entry(spec, at) for spec in seen(self._settings, grants)]
        return [_as_of(at, entry, since) for entry, since in made]

    def entry(self, dataset_id: str, grants: Grants = None) -> Entry:
        """One of them. Raises NotFound: also for one that exists and may not be seen."""
        found = self.entries(frozenset({dataset_id}) if grants is None else grants & {dataset_id})
        if not found:
            raise NotFound(
                "there is no dataset of that name that you may see", remedy="ask for one of those in GET /v1/datasets"
            )
        return found[0]

    def _entry(self, spec: DatasetSpec, now: datetime) -> tuple[Entry, datetime | None]:
        """The entry, and since when a partition has been behind. Worked out again after a commit, and each day, as
        agreements end with one."""
        day, snapshots = now.date(), [self._lake.snapshot(table) for table in _tables(spec)]
        known = self._made.get(spec.id)
        if known is None or known.day != day or not all(map(operator.is_, known.snapshots, snapshots)):
            live = live_spaces(self._settings, self._lake, frozenset({spec.id}))
            told = _entry(self._context, spec, published(spec, live, self._settings, self._lake))
            known = self._made[spec.id] = _Made(day, snapshots, *told)
        return known.entry, known.behind_since


@dataclass(frozen=True)
class _Made:
    """An entry, and what it was worked out of: snapshots, which are the same ones until a commit."""

    day: date
    snapshots: list[Snapshot | None]
    entry: Entry
    behind_since: datetime | None


def _tables(spec: DatasetSpec) -> list[TableSpec]:
    of_all = [tables.generations, tables.materializations, tables.deid_scores, tables.suppression]
    of_one = [tables.partitions, tables.quarantine, tables.records]
    told = [*(table() for table in of_all), *(table(spec.id) for table in of_one)]
    return [*told, *(tables.embeddings(spec.id, space) for space in spec.spaces)]


def _entry(ctx: Context, spec: DatasetSpec, published: PublishedDataset) -> tuple[Entry, datetime | None]:
    heads, states = ctx.audit.latest(spec.id), partition_states(ctx, spec)
    agreement = policy.agreement_of(ctx.settings, spec.terms)
    counts, cohorts = _counts(spec, heads, states), published.cohorts
    if spec.smallest_count > 1:
        counts, cohorts = _without_small(ctx, spec, counts, cohorts)
    freshness, behind_since = _freshness(spec, heads, states)
    entry = Entry(
        **vars(replace(published, cohorts=cohorts)),
        homepage=spec.homepage,
        access=spec.access,
        residency=spec.residency.where,
        smallest_count=spec.smallest_count,
        has_studies=spec.has_studies,
        agreement=AgreementFact(
            spec.residency.agreement, agreement is not None, str(agreement.expires) if agreement else None
        ),
        freshness=freshness,
        counts=counts,
    )
    return entry, behind_since


def _as_of(now: datetime, entry: Entry, behind_since: datetime | None) -> Entry:
    if behind_since is None:
        return entry
    met = now - behind_since <= timedelta(hours=entry.freshness.max_age_hours)
    return replace(entry, freshness=replace(entry.freshness, met=met))


def _freshness(spec: DatasetSpec, heads: Heads, states: list[PartitionState]) -> tuple[Freshness, datetime | None]:
    """Also since when a partition has been behind, if one is: only then `met` depends on the time."""
    made = {one.partition: heads.get(records.chain_of(one.partition)) for one in states}
    here = [one for one in states if made[one.partition] is not None]
    behind = [one for one in here if one.state != "current"]
    since = [head["finished_at"] for one in behind if (head := made[one.partition]) is not None]
    listed = heads.get(MANIFEST_CHAIN)
    freshness = Freshness(
        last_materialized_at=max((head["finished_at"] for head in heads.values()), default=None),
        upstream_version=listed["upstream_version"] if listed else None,
        listed_at=listed["finished_at"] if listed else None,
        max_age_hours=spec.freshness.max_age.total_seconds() / 3600,
        partitions=len(here),
        partitions_behind=len(behind),
        met=True if here else None,
    )
    return freshness, min(since, default=None)


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
