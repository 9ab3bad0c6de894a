"""Search: one question, one query vector, every comparable collection, one ranked list of hits with their provenance.

Belongs here: what may be asked, choosing the space, fan-out and merge, completing hits from the lake.
Does not belong here: HTTP and JSON shapes (api), printing (cli), how an index searches (resources.vector_index).

Vectors of different spaces are never compared: a question that would reach two spaces is refused, not guessed. A hit
whose record is gone from silver, or suppressed, is not shown even while the index still holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.fingerprints import vector_id
from medvec_assets.query.published import (
    Grants,
    LiveSpace,
    PlannedCohort,
    cohorts_of,
    dataset_of,
    live_spaces,
    require_visible,
)
from medvec_assets.query.rows import entity_of, find_embeddings, find_records, read_vector, source_uri
from resources import encoders
from resources.errors import IndexUnavailable, IntegrityError, NotFound, QueryInvalid
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse
    from resources.vector_index import CollectionInfo, VectorIndex

MAX_LIMIT = 1_000
MAX_TEXT_CHARS = 8_192
MAX_DIM = 16_384
MATERIALIZE = "materialize it first: medvec run"
# Cosine scores of float32 vectors are good to about 1e-6: beyond it, equal contents would be ranked by noise.
SCORE_DIGITS = 6


@dataclass(frozen=True)
class SearchRequest:
    """One question: exactly one of `text`, `record_id`, `vector_id` and `vector`. Raises QueryInvalid otherwise.

    `datasets` and `cohorts` narrow the answer (empty: all that are visible); `space` is needed only where the
    question would reach several.
    """

    text: str | None = None
    record_id: str | None = None
    vector_id: str | None = None
    vector: Sequence[float] | None = field(default=None, repr=False)
    datasets: tuple[str, ...] = ()
    space: str | None = None
    cohorts: tuple[str, ...] = ()
    limit: int = 10

    def __post_init__(self) -> None:
        asked = [name for name in ("text", "record_id", "vector_id", "vector") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise QueryInvalid(
                f"a search asks one question, and this one has {len(asked)} ({', '.join(asked) or 'none'})",
                remedy="give exactly one of text, record_id, vector_id and vector",
            )
        if not 1 <= self.limit <= MAX_LIMIT:
            raise QueryInvalid(f"limit is {self.limit}", remedy=f"ask for 1 to {MAX_LIMIT} hits")
        if self.text is not None and not 1 <= len(self.text.strip()) <= MAX_TEXT_CHARS:
            raise QueryInvalid(
                f"the text has {len(self.text.strip())} characters", remedy=f"give 1 to {MAX_TEXT_CHARS} of them"
            )


@dataclass(frozen=True)
class Hit:
    """One answer: the representative of `members` records with identical content in one partition, and its provenance.

    `score` is cosine similarity; `delta_version` is the embeddings table's version the index was reconciled with.
    """

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
class _Query:
    """A unit vector [dim] and its space; `source_*` say which stored content asked, so that it is not its own hit."""

    vector: NDArray[np.float32]
    comparable: tuple[str, str]
    weights_digest: str | None = None  # of the weights that made it; None for a caller's own vector
    source_entity: str | None = None
    source_record: str | None = None


@dataclass(frozen=True)
class _Found:
    """One index entity before it is completed from the lake."""

    score: float
    live: LiveSpace
    weights_digest: str
    entity: dict[str, Any]

    @property
    def rank(self) -> tuple[float, str, str]:
        return (-self.score, self.live.dataset, self.entity["entity_id"])


class SearchEngine:
    """Answers searches from one lake and one index. Safe to share between threads; encoders are loaded once."""

    def __init__(self, settings: Settings, lake: Lakehouse, index: VectorIndex) -> None:
        self._settings = settings
        self._lake = lake
        self._index = index
        self._encoding = threading.Lock()  # torch already uses all cores: two encodes at once only slow each other

    def search(self, request: SearchRequest, grants: Grants = None) -> list[Hit]:
        """At most `request.limit` hits, best first; ties in the order of (dataset, entity).

        Raises QueryInvalid, PolicyRefused (a dataset this site may not show), NotFound (nothing live, unknown
        cohort or id), IndexUnavailable, IntegrityError (index and weights do not belong together).
        """
        candidates = self._candidates(request, grants)
        query = self._query(request, candidates)
        targets = [live for live in candidates if live.comparable == query.comparable]
        scopes = self._scopes(targets, request.cohorts)
        collections = {live: self._collection(live) for live in scopes}
        _check_comparable(query, collections)
        found: list[_Found] = []
        for live, scope in scopes.items():
            found += self._neighbours(query, live, collections[live], scope, request.limit)
        return self._hits(sorted(found, key=lambda one: one.rank)[: request.limit])

    def _candidates(self, request: SearchRequest, grants: Grants) -> list[LiveSpace]:
        """The live spaces that the request names, or all of them, of the datasets that were granted."""
        named = [dataset_of(name, grants) for name in dict.fromkeys(request.datasets)]
        for spec in named:
            require_visible(spec, self._settings)
        known = sorted({space for spec in named or CATALOG for space in spec.spaces})
        if request.space is not None and request.space not in known:
            raise QueryInvalid("no dataset that was asked has this space", remedy=f"use one of: {', '.join(known)}")
        live = [
            one
            for one in live_spaces(self._settings, self._lake, grants)
            if (not named or one.spec in named) and request.space in (None, one.space)
        ]
        missing = [spec.id for spec in named if spec not in [one.spec for one in live]]
        if missing or not live:
            what = f"nothing of {', '.join(missing)}" if missing else "nothing"
            raise NotFound(f"{what} is live{f' in space {request.space}' if request.space else ''}", remedy=MATERIALIZE)
        return live

    def _query(self, request: SearchRequest, candidates: list[LiveSpace]) -> _Query:
        if request.text is not None:
            return self._text_query(request, candidates)
        if request.vector is not None:
            return self._vector_query(request.vector, candidates)
        if request.record_id is not None:
            return self._stored_query("record_id", request.record_id, candidates)
        assert request.vector_id is not None
        return self._stored_query("vector_id", request.vector_id, candidates)

    def _text_query(self, request: SearchRequest, candidates: list[LiveSpace]) -> _Query:
        assert request.text is not None
        kinds = {live: encoders.card(live.space_version, self._settings).input_kind for live in candidates}
        takers = [live for live, kind in kinds.items() if kind == "text"]
        deaf = sorted(set(request.datasets) - {live.dataset for live in takers})
        if deaf or not takers:
            raise QueryInvalid(
                f"{', '.join(deaf) or 'the chosen space'} cannot be searched by text: no live space takes it",
                remedy="search it by record_id, vector_id or vector",
            )
        chosen = _one_space(takers)
        with self._encoding:
            encoder = encoders.load(chosen.space_version, self._settings)
            vector = encoder.encode([request.text.strip()])[0]
        return _Query(vector, chosen.comparable, encoder.card.weights_digest)

    def _vector_query(self, values: Sequence[float], candidates: list[LiveSpace]) -> _Query:
        chosen = _one_space(candidates)
        dim = self._collection(chosen).dim
        if len(values) != dim:
            raise QueryInvalid(
                f"the vector has {len(values)} dimensions and space {chosen.space} ({chosen.space_version}) has {dim}",
                remedy=f"give {dim} numbers made by {chosen.space_version}",
            )
        return _Query(_unit(values), chosen.comparable)

    def _stored_query(self, column: str, value: str, candidates: list[LiveSpace]) -> _Query:
        """More like this: the stored vector of a record (its first part) or of one vector id."""
        places = self._places(column, value, candidates)
        if not places:
            raise NotFound(
                f"no live vector has the {column} that was asked for",
                remedy="check the id and the datasets; a withdrawn or suppressed record is not found either",
            )
        chosen = _one_space([live for live, _ in places])
        if len({live.dataset for live, _ in places}) > 1:
            raise QueryInvalid(
                f"that {column} is in several datasets: {', '.join(sorted({live.dataset for live, _ in places}))}",
                remedy="ask by vector_id, which is of one dataset",
            )
        row = places[0][1]
        vector = read_vector(self._lake, chosen.dataset, chosen.space, row)
        if vector is None:
            raise NotFound(f"the vector of that {column} was replaced just now", remedy="ask again")
        return _Query(_unit(vector), chosen.comparable, row["weights_digest"], entity_of(row), row["record_id"])

    def _places(self, column: str, value: str, candidates: list[LiveSpace]) -> list[tuple[LiveSpace, dict[str, Any]]]:
        """Live embedding rows with that id whose record may still be shown, first part first."""
        places = []
        for live in candidates:
            rows = find_embeddings(self._lake, live.dataset, live.space, column, value)
            for row in rows.sort("part_kind", "part_index").iter_rows(named=True):
                if (row["space_version"], row["access_tier"]) == (live.space_version, live.access_tier) and len(
                    self._records(live.spec, [row["record_id"]], [row["partition"]], [])
                ):
                    places.append((live, row))
        return places

    def _scopes(self, targets: list[LiveSpace], cohorts: tuple[str, ...]) -> dict[LiveSpace, PlannedCohort | None]:
        """The chosen cohorts of each target as one; None means all there are."""
        if not cohorts:
            return dict.fromkeys(targets)
        by_dataset = {name: cohorts_of(self._lake, name, cohorts) for name in {live.dataset for live in targets}}
        unknown = set(cohorts).difference(*by_dataset.values())
        if unknown:
            raise NotFound(
                f"there is no cohort {', '.join(sorted(unknown))} in {', '.join(sorted(by_dataset))}",
                remedy="list the cohorts: medvec partitions DATASET, or GET /v1/datasets",
            )
        scopes: dict[LiveSpace, PlannedCohort | None] = {}
        for live in targets:
            if chosen := by_dataset[live.dataset].values():
                partitions = sorted(name for cohort in chosen for name in cohort.partitions)
                scopes[live] = PlannedCohort(tuple(partitions), sum(cohort.share for cohort in chosen))
        return scopes

    def _collection(self, live: LiveSpace) -> CollectionInfo:
        info = self._index.describe(live.collection)
        if info is None:
            raise IndexUnavailable(
                f"collection {live.collection} is live in the lake and missing from the index",
                remedy="rebuild it from the lake: medvec sync --full, or medvec run",
            )
        return info

    def _neighbours(
        self, query: _Query, live: LiveSpace, info: CollectionInfo, scope: PlannedCohort | None, limit: int
    ) -> list[_Found]:
        wanted = limit if query.source_entity is None else limit + 1  # its own entity is dropped below
        [nearest] = self._index.search(
            live.collection,
            query.vector[np.newaxis, :],
            wanted,
            params=info.declared.search_params(wanted, scope.share if scope else 1.0),
            partitions=scope.partitions if scope else None,
        )
        digest = info.properties["medvec.weights_digest"]
        return [
            _Found(round(float(hit.score), SCORE_DIGITS), live, digest, hit.entity)
            for hit in nearest
            if hit.entity["entity_id"] != query.source_entity and hit.entity["record_id"] != query.source_record
        ]

    def _hits(self, found: list[_Found]) -> list[Hit]:
        """Completed from silver, one read per dataset; what is no longer there is no answer."""
        uris: dict[tuple[str, str], str] = {}
        for spec in {one.live.dataset: one.live.spec for one in found}.values():
            entities = [one.entity for one in found if one.live.dataset == spec.id]
            ids, partitions = ({entity[key] for entity in entities} for key in ("record_id", "partition"))
            rows = self._records(spec, ids, partitions, ["payload_uri", "object_ids"])
            uris |= {(spec.id, record_id): source_uri(spec.id, *where) for record_id, *where in rows.iter_rows()}
        keyed = [((one.live.dataset, one.entity["record_id"]), one) for one in found]
        return [_hit(one, uris[key]) for key, one in keyed if key in uris]

    def _records(
        self, spec: DatasetSpec, ids: Iterable[str], partitions: Iterable[str], columns: Sequence[str]
    ) -> pl.DataFrame:
        made_up = spec.is_synthetic(self._settings.sources)
        return find_records(self._lake, spec.id, ids, partitions, columns, made_up=made_up)


def _hit(found: _Found, source_uri: str) -> Hit:
    live, entity = found.live, found.entity
    allowed = live.spec.index_attributes
    return Hit(
        score=found.score,
        vector_id=vector_id(
            live.dataset, live.space, entity["record_id"], entity["part_kind"], int(entity["part_index"])
        ),
        members=int(entity["members"]),
        dataset=live.dataset,
        cohort=entity["cohort"],
        record_id=entity["record_id"],
        source_uri=source_uri,
        license=entity["license"],
        encoder=live.space_version,
        weights_digest=found.weights_digest,
        delta_version=int(entity["delta_version"]),
        attributes={name: value for name, value in entity["attributes"].items() if name in allowed},
    )


def _one_space(candidates: list[LiveSpace]) -> LiveSpace:
    """The first of `candidates`, if all of them are comparable."""
    spaces: dict[tuple[str, str], set[str]] = {}
    for live in candidates:
        spaces.setdefault(live.comparable, set()).add(live.dataset)
    if len(spaces) > 1:
        listed = "; ".join(
            f"{space} ({version}) of {', '.join(sorted(names))}" for (space, version), names in sorted(spaces.items())
        )
        raise QueryInvalid(
            f"the question reaches several spaces, whose vectors cannot be compared: {listed}",
            remedy="name one space, or datasets that share one at the same version",
        )
    return candidates[0]


def _check_comparable(query: _Query, collections: dict[LiveSpace, CollectionInfo]) -> None:
    """Same reference, other weights: their distances would mean nothing."""
    digests = {info.properties["medvec.weights_digest"] for info in collections.values()}
    if query.weights_digest is not None:
        digests.add(query.weights_digest)
    if len(digests) > 1:
        space, version = query.comparable
        raise IntegrityError(
            f"space {space} was made with other weights of {version} than the question "
            f"({', '.join(sorted(digest[:12] for digest in digests))})",
            remedy="point MEDVEC_WEIGHTS at the index's weights, or raise the encoder's version and run",
        )


def _unit(values: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` [dim] at unit norm. Raises QueryInvalid where no direction is left."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise QueryInvalid("the vector has a component that is not a finite number", remedy="give finite numbers only")
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0.0:
        raise QueryInvalid("the vector is zero and has no direction", remedy="give a vector with a non-zero component")
    scaled = vector / largest  # so that neither 1e300 nor 1e-300 leaves float64 when squared
    return np.asarray(scaled / np.linalg.norm(scaled), dtype=np.float32)
