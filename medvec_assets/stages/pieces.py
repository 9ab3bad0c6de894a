"""Records made in pieces, side by side in processes: where a partition is cut, and what a process asks of this one.

Belongs here: cutting, order, how many pieces wait, starting and ending processes. Does not belong here: what happens inside
one (piece_process), the rules for records (records stage).

Parsing and de-identification are Python, of which one process does one thing at a time. So each core has a process; a thread
here reads for it, lands for it, and keeps every secret but the pseudonym key, which goes through the pipe. Where pieces begin
and the order of what comes out do not depend on how many processes there are.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

import polars as pl

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import LandPayload, PayloadModality, ReadObject, Rejected, modality
from medvec_assets.stages import piece_process
from resources import child_process
from resources.errors import ObjectRejected, StorageError

PROGRAM = "medvec_assets.stages.piece_process"
BULK_OBJECTS = 4_096  # per call of a modality that has no pieces
PIECES_EACH = (
    8  # a process is started for so many: its imports take up to 10 s of a core (torch), and a piece about one
)
AHEAD = 2  # pieces given out for each process: it never waits, and what is made waits in memory for few
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")

Made = tuple[pl.DataFrame, list[Rejected]]
"""What `Modality.records` gives."""


def cut(objects: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """Pieces of about `size` rows that never cut a record (rows are sorted by record_ref)."""
    refs = objects["record_ref"]
    start = 0
    while start < objects.height:
        end = min(start + size, objects.height)
        while end < objects.height and refs[end] == refs[end - 1]:
            end += 1
        yield objects.slice(start, end - start)
        start = end


def records(
    name: str, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload, workers: int
) -> Generator[tuple[pl.DataFrame, Made]]:
    """(piece, what the modality called `name` makes of it), in order. `read` and `land` must be safe between threads.

    Close it, so that its processes end. Raises what `read`, `land` and the modality raise, and StorageError `process_ended`.
    """
    form = modality(name)
    count = min(workers, objects.height // (form.piece_objects * PIECES_EACH)) if form.piece_objects else 1
    pieces = cut(objects, form.piece_objects or BULK_OBJECTS)
    if count > 1:
        yield from side_by_side(name, pieces, read, pseudonyms, land, count)
        return
    for piece in pieces:
        if isinstance(form, PayloadModality):
            yield piece, form.records(piece, read, pseudonyms, land)
        else:
            yield piece, form.records(piece, read, pseudonyms)


def side_by_side(
    name: str, pieces: Iterator[pl.DataFrame], read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload, count: int
) -> Generator[tuple[pl.DataFrame, Made]]:
    """`records` by `count` processes."""
    idle: SimpleQueue[_Process] = SimpleQueue()
    started: list[_Process] = []

    def made(piece: pl.DataFrame) -> Made:
        process = idle.get()
        try:
            return process.records(piece, read, land)
        finally:
            idle.put(process)

    with ThreadPoolExecutor(count, "records") as pool:
        try:
            for _ in range(count):
                started.append(_Process(name, pseudonyms))
                idle.put(started[-1])
            given: deque[tuple[pl.DataFrame, Future[Made]]] = deque()
            for piece in pieces:
                given.append((piece, pool.submit(made, piece)))
                if len(given) > AHEAD * count:
                    first, future = given.popleft()
                    yield first, future.result()
            for first, future in given:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.end()  # a thread that waits for it is told, and the pool can end


class _Process:
    """One process of PROGRAM. It ends by itself when this one is gone, as its pipe then does."""

    def __init__(self, name: str, pseudonyms: Pseudonyms) -> None:
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
        self._send((name, pseudonyms))

    def records(self, piece: pl.DataFrame, read: ReadObject, land: LandPayload) -> Made:
        self._send(piece)
        while True:
            what, value = self._received()
            if what == "made":
                return value  # type: ignore[no-any-return]
            if what == "failed":
                raise value
            try:
                if what == "read":
                    self._answer(read, value)
                else:
                    with self._named_end():
                        data = piece_process.received(self._pipe, value)
                    self._send(land(data))
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

    @contextmanager
    def _named_end(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> StorageError:
        self.end()
        return StorageError(
            f"a process that makes records of modality {self._name} ended with exit status {self._process.returncode}; "
            "nothing was committed",
            remedy="if it was -9, the memory was full: lower MEDVEC_DECODE_WORKERS; with MEDVEC_DECODE_WORKERS=1 all is done "
            "in one process, and an object that ends it can be found",
            code="process_ended",
            retryable=True,
        )
