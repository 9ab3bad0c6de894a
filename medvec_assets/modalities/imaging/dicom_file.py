"""DICOM bytes to a data set, or the reason why not.

Belongs here: reading a file and its header, and the one place that knows what a DICOM parser may raise.
Does not belong here: which images are accepted (image_rules), pixels (pixels), what may be kept of a header
(deid/technical).
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any

from resources.errors import ObjectRejected

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_INFLATED_BYTES = 512 << 20  # of a deflated data set: zlib expands up to a thousandfold
MAX_INFLATED_HEAD_BYTES = 8 << 20
MAX_ELEMENTS = 20_000  # at the top level; real headers have a few hundred, and a file of zeros one per 8 bytes
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# What pydicom 3.0 and the decoders were seen or are documented to raise on damaged input. They have no common base, and
# their messages quote element values. MemoryError and the errors of our own I/O are not in the list: they are no fault
# of the object. RecursionError (nested sequences) is a RuntimeError; UnicodeError and BytesLengthException ValueErrors.
PARSER_FAILURES: tuple[type[Exception], ...] = (
    AttributeError,  # a required element is absent
    ArithmeticError,  # division by a zero dimension; overflow in a decimal string
    AssertionError,  # decoders' internal checks
    EOFError,
    LookupError,  # KeyError, IndexError, unknown character set
    NotImplementedError,
    RuntimeError,  # every decoder plugin failed
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def rejected(code: str, rule: str, remedy: str, disposition: str = "quarantined") -> ObjectRejected:
    """A rule that this object breaks. The caller knows which object; nothing of its content is in the message."""
    return ObjectRejected(f"the object {rule}", code=code, remedy=remedy, disposition=disposition)


def truncated() -> ObjectRejected:
    return rejected("truncated", "ends before its data do", "transfer the object again")


@contextmanager
def parser_failures_as(code: str, rule: str, remedy: str) -> Iterator[None]:
    """Any failure of a DICOM parser or decoder becomes ObjectRejected `code`, without the parser's own words."""
    _silence_parsers()
    try:
        yield
    except PARSER_FAILURES:
        raise rejected(code, rule, remedy) from None


def _silence_parsers() -> None:
    """pydicom's warnings and log quote element values, a patient's name among them: they go nowhere.

    Filters by module and not `warnings.catch_warnings`, which swaps the process's filters and is unsafe with decode
    threads. Setting a filter again only moves it to the front, so that a later `simplefilter` does not undo it.
    """
    import pydicom.config  # noqa: F401  (its import sets the logger's level, so it goes first)

    for module in (r"pydicom(\.|$)", r"medvec_assets\.modalities\.imaging(\.|$)"):
        warnings.filterwarnings("ignore", module=module)
    for name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"):
        logger = logging.getLogger(name)
        if logger.level != logging.CRITICAL + 1:  # setting it clears the caches of all loggers: 0.3 ms
            logger.setLevel(logging.CRITICAL + 1)  # of its child loggers too


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class SeriesHeader:
    """Whose object this is and to which series it belongs, as the source says; None where it does not say."""

    patient_id: str | None
    series_uid: str | None


def series_header(head: bytes) -> SeriesHeader | None:
    """Identity from the first bytes of a file (they may end anywhere); None if they are not a readable DICOM header."""
    tags = ["SpecificCharacterSet", "PatientID", "SeriesInstanceUID"]
    try:
        dataset = read_dataset(head, only=tags)
        with parser_failures_as("header_invalid", "has an unreadable identity", "mend the header at the source"):
            patient, series = (_text(dataset.get(keyword)) for keyword in tags[1:])
    except ObjectRejected:
        return None
    return SeriesHeader(patient, series)


# Where an enhanced multi-frame object keeps, per frame or shared by all, what a classic one has at its top level.
_FUNCTIONAL_GROUPS = {
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
}


def header_value(dataset: Dataset, keyword: str, frame: int = 0) -> Any:
    """An element's value, also from the functional groups of `frame`; None if it is absent, empty or unreadable."""
    try:
        value = dataset.get(keyword)
        if value is None and keyword in _FUNCTIONAL_GROUPS:
            shared = dataset.get("SharedFunctionalGroupsSequence") or []
            own = dataset.get("PerFrameFunctionalGroupsSequence") or []
            for group in [*shared[:1], *own[frame : frame + 1]]:
                for item in group.get(_FUNCTIONAL_GROUPS[keyword]) or []:
                    value = item.get(keyword) if value is None else value
    except PARSER_FAILURES:
        return None
    return None if value is None or value == "" else value


def header_numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers of an element's value, or None."""
    try:
        numbers = tuple(float(item) for item in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _text(value: Any) -> str | None:
    return str(value).strip(" \0") or None if value is not None else None


def read_dataset(data: bytes, only: list[str] | None = None) -> Dataset:
    """The data set of a DICOM file with its file meta; with `only`, just those top-level elements and no pixels.

    Raises ObjectRejected: empty_object, not_dicom, missing_transfer_syntax, dimensions_refused, header_invalid.
    """
    if not data:
        raise rejected("empty_object", "has no bytes", "transfer the object again")
    if data[128:132] != b"DICM":
        raise rejected("not_dicom", "is no DICOM file (no DICM prefix)", "remove it from the source or convert it")
    with parser_failures_as("header_invalid", "has an unreadable header", "mend or re-export the object"):
        return _read_part10(data, only)


def _read_part10(data: bytes, only: list[str] | None) -> Dataset:
    from pydicom import filereader
    from pydicom.dataset import FileMetaDataset
    from pydicom.tag import BaseTag, Tag
    from pydicom.uid import UID

    file = BytesIO(data)
    file.seek(132)
    meta = filereader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise rejected("missing_transfer_syntax", "names no transfer syntax", "re-export it with its file meta")
    file_start = file.tell()
    if syntax == _DEFLATED:
        file, file_start = BytesIO(_inflated(data[file_start:], is_head=only is not None)), 0
    elements = count()

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if next(elements) > MAX_ELEMENTS:
            raise ValueError("more elements than any header has")
        return only is not None and tag.group >= 0x7FE0

    dataset = filereader.read_dataset(
        file,
        is_implicit_VR=syntax == _IMPLICIT_LITTLE,
        is_little_endian=syntax != _BIG_ENDIAN,
        stop_when=at_pixels,
        specific_tags=None if only is None else [Tag(keyword) for keyword in only],
    )
    if not len(dataset) and only is None and file.getbuffer().nbytes > file_start:
        raise truncated()  # pydicom gives up everything when the file ends within a sequence or a pixel fragment
    dataset.file_meta = FileMetaDataset(meta)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _inflated(deflated: bytes, *, is_head: bool) -> bytes:
    """A deflated data set, or as much of a head as is looked at. Refused at the limit, before the rest of a
    decompression bomb takes memory."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, MAX_INFLATED_HEAD_BYTES if is_head else MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail and not is_head:
        remedy = "store it uncompressed, or split it"
        raise rejected("dimensions_refused", f"inflates beyond {MAX_INFLATED_BYTES} bytes", remedy)
    return inflated
