"""What the stand-ins of imaging sources have in common: a web server on loopback that remembers and fails on order.

Belongs here: the server, planned failures. Does not belong here: any service's protocol.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # decoded
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Scripted(ABC):
    """`with Service(...) as service:` runs it at `service.base`. Requests are in `seen`."""

    root: ClassVar[str] = ""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.plan: list[tuple[str, Answer]] = []  # (part of a path, answer): given once to the next such request
        self.before: Callable[[Request], None] = lambda request: (
            None
        )  # may change what is served, or raise to break off
        self._lock = threading.Lock()

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """What the service says to a request that nothing was planned for."""

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.seen if part in request.path]

    def handle(self, request: Request) -> Answer:
        with self._lock:
            self.seen.append(request)
            self.before(request)
            for place, (part, planned) in enumerate(self.plan):
                if part in request.path:
                    del self.plan[place]
                    return planned
            return self.answer(request)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{self.root}"

    def __enter__(self) -> Self:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one packet: two wait 40 ms for each other's receipt

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Request(self.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body)
                given = service.handle(asked)
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body)

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
