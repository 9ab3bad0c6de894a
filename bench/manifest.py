"""The manifest of the whole catalogue against a bare polars read and `write_deltalake` of the same columns.

python -m bench.manifest [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import idc_index_data
import polars as pl
from deltalake import write_deltalake

from bench import world
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.stages import manifest
from resources.settings import Settings

# The columns of the index that the manifest keeps, in its own form or inside `attributes`.
COLUMNS = (
    *(
        "collection_id",
        "PatientID",
        "SeriesInstanceUID",
        "source_DOI",
        "BodyPartExamined",
        "Modality",
        "sop_class_name",
    ),
    *("Manufacturer", "ManufacturerModelName", "SeriesDescription", "StudyDescription", "instanceCount"),
    *(
        "license_short_name",
        "series_init_idc_version",
        "series_revised_idc_version",
        "crdc_series_uuid",
        "series_aws_url",
    ),
    "series_size_MB",
)


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds of both, in turn, each into an empty folder."""
    seconds: dict[str, list[float]] = {"bare": [], "manifest": []}
    rows = 0
    for _ in range(rounds):
        folder = Path(tempfile.mkdtemp(prefix="medvec-bench-"))
        start = time.perf_counter()
        frame = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH, columns=list(COLUMNS))
        write_deltalake(str(folder / "bare"), frame)
        seconds["bare"].append(time.perf_counter() - start)
        rows = frame.height
        del frame
        start = time.perf_counter()
        manifest.refresh(world.context(Settings(home=folder / "home")), TCIA_CATALOG)
        seconds["manifest"].append(time.perf_counter() - start)
        shutil.rmtree(folder)
    bare, ours = (statistics.median(times) for times in seconds.values())
    return {
        "rows": rows,
        "bare_seconds": round(bare, 2),
        "manifest_seconds": round(ours, 2),
        "ratio": round(ours / bare, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The manifest against a bare read and write")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:18} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
