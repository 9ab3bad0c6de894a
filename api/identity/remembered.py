"""A value that stands elsewhere: read again now and then, and believed only so long while it cannot be read.

Belongs here: when to read. Does not belong here: what (keys, tokens).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from resources.errors import MedvecError

T = TypeVar("T")
WAIT_SECONDS = 2.0
log = logging.getLogger("medvec.api")


class Remembered(Generic[T]):
    """`read` blocks, and raises MedvecError where it fails.

    One reading at a time, in one thread, that all who need it wait for: PyJWKClient would hold a thread of the pool for
    each of them, so that anybody with a made-up key id could fill the pool while an issuer is slow.
    """

    def __init__(
        self,
        read: Callable[[], T],
        *,
        pause_seconds: float,
        believed_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._pause = pause_seconds
        self._believed = believed_seconds
        self._clock = clock
        self._value: T | None = None
        self._read_at = self._tried_at = float("-inf")
        self.succeeded = False
        """Whether the last reading did."""
        self._reading: asyncio.Future[None] | None = None

    @property
    def value(self) -> T | None:
        """What was read last; None if that was too long ago."""
        return self._value if self.age_seconds <= self._believed else None

    @property
    def age_seconds(self) -> float:
        return self._clock() - self._read_at

    async def read_again(self) -> None:
        """Read, unless that was tried less than `pause_seconds` ago. A failure leaves what was read before, and so does a
        reading that takes longer than WAIT_SECONDS until it is done."""
        if self._reading is None:
            if self._clock() - self._tried_at < self._pause:
                return
            self._tried_at = self._clock()
            self._reading = asyncio.ensure_future(self._once())
        reading = self._reading
        await asyncio.wait({reading}, timeout=WAIT_SECONDS)  # one who leaves does not end it for the others
        if reading.done():
            reading.result()

    async def _once(self) -> None:
        try:
            began = self._clock()
            self._value = await run_in_threadpool(self._read)
            self._read_at, self.succeeded = began, True
        except MedvecError as error:
            self.succeeded = False
            log.warning("%s: %s", type(error).__name__, error.code)  # the message may name more than a log should
        finally:
            self._reading = None
