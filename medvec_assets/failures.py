"""Which failures Dagster retries, and what it is told of them.

Belongs here: the retry policy and the one place that tells a transient failure from a permanent one. Does not belong
here: the errors themselves (resources.errors), retries of a single commit or request (where it is made).
"""

from __future__ import annotations

import traceback
from types import TracebackType

import dagster as dg

from resources.errors import MedvecError

# Only failures that say they are retryable are retried: `permanent_or_retry` turns the rest into Failures that are not.
RETRIES = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_FRAMES = 12  # the innermost ones: where it happened and which stage asked for it


class permanent_or_retry:
    """Turn any failure into a dg.Failure that is retried only if its error says so: a defect fails the same way thrice.

    The cause is not chained: Dagster would store its message, and a library's message may quote a patient's name. What
    is stored is our own sentence and remedy, or a defect's type, and the places in the code.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, dg.Failure | dg.RetryRequested):
            return
        places = traceback.extract_tb(trace)[-_FRAMES:]
        where = "\n".join(f"{place.filename}:{place.lineno} in {place.name}" for place in places)
        if isinstance(error, MedvecError):
            metadata = {"code": error.code, "what to do": error.remedy, "where": where}
            raise dg.Failure(str(error), metadata, allow_retries=error.retryable) from None
        remedy = "report it, with what `where` says; nothing of the input is quoted there"
        metadata = {"code": "defect", "what to do": remedy, "where": where}
        raise dg.Failure(
            f"a defect of medvec or of a library: {type(error).__name__}. What to do: {remedy}",
            metadata,
            allow_retries=False,
        ) from None
