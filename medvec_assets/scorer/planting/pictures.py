"""Planting into PNG and JPEG files: the text that travels with their pixels.

Belongs here: PNG text chunks, EXIF, XMP, comments. Does not belong here: text burned into pixels: bytes do not tell it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from medvec_assets.scorer.planting import Planted, Subject

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_EXIF = {
    0x010E: "sentence",  # ImageDescription
    0x010F: "institution",  # Make
    0x0131: "device_serial",  # Software
    0x013B: "name",  # Artist
    0x8298: "name",  # Copyright
    0xA431: "device_serial",  # BodySerialNumber
}


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The picture with text in every block that holds some; and one that ends within its pixels."""
    if data.startswith(PNG):
        whole = _png(data, subject)
    elif data.startswith(JPEG):
        whole = _jpeg(data, subject)
    else:
        return
    yield Planted(whole)
    yield Planted(whole[: len(whole) - len(data) // 2], damaged=True)


def _png(data: bytes, subject: Subject) -> bytes:
    mint = subject.mint
    head = data[:33]  # signature and IHDR, which comes first
    chunks = [
        (b"tEXt", f"Author\0{mint.plant('name', 'PNG tEXt')}".encode("latin-1")),
        (b"tEXt", f"Comment\0{mint.sentence('PNG tEXt comment')}".encode("latin-1")),
        (b"zTXt", b"Description\0\0" + zlib.compress(mint.sentence("PNG zTXt").encode("latin-1"))),
        (b"iTXt", f"Title\0\0\0en\0\0{mint.plant('accented_name', 'PNG iTXt')}".encode()),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(_xmp(subject, "PNG iTXt, compressed"))),
        (b"eXIf", _exif(subject, "PNG eXIf")),
    ]
    return head + b"".join(_chunk(kind, body) for kind, body in chunks) + data[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _jpeg(data: bytes, subject: Subject) -> bytes:
    mint = subject.mint
    segments = [
        (0xE1, b"Exif\0\0" + _exif(subject, "JPEG EXIF")),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _xmp(subject, "JPEG XMP")),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + _iptc(subject)),
        (0xFE, mint.sentence("JPEG comment").encode()),
    ]
    # After a JFIF segment, which readers want to be the first.
    start = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2
    made = b"".join(bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return data[:start] + made + data[start:]


def _exif(subject: Subject, place: str) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    for tag, kind in _EXIF.items():
        where = f"{place}, tag {tag:#06x}"
        exif[tag] = subject.mint.sentence(where) if kind == "sentence" else subject.mint.plant(kind, where)
    exif[0x0132] = f"{subject.mint.date(place):%Y:%m:%d} 10:11:12"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _xmp(subject: Subject, place: str) -> bytes:
    creator = subject.mint.plant("name", place)
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><dc:creator>{creator}</dc:creator></x:xmpmeta>".encode()


def _iptc(subject: Subject) -> bytes:
    out = BytesIO()
    for number, kind in ((80, "name"), (120, "mrn"), (90, "institution")):
        value = (subject.mint.plant(kind, f"JPEG IPTC 2:{number}") or "").encode()
        out.write(bytes((0x1C, 2, number)) + struct.pack(">H", len(value)) + value)
    return struct.pack(">I", out.tell()) + out.getvalue()
