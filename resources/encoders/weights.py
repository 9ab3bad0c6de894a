"""Reading weight files, and refusing those that are not what their card says, before anything deserialises them.

Belongs here: where weight bytes are (a package, a path, s3://), their digests, the local cache of fetched ones.
Does not belong here: what the bytes mean (text, image, custom).

Files are read whole and hashed in memory, and the hashed bytes are what is deserialised: a file that is swapped between
the check and the use is never executed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from resources.errors import ConfigError, IntegrityError, ObjectRejected, StorageError
from resources.settings import Settings

MAX_WEIGHT_BYTES = 16 * 1024**3  # no encoder that fits one GPU is larger; a wrong URI must not fill the memory
MAX_CARD_BYTES = 4 * 1024**2


def is_remote(location: str) -> bool:
    return location.startswith("s3://")


def package_folder(package: str, inside: str) -> str:
    """The folder `inside` an installed package, found without importing (so without executing) the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package}, which holds an encoder's weights, is not installed",
            remedy="install medvec with its pinned dependencies, or set MEDVEC_WEIGHTS to where the weights are",
        )
    return str(Path(spec.submodule_search_locations[0]) / inside)


def read_weights(ref: str, folder: str, files: Mapping[str, str], settings: Settings) -> dict[str, bytes]:
    """The bytes of `files` (name below `folder` -> SHA-256 hex), every one verified.

    `folder` is a path or s3://; fetched files are kept in HOME/weights by digest. Raises IntegrityError on another
    digest, ConfigError on a file that is not there, StorageError or SourceUnavailable from the object store.
    """
    return {name: _read_verified(ref, folder, name, digest, settings) for name, digest in files.items()}


def read_card_bytes(ref: str, location: str) -> bytes:
    """The bytes of a small JSON file by path or s3://."""
    if is_remote(location):
        return _fetch(ref, location, MAX_CARD_BYTES)
    return _read_local(ref, Path(location), MAX_CARD_BYTES)


def _read_verified(ref: str, folder: str, name: str, digest: str, settings: Settings) -> bytes:
    if not is_remote(folder):
        data = _read_local(ref, Path(folder) / name, MAX_WEIGHT_BYTES)
        _verify(ref, name, digest, data)
        return data
    cached = settings.home / "weights" / digest
    if cached.exists():
        data = cached.read_bytes()
        if hashlib.sha256(data).hexdigest() == digest:  # a damaged cache entry is fetched again
            return data
    data = _fetch(ref, f"{folder.rstrip('/')}/{name}", MAX_WEIGHT_BYTES)
    _verify(ref, name, digest, data)
    _write_atomically(cached, data)
    return data


def _verify(ref: str, name: str, expected: str, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise IntegrityError(
            f"weights of encoder {ref}: {name} has SHA-256 {found[:12]}..., expected {expected[:12]}...",
            remedy="restore the file from its publisher; weights that differ on purpose need their own name@version",
            code="weights_digest",
        )


def _read_local(ref: str, path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ConfigError(
                f"encoder {ref}: {path} has {size} bytes, more than the {max_bytes} allowed",
                remedy="point MEDVEC_WEIGHTS at the weights and not at something beside them",
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"encoder {ref}: {path} cannot be read ({error.strerror})",
            remedy="reinstall the package that holds it, or set MEDVEC_WEIGHTS to where the weights and their card are",
        ) from error


def _fetch(ref: str, uri: str, max_bytes: int) -> bytes:
    from resources.object_store import read_uri

    try:
        return read_uri(uri, max_bytes)
    except ObjectRejected as error:  # missing or too large: here that is no bad object but a wrong setting
        raise ConfigError(
            f"encoder {ref}: {uri} cannot be read ({error.code})",
            remedy="set MEDVEC_WEIGHTS to where the weights and their card are",
        ) from error


def _write_atomically(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise StorageError(
            f"fetched weights cannot be kept in {path.parent} ({error.strerror})",
            remedy="free space there or correct its permissions, or point MEDVEC_HOME elsewhere",
        ) from error
