"""`python -m bench.deid`: de-identified files per second over a bare pydicom read and write of the same files.

The files are the real ones in pydicom's packages that can be de-identified, in memory, each done in turn by both, so that
what else the machine does weighs on both. Text in pixels is not looked for: that is half a second a picture and more, and
no part of reading and writing. Also counted: the elements that are kept and removed on these files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread

from medvec_assets.deid.dicom import deidentify, objects
from medvec_assets.deid.pseudonyms import Pseudonyms
from resources.encoders.weights import package_folder
from resources.errors import ObjectRejected

KEYS = Pseudonyms(b"k" * 32, "bench")


def files() -> dict[str, bytes]:
    folders = (package_folder("pydicom", "data/test_files"), package_folder("data_store", "data"))
    return {path.name: path.read_bytes() for folder in folders for path in sorted(Path(folder).glob("*.dcm"))}


def bare(data: bytes) -> bytes:
    out = BytesIO()
    dcmread(BytesIO(data)).save_as(out)
    return out.getvalue()


def seconds(work: Callable[[bytes], Any], data: bytes) -> float:
    started = time.process_time()
    work(data)
    return time.process_time() - started


def measure(rounds: int) -> dict[str, Any]:
    """Processor seconds, the least of some rounds for each file, summed over the files."""
    objects.may_show_text = lambda *_: False
    outcomes: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    usable = {}
    for name, data in files().items():
        try:
            copy = deidentify(data, KEYS)
            bare(data)
        except ObjectRejected as refusal:
            outcomes[refusal.code] += 1
        except TypeError:  # pydicom 3.0 cannot write SC_rgb_jpeg.dcm back
            outcomes["not_written_by_pydicom"] += 1
        else:
            actions.update(copy.actions)
            usable[name] = data
    ours = theirs = 0.0
    for data in usable.values():
        pairs = [(seconds(bare, data), seconds(lambda one: deidentify(one, KEYS), data)) for _ in range(rounds)]
        theirs += min(pair[0] for pair in pairs)
        ours += min(pair[1] for pair in pairs)
    return {
        "files": len(usable),
        "megabytes": round(sum(map(len, usable.values())) / 1e6, 1),
        "bare_processor_seconds": round(theirs, 4),
        "deid_processor_seconds": round(ours, 4),
        "ratio": round(theirs / ours, 3),
        "refused": dict(outcomes),
        "actions": dict(sorted(actions.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="De-identification over a bare read and write")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
