"""Lineage and keyed reads on real Delta tables: from a vector back to its source, and nothing private on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from helpers.query_world import A1, A2, B1, C1, NOON, R1, World, append, built_world, copy_of, empty_world

from medvec_assets.query import rows
from medvec_assets.query.lineage import lineage
from resources import tables
from resources.errors import ConfigError, NotFound


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    return copy_of(built, tmp_path)


def test_lineage_walks_back_to_the_source(world: World) -> None:
    told = lineage(A1.vector_id, world.settings, world.lake)
    [entity] = [e for _, e in world.index.held[World.collection(A1)] if e["record_id"] == "a1"]
    assert told["vector"] == {
        "vector_id": A1.vector_id,
        "dataset": "tcia_catalog",
        "space": "text",
        "space_version": "minilm@1",
        "collection": "tcia_catalog__text__open__g1",
        "partition": "lung.0",
        "entity_id": entity["entity_id"],
        "index_receipt": {
            "collection_uuid": "uuid-1",
            "delta_version": 0,
            "entities": 1,
            "entities_digest": "-",
            "run_id": "-",
            "reconciled_at": NOON.isoformat(),
        },
    }
    assert told["embedding"]["encoder"] == "minilm@1"
    assert told["embedding"]["fingerprint"] == f"minilm@1-{A1.content_digest}"
    assert told["embedding"]["run_id"] == "run-embed-lung.0"
    assert told["record"]["source_uri"] == "s3://idc-open-data/a1/*"
    [source] = told["objects"]
    assert (source["uri"], source["upstream_version"], source["license"]) == (
        "s3://idc-open-data/a1/*",
        "v25",
        "CC BY 4.0",
    )
    assert told["upstream"]["version"] == "v25"
    assert [(one["table"], one["version"], one["run_id"]) for one in told["commits"]] == [
        ("bronze/tcia_catalog/manifest", 1, "run-manifest"),
        ("silver/tcia_catalog/records", 2, "run-records-lung.0"),
        ("gold/tcia_catalog/text_embeddings", 3, "run-embed-lung.0"),
        ("tcia_catalog__text__open__g1", 4, "run-text_vectors-lung.0"),
    ]
    assert [one["run_id"] for one in told["runs"]] == [
        "run-embed-lung.0",
        "run-manifest",
        "run-records-lung.0",
        "run-text_vectors-lung.0",
    ]
    assert all(one["code_version"] == "c0de" for one in told["runs"])


def test_lineage_is_json_and_holds_nothing_private(world: World) -> None:
    told = json.dumps(lineage(A2.vector_id, world.settings, world.lake))
    for private in ("PATIENT-NAME", "subject-of", "SECRET", "subject_key", "subject_ref"):
        assert private not in told


def test_lineage_tells_the_latest_commit_of_each_layer(world: World) -> None:
    later = {"dataset": "tcia_catalog", "asset": "records", "partition": "lung.0", "sequence": 1}
    elsewhere = later | {"partition": "lung.1"}
    for row, version in ((later, 9), (elsewhere, 11)):
        facts = {"table_path": "silver/tcia_catalog/records", "table_version": version, "run_id": f"run-{version}"}
        append(world.lake, tables.materializations(), row | facts | {"finished_at": NOON + timedelta(hours=1)})
    commits = {one["asset"]: one for one in lineage(A1.vector_id, world.settings, world.lake)["commits"]}
    assert (commits["records"]["version"], commits["records"]["run_id"]) == (9, "run-9")


def test_lineage_tells_the_live_version_and_lists_the_others(world: World) -> None:
    newer = replace(A1, space_version="minilm@2")
    row = world._gold(A1) | {"space_version": "minilm@2", "created_at": NOON + timedelta(days=1)}
    append(world.lake, tables.embeddings("tcia_catalog", "text"), row)
    told = lineage(newer.vector_id, world.settings, world.lake)
    assert told["vector"]["space_version"] == "minilm@1"
    assert [one["space_version"] for one in told["embedding"]["other_versions"]] == ["minilm@2"]


def test_lineage_of_an_unindexed_vector_has_no_collection(tmp_path: Path) -> None:
    world = empty_world(tmp_path)
    world._bronze_and_silver(C1)
    append(world.lake, tables.embeddings("tcia_catalog", "text"), world._gold(C1))
    told = lineage(C1.vector_id, world.settings, world.lake)
    assert (told["vector"]["collection"], told["vector"]["index_receipt"], told["commits"]) == (None, None, [])
    assert told["runs"] == [
        {
            "run_id": "run-embed-liver",
            "dagster": False,
            "assets": [],
            "code_version": None,
            "image_digest": None,
            "finished_at": None,
        }
    ]


@pytest.mark.parametrize("bad", ["", "x", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n"])
def test_a_malformed_vector_id_is_refused(world: World, bad: str) -> None:
    with pytest.raises(ConfigError, match="32 lower-case hex"):
        lineage(bad, world.settings, world.lake)


def test_an_unknown_or_suppressed_vector_has_no_lineage(world: World) -> None:
    with pytest.raises(NotFound):
        lineage("0" * 32, world.settings, world.lake)
    world.suppress(R1)
    with pytest.raises(NotFound):
        lineage(R1.vector_id, world.settings, world.lake)


# -- rows


def test_keyed_reads_touch_vectors_only_in_the_row_s_own_partition(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    snapshot = world.lake.snapshot(tables.embeddings("tcia_catalog", "text"))
    assert snapshot is not None
    plain = type(snapshot).read

    def spy(self: object, columns: list[str] | None = None, where: pc.Expression | None = None) -> object:
        asked.append(list(columns or []))
        return plain(self, columns, where)  # type: ignore[arg-type]

    monkeypatch.setattr(type(snapshot), "read", spy)
    [row] = rows.find_embeddings(world.lake, "tcia_catalog", "text", "record_id", "b1").to_dicts()
    assert asked[0] == ["space_version", "partition"]
    assert "vector" not in row and "subject_key" not in row
    vector = rows.read_vector(world.lake, "tcia_catalog", "text", row)
    assert vector is not None
    np.testing.assert_allclose(vector, B1.vector)
    assert asked[-1] == ["vector"]
