"""Storage failures as errors of ours.

Belongs here: what a failure of deltalake or of the storage below it is called and what to do about it. Does not belong
here: trying again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError

from resources.errors import CommitConflict, MedvecError, StorageError
from resources.tables import TableSpec

# A folder that may not be read, and S3's answers to credentials that are wrong, expired or lack a permission.
_DENIED = (
    "Permission denied",
    "os error 13",
    "AccessDenied",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "InvalidToken",
)
# What Arrow and delta-rs say of an object that does not exist.
_MISSING = ("No such file or directory", "NoSuchKey", "Object at location")


@contextmanager
def named_failures(spec: TableSpec, producer: Callable[[], Exception | None] = lambda: None) -> Iterator[None]:
    """Storage failures as errors that name the table and end with the remedy."""
    try:
        yield
    except MedvecError:
        raise
    except CommitFailedError as error:
        raise CommitConflict(
            f"another run committed to the same part of {spec.path} first",
            remedy="run again: it starts from the new version",
        ) from error
    except (DeltaError, OSError, pa.ArrowException) as error:
        if (own := producer()) is not None:
            raise own from error
        raise _storage_error(spec, error) from error


def _storage_error(spec: TableSpec, error: Exception) -> StorageError:
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text or "os error 28" in text:
        return StorageError(
            f"the disk is full: {spec.path} could not be written; nothing was committed",
            remedy="free space on the lake's volume and run again: finished vectors are staged and adopted",
            code="disk_full",
        )
    if any(mark in text for mark in _DENIED):
        return StorageError(
            f"no permission for table {spec.path}",
            remedy="check who owns the lake's folder, or the bucket's policy and credentials",
            code="storage_denied",
        )
    if isinstance(error, FileNotFoundError) or any(mark in text for mark in _MISSING):
        return StorageError(
            f"a data file of table {spec.path} is not there",
            remedy="an old version's files are deleted 30 days after it was replaced: read a newer one; if it is the newest, "
            "restore the file",
            code="files_gone",
        )
    # The first line only: below it delta-rs previews the rows it refuses, which may be a person's.
    summary = text.partition("\n")[0][:200]
    return StorageError(
        f"table {spec.path} could not be read or written ({type(error).__name__}: {summary})",
        remedy="check that the lake's URI answers (medvec doctor), then run again",
        retryable=True,
    )
