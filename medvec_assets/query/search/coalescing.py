"""Concurrent calls with equal parameters become one: what comes while a call is in flight goes together in the next.

Belongs here: the batcher. Does not belong here: what is called (engine).

Nobody waits for company: the first caller calls at once, alone. Whoever comes meanwhile queues, and when the call ends
the first of the queue takes all of it along, up to `most` items. So one busy call's length is the only delay there is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any


@dataclass(eq=False)
class _Waiting:
    items: Sequence[Any]
    woken: SimpleQueue[None] = field(
        default_factory=SimpleQueue
    )  # an Event in C: one lock to hand over instead of three
    leads: bool = False
    results: Sequence[Any] = ()
    together: int = 0
    error: BaseException | None = None


class Coalescer:
    """Safe between threads. Calls of different keys never wait for each other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._queues: dict[Hashable, deque[_Waiting]] = {}  # of the keys for which a call is in flight

    def ask(
        self, key: Hashable, items: Sequence[Any], call: Callable[[list[Any]], Sequence[Any]]
    ) -> tuple[list[Any], int]:
        """The result of each of `items`, in order, and how many items went in the same call.

        `call` answers each item by itself, whatever else is in the list; for equal keys it does not matter whose is
        used. What it raises, everybody who went along raises.
        """
        mine = _Waiting(items)
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
            else:
                queue.append(mine)
        if queue is not None:
            mine.woken.get()
        if queue is None or mine.leads:
            self._lead(key, mine, call)
        if mine.error is not None:
            raise mine.error
        return list(mine.results), mine.together

    def _lead(self, key: Hashable, mine: _Waiting, call: Callable[[list[Any]], Sequence[Any]]) -> None:
        batch = self._with_others(key, mine)
        items = [item for one in batch for item in one.items]
        try:
            results = call(items)
            start = 0
            for one in batch:
                one.results, one.together = results[start : start + len(one.items)], len(items)
                start += len(one.items)
        except BaseException as error:  # noqa: BLE001 - raised again by everybody who waits for it
            for one in batch:
                one.error = error
        finally:
            self._pass_on(key)
            for one in batch:
                one.woken.put(None)

    def _with_others(self, key: Hashable, mine: _Waiting) -> list[_Waiting]:
        batch, size = [mine], len(mine.items)
        with self._lock:
            queue = self._queues[key]
            while queue and size + len(queue[0].items) <= self._most:
                batch.append(queue.popleft())
                size += len(batch[-1].items)
        return batch

    def _pass_on(self, key: Hashable) -> None:
        """Let the first who waits lead the next call."""
        with self._lock:
            queue = self._queues[key]
            if queue:
                following = queue.popleft()
                following.leads = True
                following.woken.put(None)
            else:
                del self._queues[key]
