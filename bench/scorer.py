"""What the scorer of de-identification costs and plants, a partition at a time, on the datasets' samples.

Real sources are not asked: a dataset of the catalogue is scored on what `medvec run` reads without a source in the settings.

    python -m bench.scorer [DATASET ...] [--partitions N] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.scorer.score import score
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Settings

ROUNDS = 3


def _figures(spec: DatasetSpec, home: Path, partitions: int) -> list[dict[str, Any]]:
    settings = Settings(home=home, device="cpu")
    ctx = Context(settings, Lakehouse.open(settings), "bench")
    plan = manifest.refresh(ctx, spec).plan.sort("size_bytes", descending=True)
    if spec.sample_cohorts is not None:
        plan = plan.filter(plan["cohort"].is_in(spec.sample_cohorts))
    found = []
    for partition in plan["partition"].head(partitions):
        records.build(ctx, spec, partition)
        seconds, processor = [], []
        for _ in range(ROUNDS):
            started = time.process_time()
            made = score(ctx, spec, partition)
            processor.append(time.process_time() - started)
            seconds.append(made.seconds)
        names = (
            "planted",
            "kinds",
            "places",
            "objects",
            "copies",
            "records",
            "quarantined",
            "not_plantable",
            "failure",
        )
        facts = {name: getattr(made, name) for name in names} | {"leaks": len(made.leaks)}
        best = {"seconds": round(min(seconds), 2), "processor_seconds": round(min(processor), 2)}
        found.append({"dataset": spec.id, "partition": partition} | facts | best)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*")
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for spec in CATALOG:
        if not args.datasets or spec.id in args.datasets:
            with tempfile.TemporaryDirectory() as folder:
                rows += _figures(spec, Path(folder), args.partitions)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"{row['dataset']} {row['partition']}: {row['planted']} tokens of {row['kinds']} kinds in {row['places']} places of "
            f"{row['copies']} copies, {row['records']} records, {row['quarantined']} quarantined, {row['leaks']} leaks, "
            f"{row['seconds']} s ({row['processor_seconds']} s of processor)"
        )


if __name__ == "__main__":
    main()
