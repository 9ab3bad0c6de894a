"""What Dagster adds to a partition of `medvec run`: the same stages with and without it, on partitions of 20 series.
With --s3, what a lake on S3 (SeaweedFS of the tests, on loopback) adds to the same stages on a folder.

Each partition runs both ways, one after the other, in two homes that are open at once: what else the machine does
meets both, and the difference is of a partition with itself.

    python -m bench.overhead [--partitions N] [--s3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
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


Cost = tuple[float, float]
"""Seconds on the wall, and of this process's processor time (the index is a process of its own)."""


def _cost(work: Callable[[], object]) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def _bare(settings: Settings) -> Iterator[Cost]:
    """Each partition's stages, checks and pictures alone."""
    spec = TCIA_CATALOG
    with open_index(settings) as index:
        ctx = world.context(settings, index)
        plan = manifest.refresh(ctx, spec).plan
        encoders.load(spec.spaces["text"].encoder, settings).encode(["warm"])

        def run(partition: str) -> None:
            records.build(ctx, spec, partition)
            list(checks.of_records(ctx, spec, partition))
            embeddings.build(ctx, spec, "text", partition)
            list(checks.of_embeddings(ctx, spec, "text", partition))
            pictures.of_partition(ctx, spec, "text", partition)
            vectors.build(ctx, spec, "text", partition)
            list(checks.of_vectors(ctx, spec, "text", partition))

        for partition in plan["partition"].sort():
            yield _cost(partial(run, partition))


def _through_dagster(settings: Settings) -> Iterator[Cost]:
    """Each partition's Dagster run, as `medvec run` launches it."""
    spec = TCIA_CATALOG
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
            names = manifest.current_plan(ctx, spec)["partition"].sort()
        chain = partition_chain(spec)
        launch = partial(job.execute_in_process, run_config=quiet, instance=instance, asset_selection=chain)
        for partition in names:
            yield _cost(partial(launch, partition_key=partition))


@contextmanager
def _on_s3(folder: Path, partitions: int) -> Iterator[Settings]:
    from tests.services import SeaweedFS

    with SeaweedFS("lake") as server:
        os.environ.update(server.environment())
        yield _settings(folder, partitions).model_copy(update={"lake_uri": "s3://lake/bench"})


def measure(partitions: int, s3: bool) -> dict[str, Any]:
    """Medians over the partitions but the first two, which pay for imports."""
    folder, other = Path(tempfile.mkdtemp(prefix="medvec-bench-")), "s3" if s3 else "dagster"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if s3:
            way = _bare(stack.enter_context(_on_s3(folder / other, partitions)))
        else:
            way = _through_dagster(_settings(folder / other, partitions))
        pairs = list(zip(_bare(_settings(folder / "bare", partitions)), way, strict=True))[2:]
    found: dict[str, Any] = {"partitions": partitions}
    for number, kind in enumerate(("seconds", "processor_seconds")):
        bare, dearer = ([pair[way][number] for pair in pairs] for way in (0, 1))
        added = [dear - alone for alone, dear in zip(bare, dearer, strict=True)]
        for name, values in (("bare", bare), (other, dearer), ("overhead", added)):
            found[f"{name}_{kind}"] = round(statistics.median(values), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What Dagster adds to a partition")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    result = measure(options.partitions, options.s3)
    print(json.dumps(result) if options.json else "\n".join(f"{name:28} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
