"""Dagster's SQLite storage for one machine, with its connections kept open.

Belongs here: the two storages named in MEDVEC_HOME/dagster/dagster.yaml. Does not belong here: what is stored;
a cluster uses dagster-postgres instead.

Dagster's own SQLite storages make a new engine for every statement, which recompiles each and opens the file again: an
empty run of three assets and nine checks takes 0.8 s of processor time, with kept engines 0.3 s (ADR 0004).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from dagster import EventLogEntry
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from sqlalchemy import Connection, Engine, create_engine, event
from watchdog.events import FileSystemEvent, PatternMatchingEventHandler
from watchdog.observers import Observer

BUSY_TIMEOUT_SECONDS = 60  # several processes share the file; a writer waits for another's commit


def _engine(conn_string: str) -> Engine:
    engine = create_engine(conn_string, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

    @event.listens_for(engine, "connect")
    def _settle(connection: object, record: object) -> None:
        # WAL with synchronous=NORMAL cannot corrupt; a power cut may lose the last events, and Dagster's log is
        # operational: the record of lineage is audit/materializations.
        connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    return engine


class KeptEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """One database for all runs' events, one engine per process."""

    @cached_property
    def _kept(self) -> Engine:
        return _engine(self._conn_string)

    @cached_property
    def _batch(self) -> threading.local:
        """The connection of the batch that this thread is writing, if it is."""
        return threading.local()

    @cached_property
    def _tables(self) -> set[str]:
        return set()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        held = getattr(self._batch, "connection", None)
        if held is not None:
            yield held
            return
        with self._kept.connect() as connection, connection.begin():
            yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """All of them in one transaction, or none: after an error Dagster stores each by itself."""
        with self._connect() as connection:
            self._batch.connection = connection
            try:
                super().store_event_batch(events)
            finally:
                self._batch.connection = None

    def has_table(self, table_name: str) -> bool:
        """Asked for every asset event; a table that is there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def watch(self, run_id: str, cursor: str | None, callback: Callable[..., Any]) -> None:
        """As the base class, but it also looks at the write-ahead log: while a connection is open, commits go there
        and the database file that the base class looks at stays as it is, so a run's page would not move."""
        if self._obs is None:
            observer = Observer()
            observer.schedule(_LogChanged(self), self._base_dir)
            observer.start()
            self._obs = observer  # type: ignore[assignment]  # the base class has no type for it
        self._watchers[run_id][callback] = cursor

    def dispose(self) -> None:
        super().dispose()  # type: ignore[no-untyped-call]
        self._kept.dispose()


class _LogChanged(PatternMatchingEventHandler):
    def __init__(self, storage: KeptEventLogStorage) -> None:
        self._storage = storage
        path = storage.get_db_path()  # type: ignore[no-untyped-call]
        super().__init__(patterns=[path, f"{path}-wal"])

    def on_modified(self, event: FileSystemEvent) -> None:
        self._storage.on_modified()  # type: ignore[no-untyped-call]


class KeptRunStorage(SqliteRunStorage):
    """Runs, one engine per process."""

    @cached_property
    def _kept(self) -> Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        super().dispose()
        self._kept.dispose()
