"""Files of a source behind one face, wherever they lie: a folder or bucket, an Azure container, a DNAnexus project.

Belongs here: that face, the folder's side of it, and checksums of files whose source publishes none.
Does not belong here: what a file's name means (the connector of its source), the web's protocols (azure_blobs, dnanexus).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol
from urllib.parse import urlsplit

import polars as pl

from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.observations import Observations
from medvec_assets.fingerprints import set_digest
from resources.errors import ConfigError, ObjectRejected, SourceUnavailable
from resources.object_store import ObjectStore
from resources.settings import Settings

PIECE_FILES = 1_000  # per listing: bounds memory
_OWN_MACHINE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class SourceFile:
    """One file of a listing. `key` is its path below the source; `etag` changes when its content does."""

    key: str
    uri: str
    size_bytes: int
    etag: str
    checksum: str | None = None
    """As the source publishes it; None where it does not, and the file must be read for it."""
    checksum_kind: str = "md5"
    refusal: tuple[str, str] | None = None
    """(code, remedy) for a file that is there and cannot be read now."""


class SourceFiles(Protocol):
    """Everything below one place."""

    is_remote: bool

    def list(self) -> Iterator[SourceFile]: ...

    def sha256(self, file: SourceFile) -> str:
        """Reads a file whose source publishes no checksum."""
        ...

    def get(self, uri: str, max_bytes: int) -> bytes:
        """By the URI that a listing gave. Raises ObjectRejected `object_missing`, also for a URI of another place."""
        ...


class StoredFiles:
    """A folder or an s3:// prefix."""

    def __init__(self, uri: str, landing: Landing) -> None:
        self._store = ObjectStore(uri)
        self._landing = landing
        self.is_remote = self._store.folder is None

    def list(self) -> Iterator[SourceFile]:
        for info in self._store.list():
            yield SourceFile(info.key, info.uri, info.size_bytes, info.etag, None, "sha256")

    def sha256(self, file: SourceFile) -> str:
        return self._landing.digest_and_head(self._store, file.key, file.size_bytes)[0]

    def get(self, uri: str, max_bytes: int) -> bytes:
        key = self._store.key_of(uri)
        if key is None:
            raise elsewhere()
        return self._store.get(key, max_bytes)


def is_web(source: str) -> bool:
    """Whether an entry of MEDVEC_SOURCES is a service's address. ConfigError for plain http to another machine, which would
    send a secret unencrypted."""
    parts = urlsplit(source)
    if parts.scheme == "http" and parts.hostname not in _OWN_MACHINE:
        raise ConfigError("a source over plain http would be sent its secret unencrypted", remedy="write https://")
    return parts.scheme in ("http", "https")


def elsewhere() -> ObjectRejected:
    remedy = "refresh the manifest: it names objects of another source"
    return ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)


def listing_digest(files: Iterator[SourceFile]) -> str:
    """Of every file's path, size and etag: no file is read."""
    return set_digest(f"{one.key} {one.size_bytes} {one.etag}" for one in files)


def changed_meanwhile(what: str) -> SourceUnavailable:
    remedy = "run again when the transfer to it is done; nothing was committed"
    return SourceUnavailable(f"{what} changed while it was listed", code="source_changed", remedy=remedy)


class Checksums:
    """Checksums of files: published, known from the last manifest, or read now and kept from then on."""

    def __init__(self, files: SourceFiles, previous: pl.DataFrame, settings: Settings, dataset_id: str) -> None:
        self._files = files
        self._observations = Observations(settings, dataset_id)
        self._workers = settings.decode_threads
        self._known = _known(previous)

    def of(self, piece: list[SourceFile]) -> dict[str, tuple[str, str] | None]:
        """URI -> (checksum, kind); None for a file that went between listing and reading."""
        found: dict[str, tuple[str, str] | None] = {}
        unread: list[SourceFile] = []
        for file in piece:
            known = self._known.get((file.uri, file.size_bytes, file.etag))
            if known is not None or file.checksum is not None:
                found[file.uri] = known or (file.checksum or "", file.checksum_kind)
            elif file.refusal is None:
                unread.append(file)
        return found | self._read(unread)

    def _read(self, unread: list[SourceFile]) -> dict[str, tuple[str, str] | None]:
        if not unread:
            return {}
        with ThreadPoolExecutor(self._workers, thread_name_prefix="checksums") as pool:
            digests = list(pool.map(self._digest, unread))
        return {file.uri: (one, "sha256") if one else None for file, one in zip(unread, digests, strict=True)}

    def _digest(self, file: SourceFile) -> str | None:
        try:
            name = f"{file.uri} {file.size_bytes}"
            return self._observations.of(name, file.etag, lambda: self._files.sha256(file))
        except ObjectRejected:  # removed between listing and reading
            return None


def pieces(files: Iterator[SourceFile]) -> Iterator[list[SourceFile]]:
    """PIECE_FILES at a time."""
    while piece := list(islice(files, PIECE_FILES)):
        yield piece


def _known(previous: pl.DataFrame) -> dict[tuple[str, int, str], tuple[str, str]]:
    """What the last manifest says of a file that has not changed since."""
    if previous.is_empty():
        return {}
    columns = ("uri", "size_bytes", "attributes", "checksum", "checksum_kind")
    return {
        (uri, size, str(json.loads(attributes).get("etag"))): (checksum, kind)
        for uri, size, attributes, checksum, kind in previous.select(columns).iter_rows()
    }
