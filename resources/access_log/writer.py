"""One process' chain of events: one thread writes, one sync serves all who wait at that moment.

Belongs here: order, durability, and what happens when the disk refuses. Does not belong here: what an event says, sealing.

An event is durable (O_DSYNC: a write and its fdatasync in one) before its future is done. The head record is written after
it and not synced: should the machine lose power, the head may lag behind the chain, and a head that lags accuses nobody.
After a failed write the file is cut back to its last good byte before the next one, so a chain goes on where it stood; the
next event that can be written is then preceded by `resumed`, which counts the answers that were refused for want of one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from resources.access_log.events import GENESIS, Event, Receipt, encode
from resources.access_log.keys import Keys
from resources.access_log.places import HEAD, Place, head_record, sync_folder
from resources.access_log.unsealed import Unsealed
from resources.errors import AuditUnavailable

ROTATE_BYTES = 8 << 20
ROTATE_SECONDS = 3_600.0
MAX_BATCH = 1_000
CLOSE_SECONDS = 10.0
log = logging.getLogger("medvec.access_log")


class _Waiting(NamedTuple):
    """Somebody who waits for an event to be durable; without an event, for what could not be written to go through."""

    event: Event | None
    future: asyncio.Future[Any] | Future[Any]
    loop: asyncio.AbstractEventLoop | None

    def is_wanted(self) -> bool:
        """False if nobody waits any more. A future of a thread cannot be cancelled after this; a loop's may be."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()


_Outcome = tuple[_Waiting, Receipt | AuditUnavailable | None]


class Writer:
    """The chain of this process. `closed_one` is called, in the writer's thread, when a segment is complete.

    Raises AuditUnavailable from the constructor, and from every future, when the disk refuses.
    """

    def __init__(
        self,
        place: Place,
        keys: Keys,
        *,
        closed_one: Callable[[], None] = lambda: None,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_seconds: float = ROTATE_SECONDS,
    ) -> None:
        self._place, self._keys, self._closed_one = place, keys, closed_one
        self._rotate_bytes, self._rotate_seconds = rotate_bytes, rotate_seconds
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._sequence, self._hash = -1, GENESIS
        self._size, self._torn, self._unwritten = 0, False, 0
        self._failure = ""
        self.unsealed = Unsealed()
        self._files = ExitStack()
        try:
            self.name = place.new_writer()
            self._files.enter_context(place.held(self.name, wait=True))
            self._head = os.open(place.folder / self.name / HEAD, os.O_CREAT | os.O_WRONLY, 0o600)
            self._files.callback(os.close, self._head)
            self._open_segment(0)
            sync_folder(place.folder)
        except OSError as error:
            self._files.close()
            raise _unavailable(error) from error
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()
        self.submit(Event(kind="opened", note={"place": place.id, "pid": os.getpid()})).result()

    def submit(self, event: Event) -> Future[Receipt]:
        """Done once the event is durable. Cancelled before it is written, it is not written."""
        return self._enqueue(event)

    def submit_from(self, loop: asyncio.AbstractEventLoop, event: Event) -> asyncio.Future[Receipt]:
        """The same for a coroutine of `loop`, which is woken once for all of its events that share a sync."""
        future: asyncio.Future[Receipt] = loop.create_future()
        self._queue.put(_Waiting(event, future, loop))
        return future

    def _enqueue(self, event: Event | None) -> Future[Any]:
        future: Future[Any] = Future()
        self._queue.put(_Waiting(event, future, None))
        return future

    def check(self, seconds: float) -> None:
        """Raises AuditUnavailable while events cannot be written; tries again where they could not."""
        try:
            self._enqueue(None).result(seconds)
        except FutureTimeout:
            raise _unavailable(None) from None

    def close(self) -> None:
        """Write `closed`, which says that the chain is whole, and let go of the files."""
        try:
            self.submit(Event(kind="closed")).result(CLOSE_SECONDS)
        except (AuditUnavailable, FutureTimeout):
            log.warning("the access log could not be closed: it is told as killed")
        finally:
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)
            os.close(self._segment)
            self._files.close()

    # ------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch is None:
                return
            if batch:
                self._write(batch)
            if self._is_due():
                self._rotate()

    def _take(self) -> list[_Waiting] | None:
        """All that wait now; empty when it is time to look at the segment's age; None at the end."""
        batch: list[_Waiting] = []
        try:
            one: _Waiting | None = self._queue.get(timeout=self._rotate_seconds)
            while one is not None:
                batch.append(one)
                if len(batch) == MAX_BATCH:
                    break
                one = self._queue.get_nowait()
            else:
                if not batch:
                    return None
                self._queue.put(None)  # the end comes after what waited before it
        except queue.Empty:
            pass
        return batch

    def _write(self, batch: list[_Waiting]) -> None:
        wanted = [one for one in batch if one.is_wanted()]
        self._unwritten += len(batch) - len(wanted)
        if not wanted:
            return
        sequence, link, lines = self._sequence, self._hash, bytearray()
        outcomes: list[_Outcome] = []
        if self._unwritten:
            wanted.insert(0, _Waiting(Event(kind="resumed", note={"unwritten": self._unwritten}), Future(), None))
        for one in wanted:
            receipt = None
            if one.event is not None:
                line, receipt = encode(one.event, self.name, sequence + 1, link, self._keys)
                lines += line
                sequence, link = receipt.sequence, receipt.hash
            outcomes.append((one, receipt))
        try:
            if lines:
                self._append(lines, head_record(self.name, sequence, link, self._keys))
        except OSError as error:
            answers = [one for one in wanted if one.event is not None and one.event.kind != "resumed"]
            self._unwritten += len(answers)
            self._fail(error, wanted)
            return
        if written := sequence - self._sequence:
            self.unsealed.wrote(self.segment, written, time.time())
        self._sequence, self._hash, self._failure, self._unwritten = sequence, link, "", 0
        _settle(outcomes)

    def _append(self, lines: bytearray, head: bytes) -> None:
        if self._torn:
            os.ftruncate(self._segment, self._size)
        self._torn = True
        write_durably(self._segment, lines)
        os.pwrite(self._head, head, 0)
        self._torn = False
        self._size += len(lines)

    def _fail(self, error: OSError, waiting: list[_Waiting]) -> None:
        if not self._failure:
            log.error("an event of the access log cannot be written (%s): nothing is answered", type(error).__name__)
        self._failure = type(error).__name__
        _settle([(one, _unavailable(error)) for one in waiting])

    # ------------------------------------------------------------ segments

    def _open_segment(self, number: int) -> None:
        path = self._place.segment(self.name, number)
        # Not exclusive: a try that failed may have left an empty file of this name.
        opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_DSYNC, 0o600)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(opened)
            raise
        self._segment, self.segment, self._size, self._opened = opened, number, 0, time.monotonic()

    def _is_due(self) -> bool:
        """Also after the very first event, which makes the writer known to the lake as soon as it is sealed."""
        if self._torn or not self._size:
            return False
        old = time.monotonic() - self._opened >= self._rotate_seconds
        return old or self._size >= self._rotate_bytes or self.segment == 0

    def _rotate(self) -> None:
        before = self._segment
        try:
            self._open_segment(self.segment + 1)
        except OSError as error:
            log.warning(
                "a new segment of the access log cannot be begun (%s): the old one goes on", type(error).__name__
            )
            return
        os.close(before)
        self._closed_one()


def write_durably(descriptor: int, data: bytearray) -> None:
    """All of `data` to a descriptor that was opened with O_DSYNC: when this returns it is on the disk."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _settle(outcomes: list[_Outcome]) -> None:
    """Each loop is woken once: waking it per event would hand Python's lock to and fro as often."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for one in outcomes:
        if (loop := one[0].loop) is None:
            _set([one])
        else:
            by_loop.setdefault(loop, []).append(one)
    for loop, theirs in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_set, theirs)


def _set(outcomes: list[_Outcome]) -> None:
    for waiting, outcome in outcomes:
        if waiting.future.done():
            continue
        if isinstance(outcome, AuditUnavailable):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)


def _unavailable(error: OSError | None) -> AuditUnavailable:
    why = f" ({type(error).__name__}, errno {error.errno})" if error is not None else ""
    return AuditUnavailable(
        f"the access log cannot be written{why}, and what is not recorded is not answered",
        remedy="free space on, or mend, the disk of MEDVEC_HOME; the service goes on by itself",
    )
