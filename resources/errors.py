"""Every error medvec raises on purpose, in one place.

    MedvecError                  code, message, remedy, retryable, status
    ├── ConfigError              the settings or the command line are wrong
    │   └── QueryInvalid         a question that cannot be answered as it was asked
    ├── CursorGone               a page of an answer that is no more: it expired, or the index changed since
    ├── Busy                     this process has as much to do as it may: ask again in a moment
    ├── ObjectRejected           one object is bad: it goes to quarantine, its neighbours go on
    ├── SourceError              the source as a whole is not what it says: the run fails, nothing is committed
    ├── SourceUnavailable        the source does not answer now
    ├── IntegrityError           bytes do not match their digest (weights, payloads, the audit chain)
    ├── PolicyRefused            a rule forbids it here: names the rule
    ├── NotFound                 the id asked for does not exist
    │   └── VersionGone          it existed, and is not kept any more
    ├── CommitConflict           another run committed the same partition first
    ├── StorageError             the lake or the object store failed (disk full, permission, network)
    ├── IndexUnavailable         the vector index does not answer
    ├── AuditUnavailable         an event of the access log cannot be written: nothing is answered
    └── IndexInvalid             the vector index holds something that medvec did not put there

A message names the object and the rule and never quotes the object's content, which may hold a patient's name.
Does not belong here: how an error is shown (the CLI and the API do that), or retry loops.
"""

from __future__ import annotations

from typing import Any


class MedvecError(Exception):
    """Base of all intended failures. `str(error)` is the message followed by the remedy."""

    code = "error"
    retryable = False
    status = 500  # the HTTP status the service answers with

    def __init__(self, message: str, *, remedy: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] What to do: {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.args, self.__dict__)  # an exception's own way leaves the keywords out


def _unpickled(kind: type[MedvecError], args: tuple[Any, ...], facts: dict[str, Any]) -> MedvecError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class ConfigError(MedvecError):
    code = "config"
    status = 400


class QueryInvalid(ConfigError):
    code = "query_invalid"
    status = 422


class CursorGone(MedvecError):
    code = "cursor_gone"
    status = 410


class Busy(MedvecError):
    code = "busy"
    retryable = True
    status = 503


class ObjectRejected(MedvecError):
    """One object breaks a rule. `code` is what quarantine stores; `disposition` is `quarantined` or `skipped`."""

    code = "object_invalid"
    status = 422

    def __init__(self, message: str, *, remedy: str, code: str, disposition: str = "quarantined") -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.disposition = disposition


class SourceError(MedvecError):
    code = "source_invalid"
    status = 502


class SourceUnavailable(MedvecError):
    code = "source_unavailable"
    retryable = True
    status = 503


class IntegrityError(MedvecError):
    code = "integrity"


class PolicyRefused(MedvecError):
    """`rule` is the name of the rule that refused."""

    code = "policy_refused"
    status = 403

    def __init__(self, message: str, *, remedy: str, rule: str) -> None:
        super().__init__(message, remedy=remedy)
        self.rule = rule


class NotFound(MedvecError):
    code = "not_found"
    status = 404


class VersionGone(NotFound):
    code = "version_gone"
    status = 410


class CommitConflict(MedvecError):
    code = "commit_conflict"
    retryable = True
    status = 409


class StorageError(MedvecError):
    code = "storage"
    status = 507

    def __init__(self, message: str, *, remedy: str, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.retryable = retryable


class IndexUnavailable(MedvecError):
    code = "index_unavailable"
    status = 503

    def __init__(self, message: str, *, remedy: str, code: str | None = None, retryable: bool = True) -> None:
        super().__init__(message, remedy=remedy, code=code)
        self.retryable = retryable


class AuditUnavailable(MedvecError):
    code = "audit_unavailable"
    retryable = True
    status = 503


class IndexInvalid(MedvecError):
    code = "index_invalid"
    status = 500
