"""Web services that sources publish through: paced, retried within bounds, bounded in bytes, silent about secrets.

Belongs here: the one httpx client, its limits, what its failures mean. Does not belong here: any source's protocol
(connectors), object stores (object_store). The only importer of httpx in the product.

    404, 410                  ObjectRejected object_missing
    401, 403                  SourceError credentials_refused: the token is missing, wrong, expired, or lacks the right
    429, 5xx, lost connection asked again up to ATTEMPTS times, after what Retry-After says or a growing pause; then
                              SourceUnavailable
    any other status          SourceError request_refused
A body that breaks off is asked for again from where it ended (Range, If-Range), where the service can; a large one goes
to a file (`download`), which is continued by the next process too.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_base, wait_random_exponential

from resources.errors import MedvecError, ObjectRejected, SourceError, SourceUnavailable

ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 60.0  # also of what Retry-After may ask for
MAX_ANSWER_BYTES = 256 << 20  # of a listing's one page
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

# httpx logs each request with its URL at INFO; a URL may hold what a service wants there (a signature, a subject's id).
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


class _Again(Exception):
    """A failure that may pass; `pause_seconds` is what the service asks for."""

    def __init__(self, what: str, pause_seconds: float | None = None) -> None:
        super().__init__(what)
        self.pause_seconds = pause_seconds


class _PastEnd(_Again):
    """What is to be continued ends where it is, or was never this object's beginning."""


class _Pause(wait_base):
    """What the service asks for, or exponential with full jitter."""

    def __init__(self) -> None:
        self._otherwise = wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS)

    def __call__(self, retry_state: Any) -> float:
        error = retry_state.outcome.exception()
        asked = getattr(error, "pause_seconds", None)
        return min(asked, LONGEST_PAUSE_SECONDS) if asked is not None else self._otherwise(retry_state)


class HttpSource:
    """One service below `base_url`. Safe to share between threads; requests of all of them keep one pace.

    `headers` and `secret_params` may hold secrets: they are sent with every request, the latter in the URL's query where
    a service knows no other way (an Azure SAS), and never told.
    """

    def __init__(
        self,
        base_url: str,
        *,
        requests_per_second: float,
        credential: str = "",
        headers: Mapping[str, str] | None = None,
        secret_params: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        """`credential`: the key of MEDVEC_CREDENTIALS that a refusal should name."""
        self.base_url = base_url.rstrip("/")
        self._credential = credential
        self._secret_params = dict(secret_params or {})
        self._interval_seconds = 1.0 / requests_per_second
        self._next_start = 0.0
        self._pacing = threading.Lock()
        self._headers = dict(headers or {})
        self._client = httpx.Client(
            headers={"Accept-Encoding": "identity"},  # a part of a compressed body could not be continued
            timeout=timeout_seconds,
            follow_redirects=True,
            event_hooks={"request": [self._add_headers]},
        )

    def close(self) -> None:
        self._client.close()

    def _add_headers(self, request: httpx.Request) -> None:
        """To this service alone: a redirect to another host must not carry our token there."""
        own = request.url.host == httpx.URL(self.base_url).host
        for name, value in self._headers.items():
            if own:
                request.headers[name] = value
            else:
                request.headers.pop(name, None)

    def json(self, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """A JSON answer to GET, or to POST if there is a `body` (sent as JSON)."""
        data = self.bytes(path, max_bytes=MAX_ANSWER_BYTES, params=params, body=body)
        try:
            return json.loads(data)
        except ValueError:
            raise SourceError(
                f"{self._name(path)} answered with something that is not JSON",
                remedy="the service's protocol may have changed: compare its documentation with the connector",
                code="schema_drift",
            ) from None

    def text(self, path: str, *, params: Mapping[str, Any] | None = None, form: Mapping[str, Any] | None = None) -> str:
        """A text answer to GET, or to POST if there is a `form`, whose fields stay out of the URL."""
        return self.bytes(path, max_bytes=MAX_ANSWER_BYTES, params=params, form=form).decode("utf-8", "replace")

    def facts(self, path: str) -> tuple[int | None, str]:
        """Size in bytes and etag (else Last-Modified, else "") of what GET would give, without its body."""
        size, tag = None, ""
        for attempt in self._attempts(path):
            with attempt, self._answer(self._client.build_request("HEAD", self._url(path)), path) as answer:
                length = answer.headers.get("content-length", "")
                size = int(length) if length.isdecimal() else None
                tag = answer.headers.get("etag", "").strip('"') or answer.headers.get("last-modified", "")
        return size, tag

    def head(self, path: str, length_bytes: int) -> bytes:
        """The first `length_bytes` bytes of an answer, fewer where it ends; a service that knows no ranges is cut off."""
        received = bytearray()
        for attempt in self._attempts(path):
            with attempt:
                received.clear()
                request = self._client.build_request("GET", self._url(path))
                request.headers["Range"] = f"bytes=0-{length_bytes - 1}"
                with self._answer(request, path) as answer:
                    for piece in answer.iter_bytes():
                        received += piece
                        if len(received) >= length_bytes:
                            break
        return bytes(received[:length_bytes])

    def bytes(
        self,
        path: str,
        *,
        max_bytes: int,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        form: Mapping[str, Any] | None = None,
    ) -> bytes:
        """One answer's bytes. ObjectRejected `object_too_large` before more than `max_bytes` are in memory."""
        received = bytearray()
        tag: list[str] = []  # of the version that `received` is of
        for attempt in self._attempts(path):
            with attempt:
                request = self._client.build_request(
                    "GET" if body is None and form is None else "POST",
                    self._url(path),
                    params={**(params or {}), **self._secret_params} or None,
                    json=body,
                    data=dict(form) if form is not None else None,
                )
                if received and tag:
                    request.headers.update({"Range": f"bytes={len(received)}-", "If-Range": tag[0]})
                self._receive(request, path, max_bytes, received, tag)
        return bytes(received)

    def _receive(self, request: httpx.Request, path: str, max_bytes: int, received: bytearray, tag: list[str]) -> None:
        with self._answer(request, path) as answer:
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                received.clear()
            tag[:] = _strong_tag(answer)
            for piece in answer.iter_bytes():
                received += piece
                if len(received) > max_bytes:
                    raise ObjectRejected(
                        f"an object of {self._name(path)} has more than {max_bytes} bytes",
                        remedy="split it at the source, or raise the limit of its connector",
                        code="object_too_large",
                    )

    def download(self, path: str, target: Path) -> None:
        """One answer's bytes in the file `target`, in constant memory. What the file holds is taken for their beginning and
        continued, also that of a process that was killed: the caller's checksum must tell whether it was.

        A body may break off any number of times, if only it gets longer: SourceUnavailable after ATTEMPTS requests
        that gave nothing.
        """
        while True:
            before = _size(target)
            try:
                return self._download(path, target)
            except SourceUnavailable:
                if _size(target) <= before:
                    raise

    def _download(self, path: str, target: Path) -> None:
        tag: list[str] = []  # of the version that this call has begun with
        for attempt in self._attempts(path):
            with attempt:
                request = self._client.build_request("GET", self._url(path), params=self._secret_params or None)
                if held := _size(target):
                    # From its last byte on: one more would be past the end of a file that is complete.
                    request.headers["Range"] = f"bytes={held - 1}-"
                    request.headers.update({"If-Range": tag[0]} if tag else {})
                try:
                    self._append(request, path, target, tag)
                except _PastEnd:
                    target.unlink()
                    raise

    def _append(self, request: httpx.Request, path: str, target: Path, tag: list[str]) -> None:
        with self._answer(request, path) as answer, target.open("ab") as file:
            part = answer.status_code == httpx.codes.PARTIAL_CONTENT
            file.truncate(max(0, file.tell() - 1) if part else 0)
            tag[:] = _strong_tag(answer)
            for piece in answer.iter_bytes():
                file.write(piece)

    @contextmanager
    def _answer(self, request: httpx.Request, path: str) -> Iterator[httpx.Response]:
        self._keep_pace()
        try:
            answer = self._client.send(request, stream=True)
            try:
                self._judge(answer, path)
                yield answer
            finally:
                answer.close()
        except httpx.InvalidURL:
            raise self._refused(
                path, "is asked by an invalid URL", "correct the source's URI in MEDVEC_SOURCES"
            ) from None
        except httpx.TransportError as error:  # its message may quote the URL
            raise _Again(type(error).__name__) from None

    def _judge(self, answer: httpx.Response, path: str) -> None:
        status = answer.status_code
        if answer.is_success:
            return
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _PastEnd(f"status {status}")
        if status in _AGAIN:
            raise _Again(f"status {status}", _seconds(answer.headers.get("retry-after")))
        if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise ObjectRejected(
                f"{self._name(path)} does not hold the object",
                remedy="refresh the manifest: the source has removed or moved it",
                code="object_missing",
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            remedy = f'give a valid one: MEDVEC_CREDENTIALS=\'{{"{self._credential}": "..."}}\''
            what = f"refuses the credentials of {self._credential!r} (status {status})"
            raise self._refused(path, what, remedy, "credentials_refused")
        raise self._refused(
            path, f"refuses the request (status {status})", "compare the connector with its documentation"
        )

    def _attempts(self, path: str) -> Iterator[Any]:
        def give_up(state: Any) -> None:
            raise SourceUnavailable(
                f"{self._name(path)} did not answer {ATTEMPTS} requests ({state.outcome.exception()})",
                remedy="run again later; nothing that was read is lost",
            ) from None

        yield from Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_Pause(),
            retry_error_callback=give_up,
        )

    def _keep_pace(self) -> None:
        with self._pacing:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + self._interval_seconds
        time.sleep(max(0.0, start - time.monotonic()))

    def _url(self, path: str) -> str:
        return path if path.startswith(("http://", "https://")) else f"{self.base_url}/{path.lstrip('/')}"

    def _name(self, path: str) -> str:
        """Host and first part of the path: what comes after may name a subject."""
        parts = urlsplit(self._url(path))
        return f"{parts.hostname}/{parts.path.lstrip('/').partition('/')[0]}"

    def _refused(self, path: str, what: str, remedy: str, code: str = "request_refused") -> MedvecError:
        return SourceError(f"{self._name(path)} {what}", remedy=remedy, code=code)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _strong_tag(answer: httpx.Response) -> list[str]:
    """The answer's etag if it stands for these very bytes."""
    tag = answer.headers.get("etag", "W/")
    return [] if tag.startswith("W/") else [tag]


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; a date is not waited for."""
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else None
    except ValueError:
        return None
