"""The process in which pieces of a partition become records: it reads and lands through its pipe alone.

Belongs here: the loop, its messages, and what the process is denied. Does not belong here: starting and ending it, reading
and landing (pieces).

    in   (modality, pseudonyms), then pieces; after a question its answer: bytes, a payload_uri, or an ObjectRejected
    out  ("read", uri), ("land", bytes), ("made", (records, rejected)), ("failed", error)

It can write no file and leaves no core: what it holds are identifiers. When the pipe ends, whoever asked is gone.
"""

from __future__ import annotations

import resource
import sys
import traceback
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from medvec_assets.modalities import PayloadModality, modality
from resources.errors import ObjectRejected


def main() -> None:
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    with suppress(EOFError, BrokenPipeError):
        serve(Connection(int(sys.argv[1])))


def serve(pipe: Connection[Any, Any]) -> None:
    name, pseudonyms = pipe.recv()
    form, read = modality(name), partial(_asked, pipe, "read")
    lands = {"land": partial(_asked, pipe, "land")} if isinstance(form, PayloadModality) else {}
    while True:
        piece = pipe.recv()
        try:
            answer: Any = "made", form.records(piece, read, pseudonyms, **lands)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asked
            error.add_note("in a process of its own:\n" + "".join(traceback.format_tb(error.__traceback__)))
            answer = "failed", error
        pipe.send(answer)


def _asked(pipe: Connection[Any, Any], what: str, value: str | bytes) -> Any:
    pipe.send((what, value))
    answer = pipe.recv()
    if isinstance(answer, ObjectRejected):
        raise answer
    return answer


if __name__ == "__main__":
    main()
