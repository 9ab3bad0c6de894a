"""Planting beside the pixels of a DICOM file: where no viewer looks, and no element says that anything stands.

Belongs here: the bytes of PixelData. Does not belong here: elements (dicom), what a picture shows: a searcher of bytes does
not read it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from medvec_assets.scorer.planting import Subject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"


def hide_beside_pixels(dataset: Dataset, subject: Subject) -> None:
    """Bytes after the last pixel, or a comment in each compressed frame."""
    from pydicom.encaps import encapsulate, generate_frames

    if "PixelData" not in dataset:
        return
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData += _name(subject, "bytes after the pixels")
        return
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    dataset.PixelData = encapsulate([_commented(frame, subject) for frame in frames])


def _commented(frame: bytes, subject: Subject) -> bytes:
    """A JPEG or JPEG 2000 stream with a comment behind the marker that must come first; another stream as it is."""
    if frame.startswith(_JPEG_2000):
        marker, at, head = b"\xff\x64", 4 + int.from_bytes(frame[4:6], "big"), b"\0\1"
    elif frame.startswith(_JPEG):
        marker, at, head = b"\xff\xfe", 2, b""
    else:
        return frame
    text = head + _name(subject, "comment in a compressed frame")
    return frame[:at] + marker + struct.pack(">H", 2 + len(text)) + text + frame[at:]


def _name(subject: Subject, place: str) -> bytes:
    name = (subject.mint.plant("name", place) or "").encode()
    return name + b"\0" * (len(name) % 2)
