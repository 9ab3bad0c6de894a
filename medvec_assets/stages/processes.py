"""Processes that work for a stage: one for each core, each asked by a thread of this process.

Belongs here: starting, asking and ending them, and what they ask of this one. Does not belong here: what happens inside
(piece_process), who gives them what (pieces, encoding).

A thread here reads for its process, lands for it, and keeps every secret but the pseudonym key, which goes through the pipe.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any, Self

import polars as pl

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import LandPayload, ReadObject, Rejected
from medvec_assets.stages import piece_process
from resources import child_process
from resources.errors import ObjectRejected, StorageError

PROGRAM = "medvec_assets.stages.piece_process"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")

Made = tuple[pl.DataFrame, list[Rejected]]
"""What `Modality.records` gives."""


class Processes:
    """`count` processes of one modality. Every method may be called by as many threads at once.

    Methods raise what `read`, `land` and the modality raise, and StorageError `process_ended`."""

    def __init__(self, name: str, count: int, pseudonyms: Pseudonyms | None = None, niceness: int = 0) -> None:
        self._name, self._count, self._pseudonyms, self._niceness = name, count, pseudonyms, niceness
        self._started: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._started.append(_Process(self._name, self._pseudonyms, self._niceness))
                self._idle.put(self._started[-1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.end()

    def records(self, piece: pl.DataFrame, read: ReadObject, land: LandPayload) -> Made:
        """What the modality's `records` makes of manifest rows. Asks for `pseudonyms`."""
        made: Made = self._asked(("records", piece), read, land)
        return made

    def inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[Any | Rejected]:
        """The modality's `model_inputs`."""
        made: Sequence[Any | Rejected] = self._asked(("inputs", records, space), read, None)
        return made

    def _asked(self, task: tuple[Any, ...], read: ReadObject, land: LandPayload | None) -> Any:
        process = self._idle.get()
        try:
            return process.asked(task, read, land)
        finally:
            self._idle.put(process)


class _Process:
    """One process of PROGRAM. It ends by itself when this one is gone, as its pipe then does."""

    def __init__(self, name: str, pseudonyms: Pseudonyms | None, niceness: int) -> None:
        self._name = name
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what parsers print may quote a name
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=child_process.environment() | _ONE_THREAD,
            )
        if niceness:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
        self._send((name, pseudonyms))

    def asked(self, task: tuple[Any, ...], read: ReadObject, land: LandPayload | None) -> Any:
        self._send(task)
        while True:
            what, value = self._received()
            if what == "made":
                return pickle.loads(self._bytes(value))
            if what == "failed":
                raise value
            try:
                if what == "read":
                    self._answer(read, value)
                else:
                    assert land is not None  # nothing is landed for a model input
                    self._send(land(self._bytes(value)))
            except BaseException:
                self.end()  # it waits for an answer: the next piece would be taken for one
                raise

    def _answer(self, read: ReadObject, uri: str) -> None:
        try:
            data = read(uri)
        except ObjectRejected as refusal:
            self._send(refusal)
            return
        self._send(len(data))
        with self._named_end():
            piece_process.send(self._pipe, data)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _send(self, value: Any) -> None:
        with self._named_end():
            self._pipe.send(value)

    def _received(self) -> Any:
        with self._named_end():
            return self._pipe.recv()

    def _bytes(self, size: int) -> bytes:
        with self._named_end():
            return piece_process.received(self._pipe, size)

    @contextmanager
    def _named_end(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> StorageError:
        self.end()
        return StorageError(
            f"a process that works on modality {self._name} ended with exit status {self._process.returncode}; "
            "nothing was committed",
            remedy="if it was -9, the memory was full: lower MEDVEC_DECODE_WORKERS; with MEDVEC_DECODE_WORKERS=1 all is done "
            "in one process, and an object that ends it can be found",
            code="process_ended",
            retryable=True,
        )
