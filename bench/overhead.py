"""What Dagster adds to a partition of `medvec run`: the same stages with and without it, on partitions of 20 series.

python -m bench.overhead [--partitions N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import idc_index_data
import polars as pl

from bench import world
from medvec_assets import checks, pictures, runner
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.factory import partition_chain
from medvec_assets.runtime import Runtime
from medvec_assets.stages import embeddings, manifest, records, vectors
from resources import encoders
from resources.settings import Settings
from resources.vector_index import open_index

SERIES = 20


def _settings(folder: Path, partitions: int) -> Settings:
    frame = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH).head(SERIES * partitions)
    cohorts = pl.Series("collection_id", [f"cohort{row // SERIES}" for row in range(frame.height)])
    folder.mkdir(parents=True)
    frame.with_columns(cohorts).write_parquet(folder / "index.parquet")
    return Settings(home=folder / "home", sources={"tcia_catalog": str(folder / "index.parquet")})


def _bare(settings: Settings) -> list[float]:
    """Seconds of each partition's stages, checks and pictures alone."""
    spec, seconds = TCIA_CATALOG, []
    with open_index(settings) as index:
        ctx = world.context(settings, index)
        plan = manifest.refresh(ctx, spec).plan
        encoders.load(spec.spaces["text"].encoder, settings).encode(["warm"])
        for partition in plan["partition"]:
            start = time.perf_counter()
            records.build(ctx, spec, partition)
            list(checks.of_records(ctx, spec, partition))
            embeddings.build(ctx, spec, "text", partition)
            list(checks.of_embeddings(ctx, spec, "text", partition))
            pictures.of_partition(ctx, spec, "text", partition)
            vectors.build(ctx, spec, "text", partition)
            list(checks.of_vectors(ctx, spec, "text", partition))
            seconds.append(time.perf_counter() - start)
    return seconds


def _through_dagster(settings: Settings) -> list[float]:
    """Seconds of each partition's Dagster run, as `medvec run` launches it."""
    spec, seconds = TCIA_CATALOG, []
    runtime = Runtime(settings)
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "50"
    encoders.load(spec.spaces["text"].encoder, settings).encode(["warm"])
    with runner.dagster_instance(settings) as instance, runtime.hold_index():
        job = runner.build_defs([spec], runtime).resolve_implicit_global_asset_job_def()
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        job.execute_in_process(
            run_config=quiet, instance=instance, asset_selection=[runner.dg.AssetKey([spec.id, manifest.ASSET])]
        )
        with runtime.context("bench") as ctx:
            names = manifest.current_plan(ctx, spec)["partition"].to_list()
        for partition in names:
            start = time.perf_counter()
            job.execute_in_process(
                run_config=quiet, instance=instance, partition_key=partition, asset_selection=partition_chain(spec)
            )
            seconds.append(time.perf_counter() - start)
    return seconds


def measure(partitions: int) -> dict[str, Any]:
    """Medians over the partitions but the first two, which pay for imports."""
    folder = Path(tempfile.mkdtemp(prefix="medvec-bench-"))
    try:
        bare = statistics.median(_bare(_settings(folder / "bare", partitions))[2:])
        dagster = statistics.median(_through_dagster(_settings(folder / "dagster", partitions))[2:])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "partitions": partitions,
        "bare_seconds": round(bare, 3),
        "dagster_seconds": round(dagster, 3),
        "overhead_seconds": round(dagster - bare, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What Dagster adds to a partition")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.partitions)
    print(json.dumps(result) if options.json else "\n".join(f"{name:18} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
