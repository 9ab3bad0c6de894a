"""The servers as pytest fixtures: started when the first test asks, one of each kind, ended with the session.

A test that kills or reconfigures a server makes its own (`with Milvus() as milvus:`) or starts the shared one again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import Milvus, Postgres, SeaweedFS
from .milvus import BUCKET

BUCKETS = ("lake", "payload", "source", BUCKET)
# As shipped, a server that was killed is not back before 30 s; ours need no patience with a slow network.
QUICK_RESTART = {"common.session.ttl": 10}


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """S3 over plain http with the buckets of BUCKETS."""
    with SeaweedFS(*BUCKETS) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_tls() -> Iterator[SeaweedFS]:
    """S3 over https with the buckets of BUCKETS."""
    with SeaweedFS(*BUCKETS, tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def milvus() -> Iterator[Milvus]:
    """Milvus without TLS and access control."""
    with Milvus(config=QUICK_RESTART) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_secured() -> Iterator[Milvus]:
    """Milvus with TLS, users and roles."""
    with Milvus(secured=True, config=QUICK_RESTART) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server
