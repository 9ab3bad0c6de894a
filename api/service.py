"""What the routes share for the app's life: settings, desk, access log, lake, one index connection, one search engine.

Belongs here: opening these things once, when first needed, and closing them at the end. The service starts and answers
/livez while the index is down; a later request finds it again. Does not belong here: HTTP.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from functools import cached_property
from typing import cast

from api.draining import Drain
from api.identity.desk import Desk
from api.index_door import IndexDoor, OpenIndex
from medvec_assets.query.catalogue import Catalogue
from medvec_assets.query.decoder import Decoder
from medvec_assets.query.search import SearchEngine
from resources import tables
from resources.access_log.keeping import AccessLog
from resources.errors import IndexUnavailable
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import VectorIndex

# A short text is 9 ms of processor time. Threads that share it wait for each other at every layer: on two cores with other
# work 800 ms by two threads, 33 by one.
TORCH_THREADS = 1


class Service:
    """Made in the app's lifespan, which also closes it. Safe to share between the threads that run routes."""

    def __init__(self, settings: Settings, open_index: OpenIndex) -> None:
        self.settings = settings if settings.threads else settings.model_copy(update={"threads": TORCH_THREADS})
        self._opened = ExitStack()  # closed in the reverse order: the access log last
        self.access_log = self._opened.enter_context(closing(AccessLog(settings)))
        self.desk = Desk(settings, lambda: self.lake)
        self.door = self._opened.enter_context(closing(IndexDoor(settings, open_index)))
        self.drain = Drain(settings.api_drain_seconds)
        self._making = threading.Lock()
        self._engine: SearchEngine | None = None

    @cached_property
    def lake(self) -> Lakehouse:
        return Lakehouse.open(self.settings)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.settings, self.lake)

    @cached_property
    def decoder(self) -> Decoder:
        return self._opened.enter_context(closing(Decoder(self.settings)))

    @property
    def engine(self) -> SearchEngine:
        with self._making:
            if self._engine is None:
                engine = SearchEngine(self.settings, self.lake, cast(VectorIndex, self.door))
                self._engine = self._opened.enter_context(closing(engine))
            return self._engine

    def check_ready(self) -> None:
        """Raises the error of the part that does not answer: access log, lake or index; or of a service that is about to end."""
        if self.drain.begun:
            raise IndexUnavailable("the service is ending", remedy="ask another replica", code="draining")
        self.access_log.check()
        self.lake.snapshot(tables.generations())
        self.door.collections()

    def close(self) -> None:
        self._opened.close()
