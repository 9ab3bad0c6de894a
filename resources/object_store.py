"""Files and objects, by URI alone: a folder (`/data`, `file:///data`) or a bucket (`s3://bucket/prefix`).

Belongs here: list, read, write, delete and digest of objects, and how their failures are told apart.
Does not belong here: tables (lakehouse), what the bytes mean (modalities), which objects are wanted (connectors).
Only this module imports obstore.

S3 is configured by the usual AWS variables: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ALLOW_HTTP=true for a plain-http endpoint, AWS_SKIP_SIGNATURE=true for a public bucket read without keys.

Folders are walked by the standard library and not by obstore: obstore's local listing stops at the first file whose
name is not UTF-8 or holds a newline, and it hides names such as `scan#2`. A source's file names are not ours to choose.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from resources.errors import ConfigError, MedvecError, ObjectRejected, SourceError, SourceUnavailable, StorageError

CHUNK_BYTES = 4 << 20  # the unit of streaming reads: memory for a digest, whatever the object's size
_PART_FILE = re.compile(r"\.medvec-[0-9a-f]+\.part")  # a write that has not become an object yet


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing. `key` is relative to the store; `etag` changes when the content does."""

    key: str
    uri: str
    size_bytes: int
    etag: str
    modified: datetime


class _Backend(Protocol):
    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]: ...

    def stream(self, key: str, max_bytes: int | None) -> Iterator[bytes]: ...

    def get_range(self, key: str, start: int, length: int) -> bytes: ...

    def put(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def uri_of(self, key: str) -> str: ...


class ObjectStore:
    """The objects below one URI. Opens nothing until it is used.

    Every method raises SourceUnavailable when the store does not answer (retryable) and StorageError when it refuses
    (permission) or is full; methods that take a key raise ObjectRejected `object_missing`, or `object_outside_root` for
    a key (`..`, a symlink) that leads out of the store. A key is used as it is listed, whatever characters it holds.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.folder = None if uri.startswith("s3://") else _local_path(uri)
        self._backend: _Backend = _bucket(uri) if self.folder is None else _Folder(self.folder)

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix` whose key sorts after `after`, as it is found. Raises SourceError if a
        local root is missing: a disk that is not mounted must not look like a source that withdrew everything."""
        return self._backend.list(prefix, after)

    def get(self, key: str, max_bytes: int) -> bytes:
        """The object's bytes; ObjectRejected `object_too_large` before any is read if they exceed `max_bytes`."""
        return b"".join(self._backend.stream(key, max_bytes))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from offset `start`; fewer where the object ends."""
        return self._backend.get_range(key, start, length)

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object. A reader sees the old bytes or the new ones, never a part."""
        self._backend.put(key, data)

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is not an error."""
        self._backend.delete(key)

    def remove_drafts(self, prefix: str, before: datetime) -> None:
        """Remove what writers that were killed before `before` left below a folder; in a bucket nothing is left."""
        for draft in (self.folder / prefix).rglob(".medvec-*.part") if self.folder else ():
            with suppress(FileNotFoundError):  # its writer has just made an object of it
                if draft.stat().st_mtime < before.timestamp():
                    draft.unlink()

    def digest_and_head(
        self, key: str, head_bytes: int = 0, write: Callable[[bytes], object] | None = None
    ) -> tuple[str, bytes]:
        """sha256 of the whole object and its first `head_bytes` bytes, in one read and constant memory. `write` is given the
        whole object too, in pieces; what it raises is raised."""
        digest, head = hashlib.sha256(), bytearray()
        for chunk in self._backend.stream(key, None):
            digest.update(chunk)
            if write is not None:
                write(chunk)
            head += chunk[: head_bytes - len(head)]
        return digest.hexdigest(), bytes(head)

    def uri_of(self, key: str) -> str:
        return self._backend.uri_of(key)

    def key_of(self, uri: str) -> str | None:
        """The key of an object whose URI this store's listing gave; None if the URI is not below this store."""
        root = self._backend.uri_of("")
        if not uri.startswith(root):
            return None
        key = uri[len(root) :]
        return key if uri.startswith("s3://") else os.fsdecode(unquote_to_bytes(key))


def read_uri(uri: str, max_bytes: int) -> bytes:
    """One object by its URI: a path, file:// (percent-encoded, as listings give it) or s3:// (the key as it is)."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return ObjectStore(f"s3://{bucket}").get(key, max_bytes)
    path = _local_path(uri)
    return ObjectStore(str(path.parent)).get(path.name, max_bytes)


# ---------------------------------------------------------------- failures


def _missing(uri: str) -> ObjectRejected:
    remedy = "it was removed or renamed after it was listed: refresh the manifest"
    return ObjectRejected(f"there is no object {uri}", code="object_missing", remedy=remedy)


def _outside(uri: str) -> ObjectRejected:
    remedy = "keep objects below the source's root; links out of it are not followed"
    return ObjectRejected(f"{uri} leads out of its store", code="object_outside_root", remedy=remedy)


def _check_size(uri: str, size_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size_bytes > max_bytes:
        raise ObjectRejected(
            f"{uri} has {size_bytes} bytes, more than the {max_bytes} allowed",
            code="object_too_large",
            remedy="split the object at its source, or raise the limit if memory allows",
        )


def _refused(uri: str) -> StorageError:
    remedy = "grant this account access, or for a public bucket set AWS_SKIP_SIGNATURE=true"
    return StorageError(f"access to {uri} is refused", code="storage_permission", remedy=remedy)


@contextmanager
def _told_apart(uri: str) -> Iterator[None]:
    """Turns the failures of the operating system and of obstore into ours. Messages never quote a server's answer."""
    import obstore.exceptions as remote

    try:
        yield
    except MedvecError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _missing(uri) from error
    except (PermissionError, remote.PermissionDeniedError, remote.UnauthenticatedError) as error:
        raise _refused(uri) from error
    except remote.InvalidPathError as error:
        raise _outside(uri) from error
    except OSError as error:
        raise _system_failure(uri, error) from error
    except remote.BaseError as error:
        status = re.search(r"status code: (40[134])", str(error))  # a listing's refusal has no type of its own
        if status and status[1] == "404":
            remedy = "create the bucket, or correct the URI"
            raise SourceError(f"{uri} is in no bucket of this store", code="source_missing", remedy=remedy) from error
        if status:
            raise _refused(uri) from error
        remedy = "check the network, AWS_ENDPOINT_URL, AWS_REGION and the keys, then run again"
        raise SourceUnavailable(f"{uri} does not answer as an object store", remedy=remedy) from error


def _system_failure(uri: str, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message, code, remedy = "no space left for", "storage_full", "free space or enlarge the volume, then run again"
    elif error.errno == errno.EROFS:
        message, code, remedy = "read-only file system under", "storage_permission", "mount it for writing"
    else:
        message, code, remedy = "input/output error on", "storage_io", "check the disk or mount, then run again"
    return StorageError(f"{message} {uri}", code=code, remedy=remedy, retryable=code == "storage_io")


# ---------------------------------------------------------------- folders


def _local_path(uri: str) -> Path:
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ConfigError(f"{uri} names another host", remedy="write file:///absolute/path")
        return Path(os.fsdecode(unquote_to_bytes(uri[len("file://") + len(parts.netloc) :]))).absolute()
    if "://" in uri:
        raise ConfigError(f"{uri} is not a kind of store medvec reads", remedy="give a folder, file:// or s3:// URI")
    return Path(uri).expanduser().absolute()


class _Folder:
    """Regular files below one folder. Links are followed to files inside it only, and never to folders."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uri_of(self, key: str) -> str:
        return (self._root / key).as_uri() if key else self._root.as_uri().rstrip("/") + "/"

    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        top = self._path(prefix)
        if not self._root.is_dir():
            remedy = "mount or create the folder, or correct MEDVEC_SOURCES"
            raise SourceError(f"{self.uri_of('')} is not a folder", code="source_missing", remedy=remedy)
        pending = [top] if top.is_dir() else []
        while pending:
            folder = pending.pop()
            with _told_apart(folder.as_uri()), os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
            pending += [Path(e.path) for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
            yield from (info for entry in entries if (info := self._info(entry)) is not None and info.key > after)

    def _info(self, entry: os.DirEntry[str]) -> ObjectInfo | None:
        """None for what is no object: folders, devices, unfinished writes, links that leave the root or dangle."""
        if _PART_FILE.fullmatch(entry.name):
            return None
        try:
            facts = entry.stat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):  # removed meanwhile, or a link that leads nowhere
                return None
            raise _system_failure(Path(entry.path).as_uri(), error) from error
        path = Path(entry.path)
        if not stat.S_ISREG(facts.st_mode) or (entry.is_symlink() and not self._is_inside(path)):
            return None
        # The inode tells a file replaced by another of the same size within one tick of the clock.
        etag = f"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"
        modified = datetime.fromtimestamp(facts.st_mtime, UTC)
        return ObjectInfo(str(path.relative_to(self._root)), path.as_uri(), facts.st_size, etag, modified)

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._root.resolve())

    def _path(self, key: str) -> Path:
        path = self._root / key
        if "\0" in key or not self._is_inside(path):
            raise _outside(self.uri_of(""))
        return path

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[BinaryIO, int]]:
        """The file and its size. Anything but a regular file is missing: reading a pipe would wait for ever."""
        path = self._path(key)
        with _told_apart(path.as_uri()):
            if not stat.S_ISREG(path.stat().st_mode):
                raise _missing(path.as_uri())
            with path.open("rb") as file:
                yield file, os.fstat(file.fileno()).st_size

    def stream(self, key: str, max_bytes: int | None) -> Iterator[bytes]:
        with self._open(key) as (file, size_bytes):
            _check_size(self.uri_of(key), size_bytes, max_bytes)
            left = size_bytes  # a file that grows meanwhile is read up to the size that was checked
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._open(key) as (file, _):
            file.seek(start)
            return file.read(length)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        part = path.with_name(f".medvec-{secrets.token_hex(8)}.part")
        with _told_apart(path.as_uri()):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                with suppress(FileNotFoundError):
                    part.unlink()
                raise

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _told_apart(path.as_uri()):
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- buckets


def _bucket(uri: str) -> _Bucket:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise ConfigError(f"{uri} names no bucket", remedy="write s3://bucket or s3://bucket/prefix")
    if ".." in prefix.split("/"):
        raise ConfigError(f"{uri} climbs out of its prefix", remedy="write the prefix without ..")
    return _Bucket(bucket, prefix.strip("/"))


class _Bucket:
    """Objects of one S3 bucket below a prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        from obstore.store import S3Store

        self._root = f"s3://{bucket}/{prefix}".rstrip("/") + "/"
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1", "yes")
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") and not allow_http:
            remedy = "set AWS_ALLOW_HTTP=true if the line is trusted, or give an https:// endpoint"
            raise ConfigError("AWS_ENDPOINT_URL is plain http, which sends data unencrypted", remedy=remedy)
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            # An object of a gigabyte on a slow line takes minutes; a peer that is gone is noticed in seconds.
            client_options={
                "timeout": "900s",
                "connect_timeout": "5s",
                "read_timeout": "60s",
                "allow_http": allow_http,  # given options replace what obstore reads of the environment
            },
            # Bounded: whoever calls retries the whole step with jitter.
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
        )

    def uri_of(self, key: str) -> str:
        return self._root + key

    def _checked(self, key: str) -> str:
        if not key or any(part in ("", ".", "..") for part in key.split("/")):
            raise _outside(self.uri_of(key))
        return key

    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        import obstore

        folder = self._checked(prefix.strip("/")) if prefix.strip("/") else None
        pages = iter(obstore.list(self._store, folder, offset=after or None, chunk_size=1000))
        while True:
            with _told_apart(self.uri_of(prefix)):
                page = next(pages, None)
            if page is None:
                return
            for found in page:
                key, etag = found["path"], (found["e_tag"] or "").strip('"')
                yield ObjectInfo(key, self.uri_of(key), found["size"], etag, found["last_modified"])

    def stream(self, key: str, max_bytes: int | None) -> Iterator[bytes]:
        import obstore

        uri = self.uri_of(key)
        with _told_apart(uri):
            answer = obstore.get(self._store, self._checked(key))
            _check_size(uri, answer.meta["size"], max_bytes)
            for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        import obstore

        with _told_apart(self.uri_of(key)):
            # S3 answers a range that begins past the end with an error, so the size is asked first.
            size_bytes = obstore.head(self._store, self._checked(key))["size"]
            length = min(length, size_bytes - start)
            return bytes(obstore.get_range(self._store, key, start=start, length=length)) if length > 0 else b""

    def put(self, key: str, data: bytes) -> None:
        import obstore

        with _told_apart(self.uri_of(key)):
            obstore.put(self._store, self._checked(key), data)

    def delete(self, key: str) -> None:
        import obstore

        with _told_apart(self.uri_of(key)), suppress(FileNotFoundError):
            obstore.delete(self._store, self._checked(key))
