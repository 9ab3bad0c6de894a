"""From an uploaded file's bytes to a model input, the way that a stored object takes: same modality, same rules.

Belongs here: which media type is which modality, the bounds of an upload. Does not belong here: reading a body (api), the
process in which this runs (decoder), the modalities themselves.

A DICOM file takes the whole path of ingest as an object of a source that is not open: checked, de-identified, refused where
text may be burned into it. Its pseudonyms are made with a key that nobody keeps. Of a PNG, JPEG or NIfTI file nothing but
its pixels is read, as in ingest, and text in them is not looked for (ADR 0021 says why). What is left is 224 x 224 pixels;
nothing is written anywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources.errors import ObjectRejected

MEDIA_TYPES = {
    "application/dicom": "imaging",
    "image/png": "raster",
    "image/jpeg": "raster",
    "application/gzip": "volume",
    "application/x-nifti": "volume",
}
ENDINGS = {".png": "raster", ".jpg": "raster", ".jpeg": "raster", ".nii": "volume", ".nii.gz": "volume"}
"""Of file names; what has another ending is taken for DICOM, which often has none."""
INPUT_SHAPE = (224, 224, 3)


def model_input(kind: str, data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """The model input of a file. `kind`: a value of MEDIA_TYPES. Raises ObjectRejected: whatever ingest refuses such an
    object for, or dimensions_refused if it declares more than `max_pixels` pixels or voxels."""
    declared, made = _READERS[kind]
    pixels = declared(data)
    if pixels > max_pixels:
        raise ObjectRejected(
            f"the object declares {pixels} pixels, and {max_pixels} are allowed",
            code="dimensions_refused",
            remedy="send one slice, or a smaller image",
        )
    return made(data)


def _dicom_pixels(data: bytes) -> int:
    from medvec_assets.modalities.imaging.dicom_file import read_dataset
    from medvec_assets.modalities.imaging.image_rules import check_decodable

    size = check_decodable(read_dataset(data))
    return size.rows * size.columns * size.frames


def _dicom(data: bytes) -> NDArray[np.uint8]:
    import polars as pl

    from medvec_assets.deid.pseudonyms import Pseudonyms
    from medvec_assets.modalities import Rejected, modality

    row: dict[str, Any] = dict.fromkeys(("cohort", "license"), "upload") | {"access_tier": "controlled"}
    row |= dict.fromkeys(("object_id", "record_ref", "subject_ref", "uri"), "upload")
    pseudonyms = Pseudonyms(secrets.token_bytes(32), "upload")
    records, rejected = modality("imaging").records(pl.DataFrame([row]), lambda _: data, pseudonyms)
    if not rejected:
        [made] = modality("imaging").model_inputs(
            records.with_columns(object_uris=pl.lit(["upload"], pl.List(pl.String))), "image", lambda _: data
        )
        if not isinstance(made, Rejected):
            array: NDArray[np.uint8] = made
            return array
        rejected = [made]
    raise ObjectRejected(
        f"the object breaks rule {rejected[0].code!r} of those that stored images keep",
        code=rejected[0].code,
        remedy=rejected[0].remedy,
    )


def _picture_pixels(data: bytes) -> int:
    from medvec_assets.modalities.raster import declared_pixels

    return declared_pixels(data)


def _picture(data: bytes) -> NDArray[np.uint8]:
    from medvec_assets.modalities.raster import MODALITY

    return MODALITY.model_input(data)


def _voxels(data: bytes) -> int:
    from medvec_assets.modalities.volume.nifti_file import declared_voxels

    return declared_voxels(data)


def _volume(data: bytes) -> NDArray[np.uint8]:
    from medvec_assets.modalities.volume import volume_input

    return volume_input(data)


_READERS: dict[str, tuple[Callable[[bytes], int], Callable[[bytes], NDArray[np.uint8]]]] = {
    "imaging": (_dicom_pixels, _dicom),
    "raster": (_picture_pixels, _picture),
    "volume": (_voxels, _volume),
}
