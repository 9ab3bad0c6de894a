"""PhysioNet's file service as `wget` meets it: basic authentication, access by project, ranges, SHA256SUMS.txt.

401 without a valid user and password, 403 to a user who has not signed the project's data use agreement, 404 for what a
release does not hold, 206 and 416 for ranges. `cuts` breaks bodies off, `replaced` serves other bytes than were published.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER, PASSWORD = "jdoe", "s3cr3t-word"
CREDENTIAL = f"{USER}:{PASSWORD}"
UNSIGNED = f"nodua:{PASSWORD}"  # credentialed, and without this project's agreement


class PhysioNet(ThreadingHTTPServer):
    """Serves `root`, laid out as /files below it: <project>/<release>/<path>."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.seen: list[tuple[str, str | None]] = []  # path in its release, Range
        self.cuts: list[int] = []  # the next bodies of data files end after so many bytes
        self.replaced: dict[str, bytes] = {}

    def url(self, project: str, release: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/{project}/{release}/"

    def fetched(self) -> list[str]:
        """The data files that were asked for, in order."""
        return [path for path, _ in self.seen if not path.endswith("SHA256SUMS.txt")]


class _Handler(BaseHTTPRequestHandler):
    server: PhysioNet
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two wait 40 ms for each other's receipt

    def do_GET(self) -> None:
        status = self._access()
        if status != 200:
            headers = {"WWW-Authenticate": 'Basic realm="PhysioNet"'} if status == 401 else {}
            return self._answer(status, b"<html><body>Restricted access</body></html>", headers)
        relative = self.path.removeprefix("/files/")
        path = "/".join(relative.split("/")[2:])
        self.server.seen.append((path, self.headers.get("Range")))
        file = self.server.root / relative
        data = self.server.replaced.get(path, file.read_bytes() if file.is_file() else None)
        if data is None:
            return self._answer(404, b"<html><body>Not Found</body></html>", {})
        tag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if self.headers.get("If-Range", tag) != tag:
            start = 0
        if start >= len(data) > 0:
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.server.cuts.pop(0) if self.server.cuts and path.endswith(".gz") else None
        self._answer(206 if start else 200, data[start:], headers, cut)

    def _access(self) -> int:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(given).decode().partition(":")
        if password != PASSWORD:
            return 401
        return 200 if user == USER else 403

    def _answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Silent."""


@contextmanager
def serving(root: Path) -> Iterator[PhysioNet]:
    with PhysioNet(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def publish(folder: Path, files: dict[str, bytes]) -> None:
    """Writes a release's files and their SHA256SUMS.txt."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    seal(folder)


def seal(folder: Path) -> None:
    """Writes SHA256SUMS.txt of what the folder holds."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS.txt")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder).as_posix()}\n" for path in found
    ]
    (folder / "SHA256SUMS.txt").write_text("".join(lines))
