"""The index as the service sees it: opened when first needed, closed at the end, and left alone while it does not answer.

Belongs here: the circuit breaker, and opening again after an embedded server died. Does not belong here: what is asked.

    closed     calls pass; FAILURES of them in a row that found no index open the door's circuit
    open       calls are refused at once, so that no thread waits for a timeout; readiness says so
    half open  after REST_SECONDS one call is let through: it closes the circuit, or opens it again

By hand, as pybreaker holds its lock while a call runs (one search at a time), and circuitbreaker lets everybody through
when half open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from resources.errors import IndexUnavailable
from resources.settings import Settings
from resources.tracing import span

if TYPE_CHECKING:
    from resources.vector_index import VectorIndex

OpenIndex = Callable[[Settings], "AbstractContextManager[VectorIndex]"]

FAILURES = 3
REST_SECONDS = 2.0  # a Milvus that was killed is back in 10 to 20 s: it is asked a few times in between


class Breaker:
    """Counts failures in a row. Safe to share between threads; holds its lock only to count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_again_at = 0.0
        self.on_change: Callable[[bool], object] = lambda is_open: None

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES

    def enter(self) -> None:
        """Raises IndexUnavailable while the circuit is open. Whoever comes first after the rest is let through."""
        with self._lock:
            if not self.is_open:
                return
            if self._clock() < self._closed_again_at:
                raise IndexUnavailable(
                    "the vector index did not answer just now and is left alone for a moment",
                    remedy="ask again in a few seconds; if this stays, run medvec doctor",
                    code="index_resting",
                )
            self._closed_again_at = self._clock() + REST_SECONDS  # the others wait for this one

    def succeeded(self) -> None:
        with self._lock:
            was_open, self._failures = self.is_open, 0
        if was_open:
            self.on_change(False)

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            self._closed_again_at = self._clock() + REST_SECONDS
            just_opened = self._failures == FAILURES
        if just_opened:
            self.on_change(True)


class IndexDoor:
    """Has the methods of VectorIndex, each behind one breaker. Raises IndexUnavailable where there is no index.

    Connections stay open until `close`, for another thread may still use one whose server has died.
    """

    def __init__(self, settings: Settings, open_index: OpenIndex) -> None:
        self._settings = settings
        self._open_index = open_index
        self._opening = threading.Lock()
        self._opened = ExitStack()
        self._index: VectorIndex | None = None
        self.breaker = Breaker()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def through(*args: Any, **named: Any) -> Any:
            self.breaker.enter()
            try:
                with span(f"index.{name}"):
                    answer = getattr(self._current(), name)(*args, **named)
            except IndexUnavailable as error:
                self.breaker.failed()
                self._forget_dead()
                raise error
            except Exception:
                self.breaker.succeeded()  # it answered, if only to refuse
                raise
            self.breaker.succeeded()
            return answer

        return through

    def close(self) -> None:
        self._opened.close()

    def _current(self) -> VectorIndex:
        with self._opening:
            if self._index is None:
                self._index = self._opened.enter_context(self._open_index(self._settings))
            return self._index

    def _forget_dead(self) -> None:
        """A server of our own that died is started again by the next who opens; another's comes back by itself."""
        with self._opening:
            if self._index is not None and not self._index.is_alive():
                self._index = None
