"""Which collections answer a question: those named, visible, granted and live; one space; the partitions of cohorts.

Belongs here: choosing and refusing. Does not belong here: the question's vector (vectors), asking an index (engine).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query.facts import Moment
from medvec_assets.query.published import (
    Grants,
    LiveSpace,
    PlannedCohort,
    cohorts_of,
    dataset_of,
    granted,
    require_visible,
    visible,
)
from medvec_assets.query.search.question import SearchRequest
from resources.errors import IntegrityError, NotFound, QueryInvalid
from resources.settings import Settings
from resources.vector_index import CollectionInfo, Condition

UNKNOWN_NAMED = 5  # of a thousand cohorts that may be asked for
MATERIALIZE = "materialize it first: medvec run"


@dataclass(frozen=True)
class Target:
    """One collection to be asked, the cohorts it is restricted to (None: all there are), and the other conditions."""

    live: LiveSpace
    info: CollectionInfo
    cohorts: PlannedCohort | None
    conditions: tuple[Condition, ...]

    def params(self, limit: int) -> dict[str, int]:
        """How widely to look. Nobody knows which share of the entities fits conditions on their fields: as if none did,
        so that every list is opened and recall holds."""
        share = self.cohorts.share if self.cohorts else 1.0
        return self.info.declared.search_params(limit, 0.0 if self.conditions else share)


def candidates(request: SearchRequest, moment: Moment, settings: Settings, grants: Grants) -> list[LiveSpace]:
    """The live spaces that the request names, or all of them, of the datasets that were granted."""
    named = [dataset_of(name, grants) for name in dict.fromkeys(request.datasets)]
    for spec in named:
        require_visible(spec, settings)
    seen = named or [spec for spec in CATALOG if granted(spec, grants) and visible(spec, settings)]
    known = sorted({space for spec in seen for space in spec.spaces})
    if request.space is not None and request.space not in known:
        raise QueryInvalid(
            "no dataset that was asked has this space", remedy=f"use one of: {', '.join(known) or 'none'}"
        )
    live = [
        one for one in moment.live(grants) if (not named or one.spec in named) and request.space in (None, one.space)
    ]
    missing = [spec.id for spec in named if spec not in [one.spec for one in live]]
    if missing or not live:
        what = f"nothing of {', '.join(missing)}" if missing else "nothing"
        raise NotFound(f"{what} is live{f' in space {request.space}' if request.space else ''}", remedy=MATERIALIZE)
    return live


def one_space(live: list[LiveSpace]) -> LiveSpace:
    """The first of `live`, if all of them are comparable."""
    spaces: dict[tuple[str, str], set[str]] = {}
    for one in live:
        spaces.setdefault(one.comparable, set()).add(one.dataset)
    if len(spaces) > 1:
        listed = "; ".join(
            f"{space} ({version}) of {', '.join(sorted(names))}" for (space, version), names in sorted(spaces.items())
        )
        raise QueryInvalid(
            f"the question reaches several spaces, whose vectors cannot be compared: {listed}",
            remedy="name one space, or datasets that share one at the same version",
        )
    return live[0]


def in_cohorts(
    live: list[LiveSpace], cohorts: tuple[str, ...], moment: Moment
) -> dict[LiveSpace, PlannedCohort | None]:
    """Those of `live` that have any of the cohorts, with the chosen cohorts of each as one; None means all there are."""
    if not cohorts:
        return dict.fromkeys(live)
    by_dataset = {name: cohorts_of(moment.plan(name), cohorts) for name in {one.dataset for one in live}}
    unknown = set(cohorts).difference(*by_dataset.values())
    if unknown:
        raise NotFound(
            f"there is no cohort {', '.join(sorted(unknown)[:UNKNOWN_NAMED])} in {', '.join(sorted(by_dataset))}",
            remedy="list the cohorts: medvec partitions DATASET, or GET /v1/datasets",
        )
    chosen: dict[LiveSpace, PlannedCohort | None] = {}
    for one in live:
        if found := by_dataset[one.dataset].values():
            partitions = sorted(name for cohort in found for name in cohort.partitions)
            chosen[one] = PlannedCohort(tuple(partitions), sum(cohort.share for cohort in found))
    return chosen


def check_groups(group_by: str | None, specs: Iterable[DatasetSpec]) -> None:
    """Raises QueryInvalid where hits are wanted by study and a dataset has none: each of its hits would seem to be one."""
    has_studies = {spec.id: spec.has_studies for spec in specs}
    without = sorted(name for name, has in has_studies.items() if not has)
    if group_by == "study" and without:
        having = ", ".join(sorted(has_studies.keys() - without))
        raise QueryInvalid(
            f"the records of {', '.join(without)} name no study to group by",
            remedy=f"ask only {having}, or group by subject" if having else "group by subject",
        )


def check_comparable(comparable: tuple[str, str], digest: str | None, targets: list[Target]) -> None:
    """Same reference, other weights: their distances would mean nothing."""
    digests = {one.info.properties["medvec.weights_digest"] for one in targets}
    if digest is not None:
        digests.add(digest)
    if len(digests) > 1:
        space, version = comparable
        raise IntegrityError(
            f"space {space} was made with other weights of {version} than the question "
            f"({', '.join(sorted(digest[:12] for digest in digests))})",
            remedy="point MEDVEC_WEIGHTS at the index's weights, or raise the encoder's version and run",
        )
