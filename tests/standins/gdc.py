"""GDC's REST API over a folder that gdc-client has filled: /status, /files, /data/<id>, /manifest/<ids>.

Paths, parameters, fields and errors are those of docs.gdc.cancer.gov's API guide: filters as JSON in a POST, `from` and
`size`, `pagination`, only the `fields` asked for, the manifest's five columns, a controlled file's 403 with its sentence.
A token that has expired is a 403 for every file, open ones too, as its documentation notes.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN, EXPIRED = "valid-token", "expired-token"
MANIFEST = ("id", "filename", "md5", "size", "state")
NO_ACCESS = {"error": "You don't have access to the data"}


class GdcStandIn(ThreadingHTTPServer):
    """`hits` and `bodies` may be changed while it serves; `script` holds statuses with which the next requests are answered
    instead; `seen` what was asked; `before` is called with each path before it is answered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status: dict[str, Any] = json.loads((folder / "status.json").read_text())
        self.hits: list[dict[str, Any]] = json.loads((folder / "files.json").read_text())["data"]["hits"]
        self.bodies = {path.parent.name: path.read_bytes() for path in folder.glob("*/*.tsv")}
        self.most_hits = 10  # of a page, whatever `size` asks for, so that a small folder has several
        self.script: deque[tuple[int, dict[str, str]]] = deque()
        self.seen: list[str] = []
        self.before = lambda path: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def data_read(self) -> list[str]:
        """Ids of the files whose bytes were asked for."""
        return [path.removeprefix("/data/") for path in self.seen if path.startswith("/data/")]


@contextmanager
def serving(folder: Path) -> Iterator[GdcStandIn]:
    with GdcStandIn(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GdcStandIn
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two wait 40 ms for each other's receipt

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(self.path)
        self.server.before(self.path)
        if self.server.script:
            status, headers = self.server.script.popleft()
            return self._send(status, {"message": "scripted"}, headers)
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "status":
            return self._send(200, self.server.status)
        if kind == "files":
            return self._send(200, self._files(json.loads(body)))
        if kind == "manifest":
            return self._send(200, self._manifest(rest.split(",")))
        return self._data(rest) if kind == "data" else self._send(404, {"message": "Not Found"})

    do_POST = do_GET

    def _files(self, query: Mapping[str, Any]) -> dict[str, Any]:
        wanted = query["filters"]["content"]
        found = [hit for hit in self.server.hits if all(_matches(hit, one) for one in wanted)]
        name, _, _ = query["sort"].partition(":")
        found.sort(key=lambda hit: str(hit[name]))
        size, start = min(int(query["size"]), self.server.most_hits), int(query["from"])
        page = found[start : start + size]
        fields = {tuple(field.split(".")) for field in query["fields"].split(",")}
        shown = [{"id": hit["file_id"], **_only(hit, fields)} for hit in page]
        pagination = {"count": len(page), "total": len(found), "size": size, "from": start, "sort": query["sort"]}
        pagination |= {"page": start // size + 1, "pages": -(-len(found) // size)}
        return {"data": {"hits": shown, "pagination": pagination}, "warnings": {}}

    def _manifest(self, ids: list[str]) -> bytes:
        names = ("file_id", "file_name", "md5sum", "file_size", "state")
        rows = [[str(hit[name]) for name in names] for hit in self.server.hits if hit["file_id"] in ids]
        return ("\n".join("\t".join(row) for row in [list(MANIFEST), *rows]) + "\n").encode()

    def _data(self, file_id: str) -> None:
        hit = next((hit for hit in self.server.hits if hit["file_id"] == file_id), None)
        token = self.headers.get("X-Auth-Token")
        if hit is None or file_id not in self.server.bodies:
            return self._send(404, {"message": f"File {file_id} not found"})
        if token == EXPIRED or (hit["access"] != "open" and token != TOKEN):
            return self._send(403, NO_ACCESS)
        headers = {"Content-Disposition": f"attachment; filename={hit['file_name']}", "Content-MD5": hit["md5sum"]}
        return self._send(200, self.server.bodies[file_id], headers)

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Silent."""


def _matches(hit: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    value: Any = hit
    for name in condition["content"]["field"].split("."):
        value = value[name]
    return bool(value == condition["content"]["value"])


def _only(value: Any, fields: set[tuple[str, ...]]) -> Any:
    """`value` with the fields asked for, in objects and lists alike."""
    if isinstance(value, list):
        return [_only(one, fields) for one in value]
    if not isinstance(value, dict):
        return value
    below = {name: {field[1:] for field in fields if field[0] == name and len(field) > 1} for name in value}
    leaves = {field[0] for field in fields if len(field) == 1}
    return {
        name: _only(one, below[name]) if below[name] else one
        for name, one in value.items()
        if below[name] or name in leaves
    }
