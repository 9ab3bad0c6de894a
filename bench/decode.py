"""Does decoding scale over cores: images through the embeddings stage's own windows and decode workers, with no model behind.

    python -m bench.decode [--rounds N] [--json]       (of the records stage: python -m bench.pieces)

One worker, two workers of one process (threads, as the stage has them), and two processes of one worker each, in turn. The
rates are by the clock, and ask for an idle machine: on one that others use, two get little more than one. `cpu` is processor
time per image with two threads over that with one: what is above 1 they lose to each other. The share of time for which a
worker holds Python's lock asks for none: `py-spy record --gil`, and without, beside a loop of `Bench.decode`.

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
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.imaging_sources import SMALL, heads, radiographs
from medvec_assets.catalog import dataset
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities.imaging import image_input
from medvec_assets.modalities.raster import MODALITY as RASTER
from medvec_assets.modalities.volume import MODALITY as VOLUME
from medvec_assets.stages import encoding

CT_SIDE = 512
NOTHING = SimpleNamespace(card=SimpleNamespace(dim=1), encode=lambda inputs: np.zeros((len(inputs), 1), np.float32))
KINDS: dict[str, tuple[str, Callable[[bytes], NDArray[np.uint8]]]] = {
    "dicom": ("tcia_radiology", image_input),
    "dicom_jpeg2000": ("tcia_radiology", image_input),
    "png": ("aimi_chest_xray", RASTER.model_input),
    "jpeg": ("aimi_chest_xray", RASTER.model_input),
    "nifti": ("ukb_brain_mri", VOLUME.model_input),
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
        name, one = KINDS[kind]
        self.spec, self.files = dataset(name), files
        self.digests = [json.dumps({"image": array_digest(one(data))}) for data in files]

    def decode(self, workers: int, part: int = 0, parts: int = 1) -> tuple[float, float]:
        """Clock and processor seconds of the stage over every `parts`-th file."""
        ids = [str(number) for number in range(part, len(self.files), parts)]
        digests = self.digests[part::parts]
        columns = {
            "record_id": ids,
            "object_uris": [[one] for one in ids],
            "content_digests": digests,
            "fingerprint": ids,
        }
        context: Any = SimpleNamespace(settings=SimpleNamespace(decode_threads=workers), progress=lambda *_: None)
        aim: Any = SimpleNamespace(spec=self.spec, space="image", card=SimpleNamespace(ref="", input_kind="image"))
        with (
            mock.patch.object(encoding.encoders, "load", lambda *_: NOTHING),
            # Beside other work on this machine, threads that yield to a model would have nothing.
            mock.patch.object(encoding, "_yield_to_the_model", lambda: None),
        ):
            clock, processor = time.perf_counter(), time.process_time()
            frames = iter([pl.DataFrame(columns)])
            for _, _, rejected in encoding.encode(
                context, aim, "-", frames, lambda uri: self.files[int(uri)], len(ids)
            ):
                assert not rejected
            return time.perf_counter() - clock, time.process_time() - processor


_HELD: list[Bench] = []  # of one of the two processes


def _hold(kind: str, files: Sequence[bytes]) -> None:
    _HELD.append(Bench(kind, files))


def _decode_half(half: int) -> None:
    _HELD[0].decode(1, half, 2)


def measured(kind: str, rounds: int) -> dict[str, float]:
    files = files_of(kind)
    bench = Bench(kind, files)
    seconds: dict[str, list[float]] = {"one": [], "threads": [], "processes": []}
    processor: dict[str, list[float]] = {"one": [], "threads": []}
    with ProcessPoolExecutor(2, get_context("forkserver"), _hold, (kind, files)) as pool:

        def by_processes() -> None:
            list(pool.map(_decode_half, range(2)))

        sides = ["one", "threads", "processes"]
        by_processes()  # it starts them
        for _ in range(rounds):
            sides.append(sides.pop(0))
            for side in sides:
                start = time.perf_counter()
                if side == "processes":
                    by_processes()
                    seconds[side].append(time.perf_counter() - start)
                else:
                    clock, cpu = bench.decode(1 if side == "one" else 2)
                    seconds[side].append(clock)
                    processor[side].append(cpu)
    one, threads, processes = (statistics.median(seconds[side]) for side in ("one", "threads", "processes"))
    return {
        "files": len(files),
        "one_per_second": round(len(files) / one, 1),
        "threads_per_second": round(len(files) / threads, 1),
        "threads_over_one": round(one / threads, 2),
        "processes_over_one": round(one / processes, 2),
        "threads_over_processes": round(processes / threads, 2),
        "cpu": round(statistics.median(processor["threads"]) / statistics.median(processor["one"]), 2),
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
