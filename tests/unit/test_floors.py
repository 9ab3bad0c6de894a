"""The house of DESIGN section 2: who may import whom, how long a module may be, what loading the pipeline costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
GROUND, PIPELINE, SERVICE = "resources", "medvec_assets", "api"
# First floor: free of Dagster, so that an uploaded image takes the path of a stored one.
FIRST_FLOOR = (
    "catalog",
    "modalities",
    "deid",
    "connectors",
    "fingerprints",
    "partitions",
    "provenance",
    "json_columns",
    "stages",
    "scorer",
    "query",
    "lineage_audit",
)
OWNERS = {
    "deltalake": ("resources/lakehouse/",),
    "pymilvus": ("resources/vector_index/",),
    "milvus_lite": ("resources/vector_index/",),
    "obstore": ("resources/object_store.py",),
    "boto3": ("resources/s3_probe.py",),
    "httpx": ("resources/http_source.py", "api/client.py"),
}
# The second floor loads for Dagster and the CLI; the first must stay light, for every process imports it.
HEAVY = {"torch", "monai", "pymilvus", "matplotlib", "transformers", "spacy", "presidio_analyzer", "nibabel", "pysam"}


@cache
def sources() -> list[str]:
    found = (path for package in (GROUND, PIPELINE, SERVICE) for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@cache
def tree(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text())


@cache
def imports(source: str) -> tuple[tuple[str, int], ...]:
    """(absolute module, line) of every import, inside functions too."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[tuple[str, int]]:
    package = source.removesuffix(".py").removesuffix("/__init__").split("/")
    package = package if source.endswith("__init__.py") else package[:-1]
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base, node.lineno
            for alias in node.names:  # `from medvec_assets import stages` imports a module too
                yield f"{base}.{alias.name}", node.lineno


def offenders(source: str, *forbidden: str) -> list[str]:
    return sorted(
        {
            f"{source}:{line} imports {module}"
            for module, line in imports(source)
            if any(module == name or module.startswith(f"{name}.") for name in forbidden)
        }
    )


def first_floor(source: str) -> bool:
    parts = source.removesuffix(".py").split("/")
    return parts[0] == PIPELINE and len(parts) > 1 and parts[1] in FIRST_FLOOR


def test_the_walk_sees_the_house() -> None:
    found = sources()
    assert {"resources/lakehouse/lake.py", "medvec_assets/factory.py", "api/app.py"} <= set(found)
    assert offenders("resources/lakehouse/lake.py", "deltalake")
    assert offenders("medvec_assets/factory.py", "dagster")
    assert {part for part in FIRST_FLOOR if not any(s.split("/")[1].startswith(part) for s in found)} == set()


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    assert [
        o for s in sources() if s.startswith(f"{GROUND}/") for o in offenders(s, PIPELINE, SERVICE, "dagster")
    ] == []


def test_the_first_floor_knows_no_dagster() -> None:
    assert [o for s in sources() if first_floor(s) for o in offenders(s, "dagster")] == []


def test_the_first_floor_imports_nothing_of_the_second() -> None:
    second = {
        ".".join(source.removesuffix(".py").removesuffix("/__init__").split("/"))
        for source in sources()
        if source.startswith(f"{PIPELINE}/") and not first_floor(source)
    } - {PIPELINE}
    assert f"{PIPELINE}.factory" in second
    assert [o for s in sources() if first_floor(s) for o in offenders(s, *second)] == []


def test_the_scorer_shares_no_code_with_what_it_scores() -> None:
    """Nothing of deid, and of a modality nothing but what `modality` hands to every stage."""
    scorer = [source for source in sources() if source.startswith(f"{PIPELINE}/scorer/")]
    folder = ROOT / PIPELINE / "modalities"
    internals = [f"{PIPELINE}.modalities.{path.stem}" for path in folder.iterdir() if not path.stem.startswith("__")]
    assert len(scorer) > 10 and f"{PIPELINE}.modalities.imaging" in internals
    assert [o for s in scorer for o in offenders(s, f"{PIPELINE}.deid", *internals)] == []


def test_the_service_knows_no_dagster_and_nothing_of_its_wiring() -> None:
    wiring = [f"{PIPELINE}.{name}" for name in ("factory", "definitions", "checks", "automation", "runtime", "runner")]
    assert [o for s in sources() if s.startswith(f"{SERVICE}/") for o in offenders(s, "dagster", *wiring)] == []


def test_the_pipeline_never_imports_the_service() -> None:
    assert [o for s in sources() if s.startswith(f"{PIPELINE}/") for o in offenders(s, SERVICE)] == []


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owner_imports_a_library(library: str) -> None:
    assert [o for s in sources() if not s.startswith(OWNERS[library]) for o in offenders(s, library)] == []


def test_every_module_is_short_enough_to_be_read() -> None:
    lengths = {source: (ROOT / source).read_text().count("\n") for source in sources()}
    assert {source: lines for source, lines in lengths.items() if lines >= MAX_LINES} == {}


def test_every_module_says_what_belongs_in_it() -> None:
    assert [source for source in sources() if not ast.get_docstring(tree(source))] == []


def test_the_service_and_the_stages_load_neither_dagster_nor_a_heavy_library() -> None:
    """In a fresh process. What the second floor loads: test_definitions."""
    modules = "api.app, medvec_assets.stages.due"
    code = f"import sys, json; import {modules}; print(json.dumps([n.split('.')[0] for n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.splitlines()[-1])) & (HEAVY | {"dagster"}) == set()
