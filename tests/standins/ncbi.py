"""NCBI as its clients meet it: E-utilities (book NBK25499), GEO's file host and pages, SRA's XML and reads.

As there, what is wrong is mostly told with status 200: `<ERROR>` of a forgotten history, a count of 0 with PhraseNotFound,
GEO's pages of private and deleted series. A wrong key gets 400 and JSON, too many requests 429 and JSON. A RunInfo table
that is asked for by the history server comes without its header.
"""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from medvec_assets.connectors.sra_metadata import HEADER

KEY = "0123456789abcdef0123456789abcdef0123"
_DOCTYPE = '<?xml version="1.0" encoding="UTF-8" ?>\n<!DOCTYPE {0} PUBLIC "-//NLM//DTD x//EN" "https://eutils.ncbi.nlm.nih.gov/x.dtd">\n'
PAGES = {
    "private": 'Accession "{}" is currently private and is scheduled to be released on Aug 07, 2029.',
    "deleted": 'Accession "{}" was deleted by the GEO staff on Jan 02, 2020',
    "missing": 'Could not find a public or private accession "{}"',
}
RATE_LIMITED = (
    429,
    {"Retry-After": "0"},
    json.dumps({"error": "API rate limit exceeded", "count": "4", "limit": "3"}).encode(),
)


@dataclass
class Seen:
    method: str
    path: str
    query: str
    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class World:
    """What NCBI holds now; tests change it."""

    runs: list[dict[str, str]] = field(default_factory=list)  # rows of RunInfo tables
    reads: dict[str, bytes] = field(default_factory=dict)  # <run>/<file> -> bytes
    matrices: dict[str, dict[str, bytes]] = field(default_factory=dict)  # series -> file -> bytes
    unlisted: dict[str, str] = field(default_factory=dict)  # series -> a key of PAGES
    hidden_runs: set[str] = field(default_factory=set)  # told in RunInfo, not public in the XML


class Ncbi(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, world: World) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.world = world
        self.seen: list[Seen] = []
        self.plan: list[tuple[str, tuple[int, dict[str, str], bytes]]] = []  # given once to a path that holds the first
        self.histories: dict[str, list[str]] = {}

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def source(self, wanted: str, further: str = "") -> str:
        return f"{self.base}/entrez/eutils?{wanted}{further}"

    def asked(self, part: str) -> list[Seen]:
        return [one for one in self.seen if part in one.path]


@contextmanager
def serving(world: World) -> Iterator[Ncbi]:
    with Ncbi(world) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def mirrored_runs(folder: Path) -> World:
    """What a mirror of SRA holds, as NCBI would tell it."""
    world = World()
    for table in sorted(folder.rglob("*RunInfo.csv")):
        with table.open(newline="") as file:
            world.runs += list(csv.DictReader(file))
    for path in sorted(folder.rglob("SRR*")):
        if path.is_file():
            world.reads[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return world


class _Handler(BaseHTTPRequestHandler):
    server: Ncbi
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two wait 40 ms for each other's receipt

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        path = unquote(parts.path)
        self.server.seen.append(Seen(self.command, path, parts.query, form, dict(self.headers)))
        for position, (part, answer) in enumerate(self.server.plan):
            if part in path:
                del self.server.plan[position]
                return self._send(*answer)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return self._answer(path, form, query)

    do_POST = do_HEAD = do_GET

    def _answer(self, path: str, form: dict[str, str], query: dict[str, str]) -> None:
        world = self.server.world
        if path.startswith("/entrez/eutils/"):
            if form.get("api_key", KEY) != KEY:
                wrong = {"error": "API key invalid", "api-key": form["api_key"], "type": "client", "status": "unknown"}
                return self._send(400, {}, json.dumps(wrong).encode())
            return self._send(200, {}, self._utility(path.rpartition("/")[2], form).encode())
        if path.startswith("/reads/"):
            return self._file(world.reads.get(path.removeprefix("/reads/")))
        if match := re.fullmatch(r"/geo/series/GSE\d*nnn/(GSE\d+)/matrix/(.*)", path):
            assert f"/GSE{match[1][3:-3]}nnn/" in path
            files = world.matrices.get(match[1])
            if files is None:
                return self._send(404, {}, b"")
            return self._file(files.get(match[2])) if match[2] else self._send(200, {}, _index(files).encode())
        if path == "/geo/query/acc.cgi":
            kind = world.unlisted.get(query["acc"])
            page = f"<html><body>{escape(PAGES[kind].format(query['acc']), quote=False)}</body></html>" if kind else ""
            return self._send(200, {}, (page or f"^SERIES = {query['acc']}\n").encode())
        return self._send(404, {}, b"")

    def _utility(self, name: str, form: dict[str, str]) -> str:
        if name == "einfo.fcgi":
            return _DOCTYPE.format("eInfoResult") + "<eInfoResult><DbList><DbName>sra</DbName></DbList></eInfoResult>"
        if name == "esearch.fcgi":
            return self._search(form)
        known = self.server.histories.get(form["WebEnv"])
        if known is None:
            return (
                _DOCTYPE.format("eEfetchResult")
                + "<eFetchResult>\n<ERROR>Unable to obtain query #1</ERROR>\n</eFetchResult>"
            )
        start = int(form["retstart"])
        page = known[start : start + int(form["retmax"])]
        if name == "esummary.fcgi":
            return _DOCTYPE.format("eSummaryResult") + f"<eSummaryResult>{''.join(map(_series, page))}</eSummaryResult>"
        rows = [row for row in self.server.world.runs if row["Run"] in page]
        return _runinfo(rows) if form["rettype"] == "runinfo" else self._packages(rows)

    def _search(self, form: dict[str, str]) -> str:
        world, words = self.server.world, re.findall(r"([A-Z]+\d+)\[", form["term"])
        if form["db"] == "gds":
            found = [word for word in words if word in world.matrices and word not in world.unlisted]
            unknown = [word for word in words if word not in found]
        else:
            found = [row["Run"] for row in world.runs if {row["SRAStudy"], row["BioProject"], row["Run"]} & set(words)]
            unknown = [] if found else words
        name = f"MCID_{len(self.server.histories)}"
        self.server.histories[name] = found
        errors = "".join(f"<PhraseNotFound>{word}</PhraseNotFound>" for word in unknown)
        return (
            _DOCTYPE.format("eSearchResult")
            + f"<eSearchResult><Count>{len(found)}</Count><RetMax>0</RetMax><RetStart>0</RetStart>"
            f"<QueryKey>1</QueryKey><WebEnv>{name}</WebEnv><IdList/>"
            + (f"<ErrorList>{errors}</ErrorList>" if errors else "")
            + "</eSearchResult>"
        )

    def _packages(self, rows: list[dict[str, str]]) -> str:
        packages = "".join(self._package(row) for row in rows)
        return f'<?xml version="1.0" encoding="UTF-8" ?>\n<EXPERIMENT_PACKAGE_SET>{packages}</EXPERIMENT_PACKAGE_SET>'

    def _package(self, row: dict[str, str]) -> str:
        run, world = row["Run"], self.server.world
        files = "".join(
            f'<SRAFile cluster="public" filename="{name}" size="{len(data)}" date="2026-01-01 00:00:00" '
            f'md5="{md5(data, usedforsecurity=False).hexdigest()}" supertype="Original" sratoolkit="0">'
            f'<Alternatives url="s3://sra-pub-src-13/{path}.1" free_egress="-" access_type="Use Cloud Data Delivery" org="AWS"/>'
            f'<Alternatives url="{self.server.base}/reads/{path}" free_egress="worldwide" access_type="anonymous" org="NCBI"/>'
            "</SRAFile>"
            for path, data in world.reads.items()
            if path.partition("/")[0] == run and (name := path.partition("/")[2])
        )
        public = "false" if run in world.hidden_runs else "true"
        return (
            f'<EXPERIMENT_PACKAGE><EXPERIMENT accession="{row["Experiment"]}"/><RUN_SET runs="1"><RUN accession="{run}" '
            f'is_public="{public}" cluster_name="public"><SRAFiles>{files}</SRAFiles></RUN></RUN_SET></EXPERIMENT_PACKAGE>'
        )

    def _file(self, data: bytes | None) -> None:
        if data is None:
            return self._send(404, {}, b"")
        tag = {"ETag": f'"{md5(data, usedforsecurity=False).hexdigest()}"'}
        if "Range" in self.headers and self.headers.get("If-Range", tag["ETag"]) == tag["ETag"]:
            start, end = self.headers["Range"].removeprefix("bytes=").split("-")
            return self._send(206, tag, data[int(start) : int(end) + 1 if end else None])
        return self._send(200, tag, data)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Silent."""


def _index(files: dict[str, bytes]) -> str:
    lines = "".join(f'<a href="{name}">{name}</a>   2026-01-01 00:35  3.1K\n' for name in files)
    return f'<html><body><pre><a href="/geo/series/">Parent Directory</a>\n{lines}</pre></body></html>'


def _series(accession: str) -> str:
    items = {"Accession": accession, "GPL": "96", "entryType": "GSE", "PDAT": "2026/01/01"}
    told = "".join(f'<Item Name="{name}" Type="String">{value}</Item>' for name, value in items.items())
    return f"<DocSum><Id>20000{accession[3:]}</Id>{told}</DocSum>"


def _runinfo(rows: list[dict[str, str]]) -> str:
    table = io.StringIO()
    csv.DictWriter(table, HEADER.split(","), lineterminator="\n").writerows(rows)
    return table.getvalue() + "\n"
