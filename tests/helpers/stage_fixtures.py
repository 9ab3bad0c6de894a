"""The chain of the stages as pytest fixtures, with encoders that count instead of the real ones.

A conftest imports them. Does not belong here: the chain itself (pipeline), its sources (tiny_source).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import bytes_modality as bytes_modality_module
from helpers.counting_encoder import CountingEncoders
from helpers.pipeline import Pipeline, bytes_spec
from helpers.tiny_source import MemoryConnector
from medvec_assets import modalities
from resources.lakehouse import Lakehouse


@pytest.fixture
def counting_encoders(monkeypatch: pytest.MonkeyPatch) -> CountingEncoders:
    """`tiny@N` instead of every real encoder."""
    found = CountingEncoders()
    found.install(monkeypatch)
    return found


@pytest.fixture
def pipeline(tmp_path: Path, counting_encoders: CountingEncoders, request: pytest.FixtureRequest) -> Pipeline:
    """The chain over an IDC-like index file: the real connector and the real series descriptor.

    A module's `LAKE` may be MemoryLake, three times faster, where what Delta does is not what is tested.
    """
    return Pipeline(tmp_path, counting_encoders, open_lake=getattr(request.module, "LAKE", Lakehouse))


@pytest.fixture
def files(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """The chain over text files in memory, whose bytes the records stage reads."""
    monkeypatch.setitem(sys.modules, "medvec_assets.modalities.bytes", bytes_modality_module)
    monkeypatch.setattr(bytes_modality_module, "MODALITY", bytes_modality_module.BytesModality())
    modalities.modality.cache_clear()
    pipeline.spec, pipeline.connector = bytes_spec(), MemoryConnector()
    yield pipeline
    modalities.modality.cache_clear()
