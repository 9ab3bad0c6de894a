"""What a source gave once and need not give again: whole files, or folders made of them, below HOME/landed/<dataset>.

Belongs here: keeping, finding and bounding them. Does not belong here: what they are (connectors), the lake's payloads.

An entry is named after its content (a checksum), so that it is right for ever or not there: it is made aside and renamed
when it is complete. So a killed run goes on where it was, and two processes make one entry. It holds what the source
holds, identifiers too: the folder is the owner's alone, and what stays at a site stays with it. A file that cannot be kept
(a full disk) is read again and fails nothing; a folder is needed where it is, and fails its run.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from medvec_assets.connectors import MAX_OBJECT_BYTES
from resources.object_store import ObjectStore
from resources.settings import Settings

_DIGEST = 40  # hex digits of an entry's name
_LISTED = "listed"  # its modification time is when the last listing began
_log = logging.getLogger(__name__)


class Landing:
    """The entries of one dataset."""

    def __init__(self, settings: Settings, dataset_id: str, *, keeps: bool = True) -> None:
        """Without `keeps` what is there is found, and no file is added."""
        self._keeps = keeps
        self._dataset_id = dataset_id
        self._folder = settings.home / "landed" / dataset_id
        self._limit_bytes = settings.landed_bytes
        self._unjudged_bytes = settings.landed_bytes  # added since the whole was last looked at; at first nobody knows
        self._digested_bytes = 0

    def digest_and_head(self, store: ObjectStore, key: str, size_bytes: int, head_bytes: int = 0) -> tuple[str, bytes]:
        """As of ObjectStore. What crosses the web for it is kept by the digest, as stages keep an object, so that it crosses
        once. Beyond the limit it would push out what was kept just before: then it is only read."""
        room = min(MAX_OBJECT_BYTES, self._limit_bytes - self._digested_bytes)
        if store.folder is None and size_bytes <= room and self._keeps:
            # The draft is named after the place, since nobody knows the digest yet. Who finds another process reading the
            # object does not wait, and keeps nothing.
            with self._forgiving(), suppress(Timeout), self._draft(self._path(store.uri_of(key)), timeout=0) as draft:
                with draft.open("wb") as file:
                    digest, head = store.digest_and_head(key, head_bytes, file.write)
                path = self._path(f"sha256-{digest}")
                path.parent.mkdir(exist_ok=True)
                draft.rename(path)
                self._digested_bytes += size_bytes
                self._make_room(path)
                return digest, head
        return store.digest_and_head(key, head_bytes)

    def bytes(self, name: str, read: Callable[[], bytes], is_right: Callable[[bytes], bool] = lambda _: True) -> bytes:
        """The file called `name`, or what `read` gives, which is kept. `read` must raise rather than give what is wrong;
        `is_right` judges what was kept, of which a power cut may have left a part."""
        fetched: list[bytes] = []

        def write(path: Path) -> None:
            fetched.append(read())
            path.write_bytes(fetched[0])

        for _ in range(2):
            if not self._keeps and not self._path(name).exists():
                break
            # Not found: another process made room in between.
            with self._forgiving(), suppress(FileNotFoundError):
                path = self.made(name, write)
                data = fetched[0] if fetched else path.read_bytes()
                if fetched or is_right(data):
                    return data
                path.unlink()
            if fetched:
                return fetched[0]
        return read()

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file or folder called `name`, made by `make` at the path that it is given if it is not there yet."""
        path = self._path(name)
        if not path.exists():
            with self._draft(path) as draft:
                if not path.exists():
                    make(draft)
                    draft.rename(path)
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

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        return self._folder / digest[:2] / digest

    @contextmanager
    def _draft(self, path: Path, timeout: float = -1) -> Iterator[Path]:
        """Where to make what is renamed when it is complete, for one process at a time. A lock stays with its entry."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True)
        lock = path.with_suffix(".lock")
        with FileLock(lock, timeout=timeout):
            for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed: we hold the lock
                _remove(left)
            draft = path.with_name(f".{path.name}.{uuid4().hex}")
            try:
                yield draft
            finally:
                _remove(draft)
                if not path.exists():
                    lock.unlink(missing_ok=True)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """A disk that is full or may not be written costs reads, and fails none. Connectors raise no OSError of their own."""
        try:
            yield
        except OSError as error:
            if self._keeps:
                _log.warning(
                    "%s: what is read of the source cannot be kept below MEDVEC_HOME (%s): it will be read again",
                    self._dataset_id,
                    errno.errorcode.get(error.errno or 0, type(error).__name__),
                )
            self._keeps = False

    def _make_room(self, newest: Path) -> None:
        """Files beyond the limit go, the one longest not asked for first. Folders stay, which take hours to make, until
        `evict`.

        Looked at only once a hundredth of the limit was added, or a folder of many small files would be walked for each.
        """
        self._unjudged_bytes += newest.stat().st_size
        if self._unjudged_bytes * 100 < self._limit_bytes:
            return
        self._unjudged_bytes = 0
        found = []
        for entry in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):  # another process makes room too
                if entry.is_file() and not entry.suffix:
                    found.append((entry.stat().st_mtime, entry.stat().st_size, entry))
        found.sort()
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
