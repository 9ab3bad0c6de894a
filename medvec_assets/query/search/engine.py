"""The search itself: cache, cursor, vectors, fan-out, pages.

Belongs here: the order of the steps, asking the index, timings. Does not belong here: what each step decides (the other
modules of this package), HTTP and JSON (api), printing (cli), how an index searches (resources.vector_index).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from medvec_assets.query.facts import Facts, Moment
from medvec_assets.query.held import HeldRecords
from medvec_assets.query.members import Members, members
from medvec_assets.query.published import Grants, LiveSpace
from medvec_assets.query.search import filters
from medvec_assets.query.search.cache import AnswerCache
from medvec_assets.query.search.coalescing import Coalescer
from medvec_assets.query.search.pages import MAX_DEPTH, Cursors, Passed
from medvec_assets.query.search.question import Answer, Explain, Searched, SearchRequest
from medvec_assets.query.search.ranking import (
    SCORE_DIGITS,
    Fetched,
    Found,
    Page,
    anyway,
    certain,
    completed,
    page_of,
)
from medvec_assets.query.search.targets import Target, candidates, check_comparable, check_groups, in_cohorts
from medvec_assets.query.search.vectors import Query, Vectors
from resources import tables
from resources.errors import IndexInvalid, IndexUnavailable
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse
    from resources.vector_index import CollectionInfo, VectorIndex

MAX_FETCH = 4_096  # entities of a collection looked at for one page, however many are of equal score or of one subject
GROUPED_FETCH = 4  # hits looked at for each subject that is wanted, at first
# Under 20 queries an index compares each by itself, as if it came alone; more are multiplied as a matrix, and the scores
# differ in the last bits.
TOGETHER = 16
COLLECTIONS_AT_ONCE = 8


@dataclass
class _Course:
    """One request under way: its view of the lake, its timings, and how wide and in whose company it was asked."""

    moment: Moment
    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("encode", "index", "lake"), 0.0))
    coalesced: int = 0
    width: int = 0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began

    def timings_ms(self) -> dict[str, float]:
        told = self.seconds | {"total": time.perf_counter() - self.started}
        return {name: round(value * 1_000, 3) for name, value in told.items()}


class SearchEngine:
    """Answers searches from one lake and one index. Safe to share between threads; close it at the end."""

    def __init__(
        self, settings: Settings, lake: Lakehouse, index: VectorIndex, records: HeldRecords | None = None
    ) -> None:
        self._settings = settings
        self._index = index
        self._facts = Facts(settings, lake)
        self._records = records or HeldRecords()
        self._vectors = Vectors(self._records, lambda live, moment: self._collection(live, moment).dim)
        self._cursors: Cursors | None = None
        self._cache = AnswerCache()
        self._calls = Coalescer(TOGETHER)
        self._pool = ThreadPoolExecutor(COLLECTIONS_AT_ONCE, "collection")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._records.close()
        self._facts.close()

    def search(self, request: SearchRequest, grants: Grants = None) -> Answer:
        """At most `request.limit` hits of each question, best first; ties in the order of (dataset, entity).

        Raises QueryInvalid, PolicyRefused (a dataset this site may not show), NotFound (nothing live, unknown cohort or
        id), CursorGone, IndexUnavailable, IntegrityError (index and weights do not belong together).
        """
        course = _Course(Moment(self._facts))
        with course.timed("lake"):
            live = candidates(request, course.moment, self._settings, grants)
            state = course.moment.state(live)
            passed = self._passed(request, grants, state)
            versions = course.moment.versions(sorted({one.dataset for one in live}))
            caller = "*" if grants is None else ",".join(sorted(grants))
            key = self._cache.key(request.canonical(), caller, state, versions)
        if (known := self._cache.get(key)) is not None:
            told = replace(known.explain, cached=True, coalesced=0, timings_ms=course.timings_ms())
            return replace(known, explain=told)
        answer = self._answered(request, grants, live, passed, state, course)
        self._cache.put(key, answer)
        return answer

    def members(self, vector_id: str, grants: Grants, limit: int, after: str | None = None) -> Members:
        """The records whose content a hit stands for (query.members)."""
        return members(vector_id, Moment(self._facts), self._records, grants, limit, after)

    def _passed(self, request: SearchRequest, grants: Grants, state: str) -> Passed:
        if self._cursors is None:
            self._cursors = Cursors(self._settings.pseudonym_secret)
        if request.cursor is None:
            return self._cursors.first_page()
        return self._cursors.opened(request.cursor, _bound(request, grants), state)

    def _answered(
        self,
        request: SearchRequest,
        grants: Grants,
        live: list[LiveSpace],
        passed: Passed,
        state: str,
        course: _Course,
    ) -> Answer:
        with course.timed("encode"):
            queries = self._vectors.of(request, live, course.moment)
        with course.timed("lake"):
            targets = self._targets(request, queries, live, course.moment)
        pages = self._pages(request, queries, targets, passed, course)
        limit = request.limit
        cursor = None
        if not request.queries and pages[0].more and len(passed.marks) + len(pages[0].passed) + limit <= MAX_DEPTH:
            assert self._cursors is not None
            cursor = self._cursors.sealed(passed, pages[0].passed, _bound(request, grants), state)
        explain = Explain(
            timings_ms=course.timings_ms(),
            collections=tuple(_searched(one, course.width, course.moment) for one in targets),
            cached=False,
            coalesced=course.coalesced,
        )
        return Answer(tuple(page.hits for page in pages), cursor, explain)

    def _targets(
        self, request: SearchRequest, queries: list[Query], live: list[LiveSpace], moment: Moment
    ) -> list[Target]:
        comparable = queries[0].comparable
        chosen = in_cohorts([one for one in live if one.comparable == comparable], request.cohorts, moment)
        specs = [one.spec for one in chosen]
        check_groups(request.group_by, specs)
        conditions = filters.of_request(request, specs)
        targets = [Target(one, self._collection(one, moment), scope, conditions) for one, scope in chosen.items()]
        for query in queries:
            check_comparable(comparable, query.weights_digest, targets)
        return targets

    def _collection(self, live: LiveSpace, moment: Moment) -> CollectionInfo:
        """What the index says of a collection, asked once for each state of it: a call of 3 ms."""
        name, receipts = ("collection", live.collection), moment.snapshot(tables.index_receipts())
        info = self._facts.kept(name, receipts, lambda: self._index.describe(live.collection))
        if info is None:
            self._facts.forget(name)
            raise IndexUnavailable(
                f"collection {live.collection} is live in the lake and missing from the index",
                remedy="rebuild it from the lake: medvec sync --full, or medvec run",
            )
        return info

    def _pages(
        self, request: SearchRequest, queries: list[Query], targets: list[Target], passed: Passed, course: _Course
    ) -> list[Page]:
        """A page for each query. Where what is certain does not fill one, the search is made again, twice as wide."""
        limit = request.limit
        wanted = limit * (GROUPED_FETCH if request.group_by else 1) + len(passed.marks)
        width = min(wanted + 2, MAX_FETCH)  # its own entity is dropped, and one more tells where a score ends
        pages: list[Page | None] = [None] * len(queries)
        complete = partial(completed, moment=course.moment, records=self._records)
        while todo := [place for place, page in enumerate(pages) if page is None]:
            course.width = width
            with course.timed("index"):
                fetched = self._fetched([queries[place] for place in todo], targets, width, course)
            for place, of_query in zip(todo, fetched, strict=True):
                found, is_all = certain(of_query)
                if not is_all and width >= MAX_FETCH:
                    found, is_all = anyway(of_query), True
                with course.timed("lake"):
                    page = page_of(found, is_all, limit, passed, request.group_by, complete)
                if page.full:
                    pages[place] = page
            width = min(2 * width, MAX_FETCH)
        return [page for page in pages if page is not None]

    def _fetched(self, queries: list[Query], targets: list[Target], width: int, course: _Course) -> list[list[Fetched]]:
        """What each target found, query by query; several targets are asked side by side."""
        ask = partial(self._asked, queries=queries, width=width, course=course)
        by_target = list(map(ask, targets) if len(targets) == 1 else self._pool.map(ask, targets))
        return [[of_target[place] for of_target in by_target] for place in range(len(queries))]

    def _asked(self, target: Target, queries: list[Query], width: int, course: _Course) -> list[Fetched]:
        params = target.params(width)
        partitions = target.cohorts.partitions if target.cohorts else None
        name, conditions = target.live.collection, target.conditions
        key = (name, width, tuple(sorted(params.items())), partitions, conditions)

        def call(vectors: Sequence[np.ndarray]) -> list[list[object]]:
            return self._index.search(  # type: ignore[return-value]
                name, np.stack(vectors), width, params=params, partitions=partitions, conditions=conditions
            )

        try:
            answers, together = self._calls.ask(key, [query.vector for query in queries], call)
        except IndexInvalid:
            self._facts.forget(("collection", name))
            self._collection(target.live, course.moment)  # says what to do if it was dropped
            raise
        course.coalesced = max(course.coalesced, together)
        digest = target.info.properties["medvec.weights_digest"]
        fetched = []
        for query, nearest in zip(queries, answers, strict=True):
            found = [
                Found(round(float(hit.score), SCORE_DIGITS), target.live, digest, hit.entity)
                for hit in nearest
                if hit.entity["entity_id"] != query.source_entity and hit.entity["record_id"] != query.source_record
            ]
            is_cut = len(nearest) >= width
            fetched.append(Fetched(found, round(float(nearest[-1].score), SCORE_DIGITS) if is_cut else None))
        return fetched


def _bound(request: SearchRequest, grants: Grants) -> str:
    """What a cursor is bound to."""
    return f"{request.canonical(paging=False)}\x1f{'*' if grants is None else ','.join(sorted(grants))}"


def _searched(target: Target, width: int, moment: Moment) -> Searched:
    live = target.live
    return Searched(
        dataset=live.dataset,
        space=live.space,
        collection=live.collection,
        generation=live.generation,
        delta_version=moment.reconciled(live.collection).delta_version,
        index_type=target.info.declared.index_type,
        params=target.params(width),
    )
