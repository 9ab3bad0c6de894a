"""The planner's table of collection layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resources.vector_index.plan import FLAT, HNSW, Layout, differences, planned


@pytest.mark.parametrize(
    ("entities", "dim", "index_type", "shards", "ef"),
    [
        (0, 384, FLAT, 1, 256),
        (10_000, 384, FLAT, 1, 256),
        (10_000, 1_280, HNSW, 2, 256),  # a brute-force search of these takes four times as long
        (26_169, 384, HNSW, 2, 256),
        (1_044_191, 384, HNSW, 2, 256),
        (16_000_000, 768, HNSW, 4, 384),
        (16_000_000_000, 768, HNSW, 16, 512),
    ],
)
def test_a_collection_is_planned_by_its_size(entities: int, dim: int, index_type: str, shards: int, ef: int) -> None:
    found = planned(entities, dim)
    assert (found.index_type, found.shards, found.ef_search) == (index_type, shards, ef)


def test_more_entities_are_never_planned_with_less() -> None:
    plans = [planned(10**power, 384) for power in range(3, 12)]
    for name in ("shards", "hnsw_m", "ef_construction", "ef_search"):
        values = [getattr(plan, name) for plan in plans]
        assert values == sorted(values)


def test_what_a_spec_gives_stands_and_what_it_leaves_open_is_planned() -> None:
    found = planned(100, 384, index_type=HNSW, ef_search=64, shards=None)
    assert found == replace(planned(100, 384), index_type=HNSW, ef_search=64)


def test_flat_has_no_build_parameters() -> None:
    assert planned(100, 384).build_params == {}
    assert planned(1_000_000, 384).build_params == {"M": 16, "efConstruction": 200}


def test_each_difference_is_named_and_none_that_nobody_chose() -> None:
    wanted = Layout(HNSW, 4, 16, 200, 256)
    assert differences(wanted, replace(wanted, shards=0)) == []
    assert differences(wanted, replace(wanted, shards=2, hnsw_m=8)) == ["shards 2, planned 4", "hnsw_m 8, planned 16"]
    assert differences(wanted, Layout(FLAT, 4, 0, 0, 256)) == ["index_type FLAT, planned HNSW"]
