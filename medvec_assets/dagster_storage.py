"""Dagster's SQLite storage for one machine, with its connections kept open.

Belongs here: the two storages named in MEDVEC_HOME/dagster/dagster.yaml. Does not belong here: what is stored;
a cluster uses dagster-postgres instead.

Dagster's own SQLite storages make a new engine for every statement, which recompiles each and opens the file again: an
empty run of three assets and nine checks takes 0.8 s of processor time, with kept engines 0.3 s (ADR 0004).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from sqlalchemy import Connection, Engine, create_engine, event

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

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._kept.connect() as connection, connection.begin():
            yield connection


class KeptRunStorage(SqliteRunStorage):
    """Runs, one engine per process."""

    @cached_property
    def _kept(self) -> Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept.connect() as connection, connection.begin():
            yield connection
