"""The threads in which routes that block run.

Belongs here: handing a call over and its result back. Does not belong here: which routes block (served), how many requests
are at work (load).

By hand, as concurrent.futures and asyncio make two futures for a call and take four locks, three of them in Python; here it
is one future and a queue in C.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Call(NamedTuple):
    work: Callable[[], Any]
    context: Context
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Threads:
    """At most `number` of them, begun as they are needed, until `close`. `run` is for one event loop at a time."""

    def __init__(self, number: int) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._number = number
        self._threads: list[threading.Thread] = []
        self._calls = 0  # handed over and not back yet; counted in the loop alone

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises, in the caller's context."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls += 1
        if len(self._threads) < min(self._calls, self._number):
            name = f"route_{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()
        self._queue.put(_Call(work, copy_context(), future, loop))
        return await future

    def close(self) -> None:
        """Ends when what is at work has ended."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            error: BaseException | None = None
            result = None
            try:
                result = call.context.run(call.work)
            except StopIteration as raised:  # which no future takes
                error = RuntimeError("a route ended in StopIteration")
                error.__cause__ = raised
            except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                call.loop.call_soon_threadsafe(self._settle, call.future, result, error)
            del call, result, error  # not to be kept until the next call

    def _settle(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._calls -= 1
        if future.done():  # cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
