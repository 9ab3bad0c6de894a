"""Filters by attribute, modality and licence, and the fan-out: on real Delta tables and an exact fake index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.query_world import A1, World, append, copy_of, use_fake_encoder
from helpers.search_world import TEXT, ids, many, opened_engine, vector_in
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.query.search import SearchEngine
from medvec_assets.query.search.filters import written
from resources import tables
from resources.errors import IndexInvalid, QueryInvalid
from resources.vector_index import Condition


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
def reading(built: World) -> Iterator[SearchEngine]:
    """For tests that change nothing."""
    with opened_engine(built, built.index) as opened:
        yield opened


def with_attributes(world: World, **of: Mapping[str, Any]) -> None:
    for _, entity in world.index.held[World.collection(A1)]:
        entity["attributes"] = dict(of.get(entity["record_id"], {}))


def test_attributes_narrow_by_their_type(world: World, searching: SearchEngine) -> None:
    with_attributes(
        world,
        a1={"body_part": ["CHEST", "NECK"], "instances": 3},
        b1={"body_part": "LIVER", "instances": 4},
        c1={"instances": "3", "synthetic": True},
    )
    expected = {
        "body_part=LIVER": ["b1"],
        "instances>=3": ["a1", "b1"],
        "instances>3": ["b1"],
        "instances<=3.0": ["a1"],
        "instances<3": [],
        "instances=3": ["a1"],
        'instances="3"': ["c1"],
        "synthetic=true": ["c1"],
        "body_part~CHEST": ["a1"],
        'body_part=" or true or "': [],
    }
    narrowed = {line: vector_in(searching, cohorts=("lung", "liver"), attributes=(written(line),)) for line in expected}
    assert {line: sorted(ids(answer)) for line, answer in narrowed.items()} == expected
    assert world.index.params == {"nprobe": 256}, "of a part nobody knows how large every list is opened"


def test_modality_and_licence_narrow(world: World, searching: SearchEngine) -> None:
    world.index.held[World.collection(A1)][0][1]["modality"] = "MR"
    assert len(ids(vector_in(searching, modalities=("MR",)))) == 1
    assert ids(vector_in(searching, licenses=("no such licence",))) == []
    with pytest.raises(QueryInvalid):
        vector_in(searching, modalities=("M\x00R",))


@pytest.mark.parametrize("line", ["not_allowed=SECRET", "subject_key=x", "record_id=a1", "partition=lung"])
def test_only_attributes_that_answers_show_can_be_asked_for(reading: SearchEngine, line: str) -> None:
    with pytest.raises(QueryInvalid, match="is not one of tcia_catalog") as caught:
        vector_in(reading, attributes=(written(line),))
    assert "body_part" in caught.value.remedy and "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "=",
        "a",
        "a=",
        "A=b",
        "a b=c",
        'a"]=1',
        "modality>=1",
        "a>=x",
        "a<true",
        "a>=1e400",
        f"a={10**400}",
        "a=b\x00",
    ],
)
def test_what_is_no_condition_is_refused(line: str) -> None:
    with pytest.raises(QueryInvalid):
        written(line)


@settings(max_examples=100, deadline=None)
@given(value=st.one_of(st.text(), st.text("\"\\'\n\t andor=()[]#$%{}"), st.integers(), st.floats(), st.booleans()))
def test_a_value_is_never_more_than_a_value(value: Any) -> None:
    """Read by the grammar of Milvus Lite itself, a condition is one comparison with that very value."""
    from milvus_lite.search.filter.parser import parse_expr

    try:
        asked = Condition("body_part", "==", (value,))
    except IndexInvalid:
        assert not isinstance(value, bool)
        return
    tree = parse_expr(asked.expression)
    negative = hasattr(tree.right, "operand")
    literal = tree.right.operand.value if negative else tree.right.value
    assert (type(tree).__name__, tree.op) == ("CmpOp", "==")
    assert (-literal if negative else literal) == value
    assert json.dumps(value) in asked.expression or isinstance(value, str)


def test_a_fan_out_merges_by_score(searching: SearchEngine, world: World) -> None:
    """Two tiers of one space are two collections; their hits are one list."""
    twin = replace(A1, record_id="z1", cohort="brain", partition="brain", vector=(0.0, 0.96, 0.28, 0.0))
    world.publish(twin)
    name = World.collection(A1)
    other = f"{TEXT}__text__more__g1"
    world.index.infos[other] = replace(world.index.infos[name], name=other)
    world.index.held[other] = [one for one in world.index.held[name] if one[1]["record_id"] == "z1"]
    world.index.held[name] = [one for one in world.index.held[name] if one[1]["record_id"] != "z1"]
    generation = {"dataset": TEXT, "space": "text", "access_tier": "open2", "generation": 1, "state": "live"}
    whole = [hit.score for hit in vector_in(searching, limit=100).hits]
    append(world.lake, tables.generations(), generation | {"space_version": "minilm@1", "collection": other})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medvec_assets.query.published.visible", lambda *_: True)
        answer = vector_in(searching, limit=100)
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted([*whole, round(float(np.dot(unit((1, 0.2, 0, 0)), unit(twin.vector))), 6)], reverse=True)
    assert len(answer.explain.collections) == 2


def unit(values: Sequence[float]) -> Any:
    vector = np.asarray(values, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
