"""The web client of the connectors, against a server that misbehaves as real ones do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resources import http_source
from resources.errors import MedvecError, ObjectRejected, SourceError, SourceUnavailable
from resources.http_source import HttpSource

BODY = bytes(range(256)) * 64
SECRET = "token-1234"


class _Server(ThreadingHTTPServer):
    answers: list[Any]  # of the next requests; then 200 with BODY
    seen: list[tuple[str, str, dict[str, str], bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if isinstance(answer, tuple):
            status, headers = answer
        else:
            status, headers = answer, {}
        body = BODY if status == 200 else b"{}"
        if "Range" in self.headers and status == 200:
            start, end = self.headers["Range"].removeprefix("bytes=").split("-")
            status, body = 206, BODY[int(start) : int(end) + 1 if end else None]
        self.send_response(status)
        for name, value in {"ETag": '"v1"', **headers}.items():
            if name != "break":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = headers.get("break")
        self.wfile.write(body if cut is None else body[: int(cut)])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    do_POST = do_HEAD = do_GET

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as found:
        found.answers, found.seen = [], []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def source(server: _Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpSource]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    made = HttpSource(
        f"http://127.0.0.1:{server.server_port}/api",
        requests_per_second=1_000,
        credential="gdc",
        headers={"X-Auth-Token": SECRET},
    )
    yield made
    made.close()


def test_an_answer_comes_whole_with_our_token(source: HttpSource, server: _Server) -> None:
    assert source.bytes("data/1", max_bytes=len(BODY)) == BODY
    method, path, headers, _ = server.seen[0]
    assert (method, path, headers["X-Auth-Token"]) == ("GET", "/api/data/1", SECRET)


def test_what_may_pass_is_asked_again(source: HttpSource, server: _Server) -> None:
    server.answers = [503, (429, {"Retry-After": "0"}), 500]
    assert source.bytes("data/1", max_bytes=1 << 20) == BODY
    assert len(server.seen) == 4


def test_a_broken_body_is_continued_where_it_ended(source: HttpSource, server: _Server) -> None:
    server.answers = [(200, {"break": "1000"})]
    assert source.bytes("data/1", max_bytes=1 << 20) == BODY
    assert server.seen[1][2]["Range"] == "bytes=1000-"
    assert server.seen[1][2]["If-Range"] == '"v1"'


def test_asking_ends(source: HttpSource, server: _Server) -> None:
    server.answers = [503] * 20
    with pytest.raises(SourceUnavailable, match="did not answer 6 requests"):
        source.bytes("data/1", max_bytes=1 << 20)
    assert len(server.seen) == http_source.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (404, ObjectRejected, "object_missing"),
        (410, ObjectRejected, "object_missing"),
        (401, SourceError, "credentials_refused"),
        (403, SourceError, "credentials_refused"),
        (400, SourceError, "request_refused"),
    ],
)
def test_a_refusal_says_what_it_is_and_nothing_secret(
    source: HttpSource, server: _Server, status: int, kind: type[MedvecError], code: str
) -> None:
    server.answers = [status]
    with pytest.raises(kind) as refusal:
        source.bytes("data/jane-doe", max_bytes=1 << 20)
    assert refusal.value.code == code
    assert SECRET not in str(refusal.value) and "jane" not in str(refusal.value)
    assert len(server.seen) == 1


def test_more_bytes_than_allowed_are_refused(source: HttpSource) -> None:
    with pytest.raises(ObjectRejected) as refusal:
        source.bytes("data/1", max_bytes=100)
    assert refusal.value.code == "object_too_large"


def test_what_is_no_json_is_drift(source: HttpSource) -> None:
    with pytest.raises(SourceError) as refusal:
        source.json("files")
    assert refusal.value.code == "schema_drift"


def test_a_form_is_posted_and_stays_out_of_the_url(source: HttpSource, server: _Server) -> None:
    source.text("efetch", form={"api_key": SECRET})
    method, path, _, body = server.seen[0]
    assert (method, path, body) == ("POST", "/api/efetch", f"api_key={SECRET}".encode())


def test_a_token_does_not_follow_a_redirect_to_another_host(source: HttpSource, server: _Server) -> None:
    elsewhere = f"http://localhost:{server.server_port}/other"
    server.answers = [(302, {"Location": elsewhere})]
    source.bytes("data/1", max_bytes=1 << 20)
    assert "X-Auth-Token" not in server.seen[1][2]


def test_requests_of_all_threads_keep_one_pace(server: _Server) -> None:
    paced = HttpSource(f"http://127.0.0.1:{server.server_port}", requests_per_second=50)
    started = time.monotonic()
    threads = [threading.Thread(target=paced.bytes, args=("x",), kwargs={"max_bytes": 1 << 20}) for _ in range(11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paced.close()
    assert time.monotonic() - started >= 0.2
    assert len(server.seen) == 11


def test_no_url_is_logged(source: HttpSource, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        source.bytes("data/jane-doe", max_bytes=1 << 20)
    assert "jane" not in caplog.text


def test_only_the_head_of_a_large_body_is_read(source: HttpSource, server: _Server) -> None:
    server.answers = [503]
    assert source.head("data/1", 100) == BODY[:100]
    assert server.seen[1][2]["Range"] == "bytes=0-99"
    assert source.head("data/1", 1 << 20) == BODY


def test_a_file_is_saved_and_continued_where_it_broke_off(source: HttpSource, server: _Server, tmp_path: Path) -> None:
    server.answers = [(200, {"break": "1000"})]
    source.download("data/1", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == BODY
    assert server.seen[1][2]["Range"] == "bytes=999-"


def test_size_and_etag_come_without_the_body(source: HttpSource, server: _Server) -> None:
    assert source.facts("data/1") == (len(BODY), "v1")
    assert server.seen[0][0] == "HEAD"
