"""Opening and reading the receipts and the audit of many partitions: a file per row, merged, and after maintenance.

Each partition leaves one file in audit/index_receipts and three in audit/materializations, as `medvec run` does.

python -m bench.maintain [--partitions N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.stages import maintain, vectors
from medvec_assets.stages.context import Context
from resources.audit import Audit
from resources.lakehouse import Lakehouse, lake
from resources.settings import Settings
from resources.vector_index import CollectionInfo, planned

ROUNDS = 7
MERGE_EVERY = lake.MERGE_EVERY


class _NoIndex:
    """No collection is kept up: there is none."""


def _run_partition(ctx: Context, number: int) -> None:
    """What a partition leaves in the audit."""
    partition = f"cohort{number:04}"
    for asset in ("records", "text_embeddings", "text_vectors"):
        ctx.record(
            dataset=TCIA_CATALOG.id,
            asset=asset,
            partition=partition,
            table_path=asset,
            table_version=number,
            input_digest=f"{number:064}",
            output_digest=f"{number:064}",
        )
    info = CollectionInfo("c", "uuid", 384, {}, planned(100, 384))
    vectors.write_receipt(ctx, TCIA_CATALOG, info, partition, number, 100, f"{number:064}")


def _milliseconds(read: Callable[[], object]) -> float:
    """Median of ROUNDS."""
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        read()
        found.append(time.perf_counter() - started)
    return round(1_000 * statistics.median(found), 1)


def _measured(settings: Settings) -> dict[str, float]:
    """By a process that has read nothing before: a table is opened anew each time."""
    return {
        "receipts_ms": _milliseconds(
            lambda: vectors.receipts(Context(settings, Lakehouse.open(settings), "r"), TCIA_CATALOG)
        ),
        "audit_ms": _milliseconds(lambda: Audit(Lakehouse.open(settings)).latest(TCIA_CATALOG.id)),
    }


def _lake(folder: str, partitions: int, merge_every: int) -> tuple[Settings, Context, float]:
    """A lake after `partitions`, and the seconds of filling it."""
    settings = Settings(home=Path(folder))
    ctx = Context(settings, Lakehouse.open(settings), "bench", index=_NoIndex())  # type: ignore[arg-type]
    lake.MERGE_EVERY = merge_every
    started = time.perf_counter()
    for number in range(partitions):
        _run_partition(ctx, number)
    return settings, ctx, round(time.perf_counter() - started, 2)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--partitions", type=int, default=300)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as bare, tempfile.TemporaryDirectory() as folder:
        settings, _, bare_seconds = _lake(bare, given.partitions, 1 << 60)
        unmerged = _measured(settings)
        settings, ctx, seconds = _lake(folder, given.partitions, MERGE_EVERY)
        merged = _measured(settings)
        started = time.perf_counter()
        maintain.maintain(ctx, [TCIA_CATALOG])
        round_seconds = round(time.perf_counter() - started, 2)
        after = _measured(settings)
    result: dict[str, Any] = {
        "partitions": given.partitions,
        "a file per row": {**unmerged, "fill_seconds": bare_seconds},
        "merged as they are appended": {**merged, "fill_seconds": seconds},
        "after maintenance": {**after, "round_seconds": round_seconds},
    }
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
