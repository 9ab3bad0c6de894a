"""The real servers of tests/services, for every integration test that names one."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.services`, whatever folder pytest was started in

from tests.services.fixtures import milvus, milvus_secured, postgres, seaweedfs, seaweedfs_tls

__all__ = ["milvus", "milvus_secured", "postgres", "seaweedfs", "seaweedfs_tls"]
