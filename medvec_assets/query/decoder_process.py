"""The process in which uploads are read: files on stdin, model inputs or refusals on stdout, nothing anywhere else.

Belongs here: the loop, its message format, and what the process is denied. Does not belong here: starting and ending it
(decoder), reading a file (uploads).

    in   one line of JSON {"kind", "bytes", "pixels"}, then so many bytes
    out  one line of JSON {} and the array's bytes, or {"code", "message", "remedy"}

It can write no file and leaves no core, so that a file that was sent cannot reach a disk even by a defect; it has no
setting and no key; what parsers print, which may quote a name, goes nowhere.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import BinaryIO

from medvec_assets.query import uploads
from resources.child_process import deny_files
from resources.errors import ObjectRejected

READY = b"ready\n"
MAX_MEMORY_BYTES = 12 << 30  # address space: libraries map 5 GB, the largest image that is let in takes 3


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    _load()
    deny_files()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    serve(sys.stdin.buffer, out)


def serve(asked: BinaryIO, out: BinaryIO) -> None:
    out.write(READY)
    out.flush()
    while line := asked.readline():
        request = json.loads(line)
        out.write(answer(request["kind"], asked.read(request["bytes"]), request["pixels"]))
        out.flush()


def answer(kind: str, data: bytes, max_pixels: int) -> bytes:
    try:
        return b"{}\n" + uploads.model_input(kind, data, max_pixels).tobytes()
    except ObjectRejected as refusal:
        told = {"code": refusal.code, "message": refusal.message, "remedy": refusal.remedy}
    except MemoryError:
        told = refused("dimensions_refused", "the object takes more memory to read than it may", "send a smaller image")
    except Exception:  # noqa: BLE001 - whatever a parser raises is the file's fault, and may quote it
        told = refused("decode_failed", "the object cannot be read", "export it again")
    return json.dumps(told).encode() + b"\n"


def refused(code: str, message: str, remedy: str) -> dict[str, str]:
    return {"code": code, "message": message, "remedy": remedy}


def _load() -> None:
    """What reading takes, before the first file waits for it."""
    import monai.transforms.intensity.array
    import nibabel.nifti1
    import PIL.Image
    import pydicom.pixels.decoders

    from medvec_assets.deid import dicom
    from medvec_assets.modalities import modality

    assert all((monai, nibabel, PIL, pydicom, dicom))
    for name in set(uploads.MEDIA_TYPES.values()):
        modality(name)


if __name__ == "__main__":
    main()
