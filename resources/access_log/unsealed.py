"""How much of a chain only this machine has: events that were written and are not sealed yet, and since when.

Belongs here: counting them as they are written and sealed, so that nobody who asks has to read a segment. Does not belong
here: writing (writer), sealing (sealing), the metrics made of it (api.telemetry).

A process counts its own chain. What a killed one left is sealed at the next start, and by the job `access_audit`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

NEVER = math.inf  # since when, where everything is sealed


class Unsealed:
    """Safe between the threads that write, seal and listen. Whoever listens is told of every change, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: dict[int, tuple[int, float]] = {}  # number -> events, Unix time of the first
        self._listener: Callable[[int, float], object] = lambda events, since: None

    def wrote(self, segment: int, events: int, at: float) -> None:
        with self._lock:
            before, since = self._segments.get(segment, (0, at))
            self._segments[segment] = (before + events, since)
            self._tell()

    def sealed_before(self, segment: int | None) -> None:
        """All segments before this one are in the lake; without one, all there are."""
        with self._lock:
            self._segments = {n: one for n, one in self._segments.items() if segment is not None and n >= segment}
            self._tell()

    def listen(self, listener: Callable[[int, float], object]) -> None:
        """`listener` gets the number of events and the time of the oldest (NEVER if there is none), now and after changes."""
        with self._lock:
            self._listener = listener
            self._tell()

    def _tell(self) -> None:
        counted = self._segments.values()
        self._listener(sum(events for events, _ in counted), min((since for _, since in counted), default=NEVER))
