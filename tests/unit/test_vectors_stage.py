"""The vectors stage and verify, on an index in memory: healed exactly, skipped only where all agrees, reported as it is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.counting_encoder import Killed, vector_of
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline
from helpers.tiny_source import series
from hypothesis import given
from hypothesis import strategies as st

from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.stages import entities, vectors
from medvec_assets.stages.verify import as_json, verify
from resources import tables
from resources.errors import NotFound

LAKE = MemoryLake
FOUR = [series(str(n), patient=f"P{n}", what=f"series {n}") for n in range(4)]
ALIAS = "tcia_catalog__text__open"
COLLECTION = f"{ALIAS}__g1"


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Four series of lung, indexed."""
    pipeline.list_source(*FOUR)
    pipeline.run()
    return pipeline


def report(pipeline: Pipeline) -> dict[str, Any]:
    found = as_json(verify(pipeline.context(), pipeline.spec))
    [collection] = found["collections"]
    assert found["ok"] == collection["ok"]
    return {name: collection[name] for name in ("desired", "indexed", "missing", "extra", "stale", "ok")}


def the_one(pipeline: Pipeline, *, full: bool = False) -> vectors.Synced:
    [done] = pipeline.vectors("lung", full=full)
    return done


def test_an_entity_is_what_gold_says_and_no_more(filled: Pipeline) -> None:
    assert filled.index.alias_target(ALIAS) == COLLECTION
    texts = dict(filled.silver.select("record_id", "text").rows())
    assert len(filled.entities) == 4
    for entity_id, entity in filled.entities.items():
        assert entity["entity_id"] == entity_id
        np.testing.assert_array_equal(np.asarray(entity["vector"]), vector_of(texts[entity["record_id"]]))
        assert (entity["partition"], entity["cohort"], entity["license"]) == ("lung", "lung", "CC BY 4.0")
        assert set(json.loads(entity["attributes"])) <= set(filled.spec.index_attributes)
        assert "P0" not in str(entity)
    assert filled.index.settled == [COLLECTION]
    assert report(filled) == {"desired": 4, "indexed": 4, "missing": 0, "extra": 0, "stale": 0, "ok": True}


def test_one_entity_stands_for_all_of_its_content(pipeline: Pipeline) -> None:
    same = [series(uid, patient=f"P{uid}", what="the same") for uid in ("7", "3", "5")]
    pipeline.list_source(*same, series("1", what="other"), series("8", what="the same", license_short_name="CC BY 3.0"))
    pipeline.run()
    found = {e["record_id"]: (e["members"], e["license"]) for e in pipeline.entities.values()}
    assert found == {"3": (3, "CC BY 4.0"), "1": (1, "CC BY 4.0"), "8": (1, "CC BY 3.0")}


def test_a_withdrawn_representative_changes_the_fingerprint_and_not_the_entity(pipeline: Pipeline) -> None:
    same = [series(uid, patient=f"P{uid}", what="the same") for uid in ("3", "5", "7")]
    pipeline.list_source(*same)
    pipeline.run()
    [(entity_id, before)] = pipeline.entities.items()
    encoded = len(pipeline.encoders.encoded)
    for gone, representative, members in (("P3", "5", 2), ("P7", "5", 1)):
        pipeline.suppress(gone)
        pipeline.run()
        [(same_id, after)] = pipeline.entities.items()
        assert (same_id, after["record_id"], after["members"]) == (entity_id, representative, members)
        assert after["row_fingerprint"] != before["row_fingerprint"]
        before = after
    assert len(pipeline.encoders.encoded) == encoded
    pipeline.suppress("P5")
    pipeline.run()
    assert pipeline.entities == {}
    assert report(pipeline)["ok"]


def test_what_is_missing_extra_or_stale_is_healed_exactly(filled: Pipeline) -> None:
    held = filled.index.held[COLLECTION].entities
    good = {entity_id: dict(entity) for entity_id, entity in held.items()}
    missing, stale, *untouched = sorted(held)
    del held[missing]
    held[stale]["row_fingerprint"] = "0" * 32
    held["f" * 32] = dict(held[stale]) | {"entity_id": "f" * 32}
    held["e" * 32] = dict(held[stale]) | {"entity_id": "e" * 32}
    assert report(filled) == {"desired": 4, "indexed": 5, "missing": 1, "extra": 2, "stale": 1, "ok": False}
    assert len(held) == 5, "verify repairs nothing"
    assert filled.due() == {"lung": "text_vectors"}
    for entity_id in untouched:
        held[entity_id]["marker"] = True
    done = the_one(filled)
    assert (done.upserted, done.deleted, done.unchanged) == (2, 2, 2)
    assert all(held[entity_id].pop("marker") for entity_id in untouched), "what is right is not written again"
    assert {i: e["row_fingerprint"] for i, e in held.items()} == {i: e["row_fingerprint"] for i, e in good.items()}
    assert report(filled)["ok"]
    assert filled.due() == {"lung": "current"}


def test_damage_that_the_count_cannot_show_is_healed_by_a_full_sync(filled: Pipeline) -> None:
    held = filled.index.held[COLLECTION].entities
    damaged = sorted(held)[0]
    held[damaged]["row_fingerprint"] = "0" * 32
    assert report(filled) == {"desired": 4, "indexed": 4, "missing": 0, "extra": 0, "stale": 1, "ok": False}
    assert the_one(filled).skipped
    settled = len(filled.index.settled)
    done = the_one(filled, full=True)
    assert (done.upserted, done.deleted, done.unchanged, done.skipped) == (1, 0, 3, False)
    assert len(filled.index.settled) == settled + 1, "what was written is made durable"
    assert report(filled)["ok"]
    before = filled.versions()
    assert the_one(filled, full=True).upserted == 0
    assert filled.versions() == before, "a full sync that finds nothing commits nothing"


def test_a_flipped_float_is_seen_and_healed_by_comparing_vectors(filled: Pipeline) -> None:
    held = filled.index.held[COLLECTION].entities
    damaged = held[sorted(held)[1]]
    good = np.asarray(damaged["vector"]).copy()
    damaged["vector"] = good * np.where(np.arange(len(good)) == 3, -1, 1).astype(np.float32)
    [found] = verify(filled.context(), filled.spec)
    assert (found.vectors_compared, found.vectors_differ, found.stale, found.ok) == (4, 1, 0, False)
    assert the_one(filled, full=True).upserted == 0, "a fingerprint cannot show it"
    [done] = vectors.build(filled.context(), filled.spec, SPACE, "lung", floats=True)
    assert (done.upserted, done.unchanged) == (1, 3)
    np.testing.assert_array_equal(filled.entities[damaged["entity_id"]]["vector"], good)
    [found] = verify(filled.context(), filled.spec, every_vector=True)
    assert (found.vectors_compared, found.ok) == (4, True)


def test_a_dropped_collection_is_made_and_filled_again(filled: Pipeline) -> None:
    before = {i: e["row_fingerprint"] for i, e in filled.entities.items()}
    uuid = filled.index.held[COLLECTION].info.uuid
    filled.index.drop(COLLECTION)
    assert report(filled) == {"desired": 4, "indexed": 0, "missing": 4, "extra": 0, "stale": 0, "ok": False}
    assert filled.due() == {"lung": "text_vectors"}
    filled.run()
    assert filled.index.held[COLLECTION].info.uuid != uuid
    assert filled.index.alias_target(ALIAS) == COLLECTION
    assert {i: e["row_fingerprint"] for i, e in filled.entities.items()} == before
    assert len(filled.encoders.encoded) == 4


def test_a_collection_made_again_with_the_same_count_does_not_believe_old_receipts(filled: Pipeline) -> None:
    old = filled.index.held[COLLECTION]
    entities = {i: dict(e) | {"row_fingerprint": "0" * 32} for i, e in old.entities.items()}
    filled.index.drop(COLLECTION)
    vectors.ensure_collection(filled.context(), filled.spec, SPACE, "open", "tiny@1")
    filled.index.held[COLLECTION].entities = entities
    assert the_one(filled).upserted == 4


@pytest.mark.parametrize("disagrees", ["nothing", "uuid", "digest", "count"])
def test_a_receipt_is_believed_only_if_instance_digest_and_count_agree(filled: Pipeline, disagrees: str) -> None:
    held = filled.index.held[COLLECTION]
    receipt = vectors.receipts(filled.context(), filled.spec)[(COLLECTION, "lung")]
    digest = receipt["entities_digest"]
    if disagrees == "uuid":
        receipt["collection_uuid"] = "another"
    elif disagrees == "digest":
        digest = "another"
    elif disagrees == "count":
        held.entities.pop(sorted(held.entities)[0])
    assert vectors.agrees(filled.index, held.info, receipt, digest) == (disagrees == "nothing")  # type: ignore[arg-type]


def test_a_sync_with_nothing_to_do_commits_nothing(filled: Pipeline) -> None:
    before = filled.versions()
    done = the_one(filled)
    assert (done.skipped, done.upserted, done.deleted, done.unchanged) == (True, 0, 0, 4)
    assert filled.versions() == before


@pytest.mark.parametrize("write", range(4))
def test_killed_while_writing_the_old_receipt_is_not_believed_when_gold_goes_back(filled: Pipeline, write: int) -> None:
    """Same count, other content: only an invalidated receipt tells that the index was touched."""
    before = {i: e["row_fingerprint"] for i, e in filled.entities.items()}
    filled.list_source(*(row | {"Manufacturer": "Other"} for row in FOUR))
    filled.refresh()
    filled.records("lung")
    filled.embeddings("lung")
    with filled.killed_at_write(write), pytest.raises(Killed):
        filled.vectors("lung")
    filled.list_source(*FOUR)
    filled.run()
    assert {i: e["row_fingerprint"] for i, e in filled.entities.items()} == before
    assert report(filled)["ok"]
    assert filled.due() == {"lung": "current"}


def test_a_partition_that_loses_all_of_its_records_is_emptied(filled: Pipeline) -> None:
    filled.list_source(series("9", "liver"))
    filled.run()
    assert {entity["partition"] for entity in filled.entities.values()} == {"liver"}
    assert set(filled.due().values()) == {"current"}
    assert report(filled)["ok"]


def test_entities_in_a_partition_that_nobody_knows_are_extra(filled: Pipeline) -> None:
    held = filled.index.held[COLLECTION].entities
    held["f" * 32] = dict(next(iter(held.values()))) | {"entity_id": "f" * 32, "partition": "elsewhere"}
    assert report(filled) == {"desired": 4, "indexed": 5, "missing": 0, "extra": 1, "stale": 0, "ok": False}


def test_objects_of_two_tiers_are_in_two_collections(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.add("a", b"CT a")
    files.connector.add("b", b"CT b", access_tier="controlled")
    files.run()
    where = {name: [e["record_id"] for e in held.entities.values()] for name, held in files.index.held.items()}
    assert where == {COLLECTION: ["record-a"], COLLECTION.replace("open", "controlled"): ["record-b"]}
    files.connector.rows[1]["access_tier"] = "open"
    files.connector.published = "v2"
    files.run()
    assert files.index.count(COLLECTION) == 2
    assert files.index.count(COLLECTION.replace("open", "controlled")) == 0, "what left a tier leaves its index"


def test_vectors_need_embeddings(pipeline: Pipeline) -> None:
    pipeline.list_source(*FOUR)
    pipeline.refresh()
    pipeline.records("lung")
    with pytest.raises(NotFound, match="no text embeddings"):
        pipeline.vectors("lung")


def test_the_audit_row_of_an_index_says_what_was_written(filled: Pipeline) -> None:
    rows = filled.read(tables.materializations()).filter(pl.col("asset") == "text_vectors")
    assert rows.select("partition", "space_version", "table_path", "rows_in", "rows_out", "rows_computed").rows() == [
        ("lung", "tiny@1", COLLECTION, 4, 4, 4)
    ]


def test_a_small_change_is_found_in_gold_and_the_index_is_not_read(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.list_source(*FOUR[:3], series("3", patient="P3", what="another series"))
    filled.refresh()
    filled.records("lung")
    filled.embeddings("lung")
    reads: list[str] = []
    read = filled.index.fingerprints
    monkeypatch.setattr(filled.index, "fingerprints", lambda name, part: reads.append(part) or read(name, part))
    done = the_one(filled)
    assert (done.upserted, done.deleted, done.unchanged, reads) == (1, 1, 3, [])
    assert report(filled)["ok"]
    receipt = vectors.receipts(filled.context(), filled.spec)[(COLLECTION, "lung")]
    indexed = {i: e["row_fingerprint"] for i, e in filled.entities.items()}
    assert (receipt["entities"], receipt["entities_digest"]) == (4, entities.digest(indexed))


@pytest.mark.parametrize("older", [False, True], ids=["other attributes shown", "receipt without a definition"])
def test_a_receipt_of_another_definition_proves_no_rows(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """What the index holds was made of gold otherwise than it would be now: gold cannot tell it."""
    if older:
        made = vectors.receipts(filled.context(), filled.spec)
        old = {key: receipt | {"definition": None} for key, receipt in made.items()}
        monkeypatch.setattr(vectors, "receipts", lambda ctx, spec: old)
    else:
        monkeypatch.setattr(filled, "spec", filled.spec.model_copy(update={"index_attributes": ("modality",)}))
    reads: list[str] = []
    read = filled.index.fingerprints
    monkeypatch.setattr(filled.index, "fingerprints", lambda name, part: reads.append(part) or read(name, part))
    filled.list_source(*FOUR[:3], series("3", patient="P3", what="another series"))
    filled.refresh()
    filled.records("lung")
    filled.embeddings("lung")
    done = the_one(filled)
    assert (done.upserted, reads) == (1 if older else 4, ["lung"])
    assert report(filled)["ok"]


ROW = {"vector_id": "v", "record_id": "r", "content_digest": "c", "license": "l", "access_tier": "open"}
ROW |= {"cohort": "k", "modality": "m", "attributes": "{}", "fingerprint": "f", "part_kind": "whole"}


@given(
    before=st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 3), st.sampled_from("ab"))),
    now=st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 3), st.sampled_from("ab"))),
)
def test_what_moved_is_all_that_can_differ(before: dict[int, Any], now: dict[int, Any]) -> None:
    """For two states of gold: entities of what moved, and entities that both share, are all entities."""

    def state(members: dict[int, Any]) -> pl.DataFrame:
        rows = [
            ROW | {"record_id": f"r{record}", "content_digest": f"c{content}", "license": license, "part_index": 0}
            for record, (content, license) in sorted(members.items())
        ]
        return pl.DataFrame(rows, schema=dict.fromkeys(ROW, pl.String) | {"part_index": pl.Int32})

    def made(rows: pl.DataFrame) -> dict[str, str]:
        return entities.row_fingerprints(entities.of_rows(TCIA_CATALOG, rows, "lung"))

    whole = [made(state(members)) for members in (before, now)]
    touched = [made(rows) for rows in entities.moved(state(before), state(now))]
    shared = [all_.items() - some.items() for all_, some in zip(whole, touched, strict=True)]
    assert shared[0] == shared[1]
    moved = entities.moved_digest(entities.digest(whole[0]), removed=touched[0], added=touched[1])
    assert moved == entities.digest(whole[1])


def test_a_change_beside_a_hand_deleted_entity_reads_the_index_and_heals_both(filled: Pipeline) -> None:
    gone = next(iter(filled.entities))
    filled.index.delete(COLLECTION, "lung", [gone])
    filled.list_source(*FOUR, series("4", patient="P4", what="one more"))
    filled.refresh()
    filled.records("lung")
    filled.embeddings("lung")
    assert the_one(filled).upserted == 2
    assert report(filled)["ok"]
