"""Makes the sample bundle of ukb_brain_mri: `python tests/datasets/make_ukb_brain_mri.py TEMPLATE.nii.gz`.

TEMPLATE is the ICBM 2009a nonlinear symmetric T1 template (MNI152, skull-stripped, 1 mm) that the wheel of nilearn 0.14.1
carries as `nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz`: an average of 152 heads, no person. It
is resampled to 4 mm and, for each invented eid, stretched, turned, bent and re-lit with numbers of a fixed seed. Names,
zips and folders are those of field 20252. Some files are broken on purpose. NOTICE.txt goes with them, as its owner asks.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

FOLDER = Path(__file__).parent / "ukb_brain_mri" / "in"
STEP_MM = 4.0
NOTICE = """The volumes in this folder are SYNTHETIC: deformed copies of the MNI152 template under invented eids. No participant
of UK Biobank is in them, and nothing of UK Biobank's but its file names.

Template: ICBM 2009a nonlinear symmetric, as distributed with nilearn (BSD-3-Clause; it lists the template's own licence as
unknown). Its owner's terms, as distributed with the template: Copyright (C) 1993-2004 Louis Collins, McConnell Brain
Imaging Centre, Montreal Neurological Institute, McGill University. Permission to use, copy, modify, and distribute this
software and its documentation for any purpose and without fee is hereby granted, provided that the above copyright notice
appear in all copies. The authors and McGill University make no representations about the suitability of this software for
any purpose. It is provided "as is" without express or implied warranty.

Fonov V, et al. Unbiased nonlinear average age-appropriate brain templates from birth to adulthood. NeuroImage 2009;47:S102.
doi:10.1016/S1053-8119(09)70884-5
"""


def head(template: Any, eid: int, visit: int) -> tuple[np.ndarray, np.ndarray]:
    """int16 [i, j, k] at 4 mm in RAS, and its affine. The second visit is the first one, a little moved and re-lit."""
    person, scan = np.random.default_rng(eid), np.random.default_rng(eid * 10 + visit)
    data = np.asarray(template.dataobj, np.float32)
    shape = tuple(int(side // STEP_MM) for side in data.shape)
    centre = (np.array(data.shape) - 1) / 2
    grid = (
        np.stack(np.meshgrid(*[np.arange(side) * STEP_MM + 1.5 for side in shape], indexing="ij"))
        - centre[:, None, None, None]
    )
    angles = person.normal(0, 0.05, 3) + scan.normal(0, 0.02, 3)
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [other for other in range(3) if other != axis]
        plane = np.eye(3)
        plane[[one, two], [one, two]] = np.cos(angle)
        plane[one, two], plane[two, one] = -np.sin(angle), np.sin(angle)
        turn = turn @ plane
    stretched = np.einsum("ab,bxyz->axyz", turn @ np.diag(person.uniform(0.92, 1.12, 3)), grid)
    bend = [ndimage.gaussian_filter(person.normal(0, 1, shape), 4) for _ in range(3)]
    bent = stretched + np.stack([one / np.abs(one).max() * 4.0 for one in bend]) + centre[:, None, None, None]
    values = ndimage.map_coordinates(data, bent, order=1, mode="constant")
    light = 1 + 0.15 * np.sin(grid[0] / 60 + person.uniform(0, 6)) + scan.normal(0, 0.02)
    contrast = person.uniform(0.8, 1.25)
    grey = 255 * (values / data.max()) ** contrast * light
    affine = np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])
    affine[:3, 3] = template.affine[:3, 3] + 1.5
    return np.rint(grey).astype(np.int16) * 4, affine


def nifti(data: np.ndarray, affine: np.ndarray | None) -> bytes:
    image = nibabel.Nifti1Image(data, affine)
    if affine is None:
        image.header.set_sform(None, 0)
        image.header.set_qform(None, 0)
    image.header["descrip"] = b"SYNTHETIC: MNI152 deformed"
    return image.to_bytes()


def zipped(volume: bytes, name: str = "T1/T1_brain.nii.gz") -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), gzip.compress(volume, mtime=0))
    return out.getvalue()


def main(template_path: str) -> None:
    template = nibabel.load(template_path)
    files: dict[str, bytes] = {"NOTICE.txt": NOTICE.encode()}

    def put(eid: int, visit: int, data: bytes, ending: str = "zip") -> None:
        files[f"{str(eid)[:2]}/{eid}_20252_{visit}_0.{ending}"] = data

    for eid in range(9900001, 9900009):
        for visit in (2, 3)[: 1 + (eid % 2)]:
            data, affine = head(template, eid, visit)
            if eid % 3 == 0:  # stored left to right as radiologists do
                flip = np.diag([-1.0, 1, 1, 1])
                flip[0, 3] = data.shape[0] - 1
                data, affine = data[::-1], affine @ flip
            put(eid, visit, zipped(nifti(data, affine)))
    data, affine = head(template, 9900009, 2)
    put(9900009, 2, gzip.compress(nifti(data.astype(np.float32) / 4, affine), mtime=0), "nii.gz")
    good = zipped(nifti(data, affine))
    put(9900010, 2, good[: len(good) // 2])
    put(9900011, 2, zipped(nifti(np.full((24, 24, 24), 5, np.int16), affine)))
    put(9900012, 2, zipped(nifti(np.stack([data[10:34, 10:34, 10:34]] * 3, axis=-1), affine)))
    hollow = data[10:34, 10:34, 10:34].astype(np.float32)
    hollow[12, 12, 12] = np.nan
    put(9900013, 2, zipped(nifti(hollow, affine)))
    put(9900014, 2, zipped(nifti(data[10:34, 10:34, 10:34], None)))
    absurd = bytearray(nifti(data[:8, :8, :8], affine))
    absurd[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    put(9900015, 2, gzip.compress(bytes(absurd), mtime=0), "nii.gz")
    put(9900016, 2, zipped(b"synthetic: no volume", "T1/notes.txt"))
    files["99/unexpected_name.nii.gz"] = gzip.compress(nifti(data[:8, :8, :8], affine), mtime=0)
    for name, content in files.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1])
