"""From a file's bytes to the model input, by modality, against a bare loop of the library that reads the format.

    python -m bench.imaging_sources [--images N] [--volumes N] [--rounds N] [--json]

Both sides are given the same bytes in memory, in one process and one thread, and end with uint8 [224, 224, 3]. What is counted is
the process's own CPU time, so that a busy machine does not tell on it; rates are per CPU second. Bare raster is
Pillow: open, convert, resize with the same filter, paste on black. Bare volume is nibabel: gunzip, closest canonical, percentiles
of as large a sample, three slices through the same Pillow. What medvec does beyond it is what the ratio prices: limits,
constant and non-finite checks, EXIF, allow lists, and the digest that decides what is computed.

Raster inputs are drawn radiographs of CheXpert's two sizes (`make_aimi_chest_xray.chest`). Volumes are the sample bundle's
heads enlarged to UK Biobank's T1 grid, 182 x 218 x 182 int16 at 1 mm.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.connectors import sample_folder
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities.imaging.pixels import INPUT_SIDE, PERCENTILE_SAMPLE, PERCENTILES
from medvec_assets.modalities.raster import MODALITY as RASTER
from medvec_assets.modalities.volume import MODALITY as VOLUME

Loop = Callable[[bytes], NDArray[np.uint8]]
GRID = (182, 218, 182)
SMALL, LARGE = (390, 320), (2828, 2320)  # rows, columns of CheXpert-small's and CheXpert's usual radiograph


def radiographs(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEG files of the sample bundle's radiographs at `size`, each with noise of its own."""
    from PIL import Image

    files = sorted((sample_folder("aimi_chest_xray")).rglob("valid/**/*.jpg"))
    made = []
    for number in range(count):
        grey = Image.open(files[number % len(files)]).convert("L").resize(size[::-1], Image.Resampling.BICUBIC)
        noise = np.random.default_rng(number).normal(0, 3, size)
        out = BytesIO()
        pixels = np.clip(np.asarray(grey, np.float32) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out, "JPEG", quality=85)
        made.append(out.getvalue())
    return made


def heads(count: int) -> list[bytes]:
    """NIfTI files, gzipped, of the sample bundle's heads on GRID."""
    import nibabel
    from scipy import ndimage

    files = sorted(Path(sample_folder("ukb_brain_mri")).rglob("990000?_20252_?_0.zip"))
    made = []
    for number in range(count):
        with zipfile.ZipFile(files[number % len(files)]) as archive:
            small = nibabel.Nifti1Image.from_bytes(gzip.decompress(archive.read("T1/T1_brain.nii.gz")))
        data = np.asarray(small.dataobj, np.float32)
        zoomed = ndimage.zoom(data, [side / old for side, old in zip(GRID, data.shape, strict=True)], order=1)
        noise = np.random.default_rng(number).normal(0, 4, zoomed.shape) * (zoomed > 20)
        image = nibabel.Nifti1Image((zoomed + noise).astype(np.int16), np.diag([-1.0, 1, 1, 1]))
        made.append(gzip.compress(image.to_bytes(), 6))
    return made


def _square(grey: Any) -> NDArray[np.uint8]:
    from PIL import Image

    scale = INPUT_SIDE / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    black = Image.new("L", (INPUT_SIDE, INPUT_SIDE))
    fitted = grey.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    black.paste(fitted, ((INPUT_SIDE - size[0]) // 2, (INPUT_SIDE - size[1]) // 2))
    return np.asarray(black)


def bare_raster(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    return np.stack([_square(Image.open(BytesIO(data)).convert("L"))] * 3, axis=-1)


def bare_volume(data: bytes) -> NDArray[np.uint8]:
    import nibabel
    from PIL import Image

    image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(gzip.decompress(data)))
    voxels = np.asarray(image.dataobj)
    low, high = np.percentile(voxels.ravel()[:: voxels.size // PERCENTILE_SAMPLE], PERCENTILES)
    x, y, z = (side // 2 for side in voxels.shape)
    planes = (voxels[x, :, ::-1].T, voxels[:, y, ::-1].T, voxels[:, ::-1, z].T)
    greys = [np.clip((plane - low) * (255 / (high - low)), 0, 255).astype(np.uint8) for plane in planes]
    return np.stack([_square(Image.fromarray(grey)) for grey in greys], axis=-1)


def with_digest(loop: Loop) -> Loop:
    def made(data: bytes) -> NDArray[np.uint8]:
        array = loop(data)
        array_digest(array)
        return array

    return made


def compare(bare: Loop, ours: Loop, files: list[bytes], rounds: int) -> dict[str, float]:
    """Rates of both loops over `files`, interleaved, and how far their results are apart on average."""
    apart = float(np.mean([np.abs(bare(one).astype(int) - ours(one)).mean() for one in files[:8]]))  # warms both up
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    sides = [("bare", bare), ("ours", ours)]
    for _ in range(rounds):
        sides.reverse()  # neither always runs in the other's wake
        for name, loop in sides:
            start = time.process_time()
            for one in files:
                loop(one)
            seconds[name].append(time.process_time() - start)
    bare_seconds, our_seconds = (statistics.median(times) for times in seconds.values())
    return {
        "items": len(files),
        "bare_per_second": round(len(files) / bare_seconds, 1),
        "ours_per_second": round(len(files) / our_seconds, 1),
        "ratio": round(bare_seconds / our_seconds, 3),
        "mean_difference": round(apart, 2),
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description="decode and normalise against bare library loops")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    raster, volume = with_digest(RASTER.model_input), with_digest(VOLUME.model_input)
    results = {
        "raster_small": compare(bare_raster, raster, radiographs(options.images, SMALL), options.rounds),
        "raster_large": compare(bare_raster, raster, radiographs(max(1, options.images // 10), LARGE), options.rounds),
        "volume": compare(bare_volume, volume, heads(options.volumes), options.rounds),
    }
    if options.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        print(
            f"{name}: {found['ours_per_second']}/s, bare {found['bare_per_second']}/s, ratio {found['ratio']}, "
            f"{found['mean_difference']} grey levels apart"
        )


if __name__ == "__main__":
    main()
