"""The planner's table of collection layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resources.vector_index.plan import FLAT, HNSW, IVF_FLAT, Layout, differences, planned

IVF = Layout(IVF_FLAT, 2, nlist=1_024, nprobe=64)


@pytest.mark.parametrize(
    ("entities", "dim", "index_type", "shards", "nlist"),
    [
        (0, 384, FLAT, 1, 256),
        (10_000, 384, FLAT, 1, 256),
        (10_000, 1_280, IVF_FLAT, 2, 256),  # a brute-force search of these takes four times as long
        (26_169, 384, IVF_FLAT, 2, 256),
        (1_044_191, 384, IVF_FLAT, 2, 1_024),
        (16_000_000, 768, IVF_FLAT, 4, 1_024),
        (16_000_000_000, 768, IVF_FLAT, 16, 1_024),
    ],
)
def test_a_collection_is_planned_by_its_size(entities: int, dim: int, index_type: str, shards: int, nlist: int) -> None:
    found = planned(entities, dim)
    assert (found.index_type, found.shards, found.nlist) == (index_type, shards, nlist)


def test_more_entities_are_never_planned_with_less() -> None:
    plans = [planned(10**power, 384) for power in range(3, 12)]
    for name in ("shards", "num_partitions", "nlist", "nprobe"):
        values = [getattr(plan, name) for plan in plans]
        assert values == sorted(values)


def test_what_a_spec_gives_stands_and_what_it_leaves_open_is_planned() -> None:
    found = planned(100, 384, index_type=HNSW, ef_search=64, shards=None)
    assert found == replace(planned(100, 384), index_type=HNSW, ef_search=64)


def test_each_type_has_its_own_build_parameters() -> None:
    assert planned(100, 384).build_params == {}
    assert planned(1_000_000, 384).build_params == {"nlist": 1_024}
    assert planned(1_000_000, 384, index_type=HNSW).build_params == {"M": 16, "efConstruction": 200}


def test_each_difference_is_named_and_none_that_nobody_chose_or_that_is_another_types() -> None:
    assert differences(IVF, replace(IVF, shards=0, num_partitions=0, hnsw_m=0, ef_search=0)) == []
    assert differences(IVF, replace(IVF, shards=1, nlist=8)) == ["shards 1, planned 2", "nlist 8, planned 1024"]
    assert differences(IVF, replace(IVF, index_type=FLAT, nlist=0)) == ["index_type FLAT, planned IVF_FLAT"]
    hnsw = replace(IVF, index_type=HNSW)
    assert differences(hnsw, replace(hnsw, hnsw_m=8, nlist=0)) == ["hnsw_m 8, planned 16"]


def test_the_fewer_entities_a_filter_leaves_the_more_lists_are_opened_until_it_is_exact() -> None:
    assert [IVF.search_params(10, share)["nprobe"] for share in (1.0, 0.5, 0.25, 0.2)] == [64, 256, 1_024, 1_024]
    assert IVF.search_params(10, 0.001) == IVF.search_params(10, 0.0) == {"nprobe": 1_024}, "all of them: exact"


def test_a_longer_answer_is_looked_for_farther() -> None:
    assert [IVF.search_params(limit)["nprobe"] for limit in (1, 100, 200, 1_000, 16_384)] == [64, 64, 128, 640, 1_024]
    hnsw = replace(IVF, index_type=HNSW)
    assert [hnsw.search_params(limit, 0.1) for limit in (10, 1_000)] == [{"ef": 256}, {"ef": 1_000}]
    assert replace(IVF, index_type=FLAT).search_params(10) == {}
