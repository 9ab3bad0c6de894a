"""Moving windows in this process' memory, in the form of those of the package limits.

Belongs here: counting. Does not belong here: what is counted (limits).

By hand, as limits' own memory starts a thread up to 100 times a second while it is hit, each of which copies all windows,
of up to 100,000 entries: about 0.25 ms of processor time a request with few in them. What comes within a window's STEPS-th
part is counted together and forgotten together, when the last of it is old enough: a little late, so that no window ever
holds more than its limit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from limits import RateLimitItem
from limits.util import WindowStats

STEPS = 100
SWEEP_SECONDS = 60.0


@dataclass
class _Window:
    counted: deque[list[float]] = field(
        default_factory=deque
    )  # [when its step ends and is forgotten, how many], by time
    total: int = 0

    def forget(self, now: float) -> None:
        while self.counted and self.counted[0][0] <= now:
            self.total -= int(self.counted.popleft()[1])


class Windows:
    """Safe between threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, ...], _Window] = {}
        self._swept_at = clock()

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Count `cost`, if it fits into what is left."""
        now, seconds = self._clock(), item.get_expiry()
        step = seconds / STEPS
        with self._lock:
            self._sweep(now)
            window = self._windows.setdefault(identifiers, _Window())
            window.forget(now)
            if window.total + cost > item.amount:
                return False
            until = (now // step + 1) * step + seconds
            if not window.counted or window.counted[-1][0] < until:
                window.counted.append([until, 0])
            window.counted[-1][1] += cost
            window.total += cost
            return True

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """When the oldest of what was counted is forgotten, and how much is left."""
        now = self._clock()
        with self._lock:
            window = self._windows.get(identifiers, _Window())
            window.forget(now)
            return WindowStats(window.counted[0][0] if window.counted else now, item.amount - window.total)

    def _sweep(self, now: float) -> None:
        """Drop the windows of those who have not come for long."""
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for window in self._windows.values():
            window.forget(now)
        self._windows = {name: window for name, window in self._windows.items() if window.total}
