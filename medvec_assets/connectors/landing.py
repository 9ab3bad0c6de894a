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
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from resources.settings import Settings


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
        digest = hashlib.sha256(name.encode()).hexdigest()[:40]
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
        """Files beyond the limit go, the one longest not asked for first. Folders stay: making one takes hours.

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
