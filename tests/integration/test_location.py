"""Dagster's own command finds the code location, however it is told of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("told_by", ["workspace.yaml", "pyproject.toml"])
def test_dagster_finds_and_validates_the_location(tmp_path: Path, told_by: str) -> None:
    """`medvec serve` names the module itself: tests/integration/test_dagster_runs.py."""
    shutil.copy(ROOT / told_by, tmp_path)  # alone in a folder: Dagster reads the second only where the first is missing
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dagster", "definitions", "validate"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    told = found.stdout + found.stderr
    assert found.returncode == 0, told
    assert "Validation successful for code location" in told
