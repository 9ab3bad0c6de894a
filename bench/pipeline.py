"""The embeddings stage against the bare model: same texts, batch and threads, from records to a Delta commit.

python -m bench.pipeline [--rows N] [--rounds N] [--json]
python -m bench.pipeline --memory ROWS      # peak resident memory of the stage at ROWS records
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import Any

from bench import world
from bench.embedding import bare_text
from medvec_assets.modalities import modality
from medvec_assets.stages import embeddings, manifest, records
from resources import encoders, tables


def rate(rows: int, rounds: int) -> dict[str, Any]:
    """Distinct texts a second, pipeline and bare loop in turn, each round on a fresh lake."""
    seconds: dict[str, list[float]] = {"bare": [], "pipeline": []}
    for _ in range(rounds):
        with world.home(rows, distinct=True) as (settings, spec):
            ctx = world.context(settings)
            manifest.refresh(ctx, spec)
            records.build(ctx, spec, world.COHORT)
            encoder = encoders.load(spec.spaces["text"].encoder, settings)
            bare = bare_text(encoder.device)
            snapshot = ctx.lake.snapshot(tables.records(spec.id))
            assert snapshot is not None
            rows_frame = snapshot.read(["text", "record_id", "object_ids", "content_digests"])
            texts = list(modality(spec.modality).model_inputs(rows_frame.unique("text"), "text", _no_read))
            bare(texts[:64])
            encoder.encode(texts[:64])
            start = time.perf_counter()
            bare(texts)
            seconds["bare"].append(time.perf_counter() - start)
            start = time.perf_counter()
            outcome = embeddings.build(ctx, spec, "text", world.COHORT)[spec.spaces["text"].version]
            seconds["pipeline"].append(time.perf_counter() - start)
            assert outcome.computed == len(texts)
    bare_seconds, pipeline_seconds = (statistics.median(times) for times in seconds.values())
    return {
        "rows": rows,
        "bare_per_second": round(rows / bare_seconds, 1),
        "pipeline_per_second": round(rows / pipeline_seconds, 1),
        "ratio": round(bare_seconds / pipeline_seconds, 3),
    }


def memory(rows: int) -> dict[str, Any]:
    """Peak resident memory of this process after one partition of `rows` records, against that after loading the model."""
    with world.home(rows, distinct=False) as (settings, spec):
        ctx = world.context(settings)
        manifest.refresh(ctx, spec)
        records.build(ctx, spec, world.COHORT)
        encoders.load(spec.spaces["text"].encoder, settings).encode(["warm"] * 4096)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        outcome = embeddings.build(ctx, spec, "text", world.COHORT)[spec.spaces["text"].version]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "computed": outcome.computed, "before_mb": round(before), "peak_mb": round(peak)}


def _no_read(uri: str) -> bytes:
    raise AssertionError("a text space reads no object")


def main() -> None:
    parser = argparse.ArgumentParser(description="The embeddings stage against the bare model")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = memory(options.memory) if options.memory else rate(options.rows, options.rounds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:22} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
