"""Exactness, on every server that medvec supports: what is found is what exact search finds, whatever was written before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from helpers.index_data import EVERYWHERE, LAYOUT, batch, clustered, entity_ids, new_alias, recall, spec

from resources.vector_index import SCALAR_FIELDS, VectorIndex

pytestmark = pytest.mark.integration


def test_search_finds_the_exact_neighbours_with_and_without_partitions(index: VectorIndex) -> None:
    wanted = spec()
    index.ensure(wanted)
    partitions = ["a", "b", "c"]
    vectors = {partition: clustered(1_500, seed=seed) for seed, partition in enumerate(partitions)}
    for partition, some in vectors.items():
        index.write(wanted.name, partition, [batch(partition, some)])
    index.settle(wanted.name)
    queries = clustered(20, seed=7)
    for chosen in (None, ["b"], ["a", "c"]):
        among = np.concatenate([vectors[partition] for partition in chosen or partitions])
        assert recall(index, wanted.name, queries, among, chosen) >= 0.99
    answer = index.search(wanted.name, queries, 10, params=EVERYWHERE, partitions=["a", "c"])
    assert all(np.diff([hit.score for hit in hits]).max() <= 0 for hits in answer)
    assert set(answer[0][0].entity) == set(SCALAR_FIELDS)
    assert index.search(wanted.name, queries, 10, params=EVERYWHERE, partitions=[]) == [[]] * 20
    few = index.search(wanted.name, queries[:2], 300, params=LAYOUT.search_params(300))
    assert [len(hits) for hits in few] == [300, 300]


def test_what_was_replaced_and_deleted_is_found_as_it_is_now(index: VectorIndex) -> None:
    """Writes after the index was built: by the partition key, as before, and no trace of what was there."""
    wanted = spec()
    index.ensure(wanted)
    vectors = {partition: clustered(1_500, seed=seed) for seed, partition in enumerate("abc")}
    for partition, some in vectors.items():
        index.write(wanted.name, partition, [batch(partition, some)])
    index.settle(wanted.name)
    vectors["b"] = np.concatenate([clustered(800, seed=9), vectors["b"][800:]])
    index.write(wanted.name, "b", [batch("b", vectors["b"], "v2").slice(0, 800)])
    index.delete(wanted.name, "a", entity_ids("a", 1_500)[:700])
    vectors["a"] = vectors["a"][700:]
    index.settle(wanted.name)
    queries = clustered(20, seed=7)
    for chosen in (["a"], ["b"], ["a", "b"], None):
        among = np.concatenate([vectors[partition] for partition in chosen or vectors])
        assert recall(index, wanted.name, queries, among, chosen) >= 0.99
    # What a partition gave up is not found there, however near the question.
    [hits] = index.search(wanted.name, clustered(1_500, seed=1)[:1], 1, params=EVERYWHERE, partitions=["b"])
    assert hits[0].score < 1 - 1e-5


def test_contents_that_many_partitions_share_cost_no_recall(index: VectorIndex) -> None:
    """medvec indexes a content once for each partition, licence and tier: a cohort of 16 leaves has 16 copies of a vector."""
    wanted = spec()
    index.ensure(wanted)
    shared = clustered(300)
    leaves = [f"a.{number:04b}" for number in range(16)]
    vectors = {leaf: np.concatenate([shared, clustered(100, seed=seed)]) for seed, leaf in enumerate(leaves, 1)}
    vectors["b"] = clustered(3_000, seed=99)
    for partition, some in vectors.items():
        index.write(wanted.name, partition, [batch(partition, some)])
    index.settle(wanted.name)
    queries = np.concatenate([shared[:50], clustered(50, seed=7)])
    for chosen in (None, leaves, leaves[:3], ["a.0000"]):
        among = np.concatenate([vectors[partition] for partition in chosen or vectors])
        assert recall(index, wanted.name, queries, among, chosen) >= 0.99


def test_an_alias_that_moves_under_searches_fails_none_and_mixes_none(index: VectorIndex) -> None:
    generations, alias = (spec(), spec()), new_alias()
    for number, wanted in enumerate(generations):
        index.ensure(wanted)
        for partition in "ab":
            index.write(wanted.name, partition, [batch(partition, clustered(200), f"g{number}")])
        index.settle(wanted.name)
    index.set_alias(alias, generations[0].name)
    moved = Event()
    queries = clustered(5)

    def ask() -> list[set[str]]:
        seen = []
        while not moved.is_set() or not seen:
            answer = index.search(alias, queries, 20, params=EVERYWHERE)
            assert [len(hits) for hits in answer] == [20] * 5
            seen.append({hit.entity["row_fingerprint"].partition("-")[0] for hits in answer for hit in hits})
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(ask) for _ in range(3)]
        try:
            for turn in range(12):
                index.set_alias(alias, generations[(turn + 1) % 2].name)
                index.write(generations[turn % 2].name, "a", [batch("a", clustered(200), f"g{turn % 2}").slice(0, 20)])
        finally:
            moved.set()
        answers = [generations for reader in readers for generations in reader.result(60)]
    assert all(len(generations) == 1 for generations in answers)
    assert set.union(*answers) == {"g0", "g1"}, "the alias moved while it was asked"


def test_a_search_of_many_queries_answers_each_in_its_place(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.vector_index.milvus.SEARCH_HITS", 30)
    wanted, vectors = spec(), clustered(50)
    index.ensure(wanted)
    index.write(wanted.name, "p", [batch("p", vectors)])
    index.settle(wanted.name)
    answer = index.search(wanted.name, vectors, 1, params=EVERYWHERE)
    assert [hits[0].entity["record_id"] for hits in answer] == [f"p/{row}" for row in range(50)]


def test_an_alias_moves_in_one_step_and_goes_with_its_collection(index: VectorIndex) -> None:
    first, second, alias = spec(), spec(), new_alias()
    for number, wanted in enumerate((first, second)):
        index.ensure(wanted)
        index.write(wanted.name, "p", [batch("p", clustered(10 + number))])
        index.settle(wanted.name)
    assert index.alias_target(alias) is None
    for wanted, rows in ((first, 10), (second, 11), (second, 11)):
        index.set_alias(alias, wanted.name)
        assert index.alias_target(alias) == wanted.name
        assert len(index.search(alias, clustered(1), 50, params=EVERYWHERE)[0]) == rows
    assert alias not in index.collections()
    assert index.alias_target(second.name) is None
    index.drop(second.name)
    assert index.alias_target(alias) is None
    index.drop(second.name)
