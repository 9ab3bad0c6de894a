"""A graceful end: after SIGTERM a worker says that it is not ready, goes on answering for a while, and then ends.

Belongs here: the time between a balancer's last request and the end. Does not belong here: finishing the requests that
are at work, which uvicorn does (api.server). Ctrl-C ends at once.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType
from typing import Any


class Drain:
    """`begun` from SIGTERM on; the server is told `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self.begun = False
        self._seconds = seconds

    def install(self) -> None:
        """Comes before the server's own handler, which is in place when an app's life begins. Nothing outside a main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        then: Any = signal.getsignal(signal.SIGTERM)
        if not callable(then):
            return

        def begin(number: int, frame: FrameType | None) -> None:
            self.begun = True
            loop.call_soon_threadsafe(loop.call_later, self._seconds, then, number, frame)

        signal.signal(signal.SIGTERM, begin)
