"""Where text is in a picture: a detector that runs on a CPU and is looked for, not required.

Belongs here: the detector's weights, its input and its answer. Does not belong here: which images are looked at, what
becomes of what is found (burned_in).

The detector is PP-OCRv6's small text detection network (Apache-2.0) in the file that the package rapidocr ships; it is
run by onnxruntime and rapidocr itself is never imported. Both are the extra `pixels`: without them every image that may
show text is quarantined. It answers with a probability per pixel; each area of likely text is grown to a rectangle,
for the network is trained to answer with the core of a line.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources.errors import IntegrityError

MODEL = "PP-OCRv6_det_small.onnx"
MODEL_SHA256 = "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"
LIKELY, CERTAIN = 0.3, 0.5  # a pixel's probability to be looked at; the mean of an area's to be text (the model's own)
GROWTH = 1.6  # by area over perimeter, as the model was trained
MARGIN = 4  # pixels of the picture around every rectangle: strokes are softer than the area that is found
LEAST_SIDE, MOST_SIDE = 736, 2_048  # pixels: small pictures are enlarged; 2,048 a side take 10 s on 2 cores
MULTIPLE = 32  # the network halves its input five times


@dataclass(frozen=True)
class Box:
    """Rows and columns of a picture, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int


def is_installed() -> bool:
    return find_spec("onnxruntime") is not None and _model_file() is not None


def _model_file() -> Path | None:
    found = find_spec("rapidocr")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / "models" / MODEL
    return path if path.is_file() else None


@cache
def _session() -> Any:
    import onnxruntime

    path = _model_file()
    assert path is not None  # the caller asked is_installed()
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != MODEL_SHA256:
        remedy = "install medvec's extra `pixels` with its pinned versions"
        raise IntegrityError("the text detector's weights are not the pinned ones", remedy=remedy)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def text_boxes(picture: NDArray[np.uint8]) -> list[Box]:
    """The rectangles of a picture, uint8 [rows, columns, 3], that show text."""
    from PIL import Image

    rows, columns = picture.shape[:2]
    scale = max(1.0, LEAST_SIDE / min(rows, columns))
    scale = min(scale, MOST_SIDE / max(rows, columns))
    height, width = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (rows, columns))
    resized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    network = _session()
    batch = (resized.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
    (likelihood,) = network.run(None, {network.get_inputs()[0].name: np.ascontiguousarray(batch, np.float32)})
    return _boxes(likelihood[0, 0], rows, columns)


def _boxes(likelihood: NDArray[np.float32], rows: int, columns: int) -> list[Box]:
    from scipy import ndimage

    labels, count = ndimage.label(likelihood > LIKELY, np.ones((3, 3), int))
    found = []
    up, across = rows / likelihood.shape[0], columns / likelihood.shape[1]
    for number, place in enumerate(ndimage.find_objects(labels, count), 1):
        area = labels[place] == number
        if likelihood[place][area].mean() < CERTAIN:
            continue
        height, width = area.shape
        grown = GROWTH * height * width / (2 * (height + width))
        found.append(
            Box(
                max(0, int((place[0].start - grown) * up) - MARGIN),
                max(0, int((place[1].start - grown) * across) - MARGIN),
                min(rows, int((place[0].stop + grown) * up) + MARGIN + 1),
                min(columns, int((place[1].stop + grown) * across) + MARGIN + 1),
            )
        )
    return found
