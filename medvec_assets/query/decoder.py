"""Uploads are read in processes that can be ended: how many, how long, and what becomes of a file that ends one.

Belongs here: places, processes, the time bound. Does not belong here: reading a file (uploads), what happens inside
(decoder_process), HTTP.

A thread that decodes cannot be stopped, and a decoder in C may run on for minutes, crash, or take the service's memory
along. So each file goes through a pipe to a process with its own limits, which is killed when its time is over and made
anew for the next file. What comes back is read as JSON and as pixels, never unpickled: a file may have taken it over.
"""

from __future__ import annotations

import hashlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from medvec_assets.query.decoder_process import READY, refused
from medvec_assets.query.search.question import Upload
from medvec_assets.query.uploads import INPUT_SHAPE
from resources import child_process
from resources.errors import Busy, ObjectRejected
from resources.settings import Settings

PROGRAM = "medvec_assets.query.decoder_process"
START_SECONDS = 120.0  # 6 s on a quiet machine, 13 without byte code, 40 at a load of 10: monai and torch
WAITING = 2  # bodies that may be held for each process, one of them being read
_MAX_LINE = 4_096
_BYTES = int(np.prod(INPUT_SHAPE))


class Decoder:
    """Safe between threads. Starts a process when the first file comes; close it at the end."""

    def __init__(self, settings: Settings, program: str = PROGRAM) -> None:
        self._seconds, self._max_pixels = settings.api_upload_seconds, settings.api_upload_pixels
        self._program = program
        self._places = threading.BoundedSemaphore(WAITING * settings.decode_threads)
        self._slots: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        self._count = settings.decode_threads
        for _ in range(self._count):
            self._slots.put(None)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Room for one file, from before its first byte is read. Raises Busy if there is none."""
        if not self._places.acquire(blocking=False):
            raise Busy("as many images as may be are being read", remedy="send it again in a moment")
        try:
            yield
        finally:
            self._places.release()

    def decode(self, kind: str, data: bytes) -> Upload:
        """The model input of a file. Raises ObjectRejected, also where reading it takes too long or ends its process, and
        Busy where no process is free in that time."""
        try:
            process = self._slots.get(timeout=self._seconds)
        except queue.Empty:
            raise Busy("all image readers are at work", remedy="send it again in a moment") from None
        try:
            if process is None or process.poll() is not None:
                process = self._started()
            header, pixels, is_late = self._exchanged(process, kind, data)
        finally:
            self._slots.put(process)
        if is_late:
            header = refused(
                "too_slow", f"the object takes longer than {self._seconds:g} s to read", "send a smaller image"
            )
        elif header is None:
            header = refused("decode_failed", "the object ends the process that reads it", "export it again")
        if header:
            raise ObjectRejected(header["message"], code=header["code"], remedy=header["remedy"])
        array = np.frombuffer(pixels, np.uint8).reshape(INPUT_SHAPE)
        return Upload(hashlib.sha256(data).hexdigest(), array)

    def close(self) -> None:
        for _ in range(self._count):
            with suppress(queue.Empty):
                if (process := self._slots.get(timeout=self._seconds)) is not None:
                    _end(process)

    def _exchanged(
        self, process: subprocess.Popen[bytes], kind: str, data: bytes
    ) -> tuple[dict[str, str] | None, bytes, bool]:
        """(what it said, the pixels, whether its time was over); None if it said nothing that is an answer."""
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._seconds, end)
        timer.start()
        try:
            asked = {"kind": kind, "bytes": len(data), "pixels": self._max_pixels}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            header = json.loads(process.stdout.readline(_MAX_LINE))
            pixels = b"" if header else process.stdout.read(_BYTES)
            if (header and header.keys() != refused("", "", "").keys()) or (not header and len(pixels) != _BYTES):
                raise ValueError("no answer")
            return header, pixels, False
        except (OSError, ValueError, AttributeError):
            _end(process)
            return None, b"", late.is_set()
        finally:
            timer.cancel()
            if late.is_set():  # perhaps just after it had answered: the next file must not be told of it
                _end(process)

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=child_process.environment(),
        )
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        try:
            if process.stdout.readline(_MAX_LINE) != READY:
                _end(process)
                raise Busy("the process that reads images does not start", remedy="run medvec doctor")
        finally:
            timer.cancel()
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written yet
                pipe.close()
