"""An answer again, as of the versions it was given from: exact search over an old Delta version of the embeddings.

What comes back is what that version held, less whatever has been taken away since: a record that is not in silver any more,
or whose subject is suppressed, never comes back, and the answer then says that it is not complete. Search approximates
and this does not: where the index missed a neighbour, this finds it.

A version can be replayed until maintenance has deleted its files, 30 days after it was replaced (VersionGone after that).

Belongs here: what an old version answers. Does not belong here: scores (exact), the index, HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import AccessTier, DatasetSpec
from medvec_assets.query.exact import CONTENT, nearest_contents
from medvec_assets.query.published import Grants, dataset_of, live_spaces, require_visible, visible
from medvec_assets.query.rows import find_records, one_of, source_uri, subjects_of
from medvec_assets.query.search.ranking import SCORE_DIGITS
from medvec_assets.query.search.vectors import unit
from resources import encoders, tables
from resources.errors import NotFound, QueryInvalid, StorageError, VersionGone
from resources.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resources.lakehouse import Lakehouse, Snapshot

QUESTIONS = ("text", "vector_id", "vector")
_ROW = (*CONTENT, "vector_id", "record_id", "cohort", "encoder", "weights_digest", "attributes")


@dataclass(frozen=True)
class PastRequest:
    """One question: exactly one of QUESTIONS. `as_of`: dataset/space -> Delta version of its embeddings, all of one space.
    `encoder`: which version of the space, where not the one that readers see now."""

    as_of: Mapping[str, int]
    text: str | None = field(default=None, repr=False)
    vector_id: str | None = None
    vector: Sequence[float] | None = field(default=None, repr=False)
    encoder: str | None = None
    cohorts: tuple[str, ...] = ()
    limit: int = 10

    def __post_init__(self) -> None:
        asked = [name for name in QUESTIONS if getattr(self, name) is not None]
        if len(asked) != 1:
            raise QueryInvalid(
                f"a replay asks one question, and this one has {len(asked)}",
                remedy=f"give exactly one of {', '.join(QUESTIONS)}",
            )


@dataclass(frozen=True)
class PastHit:
    """One neighbour of then, which may still be shown; the fields of a search hit."""

    score: float
    vector_id: str
    members: int
    dataset: str
    cohort: str
    record_id: str
    source_uri: str
    license: str
    encoder: str
    weights_digest: str
    delta_version: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class PastAnswer:
    """`complete`: nothing that stood among the hits then was withheld."""

    hits: list[PastHit]
    complete: bool
    versions: dict[str, int]
    subjects: frozenset[str] = field(repr=False)


def replay(asked: PastRequest, settings: Settings, lake: Lakehouse, grants: Grants = None) -> PastAnswer:
    """Raises NotFound for what is not there or was not granted, VersionGone for what was deleted since, QueryInvalid and
    PolicyRefused as search does."""
    pasts = [_past(name, version, asked, settings, lake, grants) for name, version in sorted(asked.as_of.items())]
    if len({(one.space, one.encoder) for one in pasts}) != 1:
        raise QueryInvalid(
            "the versions are of several spaces or encoders, whose vectors cannot be compared",
            remedy="replay one space at a time, and name the encoder the answer was given with",
        )
    vector, own = _query(asked, pasts, settings)
    hits: list[PastHit] = []
    complete = True
    for past in pasts:
        found, whole = _nearest(past, vector, asked, own, settings, lake)
        hits += found
        complete &= whole
    hits.sort(key=lambda one: (-one.score, one.dataset, one.record_id))
    hits = hits[: asked.limit]
    subjects: set[str] = set()
    for spec in {past.spec.id for past in pasts}:
        subjects |= subjects_of(lake, spec, [one.record_id for one in hits if one.dataset == spec])
    return PastAnswer(hits, complete, dict(asked.as_of), frozenset(subjects))


@dataclass(frozen=True)
class _Past:
    """One space at one version."""

    spec: DatasetSpec = field(hash=False)
    space: str
    encoder: str
    gold: Snapshot
    tiers: tuple[str, ...]
    cohorts: tuple[str, ...]

    @property
    def everywhere(self) -> pc.Expression:
        return (pc.field("space_version") == self.encoder) & one_of("access_tier", self.tiers)

    @property
    def where(self) -> pc.Expression:
        return self.everywhere & one_of("cohort", self.cohorts) if self.cohorts else self.everywhere


def _past(name: str, version: int, asked: PastRequest, settings: Settings, lake: Lakehouse, grants: Grants) -> _Past:
    dataset_id, _, space = name.partition("/")
    spec = dataset_of(dataset_id, grants)
    require_visible(spec, settings)
    if space not in spec.spaces:
        raise NotFound(f"{dataset_id} has no such space", remedy="name it as dataset/space, as the answer did")
    encoder = asked.encoder or next(
        (
            one.space_version
            for one in live_spaces(settings, lake, grants)
            if (one.dataset, one.space) == (spec.id, space)
        ),
        spec.spaces[space].version,
    )
    tiers = tuple(str(tier) for tier in AccessTier if visible(spec, settings, tier))
    return _Past(spec, space, encoder, gold_at(lake, spec, space, version), tiers, asked.cohorts)


def gold_at(lake: Lakehouse, spec: DatasetSpec, space: str, version: int) -> Snapshot:
    """The embeddings at `version`. Raises NotFound if there is no such version yet, VersionGone if none any more."""
    table = tables.embeddings(spec.id, space)
    now = lake.snapshot(table)
    if now is None or version > now.version:
        newest = "none" if now is None else str(now.version)
        raise NotFound(
            f"{spec.id}/{space} has no version {version}: the newest is {newest}",
            remedy="give the version that the answer named",
        )
    if version == now.version:
        return now
    with _gone(spec, space, version):
        found = lake.snapshot(table, version)
        assert found is not None  # the table exists
        return found


@contextmanager
def _gone(spec: DatasetSpec, space: str, version: int) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        if error.code not in ("version_gone", "files_gone"):
            raise
        raise VersionGone(
            f"version {version} of {spec.id}/{space} is not kept any more",
            remedy="an answer can be replayed for 30 days after its embeddings were replaced; ask the search again",
        ) from error


def _query(
    asked: PastRequest, pasts: list[_Past], settings: Settings
) -> tuple[NDArray[np.float32], Mapping[str, Any] | None]:
    """The query vector at unit norm, and the row it is of, where it is a stored one."""
    if asked.vector_id is not None:
        for past in pasts:
            with _gone(past.spec, past.space, past.gold.version):
                rows = past.gold.read(
                    [*_ROW, "vector"], past.everywhere & (pc.field("vector_id") == asked.vector_id)
                ).to_dicts()
            if rows:
                return np.asarray(rows[0]["vector"], np.float32), rows[0]
        raise NotFound("no such vector stood in these versions", remedy="give the vector_id of a hit of that answer")
    if asked.vector is not None:
        return unit(asked.vector), None
    card = encoders.card(pasts[0].encoder, settings)
    if card.input_kind != "text":
        raise QueryInvalid(f"space {pasts[0].space} cannot be asked by text", remedy="give a vector or a vector_id")
    return np.asarray(encoders.load(card.ref, settings).encode([asked.text])[0], np.float32), None


def _nearest(
    past: _Past,
    vector: NDArray[np.float32],
    asked: PastRequest,
    own: Mapping[str, Any] | None,
    settings: Settings,
    lake: Lakehouse,
) -> tuple[list[PastHit], bool]:
    """The hits of one space, and whether all that stood among them may still be shown.

    Of every content found the members are looked up; while too few of them are left, more contents are looked for."""
    wanted, complete = asked.limit + (own is not None), True
    while True:
        with _gone(past.spec, past.space, past.gold.version):
            contents = nearest_contents(past.gold, past.where, vector, wanted)
            found, complete = _shown(past, contents, own, settings, lake)
        if len(found) >= asked.limit or contents.height < wanted:
            return found[: asked.limit], complete
        wanted *= 2


def _shown(
    past: _Past, contents: pl.DataFrame, own: Mapping[str, Any] | None, settings: Settings, lake: Lakehouse
) -> tuple[list[PastHit], bool]:
    """One hit for each content that still has a member, best first."""
    if contents.is_empty():
        return [], True
    where = past.where & one_of("content_digest", contents["content_digest"])
    rows = past.gold.read(list(_ROW), where).join(contents, on=CONTENT)
    if own is not None:  # as a search by id leaves out what it was asked with
        same = pl.all_horizontal(pl.col(name) == own[name] for name in CONTENT)
        rows = rows.filter(~same & (pl.col("record_id") != own["record_id"]))
    spec = past.spec
    kept = find_records(
        lake,
        spec.id,
        rows["record_id"],
        rows["partition"],
        ["payload_uri", "object_ids"],
        made_up=spec.is_synthetic(settings.sources),
    )
    shown = rows.join(kept, on="record_id").sort("record_id")
    one_each = shown.group_by(CONTENT, maintain_order=True).agg(pl.all().first(), pl.len().alias("members"))
    ordered = one_each.sort("score", "record_id", descending=[True, False])
    return [_hit(past, row) for row in ordered.iter_rows(named=True)], shown.height == rows.height


def _hit(past: _Past, row: Mapping[str, Any]) -> PastHit:
    allowed = past.spec.index_attributes
    return PastHit(
        score=round(float(row["score"]), SCORE_DIGITS),
        vector_id=row["vector_id"],
        members=int(row["members"]),
        dataset=past.spec.id,
        cohort=row["cohort"],
        record_id=row["record_id"],
        source_uri=source_uri(past.spec.id, row["payload_uri"], row["object_ids"]),
        license=row["license"],
        encoder=row["encoder"],
        weights_digest=row["weights_digest"],
        delta_version=past.gold.version,
        attributes={name: value for name, value in json.loads(row["attributes"]).items() if name in allowed},
    )
