"""Making what was written durable, indexed, loaded and visible, and waiting for it.

Belongs here: flush, index builds, loads, their deadlines, and when they are due. Does not belong here: writing (milvus),
what an index is (schema), imports (bulk).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from resources.errors import IndexUnavailable
from resources.vector_index import schema
from resources.vector_index.connection import CALL_SECONDS, Connection
from resources.vector_index.requests import Requests

SETTLE_SECONDS = 3_600.0  # 1 M x 384 rows took 616 s on two cores
VISIBLE_SECONDS = 120.0  # 2.3.5 looks for new segments of a loaded collection every 10 s
_POLL_SECONDS = 0.5


class Settling(Requests):
    """Requests, and the collections whose settling was put off."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._put_off: set[str] | None = None

    def settle(self, name: str) -> None:
        """Makes what was written durable, indexed and loaded: on Lite each call on unflushed rows takes seconds.

        Raises IndexUnavailable if the index is not built within SETTLE_SECONDS.
        """
        if self._put_off is not None:
            self._put_off.add(name)
            return
        self._connection.call(f"flush {name}", lambda client: client.flush(name, timeout=CALL_SECONDS))
        self._ensure_index(name)
        self._await_index(name)
        self._load(name)

    @contextmanager
    def settled_once(self) -> Iterator[None]:
        """Within it a server is asked to settle at the end only, once for each collection: for many small partitions the
        5 s that it takes are most of the work. What a server acknowledged is in its log, counted, and found meanwhile, if
        slowly and not all of it; whoever is killed here leaves that to the next `settle`.

        Lite settles at once all the same: what it did not flush is lost with its process.
        """
        if self._connection.lite or self._put_off is not None:
            yield
            return
        self._put_off = set()
        try:
            yield
        finally:
            names, self._put_off = sorted(self._put_off), None
        for name in names:
            self.settle(name)

    def _await_index(self, name: str) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._connection.call(f"describe the index of {name}", lambda client: schema.is_built(client, name)):
            if time.monotonic() > deadline:
                raise IndexUnavailable(
                    f"the index of {name} was not built within {SETTLE_SECONDS:.0f} s",
                    remedy="see the server's log and its index nodes, then run `medvec sync` again",
                )
            time.sleep(_POLL_SECONDS)

    def _await_rows(self, name: str, where: str, imported: int) -> int:
        """How many are counted, once they are all that were imported: a loaded collection shows them when they are
        indexed and it looks for new segments. `refresh_load` makes it look at once, 4 s of 20 sooner; in one run of two
        it then refused to count for seconds (503), so it is left alone."""
        self._await_index(name)
        deadline = time.monotonic() + VISIBLE_SECONDS
        while True:
            late = time.monotonic() > deadline
            try:
                found = self._counted(name, where)
            except IndexUnavailable:  # it may refuse for a second while segments are moved
                if late:
                    raise
                found = 0
            if found >= imported:
                return found
            if late:
                raise IndexUnavailable(
                    f"of {imported} entities imported into {name} {found} are there",
                    remedy="see the server's log and its query nodes, then run `medvec sync` again",
                )
            time.sleep(_POLL_SECONDS)

    def _ensure_index(self, name: str) -> None:
        properties = (self._description(name) or {}).get("properties", {})
        ensure = partial(schema.ensure_indexes, name=name, properties=properties, lite=self._connection.lite)
        self._connection.call(f"index {name}", ensure)
