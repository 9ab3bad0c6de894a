"""Volumes: a NIfTI file of one structural scan to one record and one model input.

Belongs here: the modality `volume`: orientation, intensity, the three slices. Does not belong here: the file format and
its limits (nifti_file), resize and window, which are the DICOM path's own (imaging.pixels), where files are (connectors).

**2.5-D.** The model input is the three orthogonal middle slices of the volume, one a channel: sagittal, coronal, axial
in red, green, blue. A network for pictures sees three planes in one pass of one picture, where one slice would show a
third of the anatomy and every slice would cost two hundred times as much; the vector stays one per scan. The slices go
through the middle of the field of view: nothing is registered, so two scans are comparable as far as they lie alike.
The weights it is meant for (`lite0@1`) are general ones, of photographs: they were trained on no channel that is a plane
and were never evaluated on brains. A 3-D network is a second space beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.imaging.one_object import OneObject, Parsed
from medvec_assets.modalities.imaging.pixels import INPUT_SIDE, percentile_sample, span, square_input, windowed
from medvec_assets.modalities.volume.nifti_file import Volume, plain_file, read_volume

__all__ = ["MODALITY", "VolumeModality", "volume_input"]

INPUT_VERSION = "middle-slices-224-1"
PROFILE = "volume-allow-list-1"
LAST_VISIT = 9  # UK Biobank's instances are one digit


class VolumeModality(OneObject):
    """The modality `volume` (medvec_assets.modalities.Modality); space `image` takes uint8 [224, 224, 3]."""

    version = "volume-3"
    deid_profile = PROFILE
    input_versions: dict[str, str] = {"image": INPUT_VERSION}  # noqa: RUF012  (the protocol's attribute is a dict)
    piece_objects = 8
    payload_media_type = "application/gzip"
    kind = "volume"

    def parsed(self, data: bytes, described: Mapping[str, Any]) -> Parsed:
        volume = read_volume(data)
        attributes = shape(volume)
        visit = described.get("instance")
        if isinstance(visit, int) and 0 <= visit <= LAST_VISIT:
            attributes["visit"] = visit
        return Parsed(_slices(volume), attributes, volume.header_fields, partial(plain_file, volume))

    def model_input(self, data: bytes) -> NDArray[np.uint8]:
        return volume_input(data)

    def shows(self, described: Mapping[str, Any]) -> str:
        return "MR"


def volume_input(data: bytes) -> NDArray[np.uint8]:
    """The model input of one file's bytes (an upload takes this path too). Raises ObjectRejected."""
    return _slices(read_volume(data))


def shape(volume: Volume) -> dict[str, Any]:
    """What is kept of a header: the grid. No date, text, name of a device or of a file."""
    from nibabel.orientations import aff2axcodes

    return {
        "body_part": "BRAIN",
        "voxels": [int(side) for side in volume.voxels.shape],
        "voxel_mm": [round(side, 3) for side in volume.voxel_mm],
        "orientation": "".join(aff2axcodes(volume.affine)),
        "bits_stored": volume.voxels.dtype.itemsize * 8,
    }


def _slices(volume: Volume) -> NDArray[np.uint8]:
    """uint8 [224, 224, 3]: middle sagittal, coronal and axial slice, head up or nose up, the left side on the left."""
    voxels, (x_mm, y_mm, z_mm) = _to_ras(volume)
    low, high = _intensity_range(volume)
    middle = [side // 2 for side in voxels.shape]
    # Rows run down the picture: head to feet, or nose to back.
    planes = (
        (voxels[middle[0], :, ::-1].T, z_mm * voxels.shape[2], y_mm * voxels.shape[1]),
        (voxels[:, middle[1], ::-1].T, z_mm * voxels.shape[2], x_mm * voxels.shape[0]),
        (voxels[:, ::-1, middle[2]].T, y_mm * voxels.shape[1], x_mm * voxels.shape[0]),
    )
    picture = np.empty((INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    for channel, (plane, height_mm, width_mm) in enumerate(planes):
        grey = windowed(_intensities(volume, plane), low, high)
        picture[..., channel] = square_input(grey, sides=(height_mm, width_mm))[..., 0]
    return picture


def _to_ras(volume: Volume) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """A view of the voxels whose axes run to the right, the front and the head as nearly as they can, and their mm."""
    from nibabel.orientations import apply_orientation, io_orientation

    turns = io_orientation(volume.affine)
    mm = [0.0, 0.0, 0.0]
    for axis, target in enumerate(turns[:, 0]):
        mm[int(target)] = volume.voxel_mm[axis]
    return apply_orientation(volume.voxels, turns), (mm[0], mm[1], mm[2])


def _intensities(volume: Volume, voxels: NDArray[Any]) -> NDArray[np.float32]:
    """Stored values by the header's scale, in single precision on every machine."""
    return voxels.astype(np.float32) * np.float32(volume.slope) + np.float32(volume.intercept)


def _intensity_range(volume: Volume) -> tuple[float, float]:
    """(black, white): percentiles over the whole volume, so that its slices are shown alike."""
    sample = _intensities(volume, percentile_sample(volume.voxels.ravel(order="K")))
    found = span(sample)
    if found is None or not all(map(math.isfinite, found)):  # almost all voxels are background
        ends = _intensities(volume, np.asarray([volume.voxels.min(), volume.voxels.max()]))
        return float(ends.min()), float(ends.max())
    return found


MODALITY = VolumeModality()
