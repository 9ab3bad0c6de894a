"""The main job by its own commands: run, run again, ask, walk the answer back to its source."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from command import (
    COLLECTION,
    DATASET,
    IN_SAMPLE,
    SPACE,
    Home,
    Undisturbed,
    assert_nothing_left_over,
    commits,
    index_state,
)

from medvec_assets.query.search import HIT_FIELDS

_TOTALS = {
    "embeddings_computed",
    "embeddings_skipped",
    "vectors_upserted",
    "vectors_deleted",
    "vectors_unchanged",
}


def test_a_first_run_says_what_it_did_and_nothing_else(undisturbed: Undisturbed) -> None:
    answer, home = undisturbed.run.json, undisturbed.home
    assert undisturbed.run.stderr == ""
    assert set(answer) == {"seconds", "datasets"}
    done = answer["datasets"][DATASET]
    assert set(done) == {"partitions", "records", "quarantined", "spaces"}
    assert (done["partitions"], done["records"], done["quarantined"]) == (2, IN_SAMPLE, 0)
    totals = done["spaces"][SPACE]
    assert set(totals) == _TOTALS
    assert totals["embeddings_computed"] + totals["embeddings_skipped"] == IN_SAMPLE
    # Identical descriptors are encoded once and, within a partition and licence, are one entity.
    assert 0 < totals["embeddings_computed"] <= totals["vectors_upserted"] < IN_SAMPLE
    assert totals["vectors_deleted"] == totals["vectors_unchanged"] == 0
    assert json.loads((home.path / "last_run.json").read_text()) == answer
    assert_nothing_left_over(home)


def test_a_second_run_computes_nothing_and_commits_nothing(undisturbed: Undisturbed, done: Home) -> None:
    before = commits(done)
    answer = done.medvec("run", "--dataset", DATASET, "--json")

    assert (answer.code, answer.stderr) == (0, "")
    first = undisturbed.run.json["datasets"][DATASET]["spaces"][SPACE]
    assert answer.json["datasets"][DATASET]["spaces"][SPACE] == {
        "embeddings_computed": 0,
        "embeddings_skipped": IN_SAMPLE,
        "vectors_upserted": 0,
        "vectors_deleted": 0,
        "vectors_unchanged": first["vectors_upserted"],
    }
    assert json.loads((done.path / "last_run.json").read_text()) == answer.json
    assert commits(done) == before
    assert index_state(done) == undisturbed.index
    assert_nothing_left_over(done)


@pytest.fixture(scope="module")
def liver(undisturbed: Undisturbed) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = undisturbed.home.fine("search", "liver segmentation", "--limit", "5")["hits"]
    return hits


def test_a_question_finds_series_of_its_kind(liver: list[dict[str, Any]]) -> None:
    assert len(liver) == 5
    assert all(set(hit) == set(HIT_FIELDS) for hit in liver)
    assert [hit["score"] for hit in liver] == sorted((hit["score"] for hit in liver), reverse=True)
    assert len({hit["vector_id"] for hit in liver}) == 5
    assert [(hit["attributes"]["body_part"], hit["attributes"]["modality"]) for hit in liver] == [("LIVER", "SEG")] * 5


def test_a_hit_walks_back_to_its_source(undisturbed: Undisturbed, liver: list[dict[str, Any]]) -> None:
    hit, home = liver[0], undisturbed.home
    story = home.fine("lineage", hit["vector_id"])

    assert set(story) == {"vector", "embedding", "record", "objects", "upstream", "commits", "runs"}
    [source] = story["objects"]
    assert source["uri"] == hit["source_uri"] and source["uri"].startswith("s3://idc-open-data/")
    assert source["license"] == hit["license"] and source["license"].startswith("CC BY")
    assert re.fullmatch("v[0-9]+", source["upstream_version"]) and re.fullmatch("v[0-9]+", source["first_seen_version"])
    assert story["upstream"]["version"].startswith("sha256:")  # an index file by path is known by its digest
    assert story["record"]["record_id"] == hit["record_id"]
    assert story["embedding"]["weights_digest"] == hit["weights_digest"]
    assert story["embedding"]["encoder"] == hit["encoder"] == "minilm@1"
    made = {one["asset"]: (one["table"], one["version"]) for one in story["commits"]}
    versions = commits(home)
    for asset, table in (
        ("manifest", f"bronze/{DATASET}/manifest"),
        ("records", f"silver/{DATASET}/records"),
        (f"{SPACE}_embeddings", f"gold/{DATASET}/{SPACE}_embeddings"),
    ):
        assert made[asset][0] == table and 1 <= made[asset][1] < versions[table]
    assert made[f"{SPACE}_vectors"] == (COLLECTION, hit["delta_version"])
    assert {one["run_id"] for one in story["commits"]} == {one["run_id"] for one in story["runs"]}
    told = json.dumps(story)
    assert "subject_ref" not in told and "subject_key" not in told
