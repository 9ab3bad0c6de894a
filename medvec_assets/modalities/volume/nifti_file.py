"""NIfTI bytes to a checked volume, or the reason why not.

Belongs here: the containers (plain, gzip, a zip of UK Biobank's bulk layout), the header's sanity, and how much may be
inflated. Does not belong here: which slices become a model input (the package's `_slices`), what may be kept (`shape`).

A header is read and judged before its voxels take memory: what is inflated is never more than what a sane header needs.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.imaging.dicom_file import rejected, truncated

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

MIN_SIDE, MAX_SIDE = 8, 2_048  # voxels; below it is a slice and no volume, above it no scanner's
MAX_VOXELS = 1 << 28  # half a millimetre over 32 cm: the finest heads in use have 134 million
MAX_VOXEL_MM = 50.0
MAX_OFFSET_BYTES = 16 << 20  # of extensions between header and voxels
GZIP_LEVEL = 1  # a head of 27 MB takes .9 s; at zlib's usual 6 2.6 s for 3 % less
MAX_ZIP_ENTRIES = 10_000
_HEADER_BYTES = 544  # the larger of both versions', with its extension flag
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
# What a zip of field 20252 holds first, by preference: the head without its skull, then the whole defaced head.
_PREFERRED = ("T1/T1_brain.nii.gz", "T1/T1.nii.gz")
_FAILURES = (OSError, EOFError, ValueError, TypeError, LookupError, NotImplementedError, struct.error, zlib.error)
_FAILURES_OF_ZIP = (zipfile.BadZipFile, RuntimeError)  # RuntimeError: an encrypted member


@dataclass(frozen=True)
class Volume:
    """One checked volume: `voxels` as they are stored, [i, j, k], and how they become intensities in which space."""

    voxels: NDArray[Any]
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    voxel_mm: tuple[float, float, float]
    header_fields: int
    """How many free-text fields and extensions the header carries; all are dropped."""


def read_volume(data: bytes) -> Volume:
    """The volume of a .nii, a .nii.gz or a zip of the bulk layout. Raises ObjectRejected: empty_object,
    unsupported_format, no_volume, truncated, decode_failed, header_invalid, dimensions_refused, several_volumes,
    orientation_unknown, affine_invalid, pixel_values_invalid, constant_image."""
    if not data:
        raise rejected("empty_object", "has no bytes", "transfer the object again")
    with _opened(data) as file, _failures_told_apart():
        head = file.read(_HEADER_BYTES)
        header = _header(head)
        offset, size = _extent(header)
        # One byte more than is needed brings gzip to its end, where it compares its checksum.
        body = head + file.read(max(0, offset + size - len(head)) + 1)
    if len(body) < offset + size:
        raise truncated()
    voxels = np.frombuffer(body, header.get_data_dtype(), size // header.get_data_dtype().itemsize, offset)
    volume = _volume(header, voxels.reshape(header.get_data_shape()[:3], order="F"), offset)
    _check_values(volume)
    return volume


def declared_voxels(data: bytes) -> int:
    """What a file says that it has, its header alone read. Raises ObjectRejected as `read_volume` does."""
    if not data:
        raise rejected("empty_object", "has no bytes", "transfer the object again")
    with _opened(data) as file, _failures_told_apart():
        header = _header(file.read(_HEADER_BYTES))
    _extent(header)
    return int(np.prod([int(side) for side in header["dim"][1:4]], dtype=np.int64))


def plain_file(volume: Volume) -> bytes:
    """A gzipped NIfTI-2 file of a volume's voxels, grid and scale, of which `read_volume` gives the same again, and of
    nothing else that its header said. NIfTI-2, since it has the affine and the scale in double precision."""
    from nibabel.nifti1 import xform_codes
    from nibabel.nifti2 import Nifti2Header

    voxels = volume.voxels.astype(volume.voxels.dtype.newbyteorder("<"), copy=False)
    header = Nifti2Header(endianness="<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_zooms(volume.voxel_mm)
    header.set_sform(volume.affine, xform_codes["scanner"])
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = volume.slope, volume.intercept, _HEADER_BYTES
    head = header.binaryblock.ljust(_HEADER_BYTES, b"\0")  # four zeros: no extension follows
    return gzip.compress(head + voxels.tobytes(order="F"), GZIP_LEVEL, mtime=0)


# ---------------------------------------------------------------- containers


@contextmanager
def _failures_told_apart() -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise truncated() from None
    except (*_FAILURES, *_FAILURES_OF_ZIP):
        raise rejected("decode_failed", "cannot be read", "transfer or export it again") from None


@contextmanager
def _opened(data: bytes) -> Iterator[IO[bytes]]:
    if data.startswith(_ZIP):
        with _failures_told_apart(), zipfile.ZipFile(BytesIO(data)) as archive:
            entry = _chosen(archive)
        with zipfile.ZipFile(BytesIO(data)) as archive, _failures_told_apart():
            member: IO[bytes] = archive.open(entry)
        with member:
            yield gzip.GzipFile(fileobj=member) if entry.filename.endswith(".gz") else member  # type: ignore[misc]
    elif data.startswith(_GZIP):
        yield gzip.GzipFile(fileobj=BytesIO(data))  # type: ignore[misc]
    else:
        yield BytesIO(data)


def _chosen(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    entries = archive.infolist()
    if len(entries) > MAX_ZIP_ENTRIES:
        raise rejected("dimensions_refused", f"holds more than {MAX_ZIP_ENTRIES} files", "split it at the source")
    by_name = {entry.filename: entry for entry in entries if entry.filename.endswith((".nii", ".nii.gz"))}
    wanted = next((name for name in _PREFERRED if name in by_name), None) or (
        next(iter(by_name)) if len(by_name) == 1 else None
    )
    if wanted is None:
        raise rejected("no_volume", "holds no T1 volume, or several", "give the zip of field 20252, or one NIfTI file")
    return by_name[wanted]


# ---------------------------------------------------------------- the header


def _header(head: bytes) -> Nifti1Header:
    """The header of either version, in either byte order."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"} if len(head) >= 4 else set()
    kinds = {348: (Nifti1Header, 344, b"n+1"), 540: (Nifti2Header, 4, b"n+2")}
    found = next((kinds[size] for size in sizes if size in kinds), None)
    if found is None or head[found[1] : found[1] + 3] != found[2]:
        raise rejected("unsupported_format", "is no single-file NIfTI", "convert it to .nii or .nii.gz")
    kind = found[0]
    size = kind.template_dtype.itemsize
    if len(head) < size:
        raise truncated()
    return kind(head[:size], check=False)


def _extent(header: Nifti1Header) -> tuple[int, int]:
    """(offset, bytes) of the first volume's voxels in the file."""
    dims = [int(side) for side in header["dim"]]
    count = dims[0]
    if not 3 <= count <= 7 or any(side < 1 for side in dims[1 : count + 1]):
        raise rejected("header_invalid", "has dimensions of no volume", "mend or re-export the object")
    sides = dims[1:4]
    if min(sides) < MIN_SIDE or max(sides) > MAX_SIDE or int(np.prod(sides, dtype=np.int64)) > MAX_VOXELS:
        rule = f"has sides outside {MIN_SIDE} to {MAX_SIDE} voxels or more than {MAX_VOXELS} of them"
        raise rejected("dimensions_refused", rule, "resample it at the source, or mend a wrong header")
    if int(np.prod(dims[4 : count + 1], dtype=np.int64)) > 1:
        # Its first volume would be a vector of something else than what a structural scan is taken for.
        raise rejected("several_volumes", "is a series of volumes", "give a structural scan, one volume a file")
    dtype, bits = _stored_type(header)
    offset = float(header["vox_offset"])
    least = 352 if header.template_dtype.itemsize == 348 else 544
    if not least <= offset <= MAX_OFFSET_BYTES or offset != int(offset) or int(header["bitpix"]) != bits:
        raise rejected("header_invalid", "contradicts itself on where its voxels lie", "mend or re-export the object")
    return int(offset), int(np.prod(sides, dtype=np.int64)) * dtype.itemsize


def _stored_type(header: Nifti1Header) -> tuple[np.dtype[Any], int]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise rejected("header_invalid", "has an unknown data type", "mend or re-export the object") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise rejected("unsupported_format", "holds no plain numbers", "convert it to integers or 32-bit floats")
    return dtype, dtype.itemsize * 8


def _volume(header: Nifti1Header, voxels: NDArray[Any], offset: int) -> Volume:
    slope, intercept = header.get_slope_inter()
    affine = np.asarray(_affine(header), np.float64)
    sides_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    sane = np.isfinite(affine).all() and np.isfinite(sides_mm).all() and (sides_mm > 0).all()
    if not sane or sides_mm.max() > MAX_VOXEL_MM or abs(np.linalg.det(affine[:3, :3] / sides_mm)) < 1e-3:
        raise rejected("affine_invalid", "has an affine that is no space", "mend or re-export the object")
    texts = sum(bool(bytes(header[name]).strip(b"\0 ")) for name in ("descrip", "aux_file", "intent_name"))
    extended = offset > (352 if header.template_dtype.itemsize == 348 else 544)
    mm = (float(sides_mm[0]), float(sides_mm[1]), float(sides_mm[2]))
    return Volume(voxels, float(slope or 1.0), float(intercept or 0.0), affine, mm, texts + extended)


def _affine(header: Nifti1Header) -> NDArray[Any]:
    """sform, else qform. A file with neither says nothing of left and right, so it is refused."""
    if int(header["sform_code"]) > 0:
        return np.asarray(header.get_sform())
    if int(header["qform_code"]) > 0:
        with _bad_quaternions_refused():
            return np.asarray(header.get_qform())
    raise rejected("orientation_unknown", "does not say which way it lies", "export it with its sform or qform")


@contextmanager
def _bad_quaternions_refused() -> Iterator[None]:
    try:
        yield
    except (ValueError, ArithmeticError):
        raise rejected("affine_invalid", "has an affine that is no space", "mend or re-export the object") from None


def _check_values(volume: Volume) -> None:
    voxels = volume.voxels
    # A minimum is NaN if any voxel is, and an infinity is an extreme: no second array is made.
    low, high = voxels.min(), voxels.max()
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.asarray([low, high]).astype(np.float32) * np.float32(volume.slope) + np.float32(volume.intercept)
    if not np.isfinite(ends).all() or not np.isfinite(ends[1] - ends[0]):
        raise rejected("pixel_values_invalid", "has voxels that are no finite numbers", "mend the export")
    if low == high:
        raise rejected("constant_image", "has one value in all its voxels", "remove it or mend the export")
