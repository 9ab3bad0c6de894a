"""Real processes make of a sample what one process makes of it. Pictures are tried in tests/unit/test_pieces.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import samples

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import modality
from medvec_assets.stages import pieces, processes

pytestmark = pytest.mark.integration

PICTURES = ("imaging", "raster")
CUT = [spec for spec in CATALOG if modality(spec.modality).piece_objects and spec.modality not in PICTURES]


@pytest.mark.parametrize("spec", CUT, ids=lambda spec: spec.id)
def test_the_sample_becomes_what_is_expected_in_processes(
    spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modality(spec.modality), "piece_objects", 1)
    monkeypatch.setattr(pieces, "PIECES_EACH", 1)
    started: list[int] = []

    class Counted(processes.Processes):
        def __init__(self, name: str, count: int, *others: object) -> None:
            started.append(count)
            super().__init__(name, count, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(pieces, "Processes", Counted)
    for path, text in samples.made(spec, tmp_path, workers=2).items():
        assert text == path.read_text()
    assert 2 in started
