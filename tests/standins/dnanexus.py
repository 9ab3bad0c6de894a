"""The DNAnexus API over a folder: findDataObjects with pages, a file's download address, the address itself.

Requests and answers have the shapes that documentation.dnanexus.com shows and dxpy 0.417 sends and reads.
"""

from __future__ import annotations

import json
from hashlib import md5
from pathlib import Path
from typing import Any

from standins.scripted import Answer, Request, Scripted

TOKEN, PROJECT = "dx-token-1234", "project-Gk2v0XXJ12345678901234"


class DnanexusStandIn(Scripted):
    def __init__(self, folder: Path, page: int = 5) -> None:
        super().__init__()
        self.page = page
        self.tokens = {TOKEN}
        self.files: dict[str, tuple[str, bytes]] = {}  # id -> path, content; a changed file is a new one with a new id
        self.archived: set[str] = set()
        self.many_parts: set[str] = set()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    def put(self, path: str, data: bytes) -> str:
        self.files = {one: held for one, held in self.files.items() if held[0] != path}
        file_id = f"file-{md5(path.encode() + data).hexdigest()[:24]}"
        self.files[file_id] = (path, data)
        return file_id

    @property
    def address(self) -> str:
        return f"{self.base}/{PROJECT}/Bulk/Brain MRI/T1"

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/F/D/"):
            return Answer(self.files[request.path.removeprefix("/F/D/")][1])
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "InvalidAuthentication", "the token could not be found")
        body = json.loads(request.body)
        if request.path == "/system/findDataObjects":
            return self._found(body)
        file_id = request.path.strip("/").removesuffix("/download")
        if file_id not in self.files:
            return _error(404, "ResourceNotFound", f'The specified object with ID "{file_id}" could not be found')
        if file_id in self.archived:
            return _error(422, "InvalidState", "the file is archived")
        assert body["project"] == PROJECT and body["preauthenticated"]
        return _json({"url": f"{self.base}/F/D/{file_id}", "headers": {}, "expires": 4_102_444_800_000})

    def _found(self, query: dict[str, Any]) -> Answer:
        assert query["class"] == "file" and query["state"] == "closed"
        assert query["scope"] == {"project": PROJECT, "folder": "/Bulk/Brain MRI/T1", "recurse": True}
        ids = sorted(self.files)
        start = ids.index(query["starting"]["id"]) if "starting" in query else 0
        end = start + min(self.page, query["limit"])
        results = [{"project": PROJECT, "id": one, "describe": self._told(one)} for one in ids[start:end]]
        following = {"project": PROJECT, "id": ids[end]} if end < len(ids) else None
        return _json({"results": results, "next": following})

    def _told(self, file_id: str) -> dict[str, Any]:
        path, data = self.files[file_id]
        folder, _, name = f"/Bulk/Brain MRI/T1/{path}".rpartition("/")
        part = {"size": len(data), "md5": md5(data).hexdigest(), "state": "complete"}
        return {
            "id": file_id,
            "name": name,
            "folder": folder,
            "size": len(data),
            "archivalState": "archived" if file_id in self.archived else "live",
            "parts": {"1": part, "2": part} if file_id in self.many_parts else {"1": part},
        }


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _error(status: int, kind: str, message: str) -> Answer:
    return Answer(json.dumps({"error": {"type": kind, "message": message}}).encode(), status)
