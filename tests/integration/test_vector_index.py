"""The contract of the vector index, on every server that medvec supports: one collection per test.

Whether it finds what it should is in test_index_exactness.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pytest
from helpers.index_data import DIM, EVERYWHERE, LAYOUT, batch, clustered, entity_ids, fingerprints, spec

from resources.errors import IndexInvalid, IndexUnavailable
from resources.settings import Settings
from resources.vector_index import (
    EF_SEARCH_KEY,
    ENTITY_FIELDS,
    Layout,
    VectorIndex,
    differences,
    lite_server,
    open_index,
)
from resources.vector_index.plan import FLAT, HNSW, INDEX_TYPES
from resources.vector_index.types import NPROBE_KEY, KeyRange

pytestmark = pytest.mark.integration


def test_it_names_its_server(index: VectorIndex, request: pytest.FixtureRequest) -> None:
    expected = {"lite": "milvus-lite 3.2.2", "milvus": "milvus 2.3.5-lite"}
    assert index.server == expected[request.node.callspec.params["index"]]


def test_a_collection_is_made_once_and_keeps_its_uuid_and_properties(index: VectorIndex) -> None:
    wanted = spec(encoder="minilm@1")
    assert index.describe(wanted.name) is None
    made = index.ensure(wanted)
    assert (made.dim, made.properties) == (DIM, {"encoder": "minilm@1", EF_SEARCH_KEY: "256", NPROBE_KEY: "16"})
    assert made.declared == replace(LAYOUT, shards=0, num_partitions=0)
    assert index.ensure(wanted) == made == index.describe(wanted.name)
    index.drop(wanted.name)
    assert index.describe(wanted.name) is None
    assert index.ensure(wanted).uuid != made.uuid


def test_two_makers_at_once_agree_on_one_uuid(index: VectorIndex) -> None:
    wanted = spec()
    with ThreadPoolExecutor(4) as pool:
        assert len({info.uuid for info in pool.map(index.ensure, [wanted] * 4)}) == 1


def test_a_collection_of_another_kind_is_refused(index: VectorIndex) -> None:
    wanted = spec()
    index.ensure(wanted)
    with pytest.raises(IndexInvalid, match="holds 32 dimensions, metric COSINE"):
        index.ensure(replace(wanted, dim=64))
    with pytest.raises(IndexInvalid, match="metric"):
        index.ensure(replace(wanted, metric="IP"))


@pytest.mark.parametrize("index_type", INDEX_TYPES)
def test_a_collection_is_laid_out_as_it_was_planned_and_says_where_it_is_not(
    index: VectorIndex, request: pytest.FixtureRequest, index_type: str
) -> None:
    planned = Layout(index_type, 3, nlist=32, nprobe=8, hnsw_m=8, ef_construction=100, ef_search=32)
    wanted, vectors = replace(spec(), layout=planned), clustered(3_000)
    assert index.layout(wanted.name) is None
    index.ensure(wanted)
    index.write(wanted.name, "p", [batch("p", vectors)])
    index.settle(wanted.name)
    found = index.layout(wanted.name)
    assert found is not None and found.index_type == index_type
    assert differences(planned, found) == []
    params = planned.search_params(1)
    [[hit]] = index.search(wanted.name, vectors[5:6], 1, params=params, partitions=["p"])
    assert hit.entity["record_id"] == "p/5"
    other = replace(planned, index_type=FLAT if index_type == HNSW else HNSW, shards=1, ef_search=48, nprobe=9)
    index.ensure(replace(wanted, layout=other))
    kept = index.layout(wanted.name)
    assert kept == replace(found, ef_search=48, nprobe=9), (
        "only how widely to look follows: the rest is told, not changed"
    )
    shards = [] if request.node.callspec.params["index"] == "lite" else ["shards 3, planned 1"]
    assert differences(other, kept) == [f"index_type {index_type}, planned {other.index_type}", *shards]


def test_what_is_not_settled_yet_is_counted_and_told(index: VectorIndex) -> None:
    wanted, vectors = spec(), clustered(1_200)
    index.ensure(wanted)
    with index.settled_once():
        for partition in "pq":
            index.write(wanted.name, partition, [batch(partition, vectors)])
            index.settle(wanted.name)
            assert index.count(wanted.name, partition) == 1_200
        index.delete(wanted.name, "p", entity_ids("p", 200))
        assert len(fingerprints(index, wanted.name, "p")) == 1_000
    answer = index.search(wanted.name, vectors, 1, params=EVERYWHERE, partitions=["q"])
    assert [hits[0].entity["record_id"] for hits in answer] == [f"q/{row}" for row in range(1_200)]


def test_what_is_written_is_read_back_whole(index: VectorIndex) -> None:
    wanted, vectors = spec(), clustered(300)
    index.ensure(wanted)
    rows = batch("ct_lung.01", vectors)
    assert index.write(wanted.name, "ct_lung.01", [rows.slice(0, 100), rows.slice(100)]) == 300
    ids = rows["entity_id"].to_pylist()
    found = {entity["entity_id"]: entity for entity in index.get(wanted.name, [*ids, "f" * 32])}
    assert set(found) == set(ids)
    entity = found[ids[41]]
    assert set(entity) == set(ENTITY_FIELDS)
    assert entity["attributes"] == {"body_part": 'LIVER "left"', "instances": 12}
    assert (entity["members"], entity["record_id"], entity["delta_version"]) == (42, "ct_lung.01/41", 7)
    np.testing.assert_allclose(entity["vector"], vectors[41], atol=1e-6)


def test_writing_again_replaces_before_and_after_a_flush(index: VectorIndex) -> None:
    wanted, vectors = spec(), clustered(200)
    index.ensure(wanted)
    for fingerprint in ("v1", "v2"):
        index.write(wanted.name, "p", [batch("p", vectors, fingerprint)])
    index.settle(wanted.name)
    index.write(wanted.name, "p", [batch("p", vectors, "v3").slice(0, 50)])
    for _ in range(2):
        assert index.count(wanted.name) == index.count(wanted.name, "p") == 200
        values = list(fingerprints(index, wanted.name, "p").values())
        assert sum(value.startswith("v3-") for value in values) == 50
        assert sum(value.startswith("v2-") for value in values) == 150
        index.settle(wanted.name)
    # Where 2.3.5's upsert leaves rows, counts are right and a search of the partition finds almost nothing.
    answer = index.search(wanted.name, vectors, 1, params=EVERYWHERE, partitions=["p"])
    assert [hits[0].entity["record_id"] for hits in answer] == [f"p/{row}" for row in range(200)]


def test_fingerprints_are_complete_where_one_answer_cannot_hold_them(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(
        spec(dim=2), layout=replace(LAYOUT, nlist=8)
    )  # the graph does not matter here, its build time does
    index.ensure(wanted)
    big, other = batch("big", clustered(20_000, 2)), batch("other", clustered(500, 2))
    index.write(wanted.name, "big", [big])
    index.write(wanted.name, "other", [other])
    index.settle(wanted.name)
    expected = dict(zip(big["entity_id"].to_pylist(), big["row_fingerprint"].to_pylist(), strict=True))
    assert fingerprints(index, wanted.name, "big") == expected
    for limit in ("LITE_WALK_ROWS", "MAX_RESULT_ROWS"):  # full answers, split and asked again
        monkeypatch.setattr(f"resources.vector_index.requests.{limit}", 8_192)
    monkeypatch.setattr("resources.vector_index.requests.key_ranges", lambda entities, limit: [KeyRange()])
    chunks = list(index.fingerprints(wanted.name, "big"))
    assert max(map(len, chunks)) < 8_192
    assert {key: value for chunk in chunks for key, value in chunk.items()} == expected
    assert sum(map(len, chunks)) == 20_000
    assert index.count(wanted.name, "big") == 20_000
    assert index.count(wanted.name) == 20_500


def test_an_empty_or_unknown_partition_has_nothing(index: VectorIndex) -> None:
    wanted = spec()
    index.ensure(wanted)
    assert fingerprints(index, wanted.name, "nowhere") == {}
    assert index.count(wanted.name, "nowhere") == 0
    assert index.search(wanted.name, clustered(2), 5, params=EVERYWHERE) == [[], []]


def test_a_delete_is_scoped_by_its_partition(index: VectorIndex) -> None:
    wanted = spec()
    index.ensure(wanted)
    for partition in ("a", "b"):
        index.write(wanted.name, partition, [batch(partition, clustered(100))])
    ids = entity_ids("a", 100)
    assert index.delete(wanted.name, "b", ids) == 0
    assert index.count(wanted.name) == 200
    index.settle(wanted.name)
    assert index.delete(wanted.name, "a", ids[:30]) == 30
    assert set(fingerprints(index, wanted.name, "a")) == set(ids[30:])
    index.delete_partition(wanted.name, "a")
    index.settle(wanted.name)
    assert (index.count(wanted.name, "a"), index.count(wanted.name, "b")) == (0, 100)
    assert index.delete(wanted.name, "a", ids) == 0


def test_writers_of_one_collection_lose_nothing(index: VectorIndex) -> None:
    wanted = spec()
    index.ensure(wanted)

    def write(partition: str) -> None:
        for part in range(2):
            index.write(wanted.name, partition, [batch(partition, clustered(200)).slice(part * 100, 100)])
            index.settle(wanted.name)

    partitions = [f"p{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, partitions))
    assert index.count(wanted.name) == 800
    for partition in partitions:
        assert set(fingerprints(index, wanted.name, partition)) == set(entity_ids(partition, 200))


def test_what_two_writers_at_once_wrote_twice_is_seen_and_mended(index: VectorIndex) -> None:
    """Two runs of one partition: a server keeps both copies, answers each id once and finds too few neighbours."""
    wanted, vectors = spec(), clustered(500)
    rows = batch("p", vectors)
    ids = rows["entity_id"].to_pylist()
    index.ensure(wanted)
    together = Barrier(4)

    def write(_: int) -> None:
        index.count(wanted.name, "p")  # loaded, so that all find the partition empty at the same time
        together.wait(60)
        index.write(wanted.name, "p", [rows])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    expected = dict(zip(ids, rows["row_fingerprint"].to_pylist(), strict=True))
    found = fingerprints(index, wanted.name, "p")
    assert found.keys() == expected.keys()
    assert (found == expected) == (index.count(wanted.name, "p") == 500)
    assert len(index.get(wanted.name, ids)) == 500
    stale = pa.array([found[entity] != expected[entity] for entity in ids])
    index.write(wanted.name, "p", [rows.filter(stale)])
    index.settle(wanted.name)
    assert index.count(wanted.name) == index.count(wanted.name, "p") == 500
    assert fingerprints(index, wanted.name, "p") == expected
    answer = index.search(wanted.name, vectors[:20], 10, params=EVERYWHERE, partitions=["p"])
    assert [len({hit.entity["entity_id"] for hit in hits}) for hits in answer] == [10] * 20


@pytest.mark.parametrize("all_of_it", [True, False])
def test_what_was_written_twice_goes_at_once(index: VectorIndex, all_of_it: bool) -> None:
    wanted = spec()
    rows = batch("p", clustered(500))
    index.ensure(wanted)
    with pytest.MonkeyPatch.context() as patch:  # as two runs of one partition do that both found it empty
        patch.setattr(VectorIndex, "_counted", lambda *_: 0)
        for _ in range(3):
            index.write(wanted.name, "p", [rows])
    if all_of_it:
        index.delete_partition(wanted.name, "p")
    else:
        index.delete(wanted.name, "p", rows["entity_id"].to_pylist())
    assert index.count(wanted.name) == 0


def test_what_the_index_does_not_have_or_take_is_refused(index: VectorIndex) -> None:
    with pytest.raises(IndexInvalid, match="does not exist"):
        index.write("absent", "p", [])
    with pytest.raises(IndexInvalid, match="cannot load absent"):
        index.count("absent")
    with pytest.raises(IndexInvalid, match="1 to 16384"):
        index.search("absent", clustered(1), 20_000, params=EVERYWHERE)
    wanted = spec()
    index.ensure(wanted)
    with pytest.raises(IndexInvalid, match="not 32 dimensions"):
        index.write(wanted.name, "p", [batch("p", clustered(3, 64))])
    assert index.count(wanted.name) == 0


def test_rows_acknowledged_before_kill_9_are_there_afterwards(tmp_path: Path) -> None:
    settings, wanted, vectors = Settings(home=tmp_path), spec(), clustered(400)
    with open_index(settings) as index, lite_server(tmp_path / "index") as server:
        uuid = index.ensure(wanted).uuid
        index.write(wanted.name, "p", [batch("p", vectors).slice(0, 200)])
        index.settle(wanted.name)
        index.write(wanted.name, "p", [batch("p", vectors).slice(200)])
        index.delete(wanted.name, "p", entity_ids("p", 10))
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(IndexUnavailable, match="cannot") as error:
            index.count(wanted.name)
        assert "server.log" in error.value.remedy
    with open_index(settings) as index:
        found = index.describe(wanted.name)
        assert found is not None
        assert found.uuid == uuid
        assert set(fingerprints(index, wanted.name, "p")) == set(entity_ids("p", 400)[10:])
        assert index.search(wanted.name, vectors[399:], 1, params=EVERYWHERE)[0][0].entity["record_id"] == "p/399"


def test_a_server_that_does_not_answer_is_unavailable_and_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.vector_index.connection.CONNECT_SECONDS", 0.2)
    settings = Settings(index_uri="http://somebody:geheim1@127.0.0.1:1", index_token="geheim2")
    with pytest.raises(IndexUnavailable, match="cannot connect") as error, open_index(settings):
        pass
    assert "geheim" not in str(error.value)
    assert "MEDVEC_INDEX_URI" in error.value.remedy
