"""The rules that an image must satisfy before one of its pixels is decoded.

Belongs here: kind, size, completeness, transfer syntax, and what a compressed stream declares about itself.
Does not belong here: parsing the file (dicom_file), decoding it (pixels).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvec_assets.modalities.imaging.dicom_file import header_value, parser_failures_as, rejected, truncated

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_SIDE = 16_384  # pixels; the largest detector and film-scan images are about 8,000 a side
MAX_FRAMES = 100_000  # an hour of ultrasound at 25 frames a second is 90,000
MAX_FRAME_BYTES = 512 << 20  # of one frame as float32, the form we work in; only one frame is ever decoded
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class ImageSize:
    """Checked dimensions of one image object."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int


def check_image(dataset: Dataset) -> ImageSize:
    """What an image that becomes a vector must satisfy. Raises ObjectRejected: those of check_decodable, burned_in_text."""
    if str(header_value(dataset, "BurnedInAnnotation") or "").strip().upper() == "YES":
        remedy = "clean its pixels (`medvec deid`), or have a person do it: BurnedInAnnotation NO says so"
        raise rejected("burned_in_text", "says that identifying text is burned into its pixels", remedy)
    return check_decodable(dataset)


def check_decodable(dataset: Dataset) -> ImageSize:
    """Everything that can be known without decoding. Raises ObjectRejected: not_an_image (skipped), no_pixels,
    truncated, header_invalid, dimensions_refused, unsupported_transfer_syntax."""
    with parser_failures_as("header_invalid", "has an unreadable header", "mend or re-export the object"):
        _check_kind(dataset)
        size = _size(dataset)
    _check_limits(size.rows, size.columns, size.samples, size.frames)
    with parser_failures_as("header_invalid", "has an unreadable header", "mend or re-export the object"):
        _check_transfer_syntax(dataset)
        _check_complete(dataset, size)
        _check_codestream(dataset, size)
    return size


def _check_kind(dataset: Dataset) -> None:
    """Skips what is no image by its SOP class: reports, plans, structure sets, segmentations, doses, waveforms."""
    from pydicom.uid import UID

    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""
    name = UID(str(sop_class)).name
    known = name != str(sop_class)
    if known and "Image" not in name and name != "Enhanced US Volume Storage":
        remedy = "none: objects of this kind hold no image and are left out by rule"
        raise rejected("not_an_image", "is no image by its SOP class", remedy, "skipped")
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        if _last_element_is_cut(dataset):
            raise truncated()
        raise rejected("no_pixels", "has no pixel data", "transfer it again, or remove it from the source")


def _size(dataset: Dataset) -> ImageSize:
    def whole(keyword: str, default: int | None = None) -> int:
        value = dataset.get(keyword)
        if value in (None, ""):
            if default is None:
                raise rejected("header_invalid", f"has no {keyword}", "mend or re-export the object")
            return default
        return int(value)

    size = ImageSize(
        whole("Rows"), whole("Columns"), whole("NumberOfFrames", 1), whole("SamplesPerPixel", 1), whole("BitsAllocated")
    )
    if size.samples not in (1, 3) or size.bits_allocated not in (1, 8, 16, 32, 64):
        remedy = "convert it to 1 or 3 samples of 8, 16 or 32 bits"
        raise rejected("header_invalid", "has samples or bits that no image class uses", remedy)
    return size


def _check_limits(rows: int, columns: int, samples: int, frames: int) -> None:
    if not 0 < frames <= MAX_FRAMES or not _sides_within(rows, columns, samples):
        rule = f"has sides beyond {MAX_SIDE} pixels, more than {MAX_FRAMES} frames or {MAX_FRAME_BYTES} bytes a frame"
        raise rejected("dimensions_refused", rule, "tile or downsample it at the source, or mend a wrong header")


def check_sides(rows: int, columns: int, samples: int) -> None:
    """The same limits for an image of any format, before a decoder takes memory. Raises ObjectRejected."""
    if not _sides_within(rows, columns, samples):
        rule = f"has sides beyond {MAX_SIDE} pixels or {MAX_FRAME_BYTES} bytes"
        raise rejected("dimensions_refused", rule, "tile or downsample it at the source")


def _sides_within(rows: int, columns: int, samples: int) -> bool:
    within = 0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE
    return within and rows * columns * samples * 4 <= MAX_FRAME_BYTES


def _check_transfer_syntax(dataset: Dataset) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    remedy = "transcode it to an uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000 transfer syntax"
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:  # no decoder is known at all: MPEG video, private syntaxes
        available = False
    if not available:
        raise rejected("unsupported_transfer_syntax", "is in a transfer syntax that is not decoded here", remedy)


def _last_element_is_cut(dataset: Dataset) -> bool:
    tags = list(dataset.keys())
    last = dataset.get_item(max(tags)) if tags else None
    length, value = getattr(last, "length", None), getattr(last, "value", None)
    return length not in (None, _UNDEFINED_LENGTH) and isinstance(value, bytes) and len(value) < length


def _check_complete(dataset: Dataset, size: ImageSize) -> None:
    """Uncompressed pixel data must be as long as the header says; a compressed stream must have its declared end."""
    keyword = next(keyword for keyword in _PIXEL_KEYWORDS if keyword in dataset)
    data = dataset[keyword].value or b""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        if not data:
            raise truncated()
        return
    samples = 2 if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else size.samples
    if len(data) * 8 < size.rows * size.columns * size.frames * samples * size.bits_allocated:
        raise truncated()


def middle_frame_bytes(dataset: Dataset, frames: int) -> bytes:
    """The compressed bytes of the middle frame of an encapsulated image."""
    from pydicom.encaps import get_frame

    offsets, lengths = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    extended = (offsets, lengths) if offsets and lengths else None
    return get_frame(dataset.PixelData, frames // 2, number_of_frames=frames, extended_offsets=extended)


def _check_codestream(dataset: Dataset, size: ImageSize) -> None:
    """A decoder allocates what the compressed stream says, not what the header says: it is held to the same limits."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    stream = middle_frame_bytes(dataset, size.frames)
    if not stream:
        raise truncated()
    declared = codestream_shape(stream)
    if declared is not None:
        rows, columns, components = declared
        _check_limits(rows, columns, max(size.samples, components), 1)
    elif len(stream) > 4096 + 2 * size.rows * size.columns * size.samples * size.bits_allocated // 8:
        # RLE at its worst is 1 % longer than the pixels; a longer stream could expand each byte to 64.
        raise rejected("dimensions_refused", "has a compressed frame longer than its pixels", "transcode it again")


def codestream_shape(stream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) that a JPEG, JPEG-LS or JPEG 2000 stream declares; None if it is none of these."""
    start = stream[:256].find(b"\xff\x4f\xff\x51")  # JPEG 2000, possibly in a JP2 box: SOC then SIZ
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return bottom - top, right - left, int(struct.unpack_from(">H", stream, start + 40)[0])
    if stream[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # A start of frame is C0-CF but for DHT, JPG and DAC; F7 is the one of JPEG-LS.
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, components = struct.unpack_from(">2HB", stream, at + 5)
            return rows, columns, components
        at += 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
    return None
