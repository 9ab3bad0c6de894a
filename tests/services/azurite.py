"""Azurite: Azure Blob Storage as its makers emulate it, with accounts, signatures and their expiry.

`make servers` installs it where npm is found (186 MB, half a minute); without npm its tests are skipped, and the protocol
is tested against tests/standins/azure_blob.py alone.
"""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from .install import AZURITE, require_azurite
from .server import Server

ACCOUNT = "devstoreaccount1"
# The account and key that every Azurite has; Microsoft's documentation gives them.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
API_VERSION = "2019-12-12"


class Azurite(Server):
    """`container(name)` is the address of a container, `sas()` the signature that a link to it carries."""

    name = "azurite"
    inner_port = 10_000

    def __init__(self) -> None:
        require_azurite()
        super().__init__()

    def container(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}/{name}"

    def sas(self, permissions: str = "rwlc", hours: float = 1.0) -> str:
        """An account SAS for blobs, signed as Azure documents it."""
        expires = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        signed = "\n".join([ACCOUNT, permissions, "b", "sco", "", expires, "", "", API_VERSION, ""])
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), signed.encode(), "sha256")).decode()
        fields = {"sv": API_VERSION, "ss": "b", "srt": "sco", "sp": permissions, "se": expires, "sig": signature}
        return urlencode(fields)

    def create(self, container: str) -> None:
        self._put(f"{self.container(container)}?restype=container&{self.sas()}", b"", {})

    def put(self, container: str, name: str, data: bytes) -> None:
        self._put(f"{self.container(container)}/{quote(name)}?{self.sas()}", data, {"x-ms-blob-type": "BlockBlob"})

    def _put(self, url: str, data: bytes, headers: dict[str, str]) -> None:
        urlopen(Request(url, data, headers, method="PUT"), timeout=30).close()

    def prepare(self) -> None:
        (self.folder / "data").mkdir()

    def command(self) -> list[str]:
        host = ["--blobHost", "127.0.0.1", "--blobPort", str(self.inner_port)]
        return ["node", str(AZURITE), *host, "--location", "data", "--disableTelemetry", "--silent"]

    def ask(self) -> None:
        urlopen(f"http://127.0.0.1:{self.port}/{ACCOUNT}?comp=list&{self.sas()}", timeout=5).close()
