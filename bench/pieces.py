"""Does the records stage scale over cores: reading, de-identifying and decoding, by one process and by two.

    python -m bench.pieces [--rounds N] [--kinds K ...] [--json]

`one` is what MEDVEC_DECODE_WORKERS=1 does, in this process; `two` are `pieces.side_by_side`'s processes, which have done a
first lot before the clock starts, so that their imports do not count. They take turns. Rates by the clock ask for an idle
machine: on one that others use, two get little more than one; so the processor time per object of two over that of one is
told too (`cpu`), and what of the two's is this process's own (`parent`: it reads, lands and joins, and is what ends scaling at
1 / parent times). Objects lie in memory and payloads go nowhere. DICOM, PNG, JPEG and NIfTI are bench.decode's (closed, so that
payloads are made), notes those of bench.note_texts, expression tables those of bench.expression, runs those of
bench.sequencing.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench import decode, expression
from bench.note_texts import FIRST, labelled
from bench.sequencing import LICENSE, fastq
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import modality
from medvec_assets.stages import pieces

KEYS = Pseudonyms(b"k" * 32, "bench")
MODALITIES = {
    "dicom": "imaging",
    "dicom_jpeg2000": "imaging",
    "png": "raster",
    "jpeg": "raster",
    "nifti": "volume",
    "notes": "notes",
    "expression": "expression",
    "runs": "sequencing",
}
_TICKS = os.sysconf("SC_CLK_TCK")


def objects_of(kind: str) -> list[bytes]:
    if kind == "notes":
        texts = [one.text for one in labelled(FIRST, 96)]
        return [json.dumps({"note_type": "DS", "text": text}).encode() for text in texts]
    if kind == "expression":
        return expression.files(32, expression.GDC_GENES)
    if kind == "runs":
        bases = np.random.default_rng(1).integers(0, 4, 3_000_000)
        return [gzip.compress(fastq(f"SRR{n:06}", bases, 1, n, 20_000), 6) for n in range(16)]
    return decode.files_of(kind)


def listed(count: int, kind: str) -> pl.DataFrame:
    """Manifest rows whose URI is the number of their object, each a record of its own."""
    names = [f"{number:06d}" for number in range(count)]
    tier = "open" if kind == "runs" else "registered"
    same = {"cohort": "bench", "license": LICENSE, "access_tier": tier, "attributes": "{}"}
    return pl.DataFrame({"object_id": names, "record_ref": names, "subject_ref": names, "uri": names}).with_columns(
        **{name: pl.lit(value) for name, value in same.items()}
    )


def landed(data: bytes) -> str:
    return "payload/bench/none"


def by_one(form: Any, rows: pl.DataFrame, read: Callable[[str], bytes], size: int) -> tuple[float, float]:
    """Clock and processor seconds."""
    land = {"land": landed} if hasattr(form, "payload_media_type") else {}
    clock, processor = time.perf_counter(), time.process_time()
    for piece in pieces.cut(rows, size):
        _, rejected = form.records(piece, read, KEYS, **land)
        assert not rejected, rejected[0].code
    return time.perf_counter() - clock, time.process_time() - processor


def _children() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def _seconds(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def measured(kind: str, rounds: int) -> dict[str, Any]:
    data, name = objects_of(kind), MODALITIES[kind]
    form, rows = modality(name), listed(len(data), kind)
    size = max(1, min(form.piece_objects, len(data) // 8))
    gates = [threading.Event() for _ in range(rounds + 1)]  # the first lot warms up; while `one` is at work, `two` wait
    lots = [
        list(pieces.cut(rows.with_columns(uri=pl.format("{}.{}", "uri", pl.lit(lot))), size))
        for lot in range(rounds + 1)
    ]

    def gated(uri: str) -> bytes:
        number, lot = uri.split(".")
        gates[int(lot)].wait()
        return data[int(number)]

    one: list[tuple[float, float]] = []
    two: list[tuple[float, float, float]] = []
    others, began = _children(), (0.0, 0.0, 0.0)
    by_one(form, rows, lambda uri: data[int(uri)], size)  # imports
    gates[0].set()
    with closing(pieces.side_by_side(name, chain(*lots), gated, KEYS, landed, 2)) as made:
        for number, (_, (_, rejected)) in enumerate(made, 1):
            assert not rejected, rejected[0].code
            lot, left = divmod(number, len(lots[0]))
            if left:
                continue
            if lot > 1:
                two.append(_since(began, others))
            if lot <= rounds:
                one.append(by_one(form, rows, lambda uri: data[int(uri)], size))
                began = _since((0, 0, 0), others)
                gates[lot].set()
    clock, processor = (statistics.median(found[at] for found in one) for at in (0, 1))
    clocks, processors, own = (statistics.median(found[at] for found in two) for at in (0, 1, 2))
    return {
        "objects": len(data),
        "one_per_second": round(len(data) / clock, 1),
        "two_per_second": round(len(data) / clocks, 1),
        "two_over_one": round(clock / clocks, 2),
        "cpu_ms": round(1_000 * processor / len(data), 2),
        "cpu": round(processors / processor, 2),
        "parent": round(own / processors, 3),
    }


def _since(began: tuple[float, float, float], others: set[str]) -> tuple[float, float, float]:
    """Clock seconds, processor seconds of all processes but `others`, and of this one."""
    own = time.process_time()
    now = time.perf_counter(), own + sum(map(_seconds, _children() - others)), own
    return now[0] - began[0], now[1] - began[1], now[2] - began[2]


if __name__ == "__main__":
    decode.told("records by one process and by two", list(MODALITIES), measured, rounds=5)
