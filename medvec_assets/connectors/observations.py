"""What was read of objects to list them, from when it was read until a manifest holds it; of those that a manifest refuses,
as long as they are listed.

Belongs here: keeping such facts, so that a killed listing reads no object again, and letting go of them. Does not belong
here: the facts (connectors), objects' bytes (landing), what a committed manifest says (`previous` of a listing).

HOME/landed/<dataset>/observed.sqlite, beside what is landed and like it the owner's alone: a fact may name a patient. Each
is written by itself and with a digest: SQLite's journal outlives a killed process, and after a power cut what does not fit
its digest was not kept. A fact that cannot be kept costs a read and fails no listing.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from resources.settings import Settings

PAGE_BYTES = 4_096  # SQLite's own default
_COLUMNS = "key BLOB PRIMARY KEY, fact TEXT, digest BLOB, asked REAL"  # when it was last asked for
_TABLE = f"CREATE TABLE IF NOT EXISTS observed ({_COLUMNS}) WITHOUT ROWID"
_SETUP = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _TABLE)  # a write is 20 us, and no fsync
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: columns of another version
_log = logging.getLogger(__name__)


class Observations:
    """The facts of one dataset. Safe to share between threads and processes; opens nothing until it is used."""

    def __init__(self, settings: Settings, dataset_id: str) -> None:
        self._dataset_id = dataset_id
        self._path = settings.home / "landed" / dataset_id / "observed.sqlite"
        self._most_pages = settings.landed_bytes // PAGE_BYTES + 4  # an empty database has three
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._given_up = False

    def of(self, name: str, etag: str, observe: Callable[[], str]) -> str:
        """What `observe` gave for the object of this name and etag, or gives now. An empty answer is asked for again, and
        so is an object without an etag, of which nobody knows whether it has changed."""
        key = hashlib.sha256(f"{name}\x1f{etag}".encode("utf-8", "surrogateescape")).digest()[:16]
        found = self._asked("SELECT fact, digest FROM observed WHERE key = ?", key) if etag else None
        if found is not None and found[1] == _digest(key, found[0]):
            self._asked("UPDATE observed SET asked = ? WHERE key = ?", time.time(), key)
            return str(found[0])
        fact = observe()
        if etag and fact:
            self._asked(
                "INSERT OR REPLACE INTO observed VALUES (?, ?, ?, ?)", key, fact, _digest(key, fact), time.time()
            )
        return fact

    def drop(self, unless_asked_since: datetime | None = None) -> None:
        """A manifest holds them now. Where it refused objects, nobody knows which facts are theirs: those asked for since its
        listing began stay until the next, which asks for none that a manifest holds, nor of what the source withdrew."""
        if self._path.exists():
            kept_from = unless_asked_since.timestamp() if unless_asked_since else math.inf
            self._asked("DELETE FROM observed WHERE asked < ?", kept_from)
            self._asked("VACUUM")
            with self._lock:
                self._close()

    def _asked(self, statement: str, *values: object) -> tuple[str, bytes] | None:
        with self._lock:
            if self._given_up:
                return None
            try:
                found: tuple[str, bytes] | None = self._connection().execute(statement, values).fetchone()
            except sqlite3.Error as error:
                self._judge(error)
                return None
            return found

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # No transaction lasts longer than its statement.
            self._opened = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
            for statement in (*_SETUP, f"PRAGMA max_page_count = {self._most_pages}"):
                self._opened.execute(statement)
        return self._opened

    def _judge(self, error: sqlite3.Error) -> None:
        """At the limit what is kept is still found; what is broken begins anew; otherwise this process keeps nothing."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return
        self._close()
        if code in _BROKEN:
            for ending in ("", "-wal", "-shm"):
                self._path.with_name(f"{self._path.name}{ending}").unlink(missing_ok=True)
            return
        self._given_up = True
        _log.warning(
            "%s: what is read to list objects cannot be kept below MEDVEC_HOME (%s): if this listing is killed, the next "
            "one reads them again",
            self._dataset_id,
            getattr(error, "sqlite_errorname", type(error).__name__),
        )

    def _close(self) -> None:
        if self._opened is not None:
            with suppress(sqlite3.Error):  # of a broken file: nothing is lost that could be saved
                self._opened.close()
            self._opened = None


def _digest(key: bytes, fact: str) -> bytes:
    return hashlib.sha256(key + fact.encode("utf-8", "surrogateescape")).digest()[:8]
