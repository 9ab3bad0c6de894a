"""The embeddings stage against the bare model: same inputs, batch and threads, from records to a Delta commit.

python -m bench.pipeline [--rows N] [--rounds N] [--json]      # text: real series descriptors
python -m bench.pipeline --image [--rows N] [--rounds N]       # images: real DICOM files
python -m bench.pipeline --memory ROWS                         # peak resident memory of the stage at ROWS records

Images have two bare sides: the model on inputs that are in memory, and a plain loop that also reads and decodes the
same files, one thread, before the model. On a CPU decoding takes cores from the model: `ratio_ceiling` is the ratio of a
stage that spreads decoding over all of the model's threads and costs nothing else. On a GPU there is no such ceiling.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import world
from bench.embedding import bare_image, bare_text
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import modality
from medvec_assets.modalities.imaging import image_input
from medvec_assets.stages import embeddings, manifest, records
from resources import encoders, tables
from resources.settings import Settings

Home = Callable[[int], AbstractContextManager[tuple[Settings, DatasetSpec]]]


def text_rate(rows: int, rounds: int) -> dict[str, Any]:
    """Distinct texts a second: bare model and stage."""

    def sides(settings: Settings, spec: DatasetSpec) -> dict[str, Callable[[], Any]]:
        snapshot = world.context(settings).lake.snapshot(tables.records(spec.id))
        assert snapshot is not None
        frame = snapshot.read(["text", "record_id", "object_ids", "content_digests"])
        texts = list(modality(spec.modality).model_inputs(frame.unique("text"), "text", _no_read))
        encoder = encoders.load(spec.spaces["text"].encoder, settings)
        bare = bare_text(encoder.device)
        bare(texts[:64])
        encoder.encode(texts[:64])
        return {"bare": lambda: bare(texts)}

    return _rates(rows, rounds, "text", lambda count: world.home(count, distinct=True), sides)


def image_rate(rows: int, rounds: int) -> dict[str, Any]:
    """Images a second: bare model, bare loop with decoding, and stage."""

    def sides(settings: Settings, spec: DatasetSpec) -> dict[str, Callable[[], Any]]:
        files = sorted(Path(settings.sources[spec.id]).rglob("*.dcm"))
        encoder = encoders.load(spec.spaces["image"].encoder, settings)
        bare = bare_image(encoder.device)
        inputs = [image_input(file.read_bytes()) for file in files]
        bare(inputs[:64])
        encoder.encode(inputs[:64])
        return {
            "bare": lambda: bare(inputs),
            "bare_decode": lambda: bare([image_input(file.read_bytes()) for file in files]),
        }

    found = _rates(rows, rounds, "image", world.dicom_home, sides)
    model, model_and_decode = 1 / found["bare_per_second"], 1 / found["bare_decode_per_second"]
    ceiling = model / (model + (model_and_decode - model) / Settings().torch_threads)
    return found | {"ratio_ceiling": round(ceiling, 3)}


def _rates(
    rows: int,
    rounds: int,
    space: str,
    home: Home,
    sides: Callable[[Settings, DatasetSpec], dict[str, Callable[[], Any]]],
) -> dict[str, Any]:
    """Items a second of every side and of the stage in turn, each round on a fresh lake; medians and ratios."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        with home(rows) as (settings, spec):
            _build_records(settings, spec)
            ctx = world.context(settings)
            loops = sides(settings, spec)
            for name, loop in loops.items():
                seconds.setdefault(name, []).append(_timed(loop))
            start = time.perf_counter()
            outcome = embeddings.build(ctx, spec, space, world.COHORT)[spec.spaces[space].version]
            seconds.setdefault("pipeline", []).append(time.perf_counter() - start)
            assert (outcome.computed, outcome.quarantined) == (rows, 0)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {f"{name}_per_second": round(rows / median, 1) for name, median in medians.items()}
    ratios = {
        name.replace("bare", "ratio"): round(median / medians["pipeline"], 3)
        for name, median in medians.items()
        if name != "pipeline"
    }
    return {"space": space, "rows": rows, **rates, **ratios}


def memory(rows: int) -> dict[str, Any]:
    """Peak resident memory of the stage at `rows` records, in a process that did nothing else, and with the model alone."""
    with world.home(rows, distinct=False) as (settings, spec):
        _alone(_build_records, settings, spec)
        return {"rows": rows, **_alone(_stage_memory, settings, spec)}


def _alone(task: Callable[..., Any], *args: Any) -> Any:
    """In a new process: what this one has allocated does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *args).result()


def _build_records(settings: Settings, spec: DatasetSpec) -> None:
    ctx = world.context(settings)
    manifest.refresh(ctx, spec)
    records.build(ctx, spec, world.COHORT)


def _stage_memory(settings: Settings, spec: DatasetSpec) -> dict[str, Any]:
    space = spec.spaces["text"]
    encoders.load(space.encoder, settings).encode(["warm"] * 64)
    model = _status_mb("VmRSS")
    outcome = embeddings.build(world.context(settings), spec, "text", world.COHORT)[space.version]
    # VmHWM is this process's own; getrusage's ru_maxrss is inherited from the process that started it.
    return {"computed": outcome.computed, "model_mb": model, "peak_mb": _status_mb("VmHWM")}


def _status_mb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024


def _timed(loop: Callable[[], Any]) -> float:
    start = time.perf_counter()
    loop()
    return time.perf_counter() - start


def _no_read(uri: str) -> bytes:
    raise AssertionError("a text space reads no object")


def main() -> None:
    parser = argparse.ArgumentParser(description="The embeddings stage against the bare model")
    parser.add_argument("--rows", type=int, help="4000 texts or 300 images if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", action="store_true")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.memory:
        result = memory(options.memory)
    elif options.image:
        result = image_rate(options.rows or 300, options.rounds)
    else:
        result = text_rate(options.rows or 4000, options.rounds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:22} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
