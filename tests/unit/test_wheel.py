"""What is installed: the code and the sample bundles, not the scripts that made these."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTED = """
import json
import setuptools
from distutils.core import run_setup
build = run_setup("setup.py", stop_after="config").get_command_obj("build_py")
build.build_lib = ""
build.ensure_finalized()
print(json.dumps(build.get_outputs(include_bytecode=False)))
"""


def test_the_wheel_holds_the_samples_and_no_script_that_made_them() -> None:
    done = subprocess.run([sys.executable, "-c", LISTED], cwd=ROOT, capture_output=True, text=True, check=True)
    files = set(json.loads(done.stdout.splitlines()[-1]))
    scripts = {path.name for path in (ROOT / "tests" / "datasets").glob("make_*.py")}
    samples = {name for name in files if name.startswith("medvec_samples/")}
    assert scripts and {name for name in samples if name.endswith(".py") and "/in/" not in name} == {
        "medvec_samples/__init__.py"
    }
    there = {path.name for path in (ROOT / "tests" / "datasets").iterdir() if (path / "in").is_dir()}
    assert {name.split("/")[1] for name in samples} - {"__init__.py"} == there
    assert {"medvec_assets/dagster.yaml", "medvec_assets/catalog/spec.py", "resources/tables.py"} <= files
