"""Draws the sample bundle of aimi_chest_xray: `python tests/datasets/make_aimi_chest_xray.py`.

Nobody is shown: chests are ellipses with noise of a fixed seed, and "SYNTHETIC" is written into each. Layout, names and
columns are CheXpert's. What is drawn follows the labels (a wide heart, a white base, a dark rim), so that neighbours share
them. Some files are broken, and some rows at odds with the files, on purpose.
"""

from __future__ import annotations

import csv
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent / "aimi_chest_xray" / "in"
RELEASE = "CheXpert-v1.0-synthetic"
ROWS, COLUMNS = 390, 320
HEADER = [
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"),
    *("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
]
KINDS = ("No Finding", "Cardiomegaly", "Pleural Effusion", "Pneumothorax")


def chest(seed: int, kind: str, lateral: bool = False) -> np.ndarray:
    """float [rows, columns] in 0..1."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:ROWS, 0:COLUMNS] / np.array([[[ROWS]], [[COLUMNS]]]) - 0.5
    x, y = x + noise.normal(0, 0.01), y + noise.normal(0, 0.01)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return 1 / (1 + np.exp(np.minimum(40 * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 1), 500)))

    picture = 0.75 * ellipse(0, 0, 0.46, 0.55)
    lungs = (
        ellipse(0, -0.03, 0.3, 0.33)
        if lateral
        else ellipse(-0.21, -0.03, 0.15, 0.32) + ellipse(0.21, -0.03, 0.15, 0.32)
    )
    picture -= 0.5 * lungs * (1.2 if kind == "Pneumothorax" else 1)
    picture += 0.35 * ellipse(0.06, 0.14, 0.24 if kind == "Cardiomegaly" else 0.12, 0.15)
    picture += 0.06 * np.cos(60 * (y + x**2)) * lungs
    if kind == "Pleural Effusion":
        picture += 0.45 * lungs / (1 + np.exp(-60 * (y - 0.12)))
    return np.clip(picture + noise.normal(0, 0.015, picture.shape), 0, 1)


def drawn(seed: int, kind: str, lateral: bool = False) -> Image.Image:
    image = Image.fromarray((chest(seed, kind, lateral) * 255).astype(np.uint8))
    ImageDraw.Draw(image).text((6, 6), "SYNTHETIC", fill=255)
    return image


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **({"quality": 70, "comment": b"synthetic"} if form == "JPEG" else {}), **options)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG that declares 60,000 x 60,000 pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def row(path: str, number: int, kind: str, **differing: str) -> dict[str, str]:
    told = {
        "Path": f"{RELEASE}/{path}",
        "Sex": ("Female", "Male")[number % 2],
        "Age": str(24 + number * 9 % 72),
        "Frontal/Lateral": "Lateral" if "lateral" in path else "Frontal",
        "AP/PA": "" if "lateral" in path else ("AP", "PA")[number // 2 % 2],
        kind: "1.0",
    }
    if kind != "No Finding":
        told |= {"Edema": "-1.0", "Fracture": "0.0"}
    return told | differing


def main() -> None:
    files: dict[str, bytes] = {}
    tables: dict[str, list[dict[str, str]]] = {"train": [], "valid": []}
    for number in range(1, 17):
        kind, split = KINDS[number % 4], "valid" if number > 13 else "train"
        for view in ("view1_frontal", "view2_lateral")[: 1 + (number % 5 == 0)]:
            path = f"{split}/patient{number:05d}/study1/{view}.jpg"
            files[path] = encoded(drawn(number, kind, "lateral" in view))
            tables[split].append(row(path, number, kind))

    def odd(number: int, data: bytes, name: str = "view1_frontal.jpg", told: bool = True, **differing: str) -> str:
        path = f"train/patient{number:05d}/study1/{name}"
        files[path] = data
        if told:
            tables["train"].append(row(path, number, "No Finding", **differing))
        return path

    good = encoded(drawn(20, "Cardiomegaly"))
    deep = (chest(21, "Pleural Effusion") * 4000 + 100).astype(np.uint16)
    odd(21, encoded(Image.fromarray(deep), "PNG"), "view1_frontal.png", **{"Age": "93"})
    odd(22, encoded(drawn(22, "Pneumothorax").convert("CMYK")), Sex="Unknown")
    odd(23, good[: len(good) // 2])
    odd(24, encoded(Image.new("L", (COLUMNS, ROWS), 7)))
    odd(25, b"synthetic: this is no image")
    odd(26, bomb(), "view1_frontal.png")
    odd(27, good, told=False)
    odd(28, encoded(drawn(28, "No Finding")), Age="400")
    twice = odd(29, encoded(drawn(29, "No Finding")))
    tables["train"].append(row(twice, 29, "No Finding"))
    tables["train"].append(row("train/patient00030/study1/view1_frontal.jpg", 30, "No Finding"))  # no such image
    odd(31, good, "scan.jpg", told=False)
    for path, data in files.items():
        place = FOLDER / RELEASE / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for name, rows in tables.items():
        with (FOLDER / RELEASE / f"{name}.csv").open("w", newline="") as out:
            writer = csv.DictWriter(out, HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
