"""Raster images: a radiograph in a PNG or JPEG file to one record and one model input.

Belongs here: decoding with Pillow, what is accepted, the allow list of what the source says of an image.
Does not belong here: the resize and window, which are the DICOM path's own (imaging.pixels), where images are
(connectors), and which pixels hold burnt-in text (deid).

Nothing of a file's own metadata (EXIF, XMP, PNG text) is kept; EXIF's orientation turns the image before it goes.
A JPEG is decoded in full and never at a reduced scale: what is decoded is then the same on every machine, since
libjpeg-turbo's accurate integer transform gives the same bits with and without vector instructions.
A payload is the decoded pixels as a PNG, with the orientation and without anything else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.imaging.dicom_file import rejected, truncated
from medvec_assets.modalities.imaging.image_rules import check_sides
from medvec_assets.modalities.imaging.one_object import OneObject, Parsed
from medvec_assets.modalities.imaging.pixels import fitted, percentile_sample, span, windowed
from resources.errors import ObjectRejected

if TYPE_CHECKING:
    from PIL.Image import Image

INPUT_VERSION = "raster-224-1"
PROFILE = "raster-allow-list-1"
FORMATS = ("PNG", "JPEG")
PNG_LEVEL = 1  # 9.5 megapixels take .5 s; at zlib's usual 6 five times as long for 14 % less
OLDEST_YEARS = 120  # nobody is known to have lived longer but one; a higher age is another column's number
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_ORIENTATION = 0x0112
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of more than 8 bits a sample

# The 14 observations of CheXpert (Irvin et al. 2019, table 1), and the form in which an answer shows them.
FINDINGS = {
    "No Finding": "no_finding",
    "Enlarged Cardiomediastinum": "enlarged_cardiomediastinum",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung_opacity",
    "Lung Lesion": "lung_lesion",
    "Edema": "edema",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural_effusion",
    "Pleural Other": "pleural_other",
    "Fracture": "fracture",
    "Support Devices": "support_devices",
}
_SEXES = {"female": "F", "male": "M", "f": "F", "m": "M"}
_VIEWS = ("frontal", "lateral")
_PROJECTIONS = ("AP", "PA", "LL", "RL")

# What Pillow was seen or is documented to raise on damaged input. UnidentifiedImageError is an OSError; its messages may
# quote text chunks.
_PILLOW_FAILURES = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


class Raster(OneObject):
    """The modality `raster` (medvec_assets.modalities.Modality); space `image` takes uint8 [224, 224, 3]."""

    version = "raster-3"
    deid_profile = PROFILE
    input_versions: dict[str, str] = {"image": INPUT_VERSION}  # noqa: RUF012  (the protocol's attribute is a dict)
    piece_objects = 64
    payload_media_type = "image/png"
    kind = "image"

    def parsed(self, data: bytes, described: Mapping[str, Any]) -> Parsed:
        attributes = image_attributes(described)
        image = _opened(data)
        size = {"rows": image.height, "columns": image.width}
        pixels, turn = _decoded(image)
        dropped = _metadata_fields(image)
        return Parsed(_input(pixels, turn), size | attributes, dropped, partial(_plain_png, pixels, turn))

    def model_input(self, data: bytes) -> NDArray[np.uint8]:
        return _input(*_decoded(_opened(data)))

    def shows(self, described: Mapping[str, Any]) -> str:
        return "XR"  # a radiograph; whether by plate (CR) or detector (DX) such a file does not say


# ---------------------------------------------------------------- pixels


def declared_pixels(data: bytes) -> int:
    """What a file says that it has, before any is decoded. Raises ObjectRejected as `_opened` does."""
    image = _opened(data)
    return image.height * image.width


def _opened(data: bytes) -> Image:
    """The image, its header read and no pixel decoded. Raises ObjectRejected: empty_object, unsupported_format,
    truncated, decode_failed, dimensions_refused."""
    from PIL import Image

    if not data:
        raise rejected("empty_object", "has no bytes", "transfer the object again")
    if not data.startswith(_SIGNATURES):
        raise rejected("unsupported_format", "is neither PNG nor JPEG", "remove it from the source or convert it")
    with _failures_told_apart():
        image = Image.open(BytesIO(data), formats=FORMATS)
    channels = 1 if image.mode in ("1", "L", *_DEEP) else len(image.getbands())
    check_sides(image.height, image.width, max(3, channels))
    return image


@contextmanager
def _failures_told_apart() -> Iterator[None]:
    from PIL import Image

    try:
        yield
    except Image.DecompressionBombError:
        raise rejected("dimensions_refused", "declares more pixels than are decoded", "tile or downsample it") from None
    except _PILLOW_FAILURES as error:
        if "truncated" in str(error) or "unexpected end" in str(error).lower():
            raise truncated() from None
        raise rejected("decode_failed", "cannot be decoded", "export it again as plain PNG or JPEG") from None


def _decoded(image: Image) -> tuple[Image, int | None]:
    """The pixels of an opened image, grey, RGB or deep, and its EXIF orientation. Raises ObjectRejected: truncated,
    decode_failed, constant_image."""
    with _failures_told_apart():
        image.load()
        turn = image.getexif().get(_ORIENTATION) if "exif" in image.info else None
        wanted = image.mode if image.mode in _DEEP else "L" if image.mode in ("1", "L", "LA") else "RGB"
        image = image if image.mode == wanted else image.convert(wanted)
        # Of each band: one pair, or a pair of numbers where there is one band.
        extrema = np.asarray(image.getextrema()).reshape(-1, 2)
    if (extrema[:, 0] == extrema[:, 1]).all():
        raise _constant()
    return image, turn if isinstance(turn, int) and turn in _TURNS else None


def _input(pixels: Image, turn: int | None) -> NDArray[np.uint8]:
    """The model input of decoded pixels. Raises ObjectRejected `pixel_values_invalid`."""
    from PIL import Image

    if pixels.mode in _DEEP:
        pixels = Image.fromarray(_windowed(np.asarray(pixels)))
    return fitted(pixels if turn is None else pixels.transpose(Image.Transpose(_TURNS[turn])))


def _plain_png(pixels: Image, turn: int | None) -> bytes:
    """Nothing of a file but its pixels, of which `_decoded` gives the same again: made anew of them, since Pillow keeps
    profiles and texts beside an image and writes some."""
    from PIL import Image

    exif = Image.Exif()
    if turn is not None:
        exif[_ORIENTATION] = turn
    out = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(out, "PNG", compress_level=PNG_LEVEL, exif=exif if turn else b"")
    return out.getvalue()


# EXIF 2.32, tag Orientation, to Pillow's Transpose: what shows the image upright.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _windowed(decoded: NDArray[Any]) -> NDArray[np.uint8]:
    """More than 8 bits a pixel to grey by the percentiles that a DICOM image without a window gets."""
    values = decoded.astype(np.float32)
    if not np.isfinite(values).all():
        raise rejected("pixel_values_invalid", "has pixel values that are no finite numbers", "mend the export")
    return windowed(values, *(span(percentile_sample(values)) or (float(values.min()), float(values.max()))))


def _constant() -> ObjectRejected:
    return rejected("constant_image", "has one value in all its pixels", "remove it or mend the export")


def _metadata_fields(image: Image) -> int:
    """How many fields of metadata the file carries, all of them dropped."""
    return len(image.info) + len(image.getexif())


# ---------------------------------------------------------------- what the source says of an image


def image_attributes(described: Mapping[str, Any]) -> dict[str, Any]:
    """The kept part of what a source says: view, projection, sex, age band, findings. `described`: its own columns, as
    text. A value off its list is left out. Raises ObjectRejected `impossible_age`."""
    view, projection = str(described.get("view") or "").lower(), str(described.get("projection") or "").upper()
    found = {
        "view": view if view in _VIEWS else None,
        "projection": projection if projection in _PROJECTIONS else None,
        "sex": _SEXES.get(str(described.get("sex") or "").lower()),
        "age_band": age_band(described.get("age")),
    }
    kept: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    findings = described.get("findings")
    for name, wanted in (("findings", 1.0), ("uncertain_findings", -1.0)):
        said = [slug for title, slug in FINDINGS.items() if _number((findings or {}).get(title)) == wanted]
        if said:
            kept[name] = said
    return kept


def age_band(age: Any) -> str | None:
    """Ten years wide; 90 and over is one band (HIPAA's Safe Harbor). None for no age."""
    if age in (None, ""):
        return None
    years = _number(age)
    if years is None or not 0 <= years <= OLDEST_YEARS:
        remedy = "ask the source to correct the age, or to leave it empty"
        raise rejected("impossible_age", "is of somebody of an impossible age", remedy)
    return "90+" if years >= 90 else f"{int(years) // 10 * 10}-{int(years) // 10 * 10 + 9}"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


MODALITY = Raster()
