"""The real servers of tests/services, for every integration test that names one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.services`, whatever folder pytest was started in
sys.path.insert(0, str(Path(__file__).parents[1]))  # and `helpers`

from helpers.stage_fixtures import counting_encoders, files, pipeline

from resources.settings import Settings
from resources.vector_index import VectorIndex, open_index
from tests.services.fixtures import milvus, milvus_secured, postgres, seaweedfs, seaweedfs_tls

__all__ = [
    "counting_encoders",
    "files",
    "milvus",
    "milvus_secured",
    "pipeline",
    "postgres",
    "seaweedfs",
    "seaweedfs_tls",
]


@pytest.fixture(scope="module", params=["lite", "milvus"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    """The vector index on every server that medvec supports."""
    server = {} if request.param == "lite" else request.getfixturevalue("milvus").settings
    with open_index(Settings(home=tmp_path_factory.mktemp("index"), **server)) as opened:
        yield opened
