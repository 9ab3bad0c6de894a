"""Files of one DNAnexus project, over the platform's own API: UK Biobank's Research Analysis Platform is one.

Belongs here: finding files by pages, their checksums, reading one. Does not belong here: what the files are (connectors of
their sources), mounted projects, which are folders (source_files).

    https://api.dnanexus.com/project-xxxx[/folder]

The platform's client `dxpy` speaks the same three calls, findDataObjects, describe within it, and download; it is not used,
because it allows no urllib3 and websocket-client as new as those that the rest of medvec is built with. A closed file never
changes, so its id stands for its content: nothing is read for a listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from medvec_assets.connectors.source_files import SourceFile, elsewhere
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.http_source import HttpSource

PAGE_FILES = 1_000  # the most that the platform gives
REQUESTS_PER_SECOND = 20.0
LINK_SECONDS = 3_600  # of a download address
_MD5 = re.compile(r"[0-9a-f]{32}")
_FIELDS = ("name", "folder", "size", "archivalState", "parts")


class DnanexusProject:
    """Files below one folder of a project (medvec_assets.connectors.source_files.SourceFiles)."""

    is_remote = True

    def __init__(self, address: str, token: str, credential: str) -> None:
        """`credential`: the key of MEDVEC_CREDENTIALS that `token` is from, which a refusal names."""
        parts = urlsplit(address)
        project, _, folder = unquote(parts.path).strip("/").partition("/")
        if not re.fullmatch(r"project-[A-Za-z0-9]+", project):
            remedy = "write https://api.dnanexus.com/project-xxxx/folder in MEDVEC_SOURCES"
            raise ConfigError("the address of a DNAnexus source names no project", remedy=remedy)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._project = project
        self._folder = f"/{folder}".rstrip("/")
        headers = {"Authorization": f"Bearer {token}", "DNAnexus-API": "1.0.0"} if token else {}
        pace = REQUESTS_PER_SECOND
        self._http = HttpSource(self._base, requests_per_second=pace, credential=credential, headers=headers)

    def list(self) -> Iterator[SourceFile]:
        query: dict[str, Any] = {
            "class": "file",
            "state": "closed",
            "scope": {"project": self._project, "folder": self._folder or "/", "recurse": True},
            "describe": {"fields": dict.fromkeys(_FIELDS, True)},
            "limit": PAGE_FILES,
        }
        while True:
            page = self._http.json("system/findDataObjects", body=query)
            if not isinstance(page, dict) or not isinstance(page.get("results"), list):
                raise _drift()
            for found in page["results"]:
                yield self._file(found)
            following = page.get("next")
            if following is None:
                return
            if following == query.get("starting"):
                raise _drift()
            query = query | {"starting": following}

    def sha256(self, file: SourceFile) -> str:
        raise AssertionError("every closed file has a checksum or an id that stands for it")

    def get(self, uri: str, max_bytes: int) -> bytes:
        """Raises ObjectRejected also for a file that is archived or no longer closed."""
        prefix = f"{self._base}/{self._project}/"
        if not uri.startswith(prefix):
            raise elsewhere()
        ask = {"project": self._project, "preauthenticated": True, "duration": LINK_SECONDS}
        try:
            link = self._http.json(f"{uri[len(prefix) :]}/download", body=ask)
        except SourceError as refusal:
            if refusal.code != "request_refused":
                raise
            remedy = "unarchive it in the project, or wait until its upload is closed; then refresh the manifest"
            raise ObjectRejected("the platform does not give this file now", code="not_live", remedy=remedy) from None
        if not isinstance(link, dict) or not isinstance(link.get("url"), str):
            raise _drift()
        return self._http.bytes(link["url"], max_bytes=max_bytes)

    def _file(self, found: Any) -> SourceFile:
        try:
            told: Mapping[str, Any] = found["describe"]
            path = f"{str(told['folder']).rstrip('/')}/{told['name']}"
            file_id, size = str(found["id"]), int(told["size"])
        except (KeyError, TypeError, ValueError):
            raise _drift() from None
        md5 = _whole_md5(told.get("parts"))
        uri = f"{self._base}/{self._project}/{file_id}"
        live = told.get("archivalState", "live") == "live"
        refusal = None if live else ("not_live", "unarchive it in the project, then refresh the manifest")
        return SourceFile(
            path[len(self._folder) + 1 :], uri, size, file_id, md5 or file_id, "md5" if md5 else "etag", refusal
        )


def _whole_md5(parts: Any) -> str | None:
    """A file that was uploaded in one part (up to 100 MB) has its MD5 with that part."""
    if not isinstance(parts, dict) or len(parts) != 1:
        return None
    md5 = str(next(iter(parts.values())).get("md5", ""))
    return md5 if _MD5.fullmatch(md5) else None


def _drift() -> SourceError:
    return SourceError(
        "DNAnexus answers with something that is no list of files or address",
        code="schema_drift",
        remedy="compare the platform's API documentation with medvec_assets/connectors/dnanexus.py",
    )
