"""Promote, rollback and drop: readers are moved only to what is whole, in one step, and can be moved back."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity
from helpers.counting_encoder import Killed
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Space
from medvec_assets.query.published import live_spaces
from medvec_assets.stages import promote as module
from medvec_assets.stages import recall
from medvec_assets.stages.promote import Promotion, drop_retired, promote, rollback
from medvec_assets.stages.verify import as_json, verify
from resources import tables
from resources.errors import CommitConflict, IntegrityError, NotFound

LAKE = MemoryLake
ALIAS = "tcia_catalog__text__open"
OLD, NEW = f"{ALIAS}__g1", f"{ALIAS}__g2"
DOZEN = [series(str(n), "lung" if n < 11 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(12)]


@pytest.fixture
def two(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Two cohorts at tiny@1, live, and at tiny@2, filled beside it."""
    monkeypatch.setattr(promote.retry, "wait", tenacity.wait_none())
    pipeline.list_source(*DOZEN)
    pipeline.run()
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    pipeline.run()
    return pipeline


def states(pipeline: Pipeline) -> dict[str, str]:
    return dict(pipeline.read(tables.generations()).select("collection", "state").rows())


def shown(pipeline: Pipeline) -> list[str]:
    """What readers resolve the space to, by the lake and by the alias."""
    table = [one.collection for one in live_spaces(pipeline.settings, pipeline.lake)]
    alias = pipeline.index.alias_target(ALIAS)
    assert table == [alias]
    return table


def raised(pipeline: Pipeline) -> Promotion:
    return promote(pipeline.context(), pipeline.spec, SPACE)


def test_readers_are_moved_and_nothing_else_happens(two: Pipeline) -> None:
    assert shown(two) == [OLD]
    before, encoded = two.versions(), len(two.encoders.encoded)
    done = raised(two)
    assert (done.space_version, done.collections, done.previous, done.changed) == ("tiny@2", (NEW,), (OLD,), True)
    assert [(one.scope, one.entities, one.recall) for one in done.recall] == [
        ("everything", 12, 1.0),
        ("lung", 11, 1.0),
    ]
    assert shown(two) == [NEW]
    assert states(two) == {OLD: "retiring", NEW: "live"}
    moved = {path for path, version in two.versions().items() if version != before[path]}
    assert moved == {tables.generations().path, tables.index_recall().path}
    assert len(two.encoders.encoded) == encoded
    again = raised(two)
    assert (again.changed, again.collections) == (False, (NEW,))


def test_what_is_not_whole_is_refused_with_every_reason(two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    two.list_source(*DOZEN, series("12", patient="P12", what="new"))
    two.refresh()
    two.index.held[NEW].entities.popitem()
    blind = [recall.Recall("everything", 12, 12, 0, 64, 0.97), recall.Recall("lung", 11, 12, 0, 64, 0.94)]
    monkeypatch.setattr(recall, "measure", lambda *_: blind)
    before = two.versions()
    with pytest.raises(IntegrityError, match="tiny@2 is not promoted") as refusal:
        raised(two)
    text = str(refusal.value)
    for reason in (
        "1 partitions are behind, such as lung",
        "1 missing",
        "everything is 0.97",
        "lung is 0.94",
        "medvec run",
    ):
        assert reason in text
    assert refusal.value.code == "promote_refused"
    moved = {path for path, version in two.versions().items() if version != before[path]}
    assert (shown(two), moved) == ([OLD], {tables.index_recall().path})


def test_a_collection_that_finds_too_little_is_measured_to_do_so(
    two: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = two.index.search
    monkeypatch.setattr(two.index, "search", lambda *args, **named: [hits[1:] for hits in search(*args, **named)])
    with pytest.raises(IntegrityError, match=r"recall@10 of everything is 0\.9, under 0\.98"):
        raised(two)


def test_an_examination_that_partitions_outran_is_repeated_and_bounded(
    two: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, moves = recall.measure, [1]

    def outrun(*args: Any) -> Any:
        found = measure(*args)
        if moves:
            number = moves.pop()
            two.list_source(*DOZEN, series(f"9{number}", patient="P9", what=f"new {number}"))
            two.run()
        return found

    monkeypatch.setattr(recall, "measure", outrun)
    done = raised(two)
    assert done.recall[0].entities == 13, "the measure of what was outrun is not kept"
    assert shown(two) == [NEW]
    rollback(two.context(), two.spec, SPACE)
    moves.extend(range(2, 20))
    with pytest.raises(CommitConflict, match="changed while"):
        raised(two)
    assert shown(two) == [OLD]


def test_of_two_promotions_at_once_one_moves_readers(two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    against, inner = module._against, []

    def overtaken(*args: Any) -> Any:
        found = against(*args)
        if not inner:
            inner.append(None)
            inner[0] = raised(two)
        return found

    monkeypatch.setattr(module, "_against", overtaken)
    outer = raised(two)
    assert (inner[0].changed, outer.changed, outer.collections) == (True, False, (NEW,))
    assert states(two) == {OLD: "retiring", NEW: "live"}


def test_killed_anywhere_it_is_repeated_or_healed_by_the_next_sync(
    two: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two.killed_before_commit_of(tables.generations()):
        raised(two)
    assert shown(two) == [OLD]

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(two.index, "set_alias", killed)
        with pytest.raises(Killed):
            raised(two)
    assert [one.collection for one in live_spaces(two.settings, two.lake)] == [NEW]
    assert two.index.alias_target(ALIAS) == OLD
    two.vectors("lung")
    assert shown(two) == [NEW]


def test_rollback_shows_the_old_generation_and_the_new_one_is_kept_up(two: Pipeline) -> None:
    with pytest.raises(NotFound, match="no generation to go back to"):
        rollback(two.context(), two.spec, SPACE)
    raised(two)
    done = rollback(two.context(), two.spec, SPACE)
    assert (done.space_version, done.collections, done.previous) == ("tiny@1", (OLD,), (NEW,))
    assert shown(two) == [OLD]
    assert states(two) == {OLD: "live", NEW: "filling"}
    two.list_source(*DOZEN[:10])
    two.run()
    assert two.index.count(OLD) == two.index.count(NEW) == 10
    assert raised(two).changed
    assert shown(two) == [NEW]


def test_rollback_to_a_collection_that_is_gone_is_refused(two: Pipeline) -> None:
    raised(two)
    two.index.drop(OLD)
    with pytest.raises(IntegrityError, match=f"{OLD} is gone"):
        rollback(two.context(), two.spec, SPACE)
    assert shown(two) == [NEW]


def test_dropping_takes_the_old_entities_and_vectors_and_nothing_more(two: Pipeline) -> None:
    raised(two)
    with two.killed_before_commit_of(tables.embeddings(two.spec.id, SPACE)):
        drop_retired(two.context(), two.spec, SPACE)
    with pytest.raises(NotFound):
        rollback(two.context(), two.spec, SPACE)
    assert drop_retired(two.context(), two.spec, SPACE) == []
    assert two.index.collections() == [NEW]
    assert set(two.gold["space_version"]) == {"tiny@2"}
    assert two.gold.height == 12
    assert states(two) == {OLD: "dropped", NEW: "live"}
    assert as_json(verify(two.context(), two.spec))["ok"]
    assert set(two.due().values()) == {"current"}
    before = two.versions()
    two.run()
    assert two.versions() == before


def test_an_old_encoder_wanted_again_gets_a_generation_of_its_own(two: Pipeline) -> None:
    raised(two)
    two.spec = small_spec(spaces={SPACE: Space(encoder="tiny@1")})
    two.run()
    assert states(two) == {OLD: "retiring", NEW: "live", f"{ALIAS}__g3": "filling"}
    assert raised(two).collections == (f"{ALIAS}__g3",)
