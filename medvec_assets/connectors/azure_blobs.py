"""Blobs of one Azure container through a shared access signature (SAS), as Azure Storage's REST API documents it.

Belongs here: listing by pages, reading, Content-MD5, what an expired link means. Does not belong here: what the blobs are
(connectors of their sources).

    https://<account>.blob.core.windows.net/<container>[/<folder>]     an emulator: http://127.0.0.1:<port>/<account>/<container>

The SAS is a secret and stands in MEDVEC_CREDENTIALS, never in a URI: a manifest, a log and an error hold the address alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree

from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.source_files import SourceFile, elsewhere
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.http_source import HttpSource

PAGE_BLOBS = 5_000  # the most that Azure gives
REQUESTS_PER_SECOND = 100.0  # an account takes 20,000
MAX_UNHASHED_BYTES = 4 << 30


class AzureBlobs:
    """Blobs below one address (medvec_assets.connectors.source_files.SourceFiles)."""

    is_remote = True

    def __init__(self, address: str, sas: str, credential: str, landing: Landing) -> None:
        """`credential`: the key of MEDVEC_CREDENTIALS that `sas` is from, which a refusal names."""
        parts = urlsplit(address)
        names = unquote(parts.path).strip("/").split("/")
        depth = 1 if ".blob." in parts.netloc else 2
        if parts.query or len(names) < depth or not all(names):
            remedy = "write https://ACCOUNT.blob.core.windows.net/CONTAINER, and what follows ? into MEDVEC_CREDENTIALS"
            raise ConfigError("the address of an Azure source names no container, or holds a signature", remedy=remedy)
        self._container = f"{parts.scheme}://{parts.netloc}/" + quote("/".join(names[:depth]))
        self._prefix = "".join(f"{name}/" for name in names[depth:])
        self._credential = credential
        self._landing = landing
        secret = dict(parse_qsl(sas.lstrip("?"), keep_blank_values=True))
        self._expires = _moment(secret.get("se"))
        self._http = HttpSource(
            self._container,
            requests_per_second=REQUESTS_PER_SECOND,
            credential=credential,
            secret_params=secret,
        )

    def list(self) -> Iterator[SourceFile]:
        marker = ""
        while True:
            page = self._page(marker)
            for blob in page.iterfind("Blobs/Blob"):
                if blob.findtext("Properties/ResourceType") != "directory":
                    yield self._file(blob)
            following = page.findtext("NextMarker") or ""
            if not following:
                return
            if following == marker:
                raise self._drift("gives the same page again")
            marker = following

    def sha256(self, file: SourceFile) -> str:
        """Of a blob that was stored without an MD5. What was read for it is kept as the records stage keeps an object, by
        the digest, so that it crosses the web once."""
        data = self.get(file.uri, MAX_UNHASHED_BYTES)
        digest = sha256(data).hexdigest()
        self._landing.bytes(f"sha256-{digest}", lambda: data)
        return digest

    def get(self, uri: str, max_bytes: int) -> bytes:
        if not uri.startswith(f"{self._container}/{quote(self._prefix)}"):
            raise elsewhere()
        self._require_valid()
        return self._http.bytes(uri, max_bytes=max_bytes)

    # ---------------------------------------------------------------- protocol

    def _page(self, marker: str) -> ElementTree.Element:
        self._require_valid()
        params = {"restype": "container", "comp": "list", "maxresults": str(PAGE_BLOBS), "prefix": self._prefix}
        params |= {"marker": marker} if marker else {}
        try:
            data = self._http.bytes(self._container, max_bytes=256 << 20, params=params)
        except ObjectRejected:  # so Azure answers too if there is a container and no signature at all
            remedy = f"correct its address, or give the link's signature in MEDVEC_CREDENTIALS as {self._credential!r}"
            what = f"{urlsplit(self._container).netloc} shows no such container"
            raise SourceError(what, code="source_missing", remedy=remedy) from None
        try:
            page = ElementTree.fromstring(data)
        except ElementTree.ParseError:
            raise self._drift("answers with something that is no XML") from None
        if page.tag != "EnumerationResults":
            raise self._drift("answers with something that is no list of blobs")
        return page

    def _file(self, blob: ElementTree.Element) -> SourceFile:
        name, told = blob.find("Name"), blob.find("Properties")
        if name is None or not name.text or told is None:
            raise self._drift("lists a blob without a name or properties")
        # A name with characters that XML cannot hold comes percent-encoded, and says so.
        key = unquote(name.text) if name.get("Encoded") == "true" else name.text
        size, etag = told.findtext("Content-Length"), told.findtext("Etag")
        if not size or not size.isdigit() or not etag:
            raise self._drift("lists a blob without a length or etag")
        uri = f"{self._container}/{quote(key)}"
        return SourceFile(key[len(self._prefix) :], uri, int(size), etag.strip('"'), _hex(told.findtext("Content-MD5")))

    def _require_valid(self) -> None:
        if self._expires is not None and self._expires <= datetime.now(UTC):
            remedy = f"get a new link and put what follows its ? into MEDVEC_CREDENTIALS as {self._credential!r}"
            what = f"the link of {self._credential!r} expired at {self._expires:%Y-%m-%d %H:%M} UTC"
            raise SourceError(what, code="credentials_expired", remedy=remedy)

    def _drift(self, what: str) -> SourceError:
        remedy = (
            "correct the container's address in MEDVEC_SOURCES; else compare Azure's documentation with the connector"
        )
        return SourceError(f"{urlsplit(self._container).netloc} {what}", code="schema_drift", remedy=remedy)


def _moment(text: str | None) -> datetime | None:
    """The `se` of a SAS: a date or a time in UTC."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _hex(content_md5: str | Any) -> str | None:
    """Azure writes an MD5 in base64."""
    try:
        digest = base64.b64decode(content_md5 or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == 16 else None
