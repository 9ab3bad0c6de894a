"""Bulk import: the first fill of a partition as Parquet files in a place that the Milvus server itself reads.

Belongs here: files, import tasks and their outcomes. Does not belong here: when it is worth it and what must be true
before (milvus), which entities there are.

A file lies in the place from before its import begins until its rows are counted, though empty once it is imported: what
lies there after a run was killed tells the next one that an import may still be under way, or done and not yet visible
(a loaded collection shows imported rows up to 10 s later). 2.3.5 takes one file a task, one task a data node, routes rows
by the partition key, and keeps both copies of an id: only what is provably empty may be filled.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from resources.errors import ConfigError, IndexInvalid, IndexUnavailable
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.vector_index.connection import Connection
from resources.vector_index.rows import ENTITY_SCHEMA, checked
from resources.vector_index.types import CollectionInfo

FILE_BYTES = 128 << 20  # held in memory twice while it is made; a server takes 16 GB, and 900 s a file
UNDER_WAY = 2  # files: one is written while the server reads the other
IMPORT_SECONDS = 3_600.0
FIRST_VERSION = (2, 3, 5)  # Parquet; nothing older was tried
_POLL_SECONDS = 0.5
_CALL_SECONDS = 30.0
_COMPLETED = 6
_FAILED = (1, 7)  # failed; failed and cleaned up
_PLACE_REMEDY = "set MEDVEC_INDEX_BULK_URI to a folder or s3://bucket/prefix that Milvus itself reads, or unset it"


class BulkPlace:
    """Where files for a server's imports lie, and its imports of them.

    `rows`: a fill of fewer is quicker by insert. ConfigError if the place is no folder or bucket.
    """

    def __init__(self, connection: Connection, uri: str, rows: int) -> None:
        self.rows = rows
        self._connection = connection
        self._store = ObjectStore(uri)
        if not uri.startswith("s3://") and not Path(self._path("")).is_dir():
            raise ConfigError(f"MEDVEC_INDEX_BULK_URI is {uri}, which is no folder", remedy=_PLACE_REMEDY)

    def fill(self, info: CollectionInfo, partition: str, rows: Iterable[pa.RecordBatch]) -> int:
        """Imports `rows` (ENTITY_SCHEMA, all of `partition`, which is empty) and returns their number.

        On return the server has them, though it may not show them yet: `settle`, count, `clear`. Raises IndexInvalid if
        an import fails, IndexUnavailable if the server was restarted meanwhile; what was imported before stays, and the
        next run learns of it by `settle`.
        """
        run = f"{info.uuid}-{uuid4().hex}"
        tasks: dict[int, str] = {}
        written = 0
        for number, (rows_in_file, content) in enumerate(_files(rows, partition, info.dim)):
            key = f"{info.name}/{partition}/{run}-{number:06d}.parquet"
            self._store.put(key, content)
            tasks[self._begin(info.name, key)] = key
            written += rows_in_file
            self._await(info.name, tasks, UNDER_WAY - 1)
        self._await(info.name, tasks, 0)
        return written

    def settle(self, info: CollectionInfo, partition: str) -> int | None:
        """Waits for whatever is still being imported into the partition, also by runs that were killed.

        Returns how many rows were imported into this very collection; None if nothing lies in the place. Count them,
        then `clear`.
        """
        paths = {self._path(key): Path(key).name.startswith(info.uuid) for key in self._keys(info.name, partition)}
        if not paths:
            return None
        deadline = time.monotonic() + IMPORT_SECONDS
        while True:
            tasks = [task for task in self._listed(info.name) if _file_of(task) in paths]
            if all(task.state == _COMPLETED or task.state in _FAILED for task in tasks):
                break
            _sleep_until(deadline, info.name)
        return sum(int(task.row_count) for task in tasks if task.state == _COMPLETED and paths[_file_of(task)])

    def clear(self, name: str, partition: str) -> None:
        """Removes what lies in the place for the partition."""
        for key in self._keys(name, partition):
            self._store.delete(key)

    def _keys(self, name: str, partition: str) -> list[str]:
        return [found.key for found in self._store.list(f"{name}/{partition}")]

    def _begin(self, name: str, key: str) -> int:
        # The handler that MilvusClient itself uses: pymilvus 3.0 offers imports by deprecated connections only.
        # It may repeat a request that was lost; imported twice is seen by the count that follows.
        return int(
            self._connection.call(
                f"begin an import into {name}",
                lambda client: client._get_connection().do_bulk_insert(
                    name, "", [self._path(key)], timeout=_CALL_SECONDS
                ),
            )
        )

    def _listed(self, name: str) -> Sequence[Any]:
        found: Sequence[Any] = self._connection.call(
            f"list the imports into {name}",
            lambda client: client._get_connection().list_bulk_insert_tasks(0, name, timeout=_CALL_SECONDS),
        )
        return found

    def _await(self, name: str, tasks: dict[int, str], still: int) -> None:
        """Until at most `still` of `tasks` (id -> key) are under way; those that completed leave it."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while True:
            for task, key in list(tasks.items()):
                state = self._connection.call(
                    f"ask for the import into {name}",
                    lambda client, task=task: client._get_connection().get_bulk_insert_state(  # type: ignore[misc]
                        task, timeout=_CALL_SECONDS
                    ),
                )
                if state.state in _FAILED:
                    raise _failed(name, self._path(key), str(state.failed_reason))
                if state.state == _COMPLETED:
                    del tasks[task]
                    self._store.put(key, b"")  # the room is needed, the name too
            if len(tasks) <= still:
                return
            _sleep_until(deadline, name)

    def _path(self, key: str) -> str:
        """How the server calls the file: its path, or its key in the bucket."""
        parts = urlsplit(self._store.uri_of(key))
        return parts.path.lstrip("/") if parts.scheme == "s3" else unquote(parts.path)


def bulk_place(connection: Connection, settings: Settings, version: str) -> BulkPlace | None:
    """The place of MEDVEC_INDEX_BULK_URI; None if there is none. ConfigError if this server cannot import from it."""
    uri = settings.index_bulk_uri
    if not uri:
        return None
    if connection.lite or _numbers(version) < FIRST_VERSION:
        wanted = ".".join(map(str, FIRST_VERSION))
        raise ConfigError(
            f"{version} has no bulk import that medvec can use: it needs Milvus {wanted}", remedy=_PLACE_REMEDY
        )
    return BulkPlace(connection, uri, settings.index_bulk_rows)


def _files(rows: Iterable[pa.RecordBatch], partition: str, dim: int) -> Iterator[tuple[int, bytes]]:
    """(rows, Parquet) of about FILE_BYTES each. Raises IndexInvalid if a batch breaks a rule of `checked`."""
    held: list[pa.RecordBatch] = []
    for batch in rows:
        if batch.num_rows:
            held.append(checked(batch, partition, dim)[0])
        if sum(part.nbytes for part in held) >= FILE_BYTES:
            yield _file(held)
            held = []
    if held:
        yield _file(held)


def _file(batches: list[pa.RecordBatch]) -> tuple[int, bytes]:
    table, content = pa.Table.from_batches(batches).cast(ENTITY_SCHEMA), io.BytesIO()
    # Neither helps vectors, and ids are all different.
    pq.write_table(table, content, compression="none", use_dictionary=False)
    return table.num_rows, content.getvalue()


def _file_of(task: Any) -> str:
    return str(task.infos.get("files", ""))


def _sleep_until(deadline: float, name: str) -> None:
    if time.monotonic() > deadline:
        raise IndexUnavailable(
            f"an import into {name} did not end within {IMPORT_SECONDS:.0f} s",
            remedy="see the server's log and its data nodes, then run `medvec sync` again",
        )
    time.sleep(_POLL_SECONDS)


def _failed(name: str, path: str, reason: str) -> IndexInvalid | IndexUnavailable:
    """The server's reason may quote a value: it is told only where it is about the file itself."""
    if "service restarted" in reason:
        return IndexUnavailable(
            f"the server was restarted while it imported into {name}",
            remedy="run `medvec sync` again: what was not imported is made up for",
        )
    told = reason if path in reason and ("not exist" in reason or "no such file" in reason.lower()) else "see its log"
    remedy = f"{_PLACE_REMEDY}; then run `medvec sync` again"
    return IndexInvalid(f"the server could not import {path} into {name} ({told})", remedy=remedy, code="index_import")


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 3, 5) of "milvus 2.3.5-lite", as the server package of 2.3.5 calls itself."""
    digits = version.split()[-1].partition("-")[0].split(".")
    return tuple(int(part) for part in digits if part.isdigit())
