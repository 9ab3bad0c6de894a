"""Does decoding scale over cores: images through the embeddings stage's own windows and decode workers, with no model behind.

    python -m bench.decode [--rounds N] [--json]       (of the records stage: python -m bench.pieces)

One thread, two threads, and two processes that threads ask, as the stage has them where a partition has thousands of images,
in turn; the processes have done a first lot before the clock starts, so that their imports do not count. Rates by the clock
ask for an idle machine: on one that others use, two get little more than one. `cpu` is processor time per image with two
threads over that with one: what is above 1 they lose to each other; `parent_ms` what of the processes' images this one does.

DICOM is CT_small of pydicom's package on 512 x 512 pixels, plain and as JPEG 2000; PNG, JPEG and NIfTI are those of
bench.imaging_sources.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.imaging_sources import SMALL, heads, radiographs
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import Rejected, modality
from medvec_assets.modalities.imaging import image_input
from medvec_assets.modalities.raster import MODALITY as RASTER
from medvec_assets.modalities.volume import MODALITY as VOLUME
from medvec_assets.stages import encoding
from medvec_assets.stages.processes import Processes

CT_SIDE = 512
AIM: Any = SimpleNamespace(card=SimpleNamespace(input_kind="image"))
KINDS: dict[str, tuple[str, Callable[[bytes], NDArray[np.uint8]]]] = {
    "dicom": ("imaging", image_input),
    "dicom_jpeg2000": ("imaging", image_input),
    "png": ("raster", RASTER.model_input),
    "jpeg": ("raster", RASTER.model_input),
    "nifti": ("volume", VOLUME.model_input),
}


def slices(count: int, syntax: str = "") -> list[bytes]:
    """DICOM files of CT_SIDE x CT_SIDE pixels, each with noise of its own."""
    from pydicom import dcmread, examples

    made = []
    for number in range(count):
        image = dcmread(examples.get_path("ct"))
        noise = np.random.default_rng(number).normal(0, 9, (CT_SIDE, CT_SIDE))
        pixels = np.kron(image.pixel_array, np.ones((CT_SIDE // image.Rows, CT_SIDE // image.Columns)))
        image.Rows = image.Columns = CT_SIDE
        image.PixelData = np.clip(pixels + noise, 0, 4_095).astype(np.int16).tobytes()
        if syntax:
            image.compress(syntax, encoding_plugin="pylibjpeg")
        out = BytesIO()
        image.save_as(out)
        made.append(out.getvalue())
    return made


def as_png(files: Sequence[bytes]) -> list[bytes]:
    from PIL import Image

    made = []
    for data in files:
        out = BytesIO()
        Image.open(BytesIO(data)).save(out, "PNG")
        made.append(out.getvalue())
    return made


def files_of(kind: str) -> list[bytes]:
    from pydicom.uid import JPEG2000Lossless

    makers: dict[str, Callable[[], list[bytes]]] = {
        "dicom": lambda: slices(64),
        "dicom_jpeg2000": lambda: slices(16, JPEG2000Lossless),
        "png": lambda: as_png(radiographs(96, SMALL)),
        "jpeg": lambda: radiographs(96, SMALL),
        "nifti": lambda: heads(6),
    }
    return makers[kind]()


class Bench:
    """Files of one kind and the digests of their inputs, as the records stage would have written them."""

    def __init__(self, kind: str, files: Sequence[bytes]) -> None:
        self.name, one = KINDS[kind]
        self.form, self.files = modality(self.name), files
        self.digests = [json.dumps({"image": array_digest(one(data))}) for data in files]

    def decode(self, workers: int, prepare: encoding.Prepare | None = None) -> tuple[float, float]:
        """Clock and processor seconds of this process, over every file; by threads unless `prepare` asks others."""
        ids = [str(number) for number in range(len(self.files))]
        columns = {"record_id": ids, "object_uris": [[one] for one in ids], "content_digests": self.digests}
        prepare = prepare or (lambda rows: self.form.model_inputs(rows, "image", self.read))
        clock, processor = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(workers) as pool:
            for _, inputs in encoding._prefetched(pool, iter([pl.DataFrame(columns)]), AIM, workers, prepare):
                assert not any(isinstance(one, Rejected) for one in inputs)
        return time.perf_counter() - clock, time.process_time() - processor

    def read(self, uri: str) -> bytes:
        return self.files[int(uri)]


def measured(kind: str, rounds: int) -> dict[str, float]:
    bench = Bench(kind, files_of(kind))
    found: dict[str, list[tuple[float, float]]] = {"one": [], "threads": [], "processes": []}
    with Processes(bench.name, 2) as processes:
        sides: dict[str, Callable[[], tuple[float, float]]] = {
            "one": lambda: bench.decode(1),
            "threads": lambda: bench.decode(2),
            "processes": lambda: bench.decode(2, lambda rows: processes.inputs(rows, "image", bench.read)),
        }
        sides["processes"]()  # imports
        order = list(sides)
        for _ in range(rounds):
            order.append(order.pop(0))
            for side in order:
                found[side].append(sides[side]())
    clock, processor = ({side: statistics.median(one[at] for one in found[side]) for side in sides} for at in (0, 1))
    count = len(bench.files)
    return {
        "files": count,
        "one_per_second": round(count / clock["one"], 1),
        "threads_over_one": round(clock["one"] / clock["threads"], 2),
        "processes_over_one": round(clock["one"] / clock["processes"], 2),
        "cpu": round(processor["threads"] / processor["one"], 2),
        "parent_ms": round(1_000 * processor["processes"] / count, 2),
    }


def told(what: str, kinds: Sequence[str], measured: Callable[[str, int], dict[str, Any]], rounds: int) -> None:
    """The command line of a bench that measures one kind after the other in so many rounds: prints JSON."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--kinds", nargs="+", default=list(kinds), choices=list(kinds))
    parser.add_argument("--json", action="store_true", help="on one line")
    options = parser.parse_args()
    found = {kind: measured(kind, options.rounds) for kind in options.kinds}
    result = {"cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1), "kinds": found}
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    told("decode with one worker and with two", list(KINDS), measured, rounds=9)
