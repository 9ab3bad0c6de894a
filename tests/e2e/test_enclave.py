"""The enclave way of running: an imported wheel, no network at all, data that may be nowhere else, counts that may leave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
AGREEMENT = {"id": "ukb-mta", "holder": "Example University", "datasets": ["ukb_brain_mri"], "expires": "2099-12-31"}
# A network of its own in which only loopback is up, as Milvus Lite needs it; there is no way out of it.
ALONE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
RUN = "import sys; from medvec_assets.cli import main; sys.argv[0] = 'medvec'; main()"
DATASET = "ukb_brain_mri"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with medvec as it comes out of its wheel, and nothing else of this checkout."""
    folder = tmp_path_factory.mktemp("enclave")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".venv*", ".git", ".medvec", "*.egg-info", "build", "medvec_samples")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [
        *pip,
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder / "wheels"),
        str(source),
    ]
    subprocess.run(wheel, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(source)
    found = [str(path) for path in (folder / "wheels").glob("medvec-*.whl")]
    place = folder / "imported"
    subprocess.run([*pip, "install", "--no-index", "--no-deps", "--target", str(place), *found], check=True)
    return place


def medvec(imported: Path, home: Path, site: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")}
    own = {
        "PYTHONPATH": str(imported),
        "MEDVEC_HOME": str(home),
        "MEDVEC_SITE": site,
        "MEDVEC_SOURCES": json.dumps({DATASET: str(imported / "medvec_samples" / DATASET / "in")}),
        "MEDVEC_AGREEMENTS": json.dumps([AGREEMENT]),
    }
    command = [*ALONE, sys.executable, "-c", RUN, *arguments]
    return subprocess.run(command, env=inherited | own, cwd=home.parent, capture_output=True, text=True)


def test_data_of_an_enclave_are_worked_on_there_without_a_network_and_nowhere_else(
    imported: Path, tmp_path: Path
) -> None:
    elsewhere = medvec(imported, tmp_path / "elsewhere", "anywhere", "run", "--dataset", DATASET)
    assert elsewhere.returncode == 1 and "rule 'residency'" in elsewhere.stderr
    refusals = tmp_path / "elsewhere" / "lake" / "audit" / "refusals"
    assert list(refusals.glob("dataset=*/*.parquet"))

    done = medvec(imported, tmp_path / "home", "rap", "run", "--dataset", DATASET, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["datasets"][DATASET]
    assert found["records"] == found["spaces"]["image"]["embeddings_computed"] == 13

    told = medvec(imported, tmp_path / "home", "rap", "count", DATASET, "--by", "cohort", "--json")
    assert told.returncode == 0, told.stderr
    assert {row["cohort"] for row in json.loads(told.stdout)["counts"]} == {"instance_2", "instance_3", "all"}
    outside = medvec(imported, tmp_path / "home", "anywhere", "count", DATASET, "--by", "cohort")
    assert outside.returncode == 1 and "residency" in outside.stderr
