"""A folder that one worker of a test run fills and all of them read.

Belongs here: who fills it, and that the others wait. Does not belong here: what is in it (the fixtures).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, which `make` filled in whichever worker came first. Copy it; do not work in it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the run's; every worker has its own below it
    folder, complete = base / name, base / f"{name}.complete"
    with FileLock(base / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed in it
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
