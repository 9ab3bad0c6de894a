"""The whole catalogue in one command: every stage's time, memory, bytes per vector, and what a search then costs.

    python -m bench.catalogue HOME [--server lite|milvus] [--json]

HOME is kept: on one where `medvec run --all` has been, only what is missing is done. A Milvus server is the tests' own and
ends with the benchmark, so that HOME's lake is indexed anew there. Takes about half an hour on two cores from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import world
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.query.search import SearchEngine, SearchRequest
from medvec_assets.runner import dagster_instance
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import open_index

MEDVEC = Path(sys.executable).with_name("medvec")
QUERIES = 400
CLIENTS = (1, 8)


def measure(home: Path, server: str) -> dict[str, Any]:
    with world.served(server) as (given, index_folder):
        settings = Settings(home=home, **given)
        variables = {f"MEDVEC_{name.upper()}": str(value) for name, value in given.items()} | {"MEDVEC_HOME": str(home)}
        known = _steps(settings).keys()
        first, seconds, peak = run_medvec(variables, "run", "--dataset", TCIA_CATALOG.id, "--all")
        report: dict[str, Any] = {
            "server": server,
            "run_seconds": seconds,
            "run_peak_mb": peak,
            "run": first["datasets"],
        }
        stages: dict[str, float] = defaultdict(float)
        for (_, step), took in ((key, took) for key, took in _steps(settings).items() if key not in known):
            stages[step] += took
        report["stage_seconds"] = {step: round(took, 1) for step, took in stages.items()}
        _, report["no_change_seconds"], _ = run_medvec(variables, "run", "--dataset", TCIA_CATALOG.id, "--all")
        _, report["sync_full_seconds"], _ = run_medvec(variables, "sync", "--dataset", TCIA_CATALOG.id, "--full")
        verified, report["verify_seconds"], report["verify_peak_mb"] = run_medvec(
            variables, "verify", "--dataset", TCIA_CATALOG.id, "--recall"
        )
        report["verify"] = verified
        report["bytes"] = _sizes(settings, index_folder or home / "index", verified["collections"][0]["indexed"])
        report["search_ms"] = _searches(settings)
    return report


def run_medvec(variables: dict[str, str], *arguments: str) -> tuple[dict[str, Any], float, int]:
    """The answer, seconds and the peak of the process' resident memory in MB."""
    began, peak = time.monotonic(), 0
    command = [str(MEDVEC), *arguments, "--json"]
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, watched.memory_info().rss)
            time.sleep(0.5)
        assert process.stdout is not None
        answer = process.stdout.read()
    if process.returncode not in (0, 1):  # 1: something of it failed, and the answer says what
        raise SystemExit(f"medvec {' '.join(arguments)} ended with {process.returncode}: {answer[:2_000]}")
    return json.loads(answer), round(time.monotonic() - began, 1), peak >> 20


def _steps(settings: Settings) -> dict[tuple[str, str], float]:
    """(run, step) -> seconds, of every step that Dagster remembers."""
    found = {}
    with dagster_instance(settings) as instance:
        for run in instance.get_runs():
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time and step.end_time:
                    found[run.run_id, step.step_key] = step.end_time - step.start_time
    return found


def _sizes(settings: Settings, index_folder: Path, entities: int) -> dict[str, float]:
    """Bytes a row of gold and an entity of the index take on disk; a vector of 384 float32 is 1,536."""
    gold = Lakehouse.open(settings).snapshot(tables.embeddings(TCIA_CATALOG.id, "text"))
    assert gold is not None
    stored = sum(size for sizes in gold.file_sizes().values() for size in sizes)
    index = sum(path.stat().st_size for path in index_folder.rglob("*") if path.is_file())
    return {"gold_per_row": round(stored / gold.count()), "index_per_entity": round(index / entities)}


def _searches(settings: Settings) -> dict[str, dict[str, float]]:
    """Milliseconds of a whole question in words, encoder and provenance included, at each number of CLIENTS."""
    records = Lakehouse.open(settings).snapshot(tables.records(TCIA_CATALOG.id))
    assert records is not None
    texts = records.read(["attributes"])["attributes"].str.json_path_match("$.series_description").drop_nulls()
    asked = [SearchRequest(text=text, limit=10) for text in texts.unique().sort().sample(QUERIES, seed=1)]
    found = {}
    with open_index(settings) as index:
        engine = SearchEngine(settings, Lakehouse.open(settings), index)
        for request in asked[:20]:
            engine.search(request)

        def timed(request: SearchRequest) -> float:
            began = time.perf_counter()
            engine.search(request)
            return (time.perf_counter() - began) * 1_000

        for clients in CLIENTS:
            with ThreadPoolExecutor(clients) as pool:
                began = time.perf_counter()
                took = np.array(list(pool.map(timed, asked)))
                rate = len(asked) / (time.perf_counter() - began)
            p50, p95 = np.percentile(took, [50, 95])
            found[f"{clients} clients"] = {"p50": round(p50, 1), "p95": round(p95, 1), "per_second": round(rate, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--server", choices=("lite", "milvus"), default="lite")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = measure(arguments.home, arguments.server)
    print(json.dumps(report, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
