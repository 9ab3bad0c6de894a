"""Azure Blob Storage's List Blobs and Get Blob over a folder, with what Azurite has no way to be told: failures.

The answers' shapes are those of the documented REST API (version 2021-12-02): EnumerationResults with NextMarker, Content-MD5
in base64, an Error document. Azurite itself is asked in tests/integration/test_azurite.py.
"""

from __future__ import annotations

import base64
from hashlib import md5, sha256
from pathlib import Path
from xml.sax.saxutils import escape

from standins.scripted import Answer, Request, Scripted

CONTAINER = "chexpert"
SAS = "sv=2021-12-02&sr=c&sp=rl&se=2099-01-01T00%3A00%3A00Z&sig=c2lnbmF0dXJl%3D"


class AzureStandIn(Scripted):
    root = f"/account/{CONTAINER}"

    def __init__(self, folder: Path, page: int = 7) -> None:
        super().__init__()
        self.page = page
        self.blobs = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        self.without_md5: set[str] = set()

    def answer(self, request: Request) -> Answer:
        if request.params.get("sig") != "c2lnbmF0dXJl=":
            return _error(403, "AuthenticationFailed", "Signature did not match.")
        name = request.path.removeprefix(self.root).lstrip("/")
        if not name:
            return self._listed(request)
        data = self.blobs.get(name)
        return _error(404, "BlobNotFound", "") if data is None else Answer(data, headers={"ETag": _etag(data)})

    def _listed(self, request: Request) -> Answer:
        assert (request.params["restype"], request.params["comp"]) == ("container", "list")
        prefix = request.params.get("prefix", "")
        names = [
            name for name in sorted(self.blobs) if name.startswith(prefix) and name > request.params.get("marker", "")
        ]
        shown = names[: min(self.page, int(request.params["maxresults"]))]
        following = shown[-1] if len(names) > len(shown) else ""
        blobs = "".join(self._blob(name) for name in shown)
        xml = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.base}">'
            f"<Blobs>{blobs}</Blobs><NextMarker>{escape(following)}</NextMarker></EnumerationResults>"
        )
        return Answer(b"\xef\xbb\xbf" + xml.encode(), headers={"Content-Type": "application/xml"})

    def _blob(self, name: str) -> str:
        data = self.blobs[name]
        digest = "" if name in self.without_md5 else base64.b64encode(md5(data).digest()).decode()
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>Thu, 02 Jan 2025 00:00:00 GMT</Last-Modified>"
            f"<Etag>{escape(_etag(data))}</Etag><Content-Length>{len(data)}</Content-Length>"
            f"<Content-MD5>{digest}</Content-MD5><BlobType>BlockBlob</BlobType></Properties></Blob>"
        )


def _etag(data: bytes) -> str:
    return f'"0x{sha256(data).hexdigest()[:15].upper()}"'


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(), status)
