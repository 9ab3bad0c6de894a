"""Series matrices of NCBI's Gene Expression Omnibus: one object per sample, from a mirror or from GEO itself.

Belongs here: which series and files there are, their versions, withdrawn and private series, a sample's bytes by URI.
Does not belong here: a matrix file's layout (series_matrix), requests to E-utilities (eutils), values (modalities).

MEDVEC_SOURCES names one of two:
- a folder or s3:// that holds `.../GSE1000_series_matrix.txt.gz` anywhere, as GEO's own `geo/series/GSE1nnn/GSE1000/matrix/`;
- `https://eutils.ncbi.nlm.nih.gov/entrez/eutils?series=GSE1000,GSE2034`: E-utilities say which of them are public, and the
  files come from https://ftp.ncbi.nlm.nih.gov (`&files=` names another host with GEO's paths).
A file that cannot be used is one rejection and withdraws nothing: the samples that it held before stay as they were.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, eutils, sample_folder, series_matrix
from medvec_assets.connectors.landing import Landing
from medvec_assets.fingerprints import set_digest
from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable
from resources.http_source import HttpSource
from resources.object_store import ObjectStore
from resources.settings import Settings

LICENSE = "NCBI GEO public"  # GEO: "NCBI places no restrictions on the use or distribution of the GEO data"
FILES_URL, PAGES_URL = "https://ftp.ncbi.nlm.nih.gov", "https://www.ncbi.nlm.nih.gov"
FILES_PER_SECOND = 5.0  # the file host states no limit
FORM = "series-matrix-1"  # of what is landed: moves when a sample's bytes would come out differently
NO_VERSION = "observed"  # GEO has no releases; a constant, so that only content moves a partition's digest
_FILE = re.compile(r"(GSE[0-9]+)(-GPL[0-9]+)?_series_matrix(-[0-9]+)?\.txt\.gz")
_GONE = ("series_withdrawn", "series_private", "series_missing")  # these withdraw what is known of a series
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class MatrixFile:
    """One file as it stands now. `etag` changes when its content does."""

    uri: str
    name: str
    size_bytes: int
    etag: str

    @property
    def series(self) -> str:
        return _series(self.name)


class _Place(Protocol):
    """A mirror or the service."""

    def files(self) -> Iterator[MatrixFile | Rejection]:
        """Every matrix file, and a rejection for every series that has none."""
        ...

    def file(self, uri: str) -> MatrixFile | None:
        """The file at `uri` as it stands now; None if it is not of this place."""
        ...

    def fetch(self, file: MatrixFile, target: Path) -> None:
        """Makes the landed folder of a file."""
        ...


def open_connector(settings: Settings, dataset_id: str) -> GeoSeries:
    """The series of MEDVEC_SOURCES' entry for this dataset, or of the sample bundle."""
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    is_remote = source.startswith(("https://", "http://"))
    place: _Place = _Service(source, settings) if is_remote else _Mirror(source)
    return GeoSeries(place, Landing(settings, dataset_id))


class GeoSeries:
    """Connector of dataset geo_expression (medvec_assets.connectors.Connector)."""

    is_remote = False  # a sample is read from the landed table, never across the web: stages need not keep it again

    def __init__(self, place: _Place, landing: Landing) -> None:
        self._place = place
        self._landing = landing

    def version(self) -> str:
        """A digest of the files' sizes and etags and of the series that are not public; reads no file."""
        found = self._place.files()
        lines = (
            f"{f.object_id} {f.code}" if isinstance(f, Rejection) else f"{f.uri} {f.size_bytes} {f.etag}" for f in found
        )
        return f"listing-{set_digest(lines)[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """One listing per file. Raises SourceError `source_empty` if there is no file and no word of a withdrawn one."""
        known = _known(previous)
        found = False
        for file in self._place.files():
            found = True
            yield _absent(file, known) if isinstance(file, Rejection) else self._listing(file, known)
        if not found:
            # Not an empty listing: that would withdraw every sample because of one mistyped prefix.
            remedy = "correct the URI in MEDVEC_SOURCES, or mount the folder"
            raise SourceError("the source holds no series matrix", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One sample's canonical bytes (series_matrix). Raises ObjectRejected, also for a URI of another place."""
        file_uri, _, accession = uri.rpartition("#")
        file = self._place.file(file_uri)
        if file is None or not accession:
            remedy = "refresh the manifest: it names objects of another source, or the file was removed"
            raise ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)
        data = series_matrix.sample_bytes(self._landed(file), accession)
        if len(data) > max_bytes:
            remedy = "raise the limit if memory allows"
            raise ObjectRejected("a sample has more bytes than allowed", code="object_too_large", remedy=remedy)
        return data

    def _listing(self, file: MatrixFile, known: dict[str, list[dict[str, Any]]]) -> Listing:
        before = known.get(file.uri, [])
        if before and all((row["size"], row["etag"]) == (file.size_bytes, file.etag) for row in before):
            complete = all(row["rejected"] == 0 for row in before)
            if complete:  # otherwise its landed form tells again which samples were refused
                return Listing(_frame([_row(file.uri, row) for row in before]))
        try:
            samples = series_matrix.samples(self._landed(file))
        except ObjectRejected as refusal:
            rejection = Rejection(file.name, refusal.code, refusal.remedy)
            kept = [] if refusal.code in _GONE else before
            return Listing(_frame([_row(file.uri, row) for row in kept]), (rejection,))
        refused = tuple(
            Rejection(f"{file.series}-{one['accession']}"[:255], one["code"], series_matrix.refused(one["code"]).remedy)
            for one in samples
            if one["code"]
        )
        fresh = [_described(file, one, len(refused)) for one in samples if not one["code"]]
        return Listing(_frame([_row(file.uri, row) for row in fresh]), refused)

    def _landed(self, file: MatrixFile) -> Path:
        name = f"{FORM} {file.uri} {file.size_bytes} {file.etag}"
        return self._landing.made(name, lambda target: self._place.fetch(file, target))


# ---------------------------------------------------------------- rows


def _described(file: MatrixFile, sample: dict[str, Any], rejected: int) -> dict[str, Any]:
    accession = sample["accession"]
    subject = f"{file.series}/{sample['subject']}" if sample["subject"] else accession
    return {
        "accession": accession,
        "size_bytes": sample["size_bytes"],
        "checksum": sample["sha256"],
        "subject_ref": subject[:255],
        "platform": sample["platform"],
        "size": file.size_bytes,
        "etag": file.etag,
        "rejected": rejected,
    }


def _known(previous: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The last manifest's samples by the URI of their file."""
    known: dict[str, list[dict[str, Any]]] = {}
    if previous.is_empty():
        return known
    for row in previous.iter_rows(named=True):
        file_uri, _, accession = row["uri"].rpartition("#")
        noted = json.loads(row["attributes"]).get("file", {})
        known.setdefault(file_uri, []).append(
            {
                "accession": accession,
                "size_bytes": row["size_bytes"],
                "checksum": row["checksum"],
                "subject_ref": row["subject_ref"],
                "platform": json.loads(row["attributes"]).get("platform", ""),
                "size": noted.get("size_bytes"),
                "etag": noted.get("etag"),
                "rejected": noted.get("rejected", 0),
            }
        )
    return known


def _absent(series: Rejection, known: dict[str, list[dict[str, Any]]]) -> Listing:
    """A series without a file. What is known of it stays unless GEO says that it is not public."""
    kept = [
        _row(uri, row)
        for uri, rows in known.items()
        if _series(uri) == series.object_id and series.code not in _GONE
        for row in rows
    ]
    return Listing(_frame(kept), (series,))


def _series(file_uri: str) -> str:
    return re.split("[-_]", file_uri.rpartition("/")[2], maxsplit=1)[0]


def _row(file_uri: str, sample: dict[str, Any]) -> dict[str, Any]:
    series = _series(file_uri)
    object_id = f"{series}-{sample['accession']}"
    noted = {"size_bytes": sample["size"], "etag": sample["etag"], "rejected": sample["rejected"]}
    return {
        "object_id": object_id,
        "cohort": series.lower(),
        "uri": f"{file_uri}#{sample['accession']}",
        "size_bytes": sample["size_bytes"],
        "checksum": sample["checksum"],
        "checksum_kind": "sha256",
        "media_type": "text/tab-separated-values",
        "license": LICENSE,
        "access_tier": "open",
        "subject_ref": sample["subject_ref"],
        "record_ref": object_id,
        "upstream_version": NO_VERSION,
        "first_seen_version": NO_VERSION,
        "removed_in_version": None,
        "attributes": json.dumps({"file": noted, "platform": sample["platform"]}, sort_keys=True),
    }


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=LISTING)


# ---------------------------------------------------------------- a mirror


class _Mirror:
    """A folder or bucket with matrix files at any depth."""

    def __init__(self, uri: str) -> None:
        self._store = ObjectStore(uri)
        self._found: dict[str, MatrixFile] = {}

    def files(self) -> Iterator[MatrixFile | Rejection]:
        for info in self._store.list():
            name = info.key.rpartition("/")[2]
            if _FILE.fullmatch(name):
                self._found[info.uri] = MatrixFile(info.uri, name, info.size_bytes, info.etag)
                yield self._found[info.uri]

    def file(self, uri: str) -> MatrixFile | None:
        if uri not in self._found:
            for _ in self.files():  # fills _found: a process that did not list them asks once
                continue
        return self._found.get(uri)

    def fetch(self, file: MatrixFile, target: Path) -> None:
        key = self._store.key_of(file.uri)
        assert key is not None  # it came from this store's listing
        series_matrix.convert(io.BufferedReader(_Ranges(self._store, key, file.size_bytes), CHUNK_BYTES), target)


class _Ranges(io.RawIOBase):
    """An object read by ranges: one of gigabytes needs the memory of a chunk."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size_bytes, self._at = store, key, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._store.get_range(self._key, self._at, min(len(buffer), max(0, self._size_bytes - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


# ---------------------------------------------------------------- the service


class _Service:
    """GEO over the web: E-utilities for what is public, files and pages over https."""

    def __init__(self, uri: str, settings: Settings) -> None:
        self._place = eutils.place(uri, "series", "files")
        for accession in self._place.wanted:
            if not series_matrix.SERIES.fullmatch(accession):
                raise ConfigError("an accession is not a series' (GSE...)", remedy="correct MEDVEC_SOURCES")
        self._eutils = eutils.Eutils(self._place.base_url, settings)
        self._files = HttpSource(self._place.files or FILES_URL, requests_per_second=FILES_PER_SECOND, credential="geo")
        self._pages_url = self._place.files or PAGES_URL

    def files(self) -> Iterator[MatrixFile | Rejection]:
        public = self._public()
        for series in self._place.wanted:
            reason = None if series in public else self._reason(series)
            names = [] if reason else self._names(series)
            if not names:
                code = reason or "matrix_empty"
                yield Rejection(series, code, series_matrix.refused(code).remedy)
            for name in names:
                yield self._facts(f"{self._folder(series)}/{name}")

    def file(self, uri: str) -> MatrixFile | None:
        own = urlsplit(uri).netloc == urlsplit(self._files.base_url).netloc
        return self._facts(uri) if own and _FILE.fullmatch(uri.rpartition("/")[2]) else None

    def fetch(self, file: MatrixFile, target: Path) -> None:
        packed = target.with_name(f"{target.name}.gz")
        try:
            self._files.download(file.uri, packed)
            with packed.open("rb") as source:
                series_matrix.convert(source, target)
        finally:
            packed.unlink(missing_ok=True)

    def _public(self) -> set[str]:
        """The series that E-utilities know, of those that are wanted."""
        public = set()
        for start in range(0, len(self._place.wanted), eutils.PAGE_IDS):
            some = self._place.wanted[start : start + eutils.PAGE_IDS]
            term = f"({' OR '.join(f'{one}[ACCN]' for one in some)}) AND gse[ETYP]"
            for page in self._eutils.records("gds", term, "esummary"):
                for item in eutils.parsed(page).iterfind("DocSum/Item[@Name='Accession']"):
                    public.add(item.text or "")
        return public

    def _folder(self, series: str) -> str:
        """Where GEO keeps a series: GSE1000 in geo/series/GSE1nnn/GSE1000, GSE42 in geo/series/GSEnnn/GSE42."""
        return f"{self._files.base_url}/geo/series/{series[:-3] if len(series) > 6 else 'GSE'}nnn/{series}/matrix"

    def _names(self, series: str) -> list[str]:
        """The matrix files that the folder's index page names; none where it has no such folder."""
        try:
            page = self._files.text(f"{self._folder(series)}/")
        except ObjectRejected:
            return []
        except SourceError as refusal:
            if refusal.code != "credentials_refused":  # the file host answers 403 for an empty folder
                raise
            return []
        names = (match[0] for match in _FILE.finditer(page) if match[1] == series)
        return sorted(set(names))

    def _facts(self, uri: str) -> MatrixFile:
        size_bytes, etag = self._files.facts(uri)
        return MatrixFile(uri, uri.rpartition("/")[2], size_bytes or 0, etag)

    def _reason(self, series: str) -> str | None:
        """Why a series that E-utilities do not know is not public, by its page; None if it is, and is not indexed yet."""
        page = self._files.bytes(
            f"{self._pages_url}/geo/query/acc.cgi",
            max_bytes=8 << 20,
            params={"acc": series, "targ": "self", "form": "text", "view": "brief"},
        )
        code = series_matrix.message_code(page)
        if code is None and not page.lstrip().startswith(b"^SERIES"):
            # Neither public nor a word of why not: taking it for withdrawn would throw its samples away.
            raise SourceUnavailable("GEO's page of a series says nothing that is understood", remedy="run again later")
        return code
