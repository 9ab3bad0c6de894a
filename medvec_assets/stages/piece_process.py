"""The process in which pieces of a partition become records or model inputs: it reads and lands through its pipe alone.

Belongs here: the loop, its messages, and what the process is denied. Does not belong here: starting and ending it, reading
and landing (processes).

    in   (modality, pseudonyms or none), then ("records", manifest rows) or ("inputs", records, space); after a question its
         answer: a payload_uri, an ObjectRejected, or a number of bytes and then these
    out  ("read", uri), ("land", number of bytes) and then these, ("made", number of bytes) and then these, pickled,
         ("failed", error)

It can write no file and leaves no core: what it holds are identifiers. When the pipe ends, whoever asked is gone.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from medvec_assets.modalities import make_records, modality
from resources.child_process import deny_files
from resources.encoders.runtime import keep_memory
from resources.errors import ObjectRejected


def main() -> None:
    deny_files()
    keep_memory()  # a run of sequencing takes 1.4 times as long without: arrays of its size go back to the kernel
    with suppress(EOFError, BrokenPipeError):
        serve(Connection(int(sys.argv[1])))


def serve(pipe: Connection[Any, Any]) -> None:
    name, pseudonyms = pipe.recv()
    form, read, land = modality(name), partial(_read, pipe), partial(_land, pipe)
    makes: dict[str, Callable[..., Any]] = {
        "records": lambda piece: make_records(form, piece, read, pseudonyms, land),
        "inputs": lambda records, space: form.model_inputs(records, space, read),
    }
    while True:
        what, *given = pipe.recv()
        try:
            made = pickle.dumps(makes[what](*given), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asked
            error.add_note("in a process of its own:\n" + "".join(traceback.format_tb(error.__traceback__)))
            pipe.send(("failed", error))
        else:
            pipe.send(("made", len(made)))
            send(pipe, made)


def _read(pipe: Connection[Any, Any], uri: str) -> bytes:
    pipe.send(("read", uri))
    answer = pipe.recv()
    if isinstance(answer, ObjectRejected):
        raise answer
    return received(pipe, answer)


def _land(pipe: Connection[Any, Any], data: bytes) -> str:
    pipe.send(("land", len(data)))
    send(pipe, data)
    uri: str = pipe.recv()
    return uri


def send(pipe: Connection[Any, Any], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def received(pipe: Connection[Any, Any], size: int) -> bytes:
    """The next `size` bytes, in an eighth of the time that `Connection.recv` takes: it makes room for all of them anew at
    each read (0.5 ms for 4 MB, and 4)."""
    data, filled = bytearray(size), 0
    with memoryview(data) as room:
        while filled < size:
            count = os.readv(pipe.fileno(), [room[filled:]])
            if not count:
                raise EOFError
            filled += count
    return bytes(data)


if __name__ == "__main__":
    main()
