"""Text in pixels: found and blanked, or the image is refused (PS3.15 E.3.1, the clean pixel data option).

Belongs here: looking at every frame, blanking, looking again. Does not belong here: the detector (text_finder), which
images need it (objects.may_show_text).

Nobody can prove that a picture shows no text. So an image that may is refused unless a detector looked at each of its
frames; what it finds is blanked and looked at again, and an image that is mostly text, or in which text is left, is
refused. Images of kinds that hardly ever show text are looked at only with the option `clean_all`; (0012,0064) names
the option only in the files whose pixels were looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.deid.dicom import text_finder
from medvec_assets.deid.dicom.walk import element
from medvec_assets.modalities.imaging.dicom_file import header_value, parser_failures_as, rejected
from medvec_assets.modalities.imaging.image_rules import check_decodable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 64  # half a second each and more; of a longer loop no frame may be left unseen, so it is refused
MAX_ROUNDS = 6
MAX_LINE = 0.1  # of a frame's area in one rectangle: that is no line of text, and blanking anatomy helps nobody
MAX_SLOPE = 6  # how much further apart than before
MAX_BLANKED = 0.3  # of a frame's area: a screen full of text is no image that is worth keeping
_PERCENTILES = (0.1, 99.9)
_REMEDY = "have a person look at it; BurnedInAnnotation NO says that somebody did"


def text_possible(declared: bool) -> Exception:
    """What an image is refused with that was not looked at. `declared`: its header says that it shows text."""
    if declared:
        return rejected("burned_in_text", "says that identifying text is burned into its pixels", _REMEDY)
    return rejected("burned_in_text_possible", "may have text burned into its pixels", _REMEDY)


def cleaned(dataset: Dataset) -> dict[int, bytes] | None:
    """tag -> encoded element of pixels without their text and of what describes them; None where no text was found, and
    the pixels stay as they are.

    Raises ObjectRejected: those of check_decodable, decode_failed, burned_in_text_possible, burned_in_text."""
    size = check_decodable(dataset)
    if not text_finder.is_installed() or size.frames > MAX_FRAMES or size.bits_allocated == 1:
        raise text_possible(declared=False)
    frames: list[NDArray[Any]] = []
    blanked = False
    for number in range(size.frames):
        frame = _decoded(dataset, number)
        boxes = _text(dataset, frame)
        if boxes:
            frame = _blanked(dataset, frame, boxes)
        blanked = blanked or bool(boxes)
        frames.append(frame)
    if not blanked:
        return None
    return _native(np.stack(frames))


def _decoded(dataset: Dataset, number: int) -> NDArray[Any]:
    """A frame's stored values, [rows, columns] or RGB [rows, columns, 3]."""
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "" if not syntax.is_encapsulated else "pydicom" if "RLE" in syntax.name else "pylibjpeg"
    with parser_failures_as("decode_failed", "has pixel data that cannot be decoded", "transcode the object"):
        frame = pixel_array(dataset, index=number, decoding_plugin=plugin)
    return frame.astype(frame.dtype.newbyteorder("="))


def _text(dataset: Dataset, frame: NDArray[Any]) -> list[text_finder.Box]:
    return [box for picture in _pictures(dataset, frame) for box in text_finder.text_boxes(picture)]


def _pictures(dataset: Dataset, frame: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """A frame as viewers may show it, each uint8 [rows, columns, 3]: from its darkest to its brightest, in the colours of
    its palette, and with pale contrasts strengthened."""
    from pydicom.pixels.processing import apply_color_lut

    low, high = np.percentile(frame, _PERCENTILES)
    low, high = (low, high) if high > low else (frame.min(), frame.max())
    shown = _rgb((frame.astype(np.float32) - low) * (255 / (float(high - low) or 1.0)))
    yield shown
    if header_value(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        colours = apply_color_lut(frame, dataset)[..., :3].astype(np.float32)
        shown = _rgb(colours * (255 / max(float(colours.max()), 1.0)))
        yield shown
    yield _rgb(_spread(shown.mean(axis=2).astype(np.uint8)))


def _spread(grey: NDArray[np.uint8]) -> NDArray[Any]:
    """Grey levels moved apart where many pixels have them, as far as MAX_SLOPE lets them: pale text stands out, noise
    does not become text."""
    share = np.bincount(grey.ravel(), minlength=256) * (255 / grey.size)
    slopes = np.minimum(share, MAX_SLOPE)
    slopes += (255 - slopes.sum()) / 256
    return np.cumsum(slopes)[grey]


def _rgb(levels: NDArray[Any]) -> NDArray[np.uint8]:
    picture = np.clip(levels, 0, 255).astype(np.uint8)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _blanked(dataset: Dataset, frame: NDArray[Any], boxes: list[text_finder.Box]) -> NDArray[Any]:
    """The frame without its text. With the brightest of it gone, fainter text is found: it is looked at again."""
    clean, hidden = frame.copy(), np.zeros(frame.shape[:2], bool)
    for _ in range(MAX_ROUNDS):
        for box in boxes:
            if (box.bottom - box.top) * (box.right - box.left) > MAX_LINE * hidden.size:
                raise text_possible(declared=False)
            hidden[box.top : box.bottom, box.left : box.right] = True
            clean[box.top : box.bottom, box.left : box.right] = _surroundings(clean, box)
        if hidden.mean() > MAX_BLANKED:
            raise rejected("burned_in_text", "shows little but text", _REMEDY)
        boxes = _text(dataset, clean)
        if not boxes:
            return clean
    raise rejected("burned_in_text", "shows text that could not be blanked", _REMEDY)


def _surroundings(frame: NDArray[Any], box: text_finder.Box) -> Any:
    """The commonest value just outside a rectangle: in black on white a bar would be the next thing found."""
    top, left = max(0, box.top - 1), max(0, box.left - 1)
    around = frame[top : box.bottom + 1, left : box.right + 1]
    ring = np.ones(around.shape[:2], bool)
    ring[box.top - top : box.bottom - top, box.left - left : box.right - left] = False
    outside = around[ring] if ring.any() else around.reshape(-1, *around.shape[2:])
    values, counts = np.unique(outside, axis=0, return_counts=True)
    return values[counts.argmax()]


def _native(frames: NDArray[Any]) -> dict[int, bytes]:
    """The elements of uncompressed pixels [frames, rows, columns(, 3)]. Decoding turned colour to RGB by pixel; a palette
    still says what an index looks like."""
    bits = frames.dtype.itemsize * 8
    found = {0x00280100: element(0x00280100, "US", struct.pack("<H", bits))}
    if frames.ndim == 4:
        found[0x00280004] = element(0x00280004, "CS", b"RGB")
        found[0x00280006] = element(0x00280006, "US", b"\0\0")  # PlanarConfiguration
    little = frames.astype(frames.dtype.newbyteorder("<"), copy=False).tobytes()
    return found | {0x7FE00010: element(0x7FE00010, "OB" if bits == 8 else "OW", little)}
