"""Pixel data of a de-identified copy: as many bytes as the image has, and nothing beside the pixels in them.

Belongs here: what may hide around pixels: bytes after the last one, bits that no pixel uses (where older objects keep
an overlay), comments and application segments of a compressed stream. Does not belong here: what the pixels show
(burned_in), decoding.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medvec_assets.deid.dicom.rules import PIXELS
from medvec_assets.deid.dicom.walk import swapped
from medvec_assets.modalities.imaging.dicom_file import rejected, truncated

if TYPE_CHECKING:
    from pydicom.uid import UID

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_JPEG_KEPT = frozenset({0xE8, 0xEE})  # of application segments: JPEG-LS' and Adobe's, which name the colour transform
_COMMENT = re.compile(rb"\xff[\xe0-\xef\xfe]")
_JFIF_BYTES = 16  # of an application segment 0 without a thumbnail
_REMEDY = "transcode the object; what stands beside its pixels is not known to be safe"


def pixel_elements(syntax: UID, raws: Mapping[int, Any], kept: Mapping[int, bytes]) -> dict[int, bytes]:
    """tag -> encoded element of an object's pixel data, empty if it has none. `kept`: the copy's other elements, which say
    how many pixels of how many bits there are. Raises ObjectRejected: truncated, header_invalid."""
    tag = next((tag for tag in PIXELS if tag in raws), None)
    if tag is None:
        return {}
    keyword, raw = PIXELS[tag], raws[tag]
    value = raw.value or b""
    if syntax.is_encapsulated:
        return {tag: _header(tag, "OB", 0xFFFFFFFF) + _encapsulated(value) + _DELIMITER}
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(keyword) or _number(kept, 0x00280100)
    if not raw.is_little_endian and (bits > 8 or raw.VR == "OW"):
        value = swapped(value, max(2, bits // 8))  # pixels of a byte in OW stand in words too
    value = _native(kept, value, bits, masked=keyword == "PixelData")
    vr = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}.get(keyword, "OB" if bits <= 8 else "OW")
    return {tag: _header(tag, vr, len(value)) + value}


def _header(tag: int, vr: str, length: int) -> bytes:
    return struct.pack("<2H2s2xI", tag >> 16, tag & 0xFFFF, vr.encode(), length)


def _value(kept: Mapping[int, bytes], tag: int) -> bytes:
    return kept.get(tag, b"")[8:]  # behind tag, VR and a length of two bytes


def _number(kept: Mapping[int, bytes], tag: int) -> int:
    return int.from_bytes(_value(kept, tag), "little")


def _native(kept: Mapping[int, bytes], value: bytes, bits: int, *, masked: bool) -> bytes:
    """Uncompressed pixels: no byte more than the image needs, no bit that no pixel uses."""
    rows, columns, samples = (_number(kept, tag) or 1 for tag in (0x00280010, 0x00280011, 0x00280002))
    frames = int(_value(kept, 0x00280008) or 1)
    if _value(kept, 0x00280004).strip() == b"YBR_FULL_422":
        samples = 2
    needed = (rows * columns * frames * samples * bits + 7) // 8
    if len(value) < needed:
        raise truncated()
    if len(value) != needed:
        value = value[:needed]
    stored = _number(kept, 0x00280101) or bits
    if masked and stored < bits and bits in (8, 16, 32):
        value = _without_unused_bits(kept, value, bits, stored)
    return value + b"\0" * (len(value) & 1)


def _without_unused_bits(kept: Mapping[int, bytes], value: bytes, bits: int, stored: int) -> bytes:
    """Bits above the highest stored one become the sign, or 0; those below the lowest become 0."""
    import numpy as np

    high = _number(kept, 0x00280102) or stored - 1
    if not stored - 1 <= high < bits:
        raise rejected("header_invalid", "has a high bit that its pixels do not have", "mend or re-export the object")
    signed = bool(_number(kept, 0x00280103))
    words = np.frombuffer(value, np.dtype(f"<{'i' if signed else 'u'}{bits // 8}"))
    above, below = bits - 1 - high, high + 1 - stored
    least = -(1 << high) if signed else 0
    fits = not words.size or (words.min() >= least and int(words.max()) - least < 1 << high + 1)
    if fits and not (below and np.bitwise_or.reduce(words) & (1 << below) - 1):
        return value
    return (words << above >> above >> below << below).tobytes()


def _encapsulated(value: bytes) -> bytes:
    """Fragments of compressed frames without comments. An offset table that is no longer true is left empty."""
    found = list(_fragments(value))
    if not found:
        raise truncated()
    table, fragments = found[0], found[1:]
    clean = [_clean_stream(one) for one in fragments]
    if any(len(old) != len(new) for old, new in zip(fragments, clean, strict=True)):
        table = b""
    return b"".join([_ITEM + struct.pack("<I", len(one)) + one for one in (table, *clean)])


def _fragments(value: bytes) -> Any:
    at = 0
    while at + 8 <= len(value):
        tag, (length,) = value[at : at + 4], struct.unpack_from("<I", value, at + 4)
        if tag == _DELIMITER[:4]:
            return
        if tag != _ITEM or at + 8 + length > len(value):
            raise truncated()
        yield value[at + 8 : at + 8 + length]
        at += 8 + length


def _clean_stream(fragment: bytes) -> bytes:
    """A fragment without what a JPEG or JPEG 2000 stream carries beside pixels. Later fragments of a frame have no head
    and pass as they are, and so does RLE, which has no place for anything else."""
    if fragment[:2] == b"\xff\xd8":
        clean = _clean_jpeg(fragment)
    elif (start := fragment[:256].find(b"\xff\x4f\xff\x51")) >= 0:
        clean = _clean_jpeg2000(fragment[start:])
    else:
        return fragment
    return clean + b"\0" * (len(clean) & 1)


def _clean_jpeg(stream: bytes) -> bytes:
    kept, at = [stream[:2]], 2
    while True:
        if at + 4 > len(stream) or stream[at] != 0xFF:
            raise truncated()
        marker, (length,) = stream[at + 1], struct.unpack_from(">H", stream, at + 2)
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + length
        if marker == 0xDA:
            break
        is_jfif = marker == 0xE0 and length == _JFIF_BYTES and stream[at + 4 : at + 8] == b"JFIF"
        if (marker != 0xFE and not 0xE0 <= marker <= 0xEF) or marker in _JPEG_KEPT or is_jfif:
            kept.append(stream[at:end])
        at = end
    # In coded data a byte FF is followed by 0, a restart marker or (JPEG-LS) a bit 0: these are true markers.
    rest = stream[at:]
    if _COMMENT.search(rest):
        raise rejected("header_invalid", "has a comment between the scans of a compressed frame", _REMEDY)
    finish = rest.rfind(b"\xff\xd9")
    return b"".join(kept) + (rest if finish < 0 else rest[: finish + 2])


def _clean_jpeg2000(stream: bytes) -> bytes:
    kept, at = [stream[:2]], 2
    while stream[at : at + 2] != b"\xff\x90":  # the first tile part
        if at + 4 > len(stream) or stream[at] != 0xFF:
            raise truncated()
        end = at + 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
        if stream[at + 1] != 0x64:  # a comment
            kept.append(stream[at:end])
        at = end
    tiles = stream[at:]
    finish = tiles.rfind(b"\xff\xd9")
    _check_tile_headers(tiles)
    return b"".join(kept) + (tiles if finish < 0 else tiles[: finish + 2])


def _check_tile_headers(tiles: bytes) -> None:
    """Refuses a comment in a tile part's header, whose stated length a removal would belie."""
    at = 0
    while tiles[at : at + 2] == b"\xff\x90":
        (length,) = struct.unpack_from(">I", tiles, at + 6)
        inner = at + 12
        while tiles[inner : inner + 2] not in (b"\xff\x93", b""):
            if tiles[inner : inner + 2] == b"\xff\x64":
                raise rejected("header_invalid", "has a comment in a tile of a compressed frame", _REMEDY)
            inner += 2 + int(struct.unpack_from(">H", tiles, inner + 2)[0])
        if not length:  # the last one, to the end
            return
        at += max(length, 12)
