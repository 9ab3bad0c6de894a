"""The code location loads, quickly. That Dagster's own command finds it: tests/integration/test_location.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg

from medvec_assets.definitions import defs

ROOT = Path(__file__).parents[2]
# Seconds each, and a location is loaded by every run: they are imported by the stage that computes with them.
HEAVY = (
    *("torch", "monai", "transformers", "pymilvus", "milvus_lite", "matplotlib", "kubernetes", "fastapi"),
    *("spacy", "presidio_analyzer", "nibabel", "pysam"),
)


def test_loading_imports_nothing_heavy_and_touches_no_file_and_no_setting(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "MEDVEC_HOME": str(home), "MEDVEC_DEVICE": "not a device"}
    code = f"""
import sys
from medvec_assets.definitions import defs
defs.get_repository_def()
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert found.stdout.split() == []
    assert not home.exists()


def test_every_definition_resolves() -> None:
    dg.Definitions.validate_loadable(defs)


def test_dg_is_told_of_the_same_module_and_of_no_key_that_dagster_does_not_read() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]
    assert tool == {
        "directory_type": "project",
        "project": {"root_module": "medvec_assets", "code_location_target_module": "medvec_assets.definitions"},
    }
