"""What a source gave once and need not give again: whole files, or folders made of them, below HOME/landed/<dataset>.

Belongs here: keeping, finding and bounding them. Does not belong here: what they are (connectors), the lake's payloads.

An entry is named after its content (a checksum), so that it is right for ever or not there: it is made aside and renamed
when it is complete. So a killed run goes on where it was, and two processes make one entry. It holds what the source
holds, identifiers too: the folder is the owner's alone, and what stays at a site stays with it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from resources.settings import Settings

_DIGEST = 40  # hex digits of an entry's name
_LISTED = "listed"  # its modification time is when the last listing began


class Landing:
    """The entries of one dataset."""

    def __init__(self, settings: Settings, dataset_id: str) -> None:
        self._folder = settings.home / "landed" / dataset_id
        self._limit_bytes = settings.landed_bytes
        self._unjudged_bytes = settings.landed_bytes  # added since the whole was last looked at; at first nobody knows

    def bytes(self, name: str, read: Callable[[], bytes]) -> bytes:
        """The file called `name`, or what `read` gives, which is kept. `read` must raise rather than give what is wrong."""

        def write(path: Path) -> None:
            path.write_bytes(read())

        for _ in range(2):
            with suppress(FileNotFoundError):  # another process made room in between
                return self.made(name, write).read_bytes()
        return read()

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file or folder called `name`, made by `make` at the path that it is given if it is not there yet."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        path = self._folder / digest[:2] / digest
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    self._make(path, make)
            self._make_room(path)
        os.utime(path)
        return path

    def listed(self, began: datetime) -> None:
        """Note that the source was listed, beginning then: a listing asks for all that is made of the present release."""
        if self._folder.exists():
            mark = self._folder / _LISTED
            mark.touch(mode=0o600)
            os.utime(mark, (began.timestamp(), began.timestamp()))

    def evict(self, unused_since: datetime) -> int:
        """Remove every file and folder that nobody asked for since then, nor since the last listing began; the bytes.

        That is what was made of earlier releases, with the rows of whoever has withdrawn since. It is made again if wanted.
        """
        mark, freed = self._folder / _LISTED, 0
        if not mark.exists():
            return 0
        oldest = min(unused_since.timestamp(), mark.stat().st_mtime)
        for entry in self._folder.glob("??/*"):
            with suppress(FileNotFoundError, Timeout):  # another process made room, or is making it
                if entry.suffix != ".lock" and entry.stat().st_mtime < oldest:
                    freed += self._evict(entry)
        return freed

    def _evict(self, entry: Path) -> int:
        lock = entry.with_name(entry.name.removeprefix(".")[:_DIGEST] + ".lock")  # a draft of a killed process too
        with FileLock(lock, timeout=0):
            gone = entry.rename(entry.with_name(f".{lock.stem}.{uuid4().hex}"))  # so that nobody finds half of it
            size = sum(path.stat().st_size for path in (gone, *gone.rglob("*")) if path.is_file())
            _remove(gone)
            lock.unlink(missing_ok=True)
        return size

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed: we hold the lock
            _remove(left)
        draft = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            make(draft)
            draft.rename(path)
        finally:
            _remove(draft)

    def _make_room(self, newest: Path) -> None:
        """Files beyond the limit go, the one longest not asked for first. Folders stay, which take hours to make, until
        `evict`.

        Looked at only once a hundredth of the limit was added, or a folder of many small files would be walked for each.
        """
        self._unjudged_bytes += newest.stat().st_size
        if self._unjudged_bytes * 100 < self._limit_bytes:
            return
        self._unjudged_bytes = 0
        files = [entry for entry in self._folder.glob("??/*") if entry.is_file() and not entry.suffix]
        found = sorted((entry.stat().st_mtime, entry.stat().st_size, entry) for entry in files)
        excess = sum(size for _, size, _ in found) - self._limit_bytes
        for _, size, entry in found:
            if excess <= 0:
                return
            if entry != newest:
                entry.unlink(missing_ok=True)
                entry.with_suffix(".lock").unlink(missing_ok=True)
                excess -= size


def _remove(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    draft.unlink(missing_ok=True)
