"""The log of one running service: its writer, and a thread that seals what is complete.

Belongs here: when to seal: at start what others left, when a segment is complete, at the end. Does not belong here: how.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from resources.access_log import sealing
from resources.access_log.events import Event, Receipt
from resources.access_log.keys import Keys
from resources.access_log.places import Place
from resources.access_log.unsealed import Unsealed
from resources.access_log.writer import Writer
from resources.errors import MedvecError
from resources.settings import Settings

RETRY_SECONDS = 60.0
SETTLE_SECONDS = 1.0  # the first requests after a start are not to wait for the processor beside a commit
log = logging.getLogger("medvec.access_log")


class AccessLog:
    """Open from its making until `close`. Raises AuditUnavailable where events cannot be written at all."""

    def __init__(self, settings: Settings) -> None:
        self.keys, self.budget_seconds = Keys.of(settings), settings.access_budget_ms / 1_000
        self._settings, self._place = settings, Place.of(settings)
        self._due, self._ending = threading.Event(), threading.Event()
        self.writer = Writer(self._place, self.keys, closed_one=self._due.set)
        self._sealer = threading.Thread(target=self._run, name="access-log-sealer", daemon=True)
        self._sealer.start()

    def submit(self, event: Event) -> asyncio.Future[Receipt]:
        """Called in a coroutine; done once the event is durable."""
        return self.writer.submit_from(asyncio.get_running_loop(), event)

    @property
    def unsealed(self) -> Unsealed:
        return self.writer.unsealed

    def check(self) -> None:
        """Raises AuditUnavailable while events cannot be written."""
        self.writer.check(self.budget_seconds)

    def close(self) -> None:
        """End the chain and seal it; what the lake does not take now, the next start seals."""
        self._ending.set()
        self._due.set()
        self._sealer.join()
        self.writer.close()
        self._seal(None)

    def _run(self) -> None:
        sealed = True
        while True:
            self._due.wait(None if sealed else RETRY_SECONDS)
            if self._ending.wait(SETTLE_SECONDS):
                return
            self._due.clear()
            sealed = self._seal((self.writer.name, self.writer.segment))

    def _seal(self, own: tuple[str, int] | None) -> bool:
        try:
            for one in sealing.seal(sealing.archive(self._settings), self._place, self.keys, own):
                log.info(
                    "sealed %d events of the access log (%s%s)", one.events, one.writer, one.ended and f", {one.ended}"
                )
        except MedvecError as error:
            log.warning("the access log is not sealed yet: %s", error.code)
            return False
        self.unsealed.sealed_before(None if own is None else own[1])
        return True
