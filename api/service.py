"""What the routes share for the app's life: settings, key, lake, one index connection, one search engine.

Belongs here: opening these things once, when first needed, and closing them at the end. The service starts and answers
/livez while the index is down; a later request finds it again. Does not belong here: HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

from medvec_assets.query.decoder import Decoder
from medvec_assets.query.search import SearchEngine
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings, secret_file

if TYPE_CHECKING:
    from resources.vector_index import VectorIndex

OpenIndex = Callable[[Settings], "AbstractContextManager[VectorIndex]"]


class Service:
    """Made in the app's lifespan, which also closes it. Safe to share between the threads that run routes."""

    def __init__(self, settings: Settings, open_index: OpenIndex) -> None:
        self.settings = settings
        self.api_key = secret_file(settings.home / "keys" / "api.key")
        self._open_index = open_index
        self._opening = threading.Lock()
        self._opened = ExitStack()
        self._engine: SearchEngine | None = None
        self._index: VectorIndex | None = None

    @cached_property
    def lake(self) -> Lakehouse:
        return Lakehouse.open(self.settings)

    @cached_property
    def decoder(self) -> Decoder:
        return self._opened.enter_context(closing(Decoder(self.settings)))

    @property
    def index(self) -> VectorIndex:
        """The index connection. Raises IndexUnavailable while it cannot be opened; the next call tries again."""
        with self._opening:
            if self._index is None:
                self._index = self._opened.enter_context(self._open_index(self.settings))
            return self._index

    @property
    def engine(self) -> SearchEngine:
        index = self.index
        with self._opening:
            if self._engine is None:
                engine = SearchEngine(self.settings, self.lake, index)
                self._engine = self._opened.enter_context(closing(engine))
            return self._engine

    def check_ready(self) -> None:
        """Raises the error of the part that does not answer: lake or index."""
        self.lake.snapshot(tables.generations())
        self.index.collections()

    def close(self) -> None:
        self._opened.close()
