"""From a decoded frame to the model input: uint8 [224, 224, 3]. Moving a number here re-embeds every image.

Belongs here: decoding the middle frame; rescale, window, MONOCHROME1, palette and colour, orientation, padding, resize.
Does not belong here: which instance of a series is taken (series), encoder-specific scaling (resources/encoders).

The result must be the same bytes on every machine, since its digest decides what is computed. So one decoder plugin is
named per transfer syntax instead of whichever is installed, arithmetic before the rounding to uint8 is element-wise,
and the resize is Pillow's, which works in fixed point on uint8: torch's antialiased float resize is as fast (1 ms) but
differs in the last bit between CPUs, and MONAI's Resize without antialiasing skips most pixels of a large radiograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvec_assets.modalities.imaging.dicom_file import (
    header_numbers,
    header_value,
    parser_failures_as,
    read_dataset,
    rejected,
)
from medvec_assets.modalities.imaging.image_rules import ImageSize, check_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom.dataset import Dataset

INPUT_VERSION = "middle-frame-224-1"
INPUT_SIDE = 224
THUMBNAIL_SIDE = 96
PERCENTILES = (0.5, 99.5)  # keeps a few hot pixels or burnt-in marks from darkening all the rest
PERCENTILE_SAMPLE = 1 << 18  # pixels looked at: np.percentile sorts, and 262,144 place the tails within 0.02 %

Array = NDArray[Any]


def image_input(data: bytes) -> NDArray[np.uint8]:
    """The model input of one DICOM file's bytes (an upload takes this path too). Raises ObjectRejected."""
    dataset = read_dataset(data)
    return dataset_input(dataset, check_image(dataset))


def dataset_input(dataset: Dataset, size: ImageSize) -> NDArray[np.uint8]:
    """The model input of a checked data set: its middle frame, normalised. Raises ObjectRejected: decode_failed,
    pixel_values_invalid, constant_image."""
    frame = size.frames // 2
    remedy = "transcode or re-export the object; other viewers may be more lenient than the standard"
    with parser_failures_as("decode_failed", "has pixel data that cannot be decoded", remedy):
        decoded = _decoded(dataset, frame)
        if decoded.min() == decoded.max():
            raise rejected("constant_image", "has one value in all its pixels", "remove it or mend the export")
        display = _colour(dataset, decoded, size) if decoded.ndim == 3 else _grey(dataset, decoded, frame)
        return square_input(display, *flips(header_value(dataset, "ImageOrientationPatient", frame)))


def thumbnail(model_input: NDArray[np.uint8]) -> bytes:
    """A PNG of 96 x 96 pixels of a model input, for people to look at."""
    from PIL import Image

    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    png = BytesIO()
    Image.fromarray(model_input).resize(side, Image.Resampling.BILINEAR).save(png, format="PNG")
    return png.getvalue()


def _decoded(dataset: Dataset, frame: int) -> Array:
    """One frame as stored values in native byte order: [rows, columns] or RGB [rows, columns, 3]."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "" if not syntax.is_encapsulated else "pydicom" if "RLE" in syntax.name else "pylibjpeg"
    array = pixel_array(dataset, index=frame, decoding_plugin=plugin)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return apply_color_lut(array, dataset)[..., :3]
    return array


def _colour(dataset: Dataset, rgb: Array, size: ImageSize) -> Array:
    """RGB of any depth to uint8 [rows, columns, 3]; colour has no window."""
    if rgb.dtype == np.uint8:
        return rgb
    bits = int(dataset.BitsStored)
    if size.samples == 1:  # a palette's entries are 16 bits wide, but many exporters write 8-bit values into them
        bits = 8 if rgb.max() <= 255 else 16
    return _rounded(rgb.astype(np.float32) * np.float32(255.0 / (2**bits - 1)))


def _grey(dataset: Dataset, stored: Array, frame: int) -> Array:
    """Stored grey values to uint8 [rows, columns] as a viewer shows them: modality LUT, VOI, MONOCHROME1.

    Each distinct value goes this way once and the pixels are looked up: a tenth of the time on a large radiograph.
    """
    levels = _levels(stored)
    values = _modality_values(dataset, levels, frame)
    if not np.isfinite(values).all():
        raise rejected("pixel_values_invalid", "has pixel values that are no finite numbers", "mend the export")
    shown = _looked_up(stored, levels, _shown(dataset, stored, values, frame))
    return np.invert(shown) if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else shown


def _levels(stored: Array) -> Array:
    """Every integer between the extremes of an image; the pixels themselves where that would be more."""
    low, high = int(stored.min()), int(stored.max())
    if stored.dtype.kind not in "iu" or high - low >= stored.size:
        return stored
    return np.arange(low, high + 1).astype(stored.dtype)


def _looked_up(stored: Array, levels: Array, shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The pixels of `stored` as `shown` says of `levels`."""
    if levels is stored:
        return shown
    # Unsigned arithmetic wraps around, so that the difference is right for signed values too. Arrow takes small
    # indices as they are; numpy would make 8 bytes of each.
    unsigned = stored.dtype.str.replace("i", "u")
    places = np.subtract(stored.view(unsigned), levels.view(unsigned)[0])
    found: NDArray[np.uint8] = pa.array(shown).take(pa.array(places.ravel())).to_numpy().reshape(stored.shape)
    return found


def _modality_values(dataset: Dataset, stored: Array, frame: int) -> NDArray[np.float32]:
    """Modality values (Hounsfield units of a CT) of stored values."""
    from pydicom.pixels.processing import apply_modality_lut

    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset).astype(np.float32)
    slope, intercept = (header_value(dataset, name, frame) for name in ("RescaleSlope", "RescaleIntercept"))
    return rescaled(stored, 1.0 if slope is None else float(slope), float(intercept or 0.0))


def _shown(dataset: Dataset, stored: Array, values: NDArray[np.float32], frame: int) -> NDArray[np.uint8]:
    """Modality `values` as grey. The window is the header's, or else taken from the pixels of `stored`."""
    from pydicom.pixels.processing import apply_voi

    window = _window(dataset, frame)
    if window is None and dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return windowed(apply_voi(values.astype(np.int32), dataset).astype(np.float32), 0.0, 2.0**bits - 1)
    if window is not None:
        shown = windowed(values, *window)
        if shown.min() < shown.max():
            return shown
    # No window, or one that shows nothing of this image.
    shown_range = span(_modality_values(dataset, percentile_sample(stored), frame))
    return windowed(values, *(shown_range or (values.min(), values.max())))


def rescaled(stored: Array, slope: float, intercept: float) -> NDArray[np.float32]:
    """Modality values by a linear rescale, in single precision on every machine."""
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _window(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """The first window of the header as (black, white) by PS3.3 C.11.2.1.2; None if there is no usable one. SIGMOID is
    taken as LINEAR_EXACT, its tangent in the middle: it is rare, and exp() differs between math libraries."""
    values = [header_value(dataset, name, frame) for name in ("WindowCenter", "WindowWidth")]
    # An element may hold several windows; the first is the one that is shown first.
    first = header_numbers([value[0] if isinstance(value, Sequence) and value else value for value in values], 2)
    if first is None:
        return None
    center, width = first
    if (header_value(dataset, "VOILUTFunction", frame) or "LINEAR") != "LINEAR":
        return (center - width / 2, center + width / 2) if width > 0 else None
    return (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2) if width > 1 else None


def percentile_sample(stored: Array) -> Array:
    """At most about PERCENTILE_SAMPLE values, evenly over the array."""
    flat = stored.ravel()
    return flat[:: max(1, flat.size // PERCENTILE_SAMPLE)]


def span(sample: Array) -> tuple[float, float] | None:
    """(black, white) by percentiles; None where almost all values are equal."""
    low, high = np.percentile(sample, PERCENTILES)
    return (float(low), float(high)) if low < high else None


def windowed(values: NDArray[np.float32], black: float, white: float) -> NDArray[np.uint8]:
    """Values to uint8 grey: `black` and below is 0, `white` and above 255, linear between."""
    from monai.transforms.intensity.array import ScaleIntensityRange

    if black == white:
        return np.zeros(values.shape, np.uint8)
    return _rounded(np.asarray(ScaleIntensityRange(black, white, 0.0, 255.0, clip=True)(values)))


def _rounded(values: Array) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    return levels


def flips(orientation: Any) -> tuple[bool, bool]:
    """(up-down, left-right): what turns an image to its plane's usual view. Along a row x or y grows (patient's left,
    back); down a column y grows in an axial image and z falls (head on top) in the others."""
    cosines = header_numbers(orientation, 6)
    if cosines is None:
        return False, False
    row, column = cosines[:3], cosines[3:]
    across, down = (max(range(3), key=lambda axis: abs(direction[axis])) for direction in (row, column))
    return (column[down] > 0 if down == 2 else column[down] < 0), row[across] < 0


def square_input(
    display: Array, upside_down: bool = False, mirrored: bool = False, sides: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """uint8 [rows, columns] or [rows, columns, 3] to the model input: resized, turned, padded to a black square.

    `sides`: height and width in one unit (mm) where the pixels are no squares."""
    from PIL import Image

    return fitted(Image.fromarray(display), upside_down, mirrored, sides)


def fitted(
    image: Image, upside_down: bool = False, mirrored: bool = False, sides: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """What square_input says, of a picture of mode L or RGB. Slices and not MONAI's Flip and SpatialPad, which give the same
    bytes and cost three times a small radiograph's decoding."""
    from PIL.Image import Resampling

    sides = sides or (image.height, image.width)
    rows, columns = (max(1, round(side * INPUT_SIDE / max(sides))) for side in sides)
    # A gap of 3 averages whole blocks of a large image first: 4 times faster, hardly told from the full filter.
    resized = np.asarray(image.resize((columns, rows), Resampling.BILINEAR, reducing_gap=3.0).convert("RGB"))
    square = np.zeros((INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    top, left = (INPUT_SIDE - rows) // 2, (INPUT_SIDE - columns) // 2
    square[top : top + rows, left : left + columns] = resized[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return square
