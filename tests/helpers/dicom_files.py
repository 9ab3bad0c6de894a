"""DICOM files for tests: real ones from pydicom's packages, and broken ones made from them."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def folder(package: str, inside: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / inside


@cache
def real(name: str) -> bytes:
    """A file of pydicom's own test files or of pydicom-data."""
    for place in (folder("pydicom", "data/test_files"), folder("data_store", "data")):
        if (place / name).is_file():
            return (place / name).read_bytes()
    raise FileNotFoundError(name)


def written(dataset: Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def edited(name: str = "CT_small.dcm", drop: tuple[str, ...] = (), **elements: Any) -> bytes:
    """A real file with elements replaced or dropped."""
    dataset = dcmread(BytesIO(real(name)))
    for keyword in drop:
        delattr(dataset, keyword)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return written(dataset)


def made(pixels: np.ndarray, **elements: Any) -> bytes:
    """A small uncompressed CT image (uint8, uint16 or int16) of these pixels: [rows, columns] or [frames, r, c]."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CT_CLASS
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = elements.pop("SOPInstanceUID", "1.2.3.4")
    dataset.SeriesInstanceUID, dataset.PatientID, dataset.Modality = "1.2.3", "P1", "CT"
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return written(dataset)


def with_transfer_syntax(data: bytes, uid: str) -> bytes:
    """The same bytes under another transfer syntax UID (of at most the old one's length)."""
    at = data.index(b"\x02\x00\x10\x00UI") + 6
    (length,) = struct.unpack_from("<H", data, at)
    return data[: at + 2] + uid.encode().ljust(length, b"\0") + data[at + 2 + length :]


def deflated_bomb(megabytes: int) -> bytes:
    """A small deflated file that inflates to this many MB of zeros."""
    dataset = dcmread(BytesIO(real("image_dfl.dcm")))
    assert dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    head = real("image_dfl.dcm")[:334]  # preamble and file meta
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(megabytes)) + deflater.flush()
    return head + body


def jpeg2000_bomb(side: int) -> bytes:
    """A real 64 x 64 image whose JPEG 2000 stream declares `side` x `side` pixels; the DICOM header does not."""
    data = bytearray(real("MR_small_jp2klossless.dcm"))
    start = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">2I", data, start + 8, side, side)
    return bytes(data)


def jpeg_bomb(side: int) -> bytes:
    """A real colour JPEG whose frame header declares `side` x `side` pixels; the DICOM header does not."""
    data = bytearray(real("SC_rgb_jpeg_dcmtk.dcm"))
    start = data.index(b"\xff\xc0\x00\x11")
    struct.pack_into(">2H", data, start + 5, side, side)
    return bytes(data)
