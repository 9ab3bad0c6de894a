"""`medvec run --all` from nothing over the sum of its bare stages: encode, write, insert and index, by the libraries alone.

    python -m bench.whole [--server lite|milvus] [--every N] [--json]

The bare side is given everything in memory: each distinct text once in front of the model, the rows of all tables for
`write_deltalake`, the entities for pymilvus. --every takes every Nth series. The whole takes an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import idc_index_data
import polars as pl
import pyarrow as pa
from deltalake import write_deltalake

from bench import world
from bench.catalogue import run_medvec
from bench.embedding import bare_text
from bench.sync import bare_client, filled, insert, timed
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.modalities import modality
from medvec_assets.stages import entities, manifest, vectors
from medvec_assets.stages.context import Context
from resources import encoders, tables
from resources.settings import Settings
from resources.vector_index import open_index

SPEC, SPACE = TCIA_CATALOG, "text"


def measure(server: str, every: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="medvec-bench-"))
    try:
        index = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH).gather_every(every)
        index.write_parquet(folder / "index.parquet")
        with world.served(server) as (given, _):
            sources = {SPEC.id: str(folder / "index.parquet")}
            settings = Settings(home=folder / "home", sources=sources, **given)
            variables = {f"MEDVEC_{name.upper()}": str(value) for name, value in given.items()}
            variables |= {"MEDVEC_HOME": str(settings.home), "MEDVEC_SOURCES": json.dumps(sources)}
            told, seconds, peak_mb = run_medvec(variables, "run", "--dataset", SPEC.id, "--all")
            with open_index(settings) as opened:
                bare = _bare(world.context(settings, opened), folder / "bare")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "server": server,
        "series": index.height,
        **told["datasets"][SPEC.id]["spaces"][SPACE],
        "run_seconds": seconds,
        "run_peak_mb": peak_mb,
        **{f"bare_{name}_seconds": round(took, 1) for name, took in bare.items()},
        "run_over_bare": round(seconds / sum(bare.values()), 3),
    }


def _bare(ctx: Context, folder: Path) -> dict[str, float]:
    """Seconds of each bare stage, on what the run before it made."""
    texts = _texts(ctx)
    encode = bare_text(encoders.load(SPEC.spaces[SPACE].encoder, ctx.settings).device)
    encode(texts[:64])
    found = {"encode": timed(partial(encode, texts))}
    written = [tables.manifest(SPEC.id), tables.records(SPEC.id), tables.embeddings(SPEC.id, SPACE)]
    for spec in written:
        rows = pa.Table.from_batches(ctx.lake.ensure(spec).scan(), spec.schema)
        write = partial(write_deltalake, str(folder / spec.path), rows, partition_by=list(spec.partition_by) or None)
        found["write"] = found.get("write", 0.0) + timed(write)
    rows = _entities(ctx)
    layout = vectors.planned_layout(ctx, SPEC, SPACE, 384)
    with bare_client(ctx.settings) as client:
        found["insert_and_index"] = filled(client, layout, partial(insert, client, rows, ctx.settings))
    return found


def _texts(ctx: Context) -> list[str]:
    """What the run gave to the encoder: every distinct model input."""

    def no_read(uri: str) -> bytes:
        raise AssertionError("a text space reads no object")

    frame = ctx.lake.ensure(tables.records(SPEC.id)).read(["text", "record_id", "object_ids", "content_digests"])
    inputs: Callable[..., Any] = modality(SPEC.modality).model_inputs
    return list(inputs(frame.unique("text"), SPACE, no_read))


def _entities(ctx: Context) -> pa.Table:
    gold, version = ctx.lake.ensure(tables.embeddings(SPEC.id, SPACE)), SPEC.spaces[SPACE].version
    batches: list[pa.RecordBatch] = []
    for partition in manifest.current_plan(ctx, SPEC)["partition"]:
        held = entities.Held(gold, version, partition, str(SPEC.access_tier), pl.DataFrame())
        batches += entities.batches(held, entities.desired(SPEC, gold, version, partition))
    return pa.Table.from_batches(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("lite", "milvus"), default="milvus")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.server, options.every)
    print(json.dumps(result) if options.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
