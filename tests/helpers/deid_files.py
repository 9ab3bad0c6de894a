"""DICOM files with identifiers planted in every place that a file has, for tests of de-identification.

The files are written by hand where pydicom would not write them: a value too long for its VR, a length that lies.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword

from medvec_assets.deid.dicom import Deidentified, Options, deidentify
from medvec_assets.deid.pseudonyms import Pseudonyms

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{tail}" for tail in (".1", "", ".2", ".1.99"))
SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED)
UNDEFINED = 0xFFFFFFFF
_LONG = ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]

Element = tuple[int, str, "bytes | list[list[Element]]"]


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None
    return found


def of(keyword: str, value: bytes | list[list[Element]], vr: str = "") -> Element:
    return tag(keyword), vr or dictionary_VR(keyword)[:2], value


def encode(elements: Iterable[Element], syntax: str = EXPLICIT, undefined: bool = False) -> bytes:
    """Elements in order of their tags; sequences in defined or undefined lengths."""
    order = ">" if syntax == BIG else "<"
    out = []
    for number, vr, value in sorted(elements, key=lambda one: one[0]):
        if isinstance(value, list):
            out.append(_sequence(number, value, order, syntax, undefined))
            continue
        value = value if len(value) % 2 == 0 else value + (b"\0" if vr in ("UI", "OB", "UN") else b" ")
        out.append(_header(number, vr, len(value), order, syntax) + value)
    return b"".join(out)


def _header(number: int, vr: str, length: int, order: str, syntax: str) -> bytes:
    head = struct.pack(f"{order}2H", number >> 16, number & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack(f"{order}I", length)
    if vr in _LONG:
        return head + vr.encode() + struct.pack(f"{order}2xI", length)
    return head + vr.encode() + struct.pack(f"{order}H", length)


def _sequence(number: int, items: list[list[Element]], order: str, syntax: str, undefined: bool) -> bytes:
    def mark(element: int, length: int) -> bytes:
        return struct.pack(f"{order}2HI", 0xFFFE, element, length)

    body = b""
    for item in items:
        inside = encode(item, syntax, undefined)
        body += mark(0xE000, UNDEFINED if undefined else len(inside)) + inside + (mark(0xE00D, 0) if undefined else b"")
    end = mark(0xE0DD, 0) if undefined else b""
    return _header(number, "SQ", UNDEFINED if undefined else len(body), order, syntax) + body + end


def part10(
    body: bytes, syntax: str = EXPLICIT, meta: Iterable[Element] = (), preamble: bytes = b"", instance: str = "1.2.3.4"
) -> bytes:
    """A file around a data set's bytes."""
    if syntax == DEFLATED:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = deflater.compress(body) + deflater.flush()
    group2 = encode(
        [
            (0x00020001, "OB", b"\0\1"),
            (0x00020002, "UI", CT.encode()),
            (0x00020003, "UI", instance.encode()),
            (0x00020010, "UI", syntax.encode()),
            *meta,
        ]
    )
    head = _header(0x00020000, "UL", 4, "<", EXPLICIT) + struct.pack("<I", len(group2))
    return preamble.ljust(128, b"\0")[:128] + b"DICM" + head + group2 + body


def image(syntax: str = EXPLICIT, instance: str = "1.2.3.4", subject: str = "P1", **values: bytes) -> list[Element]:
    """A CT image of 4 x 4 pixels; `values` by keyword replace or add elements."""
    order = ">" if syntax == BIG else "<"
    shorts = {
        "SamplesPerPixel": 1,
        "Rows": 4,
        "Columns": 4,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    found = {keyword: struct.pack(f"{order}H", number) for keyword, number in shorts.items()}
    found |= {
        "SOPClassUID": CT.encode(),
        "SOPInstanceUID": instance.encode(),
        "StudyInstanceUID": b"1.2.3",
        "SeriesInstanceUID": b"1.2.3.1",
        "PatientID": subject.encode(),
        "Modality": b"CT",
        "PhotometricInterpretation": b"MONOCHROME2",
        "PixelData": struct.pack(f"{order}16H", *range(16)),
    }
    return [of(keyword, value, "OW" if keyword == "PixelData" else "") for keyword, value in (found | values).items()]


KEYS = Pseudonyms(b"k" * 32, "test")
TOKEN = b"QZJANE"  # a word of no vocabulary, in any case
DIGITS = b"4711081542"


def copied(data: bytes, **options: Any) -> Deidentified:
    return deidentify(data, KEYS, Options(**options))


def read(copy: Deidentified) -> Any:
    return dcmread(BytesIO(copy.data))


def made(*elements: Element, syntax: str = EXPLICIT, **values: bytes) -> bytes:
    return part10(encode([*image(syntax, **values), *elements], syntax), syntax)
