"""Maps of a space: what may be shown, always the same sample, both axes at one scale."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.query_world import B1, World, built_world

from medvec_assets.query import maps
from medvec_assets.query.maps import SpaceMap, space_map
from resources.errors import NotFound


@pytest.fixture
def world(tmp_path: Path) -> World:
    return built_world(tmp_path)


def drawn(world: World, space: str = "text", grants: frozenset[str] | None = None) -> SpaceMap:
    return space_map("tcia_catalog", space, world.settings, world.lake, grants)


def test_points_are_the_records_that_may_be_shown(world: World) -> None:
    found = drawn(world)
    assert {point.record_id for point in found.points} == {"a1", "a2", "b1", "c1"}
    assert found.vectors == 4 and found.encoder == "minilm@1" and len(found.subjects) == 4
    assert max(abs(value) for point in found.points for value in (point.x, point.y)) == 1.0
    assert 0.9 < sum(found.variance) <= 1.0  # four vectors in two dimensions
    world.suppress(B1)
    assert {point.record_id for point in drawn(world).points} == {"a1", "a2", "c1"}


def test_a_sample_is_bounded_and_always_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sorted(point.vector_id for point in drawn(world).points)
    monkeypatch.setattr(maps, "MAX_POINTS", 2)
    first, again = drawn(world), drawn(world)
    assert first.points == again.points and len(first.points) <= 2
    assert [point.vector_id for point in first.points] == whole[: len(first.points)]


def test_what_is_not_granted_or_not_there_has_no_map(world: World) -> None:
    with pytest.raises(NotFound):
        drawn(world, grants=frozenset({"tcia_radiology"}))
    with pytest.raises(NotFound):
        drawn(world, space="image")
