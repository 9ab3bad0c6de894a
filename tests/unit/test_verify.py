"""What verify says beside the diff: a layout that is not as planned, and recall, kept in the audit."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets import printing
from medvec_assets.catalog.spec import Space
from medvec_assets.stages import recall, vectors
from medvec_assets.stages.verify import as_json, layouts, verify
from resources import tables

LAKE = MemoryLake
COLLECTION = "tcia_catalog__text__open__g1"
DOZEN = [series(str(n), "lung" if n < 11 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(12)]


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Eleven series of lung and one of liver, indexed."""
    pipeline.list_source(*DOZEN)
    pipeline.run()
    return pipeline


def planned_with(pipeline: Pipeline, **options: Any) -> None:
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@1", **options)})


def half_blind(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    search = pipeline.index.search
    monkeypatch.setattr(pipeline.index, "search", lambda *args, **named: [hits[:5] for hits in search(*args, **named)])


def test_a_collection_is_laid_out_for_every_object_of_the_plan(pipeline: Pipeline) -> None:
    pipeline.list_source(*DOZEN)
    planned_with(pipeline, expected_entities=30_000_000, nlist=512)
    pipeline.run()
    made = pipeline.index.layout(COLLECTION)
    assert made is not None and (made.index_type, made.shards, made.nlist, made.nprobe) == ("IVF_FLAT", 8, 512, 128)
    assert layouts(pipeline.context(), pipeline.spec) == {}
    planned_with(pipeline)
    assert layouts(pipeline.context(), pipeline.spec) == {
        COLLECTION: ["index_type IVF_FLAT, planned FLAT", "shards 8, planned 1", "num_partitions 64, planned 4"]
    }


def test_another_layout_is_told_and_never_changed_and_how_widely_to_look_follows_the_spec(pipeline: Pipeline) -> None:
    pipeline.list_source(*DOZEN)
    planned_with(pipeline, index_type="IVF_FLAT")
    pipeline.run()
    filled = pipeline
    [report] = verify(filled.context(), filled.spec)
    assert (report.ok, report.layout) == (True, [])
    planned_with(filled, index_type="IVF_FLAT", shards=4, nprobe=48)
    [report] = verify(filled.context(), filled.spec)
    assert (report.ok, report.layout) == (True, ["shards 1, planned 4", "nprobe 32, planned 48"])
    assert any("not as planned" in line for line in printing.verify(as_json([report])))
    vectors.ensure_collection(filled.context(), filled.spec, SPACE, "open", "tiny@1")
    [report] = verify(filled.context(), filled.spec)
    assert report.layout == ["shards 1, planned 4"]
    filled.index.drop(COLLECTION)
    assert layouts(filled.context(), filled.spec) == {}, "what is missing has no layout"


def test_recall_is_measured_where_asked_and_kept_with_what_it_is_true_of(filled: Pipeline) -> None:
    [report] = verify(filled.context(), filled.spec)
    assert report.recall == []
    assert filled.lake.snapshot(tables.index_recall()) is None
    [report] = verify(filled.context(), filled.spec, with_recall=True)
    assert report.ok
    assert [(one.scope, one.entities, one.recall) for one in report.recall] == [
        ("everything", 12, 1.0),
        ("lung", 11, 1.0),
    ]
    kept = filled.read(tables.index_recall()).sort("scope")
    assert kept.select("scope", "entities", "queries", "k", "ef", "nprobe", "recall").rows() == [
        ("everything", 12, 12, 10, 0, 0, 1.0),
        ("lung", 11, 12, 10, 0, 0, 1.0),
    ]
    gold = filled.lake.snapshot(tables.embeddings(filled.spec.id, SPACE))
    assert gold is not None
    assert set(kept.select("dataset", "collection", "collection_uuid", "delta_version").rows()) == {
        (filled.spec.id, COLLECTION, filled.index.held[COLLECTION].info.uuid, gold.version)
    }


def test_a_collection_that_finds_too_little_is_not_ok(filled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    half_blind(filled, monkeypatch)
    [report] = verify(filled.context(), filled.spec)
    assert report.ok, "the diff cannot see it"
    [report] = verify(filled.context(), filled.spec, with_recall=True)
    assert not report.ok
    assert recall.shortfalls(report.recall)[0] == "recall@10 of everything is 0.5, under 0.98"
    assert filled.read(tables.index_recall())["recall"].to_list() == [0.5, 0.5]
    assert list(printing.verify(as_json([report])))[-1].endswith(
        "raise nprobe (HNSW: ef_search) of the space in its spec, then medvec sync"
    )


def test_recall_is_measured_as_widely_as_readers_look(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.list_source(*DOZEN)
    planned_with(pipeline, index_type="IVF_FLAT")
    pipeline.run()
    asked: list[dict[str, int]] = []
    search = pipeline.index.search

    def seen(*args: Any, params: dict[str, int], **named: Any) -> Any:
        asked.append(params)
        return search(*args, params=params, **named)

    monkeypatch.setattr(pipeline.index, "search", seen)
    planned_with(pipeline, index_type="IVF_FLAT", nprobe=48)
    vectors.ensure_collection(pipeline.context(), pipeline.spec, SPACE, "open", "tiny@1")
    [report] = verify(pipeline.context(), pipeline.spec, with_recall=True)
    assert [(one.scope, one.nprobe) for one in report.recall] == [("everything", 48), ("lung", 58)], "11 of 12 objects"
    assert asked == [{"nprobe": one.nprobe} for one in report.recall]
