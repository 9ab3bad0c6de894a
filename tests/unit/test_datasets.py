"""Every dataset's fixture folder: what the source publishes (`in/`) becomes just these records and quarantine rows (`expected/`).

`MEDVEC_UPDATE_FIXTURES=1 pytest tests/unit/test_datasets.py` writes `expected/` anew; read its diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import samples

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.id)
def test_the_sample_becomes_what_is_expected(spec: DatasetSpec, tmp_path: Path) -> None:
    for path, text in samples.made(spec, tmp_path).items():
        if os.environ.get("MEDVEC_UPDATE_FIXTURES"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text()
