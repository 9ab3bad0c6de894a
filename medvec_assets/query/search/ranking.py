"""From what several collections found to one page of hits: merged, completed, grouped, without those of earlier pages.

Belongs here: order, ties, completing hits from the lake, groups. Does not belong here: asking an index (engine), cursors'
seal (pages).

A collection that answered as many entities as were asked for may have more of the score of its last: that score and below
is uncertain, and a page is made of what is above. So equal scores come in the same order however an index breaks ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvec_assets.fingerprints import vector_id
from medvec_assets.query.facts import Moment
from medvec_assets.query.held import HeldRecords, Shown
from medvec_assets.query.published import LiveSpace
from medvec_assets.query.search.pages import Passed
from medvec_assets.query.search.question import Hit

# Cosine scores of float32 vectors are good to about 1e-6: beyond it, equal contents would be ranked by noise.
SCORE_DIGITS = 6
PICTURED = ("imaging", "raster", "volume")  # modalities whose model input is a picture, uint8 [224, 224, 3]


@dataclass(frozen=True)
class Found:
    """One index entity before it is completed from the lake."""

    score: float
    live: LiveSpace
    weights_digest: str
    entity: dict[str, Any]

    @property
    def rank(self) -> tuple[float, str, str]:
        return (-self.score, self.live.dataset, self.entity["entity_id"])


@dataclass(frozen=True)
class Fetched:
    """What one collection answered; `floor`: the score from which on down there may be more, None if there is not."""

    found: list[Found]
    floor: float | None


@dataclass(frozen=True)
class Page:
    """Hits of one question and what a cursor must remember of them; `more`: others may follow. `full`: no wider search
    would add to it."""

    hits: tuple[Hit, ...]
    passed: tuple[str, ...]
    more: bool
    full: bool


def certain(fetched: Sequence[Fetched]) -> tuple[list[Found], bool]:
    """What can be ranked for sure, best first, and whether that is all there is."""
    floors = [one.floor for one in fetched if one.floor is not None]
    floor = max(floors, default=-float("inf"))
    return sorted((f for one in fetched for f in one.found if f.score > floor), key=lambda one: one.rank), not floors


def anyway(fetched: Sequence[Fetched]) -> list[Found]:
    """All that was found, where looking wider is not allowed any more."""
    return sorted((f for one in fetched for f in one.found), key=lambda one: one.rank)


def page_of(
    found: Sequence[Found], is_all: bool, limit: int, passed: Passed, group_by: str | None, complete: Complete
) -> Page:
    """The next `limit` hits, or groups, of those `found` that were not passed."""
    if group_by is not None:
        return _grouped(complete(found), is_all, limit, passed, group_by)
    waiting = [one for one in found if one.entity["entity_id"] not in passed]
    hits: list[Hit] = []
    gone: list[str] = []
    while waiting and len(hits) < limit:
        taken, waiting = waiting[: limit - len(hits)], waiting[limit - len(hits) :]
        hits += (hit for _, hit in complete(taken))
        gone += (one.entity["entity_id"] for one in taken)
    return Page(tuple(hits), tuple(gone), bool(waiting) or not is_all, is_all or len(hits) >= limit)


def _grouped(found: Sequence[tuple[Found, Hit]], is_all: bool, limit: int, passed: Passed, group_by: str) -> Page:
    """The best hit of each subject or study, which is called by a number of this answer."""
    groups: dict[tuple[str, ...], list[Hit]] = {}
    for _, hit in found:
        groups.setdefault(_group(hit, group_by), []).append(hit)
    new = [(key, hits) for key, hits in groups.items() if "\x1f".join(key) not in passed]
    taken = new[:limit]
    hits = tuple(_best(hits, group_by, number) for number, (_, hits) in enumerate(taken, 1))
    names = tuple("\x1f".join(key) for key, _ in taken)
    return Page(hits, names, len(new) > limit or not is_all, is_all or len(taken) >= limit)


def _group(hit: Hit, group_by: str) -> tuple[str, ...]:
    """What hits of one group share. A study is one subject's, whatever a source's UIDs say; without one a record is alone."""
    subject = (hit.dataset, hit.subject_key)
    if group_by == "subject":
        return subject
    return (*subject, "", hit.record_id) if hit.study is None else (*subject, hit.study)


def _best(hits: Sequence[Hit], group_by: str, number: int) -> Hit:
    is_named = group_by == "subject" or hits[0].study is not None
    return replace(hits[0], group=f"{group_by} {number}" if is_named else None, group_size=len(hits))


Complete = Callable[[Sequence[Found]], list[tuple[Found, Hit]]]


def completed(found: Sequence[Found], moment: Moment, records: HeldRecords) -> list[tuple[Found, Hit]]:
    """Hits with what the lake says of their records; what is no longer there, or suppressed, is no hit."""
    shown: dict[str, dict[str, Shown]] = {}
    for spec in {one.live.dataset: one.live.spec for one in found}.values():
        entities = (one.entity for one in found if one.live.dataset == spec.id)
        wanted = {entity["record_id"]: entity["partition"] for entity in entities}
        shown[spec.id] = records.find(moment, spec, wanted)
    pairs = ((one, shown[one.live.dataset].get(one.entity["record_id"])) for one in found)
    return [(one, _hit(one, record, moment)) for one, record in pairs if record is not None]


def _hit(found: Found, record: Shown, moment: Moment) -> Hit:
    live, entity = found.live, found.entity
    allowed = live.spec.index_attributes
    named = vector_id(live.dataset, live.space, entity["record_id"], entity["part_kind"], int(entity["part_index"]))
    return Hit(
        score=found.score,
        vector_id=named,
        members=int(entity["members"]),
        dataset=live.dataset,
        cohort=entity["cohort"],
        record_id=entity["record_id"],
        modality=entity["modality"],
        source_uri=record.source_uri,
        thumbnail=f"/v1/thumbnails/{named}" if live.spec.modality in PICTURED else None,
        license=entity["license"],
        encoder=live.space_version,
        weights_digest=found.weights_digest,
        delta_version=int(entity["delta_version"]),
        upstream_version=moment.upstream_version(live.dataset, entity["partition"]),
        deid_profile=record.deid_profile,
        attributes={name: value for name, value in entity["attributes"].items() if name in allowed},
        subject_key=record.subject_key,
        study=record.study,
    )
