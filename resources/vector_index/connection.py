"""One pymilvus client: how it connects, what is tried again, and what its errors become.

Belongs here: connecting, bounded retries, the translation of MilvusException and grpc.RpcError.
Does not belong here: collections and entities (milvus).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from resources.errors import ConfigError, IndexInvalid, IndexUnavailable, MedvecError
from resources.settings import Settings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")

CONNECT_SECONDS = 5.0  # per attempt; a server that is up answers in milliseconds
CALL_SECONDS = 600.0  # one request; the longest are load and flush on Lite, which build indexes inside


@dataclass(frozen=True)
class Patience:
    """How often a request is tried, and how long one that reads may take. A run waits; somebody who asks does not."""

    attempts: int = 3
    read_seconds: float = CALL_SECONDS


PATIENT = Patience()

COLLECTION_NOT_FOUND, COLLECTION_NOT_LOADED = 100, 101
_LEGACY_COLLECTION_NOT_FOUND = 4  # what a server before 2.4 may say instead

# Milvus' merr codes that mean "not now": unavailable, out of memory, too many requests, disk full, rate limit, quota,
# collection not fully loaded, channel or node lost. 1 is "not ready" on a server and "unexpected" on Lite.
_NOT_NOW = frozenset({2, 3, 4, 7, 8, 9, 103, 502, 503, 901, 902, 903, 904})
# What 2.3 says under the code of anything unexpected while a channel moves from one node to another: seen once in some
# hundred searches during which aliases moved on a busy machine.
_MOVING = ("failed to get delegator", "can not find client of node")


class Connection:
    """A client of the server at `uri`. `is_alive` tells whether trying again can help at all.

    `ca` is a PEM file of who may have signed an https:// server's certificate; None trusts the public authorities.
    Raises IndexUnavailable if nothing answers there, or if the token is refused; ConfigError if `ca` cannot be used.
    """

    def __init__(
        self,
        uri: str,
        token: str,
        *,
        ca: Path | None = None,
        lite: bool,
        remedy: str,
        is_alive: Callable[[], bool],
        patience: Patience = PATIENT,
    ) -> None:
        self.place = _without_credentials(uri)
        secure = _trust(uri, ca)
        self.lite = lite
        self._remedy = remedy
        self.is_alive = is_alive
        self.patience = patience
        self._client = self._attempt("connect", lambda: _client(uri, token, secure, lite))

    def call(self, what: str, request: Callable[[MilvusClient], T], *, quotes: bool = True) -> T:
        """`request(client)`, tried again a few times if the server is busy or the network broke.

        `what` names the request in an error. `quotes=False` keeps the server's words out of the error, for
        requests that carry entities: a complaint may quote a value.
        """
        return self._attempt(what, lambda: request(self._client), quotes=quotes)

    def close(self) -> None:
        self._client.close()

    def _attempt(self, what: str, request: Callable[[], T], *, quotes: bool = True) -> T:
        try:
            return request() if self.patience.attempts == 1 else self._retried(request)
        except MedvecError:
            raise
        except Exception as error:
            if not _is_milvus_error(error):
                raise
            self._raise(what, error, quotes)

    def _retried(self, request: Callable[[], T]) -> T:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        worth_trying = retry_if_exception(lambda error: self._is_transient(error) and self.is_alive())
        between = wait_random_exponential(multiplier=0.2, max=5)
        stop = stop_after_attempt(self.patience.attempts)
        return Retrying(stop=stop, wait=between, retry=worth_trying, reraise=True)(request)

    def _is_transient(self, error: BaseException) -> bool:
        code = error_code(error)
        if isinstance(code, str):
            return code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED")
        return code in _NOT_NOW or (code == 1 and not self.lite) or any(said in str(error) for said in _MOVING)

    def _raise(self, what: str, error: Exception, quotes: bool) -> NoReturn:
        code = error_code(error)
        said = f": {_first_line(error)}" if quotes else ""
        message = f"the vector index at {self.place} cannot {what} ({code}){said}"
        cause = error if quotes else None
        if code == "PERMISSION_DENIED":
            message = f"the vector index at {self.place} does not let this user {what}{said}"
            remedy = "give the user the role medvec_writer, or medvec_reader if it only searches (`medvec roles`)"
            raise IndexUnavailable(message, remedy=remedy, code="index_denied", retryable=False) from None
        if code == "UNAUTHENTICATED" or "auth check failure" in str(error):
            message = f"the vector index at {self.place} refuses the token ({code})"
            remedy = "check MEDVEC_INDEX_TOKEN"
            raise IndexUnavailable(message, remedy=remedy, code="index_denied", retryable=False) from None
        if isinstance(code, str) or self._is_transient(error) or not self.is_alive():
            raise IndexUnavailable(message, remedy=self._remedy) from cause
        raise IndexInvalid(
            message, remedy="see the server's log; `medvec verify` shows what the index holds"
        ) from cause


def to_server(settings: Settings, patience: Patience = PATIENT) -> Connection:
    """The connection to the Milvus server at http(s)://, with the token and the authority of `settings`."""
    remedy = "check that Milvus runs there and that MEDVEC_INDEX_URI is right (`medvec doctor`)"
    if settings.index.startswith("https://"):
        remedy += ", and that MEDVEC_INDEX_CA is the authority that signed its certificate"
    token, ca = settings.index_token.get_secret_value(), settings.index_ca
    return Connection(settings.index, token, ca=ca, lite=False, remedy=remedy, is_alive=lambda: True, patience=patience)


def is_server(settings: Settings) -> bool:
    return settings.index.startswith(("http://", "https://"))


def error_code(error: BaseException) -> int | str | None:
    """A gRPC status name ("UNAVAILABLE") or Milvus' number; None for any other exception."""
    import grpc
    from pymilvus import MilvusException

    code: Any = None
    if isinstance(error, MilvusException) and isinstance(error.__cause__, grpc.RpcError):
        error = error.__cause__  # pymilvus calls a refused token a failed connection: the cause tells
    if isinstance(error, grpc.RpcError):
        code = error.code()
    elif isinstance(error, MilvusException):
        code = error.code
        if code != COLLECTION_NOT_FOUND and error.compatible_code == _LEGACY_COLLECTION_NOT_FOUND:
            code = COLLECTION_NOT_FOUND
    return code.name if isinstance(code, grpc.StatusCode) else code if code is None else int(code)


def _is_milvus_error(error: BaseException) -> bool:
    import grpc
    from pymilvus import MilvusException

    return isinstance(error, (MilvusException, grpc.RpcError, grpc.FutureTimeoutError))


def _trust(uri: str, ca: Path | None) -> dict[str, str]:
    if ca is None:
        return {}
    if not uri.startswith("https://"):
        remedy = "write MEDVEC_INDEX_URI with https://, or unset MEDVEC_INDEX_CA"
        raise ConfigError(f"MEDVEC_INDEX_CA is given, but {_without_credentials(uri)} is not https://", remedy=remedy)
    try:
        found = b"-----BEGIN CERTIFICATE-----" in ca.read_bytes()
    except OSError as error:
        remedy = "set MEDVEC_INDEX_CA to a PEM file that this user may read"
        raise ConfigError(f"the certificate {ca} cannot be read ({error.strerror})", remedy=remedy) from error
    if not found:  # gRPC would only say that it cannot connect
        raise ConfigError(f"{ca} holds no certificate", remedy="set MEDVEC_INDEX_CA to a PEM file with one")
    return {"server_pem_path": str(ca)}


def _client(uri: str, token: str, secure: dict[str, str], lite: bool) -> MilvusClient:
    from pymilvus import MilvusClient

    # Its import sets up a handler of its own, and it logs every failed call with a traceback: also the question
    # whether a collection exists. What matters becomes an error of ours.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    # Keepalive pings are answered late while Lite builds an index, and the channel would be given up.
    options: dict[str, int] = {"grpc.keepalive_time_ms": 7_200_000}
    if lite:
        options["grpc.enable_http_proxy"] = 0  # a site's http_proxy would catch loopback too
    # dedicated: pymilvus would otherwise share one channel per address and keep it after close().
    return MilvusClient(uri=uri, token=token, timeout=CONNECT_SECONDS, dedicated=True, grpc_options=options, **secure)


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 19530}"


def _first_line(error: Exception) -> str:
    import grpc

    text = str(error.details()) if isinstance(error, grpc.RpcError) and hasattr(error, "details") else str(error)
    return text.splitlines()[0][:300] if text else type(error).__name__
