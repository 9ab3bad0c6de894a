"""Fixtures of the stages' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/helpers, whatever folder pytest was started in

from helpers.stage_fixtures import counting_encoders, files, pipeline

from medvec_assets.scorer import search
from medvec_assets.scorer.plants import Token
from medvec_assets.scorer.spellings import Spelling

__all__ = ["counting_encoders", "files", "pipeline"]


@pytest.fixture(scope="session", autouse=True)
def spelled_once() -> Iterator[None]:
    """The scorer's tests plant the same tokens again and again: their spellings, and what finds them, are made once."""
    patterns = lru_cache(maxsize=8)(search.patterns)

    def kept(tokens: Iterable[Token]) -> dict[bytes, Spelling]:
        return patterns(tuple(tokens))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "patterns", kept)
        automaton = lru_cache(maxsize=8)(search.BytesAhoCorasick)
        patch.setattr(search, "BytesAhoCorasick", lambda found: automaton(tuple(found)))
        yield
