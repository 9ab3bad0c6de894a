"""Where the reads of runs are: a store laid out by run, or the web. A helper of sra_runs, not a connector itself.

Belongs here: finding the files of one run, their sizes, etags and published md5, reading them or their heads. Does not
belong here: which runs there are (sra_runs), what the tables say (sra_metadata).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from medvec_assets.connectors.sra_metadata import Run, SraFile, files
from resources.errors import ObjectRejected
from resources.http_source import HttpSource
from resources.object_store import ObjectStore

FILES_PER_SECOND = 5.0  # of a file host that states no limit
_READS = re.compile(r"([SED]RR[0-9]{6,})(_[12])?\.(fastq|fq)(\.gz)?")
_ARCHIVE = re.compile(r"([SED]RR[0-9]{6,})((\.lite)?\.[0-9]+|\.sra|\.sralite)?")
_FASTQ = re.compile(r".*\.(fastq|fq)(\.gz)?", re.IGNORECASE)
_MISSING_REMEDY = "refresh the manifest: it names objects of another source"


@dataclass(frozen=True)
class ReadsFile:
    """One file of a run's reads. `md5` is of the whole file, "" where nobody publishes it."""

    object_id: str
    uri: str
    size_bytes: int
    etag: str
    md5: str = ""


class Archive:
    """A run whose reads are there as an .sra archive only."""


class Unlisted(Exception):
    """A run that NCBI told of a moment ago and does not list as public."""


class Reads(Protocol):
    """A place of reads."""

    is_remote: bool

    def refresh(self) -> None:
        """Forget what was listed: a new listing begins."""
        ...

    def files(self, run: Run) -> list[ReadsFile] | Archive:
        """The files of a run, mates before single reads; none if there are none."""
        ...

    def whole(self, uri: str, max_bytes: int) -> bytes: ...

    def head(self, uri: str, length: int) -> bytes: ...


class Store:
    """A folder or bucket: files at any depth, or each run's in the folder of its name."""

    def __init__(self, store: ObjectStore, in_folders: bool = False) -> None:
        self.is_remote = store.folder is None
        self._store = store
        self._in_folders = in_folders
        self._found: dict[str, list[ReadsFile]] | None = None
        self._archives: set[str] = set()
        self._listing = threading.Lock()

    def refresh(self) -> None:
        self._found = None

    def files(self, run: Run) -> list[ReadsFile] | Archive:
        if self._in_folders:
            found, archives = self._listed(run.accession)
        else:
            with self._listing:
                if self._found is None:
                    self._found, self._archives = self._listed("")
            found, archives = self._found, self._archives
        if run.accession in found:
            return _mates_or_single(found[run.accession])
        return Archive() if run.accession in archives else []

    def _listed(self, folder: str) -> tuple[dict[str, list[ReadsFile]], set[str]]:
        found: dict[str, list[ReadsFile]] = {}
        archives = set()
        for info in self._store.list(folder):
            name = info.key.rpartition("/")[2]
            if match := _READS.fullmatch(name):
                file = ReadsFile(f"{match[1]}{match[2] or ''}", info.uri, info.size_bytes, info.etag)
                found.setdefault(match[1], []).append(file)
            elif match := _ARCHIVE.fullmatch(name):
                archives.add(match[1])
        return found, archives

    def whole(self, uri: str, max_bytes: int) -> bytes:
        return self._store.get(self._key(uri), max_bytes)

    def head(self, uri: str, length: int) -> bytes:
        return self._store.get_range(self._key(uri), 0, length)

    def _key(self, uri: str) -> str:
        key = self._store.key_of(uri)
        if key is None:
            raise ObjectRejected("the object is not in this source", code="object_missing", remedy=_MISSING_REMEDY)
        return key


class OnWeb:
    """https: `<base>/<run>/<run>_1.fastq.gz`, or, without a base, the files that SRA's XML lists for everybody."""

    is_remote = True

    def __init__(self, base_url: str | None, pages_of: Callable[[str], Iterator[str]]) -> None:
        """`pages_of`: a study's pages of SRA's XML."""
        self._base_url = base_url.rstrip("/") if base_url else None
        self._source = HttpSource(base_url or "https://", requests_per_second=FILES_PER_SECOND, credential="sra")
        self._pages_of = pages_of
        self._study, self._of_study = "", dict[str, list[SraFile]]()  # runs come by study: one is kept
        self._listing = threading.Lock()

    def refresh(self) -> None:
        self._study = ""

    def files(self, run: Run) -> list[ReadsFile] | Archive:
        if self._base_url is None:
            return self._told(run)
        mates, single = (f"{run.accession}_1", f"{run.accession}_2"), (run.accession,)
        for names in (mates, single) if run.layout == "PAIRED" else (single, mates):
            found = [file for name in names if (file := self._asked(run.accession, name))]
            if found:
                return found
        return []

    def _asked(self, run: str, name: str) -> ReadsFile | None:
        uri = f"{self._base_url}/{run}/{name}.fastq.gz"
        try:
            size_bytes, etag = self._source.facts(uri)
        except ObjectRejected:
            return None
        return ReadsFile(name, uri, size_bytes or 0, etag)

    def _told(self, run: Run) -> list[ReadsFile] | Archive:
        with self._listing:
            if self._study != run.study:
                self._of_study = {}
                for page in self._pages_of(run.study):
                    self._of_study |= files(page)
                self._study = run.study
            listed = self._of_study.get(run.accession)
        if listed is None:
            raise Unlisted
        reads = sorted((file for file in listed if _FASTQ.fullmatch(file.name)), key=lambda file: file.name)
        # Submitters name their files as they like: the run and a number name them here.
        numbered = enumerate(reads, start=1)
        found = [ReadsFile(f"{run.accession}_{n}", f.url, f.size_bytes, "", f.md5) for n, f in numbered]
        return found if found or not listed else Archive()

    def whole(self, uri: str, max_bytes: int) -> bytes:
        if uri.startswith("s3://"):
            store, key = _bucket(uri)
            return store.get(key, max_bytes)
        return self._source.bytes(self._own(uri), max_bytes=max_bytes)

    def head(self, uri: str, length: int) -> bytes:
        if uri.startswith("s3://"):
            store, key = _bucket(uri)
            return store.get_range(key, 0, length)
        return self._source.head(self._own(uri), length) if length else b""

    def _own(self, uri: str) -> str:
        if not uri.startswith(f"{self._base_url}/" if self._base_url else ("https://", "http://")):
            raise ObjectRejected("the object is not in this source", code="object_missing", remedy=_MISSING_REMEDY)
        return uri


def _mates_or_single(found: list[ReadsFile]) -> list[ReadsFile]:
    """What fasterq-dump splits off beside two mates, reads that lost theirs, is left out."""
    mates = [file for file in found if "_" in file.object_id]
    return sorted(mates or found, key=lambda file: file.object_id)


def _bucket(uri: str) -> tuple[ObjectStore, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return ObjectStore(f"s3://{bucket}"), key
