"""The order of test files, and that no property is judged by the clock. Belongs here: nothing else."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("medvec", deadline=None)  # a busy machine is no failure
settings.load_profile("medvec")

# `make test` gives files to three workers: what waits longest begins first, or the other two wait for it at the end.
LONGEST = (
    "test_dead_servers.py",
    "test_bulk_import.py",
    "test_dagster_backfill.py",
    "test_vector_index.py",
    "test_service_load.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
