"""Pages, groups, many questions, kept answers: on real Delta tables and an exact fake index of ill will."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.query_world import A1, A2, B1, C1, NOON, FakeIndex, World, append, copy_of, use_fake_encoder
from helpers.search_world import MANY, TEXT, ids, many, opened_engine, vector_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvec_assets.query.held import HeldRecords
from medvec_assets.query.search import Question, SearchEngine, SearchRequest, engine, pages
from medvec_assets.query.search.cache import AnswerCache
from medvec_assets.query.search.pages import Cursors
from resources import tables
from resources.errors import CursorGone, IndexInvalid, IndexUnavailable, NotFound, QueryInvalid
from resources.vector_index import IndexHit

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Shuffled(FakeIndex):
    """Breaks ties as it likes, anew in every call."""

    def search(self, name: str, vectors: Any, limit: int, **narrowed: Any) -> list[list[IndexHit]]:
        random.shuffle(self.held[name])
        return super().search(name, vectors, limit, **narrowed)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return many(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    use_fake_encoder(monkeypatch)
    return copy_of(built, tmp_path)


@pytest.fixture
def searching(world: World) -> Iterator[SearchEngine]:
    with opened_engine(world, world.index) as opened:
        yield opened


@pytest.fixture(scope="module")
def ill_willed(built: World) -> Iterator[SearchEngine]:
    index = Shuffled(infos=built.index.infos, held={name: list(held) for name, held in built.index.held.items()})
    with opened_engine(built, index) as opened:
        yield opened


@pytest.fixture(scope="module")
def reading(built: World) -> Iterator[SearchEngine]:
    """For tests that change nothing."""
    with opened_engine(built, built.index) as opened:
        yield opened


# -- pages


def walked(searching: SearchEngine, limits: Sequence[int], **asked: Any) -> list[Any]:
    """All hits, page after page, each of the next of `limits`."""
    hits: list[Any] = []
    cursor = None
    for number in range(1_000):
        answer = vector_in(searching, limit=limits[number % len(limits)], cursor=cursor, **asked)
        hits += answer.hits
        cursor = answer.cursor
        if cursor is None:
            return hits
    raise AssertionError("the pages do not end")


@FEW
@given(
    vector=st.tuples(*[st.integers(-2, 2)] * 4).filter(any),
    limits=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    cohorts=st.sampled_from([(), ("many",), ("lung", "liver")]),
)
def test_pages_repeat_nothing_and_leave_nothing_out(
    ill_willed: SearchEngine, vector: tuple[int, ...], limits: list[int], cohorts: tuple[str, ...]
) -> None:
    asked = {"vector": tuple(map(float, vector)), "cohorts": cohorts}
    at_once = vector_in(ill_willed, limit=1_000, **asked)
    paged = walked(ill_willed, limits, **asked)
    assert at_once.cursor is None
    assert [hit.vector_id for hit in paged] == [hit.vector_id for hit in at_once.hits]


@FEW
@given(vector=st.tuples(*[st.integers(-2, 2)] * 4).filter(any), limit=st.integers(1, 12))
def test_equal_scores_are_in_one_order_however_the_index_breaks_ties(
    ill_willed: SearchEngine, vector: tuple[int, ...], limit: int
) -> None:
    asked = [float(number) for number in vector]
    whole = ids(vector_in(ill_willed, vector=asked, limit=1_000))
    assert ids(vector_in(ill_willed, vector=asked, limit=limit)) == whole[:limit]


@FEW
@given(limits=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_pages_of_groups_have_each_subject_once(ill_willed: SearchEngine, limits: list[int]) -> None:
    paged = walked(ill_willed, limits, group_by="subject")
    assert sorted(hit.subject_key for hit in paged) == sorted({hit.subject_key for hit in paged})
    assert {hit.subject_key for hit in paged} == {h.subject_key for h in vector_in(ill_willed, limit=1_000).hits}


@FEW
@given(place=st.integers(0, 200), flip=st.integers(1, 63))
def test_a_cursor_that_was_touched_is_refused(ill_willed: SearchEngine, place: int, flip: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cursor = vector_in(ill_willed, limit=3).cursor
    assert cursor is not None
    place %= len(cursor) - 1  # of the last letter two bits are not used
    other = alphabet[(alphabet.index(cursor[place]) + flip) % 64]
    with pytest.raises(QueryInvalid, match="not one of this question"):
        vector_in(ill_willed, limit=3, cursor=cursor[:place] + other + cursor[place + 1 :])


@pytest.mark.parametrize("cursor", ["", "x", "é", "A" * 8_000, "====", "a b"])
def test_what_is_no_cursor_is_refused(reading: SearchEngine, cursor: str) -> None:
    with pytest.raises(QueryInvalid):
        vector_in(reading, cursor=cursor)


def test_a_cursor_is_of_one_question_and_one_caller(reading: SearchEngine) -> None:
    cursor = vector_in(reading, limit=2).cursor
    assert vector_in(reading, limit=5, cursor=cursor).hits, "another limit is no other question"
    for other in ({"vector": (0.0, 1.0, 0.0, 0.0)}, {"cohorts": ("many",)}, {"group_by": "subject"}):
        with pytest.raises(QueryInvalid, match="not one of this question"):
            vector_in(reading, cursor=cursor, **other)
    request = SearchRequest(vector=(1.0, 0.2, 0.0, 0.0), datasets=(TEXT,), cursor=cursor)
    with pytest.raises(QueryInvalid, match="not one of this question"):
        reading.search(request, frozenset({TEXT}))


def test_a_cursor_ends_with_its_time_and_with_its_generation(
    world: World, searching: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = vector_in(searching, limit=2).cursor
    with monkeypatch.context() as later:
        later.setattr(pages.time, "time", lambda: NOON.timestamp() + 10**9)
        with pytest.raises(CursorGone, match="has ended"):
            vector_in(searching, limit=2, cursor=cursor)
    promote(world)
    with pytest.raises(CursorGone, match="has changed"):
        vector_in(searching, limit=2, cursor=cursor)


def test_a_cursor_of_one_worker_is_taken_by_another(world: World, searching: SearchEngine) -> None:
    first = vector_in(searching, limit=4)
    with closing(SearchEngine(world.settings, world.lake, world.index)) as other:  # type: ignore[arg-type]
        second = vector_in(other, limit=4, cursor=first.cursor)
    assert not set(ids(first)) & set(ids(second))


def test_no_page_goes_deeper_than_is_allowed(reading: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_DEPTH", 8)
    assert len(walked(reading, [3])) == 6


def test_marks_of_two_answers_cannot_be_compared() -> None:
    cursors = Cursors(b"secret")
    assert cursors.first_page().mark("subject") != cursors.first_page().mark("subject")


# -- groups, many questions, members


def test_a_group_has_its_best_hit_its_size_and_a_number(world: World, searching: SearchEngine) -> None:
    world.publish(replace(C1, record_id="c2", vector=(0.5, 0.5, 0.5, 0.5)))
    rows = [row | {"subject_key": "subject-of-c1"} for row in of_partition(world, "liver") if row["record_id"] == "c2"]
    rewritten(world, "liver", [row for row in of_partition(world, "liver") if row["record_id"] == "c1"] + rows)
    answer = vector_in(searching, vector=(0.0, 1.0, 0.0, 0.0), cohorts=("liver", "lung"), group_by="subject")
    assert [(hit.record_id, hit.group, hit.group_size) for hit in answer.hits] == [
        ("c1", "subject 1", 2),
        ("b1", "subject 2", 1),
        ("a1", "subject 3", 1),
    ]
    assert all("subject-of" not in str(hit.shown()) for hit in answer.hits)


def test_many_questions_are_one_call_and_answered_as_if_alone(world: World, searching: SearchEngine) -> None:
    asked = [
        Question(text="chest"),
        Question(text="liver"),
        Question(vector=(0.0, 0.6, 0.8, 0.0)),
        Question(record_id="b1"),
    ]
    narrowed: dict[str, Any] = {"datasets": (TEXT,), "cohorts": ("lung", "liver"), "limit": 3}
    alone = [searching.search(SearchRequest(**{one.kind: getattr(one, one.kind)}, **narrowed)).hits for one in asked]
    world.index.calls = 0
    answer = searching.search(SearchRequest(queries=tuple(asked), **narrowed))
    assert list(answer.answers) == alone
    assert (world.index.calls, answer.cursor, answer.explain.coalesced) == (1, None, 4)


def test_many_questions_have_no_cursor_and_no_other_beside_them() -> None:
    with pytest.raises(QueryInvalid, match="cursor"):
        SearchRequest(queries=(Question(text="x"),), cursor="x")
    with pytest.raises(QueryInvalid, match="both"):
        SearchRequest(queries=(Question(text="x"),), text="x")
    with pytest.raises(QueryInvalid, match="65 queries"):
        SearchRequest(queries=(Question(text="x"),) * 65)


def test_members_are_those_that_may_be_shown(world: World, searching: SearchEngine) -> None:
    told = searching.members(A1.vector_id, None, 100)
    assert ([one.record_id for one in told.records], told.members, told.after) == (["a1", "a2"], 2, None)
    first = searching.members(A2.vector_id, None, 1)
    assert ([one.record_id for one in first.records], first.after) == (["a1"], "a1")
    assert [one.record_id for one in searching.members(A2.vector_id, None, 1, first.after).records] == ["a2"]
    world.suppress(A1)
    assert [one.record_id for one in searching.members(A2.vector_id, None, 100).records] == ["a2"]
    for hidden, grants in ((A1, None), (A2, frozenset({"tcia_radiology"}))):
        with pytest.raises(NotFound):
            searching.members(hidden.vector_id, grants, 100)
    with pytest.raises(QueryInvalid):
        searching.members("nonsense", None, 100)


# -- kept answers


def promote(world: World) -> None:
    """Another generation of the text space, of the same entities."""
    old, new = World.collection(A1), f"{World.collection(A1)[:-1]}2"
    world.index.infos[new] = replace(world.index.infos[old], name=new)
    world.index.held[new] = list(world.index.held[old])
    generation = {"dataset": TEXT, "space": "text", "access_tier": "open", "generation": 2}
    append(
        world.lake, tables.generations(), generation | {"space_version": "minilm@1", "collection": new, "state": "live"}
    )


def sync(world: World) -> None:
    receipt = {"dataset": TEXT, "collection": World.collection(A1), "partition": "lung.0", "entities": 1}
    append(world.lake, tables.index_receipts(), receipt | {"collection_uuid": "uuid-1"})


def leak(world: World) -> None:
    append(world.lake, tables.deid_scores(), {"dataset": TEXT, "partition": "lung.1", "leaks": 1, "failure": ""})


def of_partition(world: World, partition: str) -> list[dict[str, Any]]:
    snapshot = world.lake.snapshot(tables.records(TEXT))
    assert snapshot is not None
    return [row for row in snapshot.read().to_dicts() if row["partition"] == partition]


def rewritten(world: World, partition: str, rows: list[dict[str, Any]]) -> None:
    snapshot = world.lake.snapshot(tables.records(TEXT))
    assert snapshot is not None
    world.lake.replace(snapshot, {"partition": partition}, [], {})
    append(world.lake, tables.records(TEXT), *rows)


@pytest.mark.parametrize(
    "change",
    [promote, sync, leak, lambda world: world.suppress(B1), lambda world: rewritten(world, "lung.1", [])],
    ids=["promote", "sync", "leak", "suppression", "withdrawal"],
)
def test_an_answer_is_kept_until_what_it_was_made_of_changes(
    world: World, searching: SearchEngine, change: Any
) -> None:
    first = vector_in(searching)
    before = world.index.calls
    again = vector_in(searching)
    assert (again.hits, again.explain.cached, world.index.calls) == (first.hits, True, before)
    change(world)
    after = vector_in(searching)
    assert not after.explain.cached and world.index.calls > before


def test_a_kept_answer_is_for_nobody_else(world: World, searching: SearchEngine) -> None:
    request = SearchRequest(text="chest")
    searching.search(request, frozenset({TEXT}))
    assert not searching.search(request, None).explain.cached
    assert searching.search(request, frozenset({TEXT})).explain.cached
    with pytest.raises(NotFound):
        searching.search(request, frozenset({"geo_expression"}))


def test_what_is_kept_is_bounded_and_quotes_no_question(searching: SearchEngine) -> None:
    answer = searching.search(SearchRequest(text="JANE-DOE"))
    assert "JANE-DOE" not in repr(searching._cache._held)
    cache = AnswerCache(entries=3, size_bytes=1 << 20)
    keys = [cache.key("question", str(number)) for number in range(5)]
    for key in keys:
        cache.put(key, answer)
    assert [cache.get(key) is not None for key in keys] == [False, False, True, True, True]
    tiny = AnswerCache(size_bytes=100)
    tiny.put(keys[0], answer)
    assert tiny.get(keys[0]) is None
    old = AnswerCache(seconds=-1)
    old.put(keys[0], answer)
    assert old.get(keys[0]) is None
    assert (old._bytes, len(old._held)) == (0, 0)


def test_a_key_tells_parts_apart() -> None:
    cache = AnswerCache()
    assert cache.key("ab", "c") != cache.key("a", "bc")


@pytest.mark.parametrize("background", [True, False])
def test_records_that_are_held_answer_as_those_that_are_read(world: World, background: bool) -> None:
    held = HeldRecords(background=background)
    with closing(SearchEngine(world.settings, world.lake, world.index, held)) as searching:  # type: ignore[arg-type]
        read = vector_in(searching, limit=100).hits
        if held._loader is not None:
            held._loader.submit(int).result()  # after what was begun before
        assert held._blocks and held._bytes
        sync(world)
        assert vector_in(searching, limit=100).hits == read
        rewritten(world, "lung.1", [])
        assert {hit.record_id for hit in read} - set(ids(vector_in(searching, limit=100))) == {"b1"}


def test_what_is_held_is_bounded(world: World) -> None:
    held = HeldRecords(max_bytes=1, background=False)
    with closing(SearchEngine(world.settings, world.lake, world.index, held)) as searching:  # type: ignore[arg-type]
        assert len(vector_in(searching, limit=100).hits) == len(MANY) + 3
    assert (held._blocks, held._bytes) == ({}, 0)


def test_a_collection_is_described_once_until_it_is_lost(world: World, searching: SearchEngine) -> None:
    vector_in(searching)
    world.index.describe = lambda name: None  # type: ignore[method-assign, assignment]
    assert vector_in(searching, limit=3).hits

    def lost(*_: Any, **__: Any) -> Any:
        raise IndexInvalid("no such collection", remedy="none")

    world.index.search = lost  # type: ignore[method-assign]
    with pytest.raises(IndexUnavailable, match="missing from the index"):
        vector_in(searching, limit=4)


def test_explain_tells_how_it_was_answered(reading: SearchEngine) -> None:
    told = vector_in(reading).explain
    assert set(told.timings_ms) == {"encode", "index", "lake", "total"}
    assert told.timings_ms["total"] >= told.timings_ms["index"]
    [one] = told.collections
    assert (one.collection, one.generation, one.index_type, one.params) == (
        World.collection(A1),
        1,
        "IVF_FLAT",
        {"nprobe": 32},
    )
