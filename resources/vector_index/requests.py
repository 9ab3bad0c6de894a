"""Requests to one server about its collections: described, loaded where needed, queried, walked to the end.

Belongs here: what every method of the index asks with. Does not belong here: what it asks for (milvus), retries and
errors (connection).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from resources.vector_index.connection import (
    COLLECTION_NOT_FOUND,
    COLLECTION_NOT_LOADED,
    Connection,
    error_code,
)
from resources.vector_index.types import MAX_RESULT_ROWS, KeyRange, both, collection_name, key_ranges

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")

LITE_WALK_ROWS = 65_536  # Lite scans the collection per query whatever it answers: few large answers


class Requests:
    """A connection, and which collections it has loaded, and made without writing to them yet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loaded: set[str] = set()
        self._made: set[str] = set()

    def _description(self, name: str) -> dict[str, Any] | None:
        def ask(client: MilvusClient) -> dict[str, Any] | None:
            from pymilvus import MilvusException

            try:
                return dict(client.describe_collection(name, timeout=self._connection.patience.read_seconds))
            except MilvusException as error:
                if error_code(error) == COLLECTION_NOT_FOUND:
                    return None
                raise

        return self._connection.call(f"describe {collection_name(name)}", ask)

    def _load(self, name: str) -> None:
        seconds = self._connection.patience.read_seconds
        self._connection.call(f"load {name}", lambda client: client.load_collection(name, timeout=seconds))
        self._loaded.add(name)

    def _read(self, name: str, what: str, request: Callable[[MilvusClient], T]) -> T:
        """A request that needs the collection loaded: after a restart of the server it no longer is."""
        from pymilvus import MilvusException

        def loaded(client: MilvusClient) -> T:
            try:
                return request(client)
            except MilvusException as error:
                if error_code(error) != COLLECTION_NOT_LOADED:
                    raise
            client.load_collection(name, timeout=self._connection.patience.read_seconds)
            return request(client)

        if collection_name(name) not in self._loaded:
            self._load(name)
        return self._connection.call(f"{what} {name}", loaded)

    def _query(self, name: str, where: str, fields: list[str], limit: int | None = None) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"consistency_level": "Strong", "timeout": self._connection.patience.read_seconds}
        if limit is not None:
            options["limit"] = limit
        return self._read(
            name, "query", lambda client: list(client.query(name, filter=where, output_fields=fields, **options))
        )

    def _counted(self, name: str, where: str) -> int:
        return int(self._query(name, where, ["count(*)"])[0]["count(*)"])

    def _is_untouched(self, name: str) -> bool:
        """Whether this client made a server's collection and nobody has written to it: whoever writes loads it first, to
        count, but its maker. Loading it empty costs a first fill 2 s, and what is imported then is seen 10 s late."""
        if name not in self._made:
            return False
        told = self._connection.call(f"ask whether {name} is loaded", lambda client: client.get_load_state(name))
        return str(getattr(told["state"], "name", told["state"])) == "NotLoad"

    def _deleted_share(self, name: str) -> float:
        """Which part of the rows that the server stores has been deleted."""
        told = self._connection.call(f"measure {name}", lambda client: client.get_collection_stats(name))
        stored = int(told["row_count"])
        return 1 - self._counted(name, "") / stored if stored else 0.0

    def _walk(
        self, name: str, where: str, fields: list[str], expected: int
    ) -> Iterator[tuple[KeyRange, list[dict[str, Any]]]]:
        """All entities that fit `where`, about `expected` of them, range by range of their ids; a full answer is split."""
        limit = LITE_WALK_ROWS if self._connection.lite else MAX_RESULT_ROWS
        todo: list[KeyRange] = key_ranges(expected, limit)
        while todo:
            part = todo.pop()
            rows = self._query(name, both(where, part.filter), fields, limit)
            if len(rows) >= limit:
                todo.extend(part.split(4))
            elif rows:
                yield part, rows
