"""A lake with many equal scores, engines over it, and how tests ask them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.query_world import A1, B1, C1, FakeIndex, World, built_world
from medvec_assets.query.search import Answer, SearchEngine, SearchRequest

TEXT = "tcia_catalog"
# Few directions, so that scores are equal within and across partitions.
MANY = [
    replace(B1, record_id=f"m{n:02}", cohort="many", partition=f"many.{n % 3}", vector=[A1, B1, C1][n % 3].vector)
    for n in range(11)
]


@contextmanager
def opened_engine(world: World, index: FakeIndex) -> Iterator[SearchEngine]:
    with closing(SearchEngine(world.settings, world.lake, index)) as engine:  # type: ignore[arg-type]
        yield engine


def many(folder: Path) -> World:
    """A published lake with MANY beside its own items."""
    world = built_world(folder)
    world.publish(*MANY)
    return world


def ids(answer: Answer) -> list[str]:
    return [hit.record_id for hit in answer.hits]


def vector_in(searching: SearchEngine, **asked: Any) -> Answer:
    return searching.search(SearchRequest(**({"vector": (1.0, 0.2, 0.0, 0.0), "datasets": (TEXT,)} | asked)))
