"""What the daily look for harvesting found last, for the metrics.

Belongs here: reading it when somebody scrapes, without letting a lake that does not answer hold the scrape up. Does not
belong here: looking (query.harvesting, by the job `access_audit`), the numbers' names (telemetry).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from medvec_assets.query.harvesting import Look, last_look
from resources import tables
from resources.errors import MedvecError
from resources.lakehouse import Lakehouse, Snapshot

WAIT_SECONDS = 0.5  # for the lake; later, the numbers of before are told, with their time
log = logging.getLogger("medvec.api")


class LastLook:
    """Of the lake that `lake` opens; `told` is called with a look that was not known yet."""

    def __init__(self, lake: Callable[[], Lakehouse], told: Callable[[Look], object]) -> None:
        self._lake, self._told = lake, told
        self._reading = threading.Lock()
        self._known: Snapshot | None = None

    def refresh(self) -> None:
        """Read it again, for WAIT_SECONDS at most; one thread at a time reads, whatever it takes."""
        if self._reading.acquire(blocking=False):
            reader = threading.Thread(target=self._read, name="last-look", daemon=True)
            reader.start()
            reader.join(WAIT_SECONDS)

    def _read(self) -> None:
        try:
            snapshot = self._lake().snapshot(tables.harvesting())
            if snapshot is not self._known and (look := last_look(snapshot)) is not None:
                self._told(look)
                self._known = snapshot
        except MedvecError as error:
            log.warning("what the last look for harvesting found cannot be read: %s", error.code)
        finally:
            self._reading.release()
