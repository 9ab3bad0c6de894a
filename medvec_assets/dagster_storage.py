"""Dagster's SQLite storage for one machine, with its connections kept open.

Belongs here: the two storages named in MEDVEC_HOME/dagster/dagster.yaml. Does not belong here: what is stored;
a cluster uses dagster-postgres instead.

Dagster's own SQLite storages make a new engine for every statement, which recompiles each and opens the file again: an
empty run of three assets and nine checks takes 0.8 s of processor time, with kept engines 0.3 s (ADR 0004).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

from dagster import EventLogEntry
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._serdes import ConfigurableClassData
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
    def _writing(self) -> threading.local:
        """The connection of the transaction that this thread is writing, if it is."""
        return threading.local()

    @cached_property
    def _there(self) -> set[str]:
        """Tables and columns that were found. Dagster asks for them at every asset event, and what is there stays."""
        return set()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        held = getattr(self._writing, "connection", None)
        if held is not None:
            yield held
            return
        with self._kept.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that this thread writes within is stored whole or not at all."""
        before = getattr(self._writing, "connection", None)
        with self._connect() as connection:
            self._writing.connection = connection
            try:
                yield
            finally:
                self._writing.connection = before

    def store_event(self, event: EventLogEntry) -> None:
        """The event with its index rows in one transaction: the base class makes one each."""
        with self._transaction():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """All of them in one transaction, or none: after an error Dagster stores each by itself."""
        with self._transaction():
            super().store_event_batch(events)

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._there and super().has_table(table_name):
            self._there.add(table_name)
        return table_name in self._there

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        name = f"asset_keys.{column_name}"
        if name not in self._there and super()._has_asset_key_col_on_connection(conn, column_name):
            self._there.add(name)
        return name in self._there

    def has_asset_key_col(self, column_name: str) -> bool:
        return f"asset_keys.{column_name}" in self._there or super().has_asset_key_col(column_name)

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

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """As the base class, which makes a storage of its own class whatever dagster.yaml names."""
        return cls.from_local(inst_data=inst_data, **config_value)

    @cached_property
    def _kept(self) -> Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept.connect() as connection, connection.begin():
            yield connection

    @cached_property
    def _has_stats(self) -> bool:
        return super().has_run_stats_index_cols()

    def has_run_stats_index_cols(self) -> bool:
        """Asked for at every event of a run. A database that lacks them was made by Dagster 0.15 or earlier."""
        return self._has_stats

    def dispose(self) -> None:
        super().dispose()
        self._kept.dispose()
