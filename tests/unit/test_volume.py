"""NIfTI to a model input: the same head in any storage gives the same, and nothing absurd takes memory."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.modalities.volume import MODALITY, volume_input
from medvec_assets.modalities.volume.nifti_file import read_volume
from resources.errors import ObjectRejected

SAMPLE = Path(__file__).parents[1] / "datasets" / "ukb_brain_mri" / "in" / "99"


@cache
def head() -> tuple[np.ndarray, np.ndarray]:
    """int16 voxels of the sample's first scan in RAS, and their affine."""
    data = (SAMPLE / "9900001_20252_2_0.zip").read_bytes()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(archive.read("T1/T1_brain.nii.gz")))
    return np.asarray(image.dataobj).astype(np.int16), image.affine


def nifti(data: np.ndarray, affine: Any = None, kind: Any = nibabel.Nifti1Image, **header: Any) -> bytes:
    image = kind(data, head()[1] if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def zipped(**members: bytes) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_nii", ".nii").replace("_gz", ".gz"), data)
    return out.getvalue()


def code(data: bytes) -> str:
    with pytest.raises(ObjectRejected) as refusal:
        volume_input(data)
    return refusal.value.code


def test_three_planes_of_one_head() -> None:
    made = volume_input(nifti(head()[0]))
    assert made.shape == (224, 224, 3) and made.dtype == np.uint8
    sagittal, coronal, axial = (made[..., channel].astype(int) for channel in range(3))
    assert not np.array_equal(sagittal, coronal) and not np.array_equal(coronal, axial)
    # The brain stem is narrow and below, the crown is wide: heads are up in both upright planes.
    for plane in (sagittal, coronal):
        assert (plane[40:100] > 60).sum() > (plane[170:224] > 60).sum()
    # A head is nearly its own mirror image from the front and never from the side.
    assert np.abs(coronal - coronal[:, ::-1]).mean() < np.abs(sagittal - sagittal[:, ::-1]).mean()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[::2])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2)])
def test_the_way_it_is_stored_does_not_matter(order: tuple[int, ...], flipped: tuple[int, ...]) -> None:
    data, affine = head()
    turned, turn = np.transpose(data, order), np.zeros((4, 4))
    turn[3, 3] = 1
    for place, axis in enumerate(order):
        turn[axis, place] = 1
        if place in flipped:
            turned, turn[axis, place], turn[axis, 3] = np.flip(turned, place), -1, data.shape[axis] - 1
    stored = nifti(turned, affine @ turn)
    assert nibabel.aff2axcodes(read_volume(stored).affine) != ("R", "A", "S") or (order, flipped) == ((0, 1, 2), ())
    plain, other = volume_input(nifti(data)).astype(int), volume_input(stored).astype(int)
    # The middle of an even side is one voxel off when it is turned around; everything else is the same.
    even = any(data.shape[order[place]] % 2 == 0 for place in flipped)
    assert np.abs(plain - other).mean() < 12 if even else np.array_equal(plain, other)


def test_containers_types_and_versions_do_not_matter() -> None:
    data = head()[0]
    expected = volume_input(nifti(data))
    plain = nifti(data)
    big = nibabel.Nifti1Image(data, head()[1], nibabel.Nifti1Header(endianness=">")).to_bytes()
    same = [
        gzip.compress(plain),
        big,
        nifti(data, kind=nibabel.Nifti2Image),
        nifti(data.astype(np.float32)),
        nifti(data.astype(np.int32)),
        zipped(T1__T1_brain_nii_gz=gzip.compress(plain), T1__T1_nii_gz=b"not chosen"),
        zipped(scan_nii=plain),
    ]
    for stored in same:
        assert np.array_equal(volume_input(stored), expected)
    small = np.clip(data // 4, 0, 255).astype(np.uint8)
    scaled = volume_input(nifti(small, scl_slope=4.0, scl_inter=7.0)).astype(int)
    assert np.abs(scaled - volume_input(nifti(small))).max() <= 1  # a value may fall to the other side of a half


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.int16, np.uint16, np.int32, ">f4", np.float64, np.int64])
@pytest.mark.parametrize(("scale", "tilted"), [((0.1, -3.7), True), ((0.0, 5.0), False)])
def test_a_payload_gives_the_same_input_and_holds_nothing_but_the_scan(
    kind: Any, dtype: Any, scale: tuple[float, float], tilted: bool
) -> None:
    voxels, affine = head()
    voxels = np.clip(voxels[10:40:2, 10:50:2, 5:45:2] // 4, 0, 255).astype(dtype)
    if tilted:
        affine = affine @ nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1, 0.2, -0.05) * 1.37, [1, 2, 3])
    image = kind(
        voxels, affine, kind.header_class(endianness=np.dtype(dtype).str[0].replace("|", "<").replace("=", "<"))
    )
    image.header["descrip"] = image.header["aux_file"] = b"DOE^JANE"
    if tilted:  # placed by its quaternion alone
        image.set_sform(None, 0)
        image.set_qform(affine, 1)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    data = bytearray(image.to_bytes())
    at, form = (176, "dd") if kind is nibabel.Nifti2Image else (112, "ff")
    struct.pack_into(image.header.endianness + form, data, at, *scale)
    parsed = MODALITY.parsed(bytes(data), {"instance": 2})
    payload = parsed.payload()
    again = MODALITY.parsed(payload, {"instance": 2})
    assert np.array_equal(again.model_input, parsed.model_input) and again.attributes == parsed.attributes
    assert parsed.dropped == 3 and again.dropped == 0 and b"JANE" in data and b"JANE" not in gzip.decompress(payload)
    assert again.payload() == payload, "made again of itself it is the same"


def test_thick_slices_keep_their_proportions() -> None:
    data, affine = head()
    thick = volume_input(nifti(data[:, :, ::2], affine @ np.diag([1, 1, 2, 1])))
    assert np.abs(thick.astype(int) - volume_input(nifti(data))).mean() < 12


def test_a_header_that_is_no_volume_is_refused_by_its_reason() -> None:
    data, affine = head()
    small = data[10:34, 10:34, 10:34]
    assert code(b"") == "empty_object"
    assert code(b"no volume at all" * 40) == "unsupported_format"
    assert code(nifti(small)[:-100]) == "truncated"
    assert code(gzip.compress(nifti(small))[:-9]) == "truncated"
    assert code(nifti(np.stack([small] * 2, axis=-1))) == "several_volumes"
    assert code(nifti(small[:, :, :1])) == "dimensions_refused"
    assert code(nifti(small[:, :, 0])) == "header_invalid"
    assert code(nifti(small, bitpix=64)) == "header_invalid"
    assert code(nifti(small.astype(np.complex64))) == "unsupported_format"
    assert code(nifti(np.full((16, 16, 16), 3.0, np.float32))) == "constant_image"
    assert code(nifti(small, affine @ np.diag([1, 1, 100, 1]))) == "affine_invalid"
    assert code(zipped(T1__readme=b"x")) == "no_volume"
    assert code(zipped(a_nii=nifti(small), b_nii=nifti(small))) == "no_volume"
    for wrong in (np.nan, np.inf, -np.inf):
        hollow = small.astype(np.float32)
        hollow[3, 4, 5] = wrong
        assert code(nifti(hollow)) == "pixel_values_invalid"
    unplaced = nibabel.Nifti1Image(small, None)
    unplaced.header.set_sform(None, 0)
    assert code(unplaced.to_bytes()) == "orientation_unknown"
    flat = bytearray(nifti(small))
    flat[280:328] = b"\0" * 48  # srow_x, srow_y, srow_z
    assert code(bytes(flat)) == "affine_invalid"
    damaged = bytearray(gzip.compress(nifti(small)))
    damaged[-6] ^= 255  # of the checksum at the end
    assert code(bytes(damaged)) == "decode_failed"


def test_absurd_sizes_and_bombs_take_no_memory() -> None:
    small = head()[0][10:34, 10:34, 10:34]
    absurd = bytearray(nifti(small))
    absurd[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    negative = bytearray(nifti(small))
    negative[42:44] = np.array([-24], "<i2").tobytes()
    bomb = gzip.compress(nifti(small) + b"\0" * (96 << 20))
    tracemalloc.start()
    try:
        assert code(bytes(absurd)) == "dimensions_refused"
        assert code(bytes(negative)) == "header_invalid"
        assert volume_input(bomb).any()  # what follows the voxels is never inflated
        assert volume_input(zipped(a_nii_gz=bomb)).any()
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 352))
def test_a_damaged_header_gives_a_picture_or_a_refusal(noise: bytes, at: int) -> None:
    whole = nifti(head()[0][10:34, 10:34, 10:34])
    damaged = whole[:at] + noise + whole[at + len(noise) :]
    try:
        assert volume_input(damaged).shape == (224, 224, 3)
    except ObjectRejected as refusal:
        assert refusal.code


def test_nothing_of_a_headers_text_is_kept() -> None:
    data = nifti(head()[0], descrip=b"DOE^JANE 1950-01-02", aux_file=b"doe_jane.nii", intent_name=b"JANE")
    parsed = MODALITY.parsed(data, {"instance": 2, "etag": "x", "name": "JANE"})
    assert "JANE" not in str(parsed.attributes) and parsed.dropped == 3
    assert parsed.attributes == {
        "body_part": "BRAIN",
        "voxels": [49, 58, 47],
        "voxel_mm": [4.0, 4.0, 4.0],
        "orientation": "RAS",
        "bits_stored": 16,
        "visit": 2,
    }
