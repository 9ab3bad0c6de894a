"""Sequencing runs of NCBI's Sequence Read Archive: one object per file of reads, from a mirror or from NCBI itself.

Belongs here: which runs there are, whose they are, their consent, their files of reads and the heads of these. Does not
belong here: the tables that tell of runs (sra_metadata), requests (eutils), what reads are good for (modalities.sequencing).

MEDVEC_SOURCES names one of two:
- a folder or s3:// with RunInfo tables (`*RunInfo.csv`) and reads (`SRR000001.fastq.gz`, or `SRR000001_1.fastq.gz` and `_2`),
  both at any depth;
- `https://eutils.ncbi.nlm.nih.gov/entrez/eutils?studies=SRP000001,PRJNA1`: E-utilities tell of the runs. Their reads are the
  FASTQ files that NCBI lists for everybody, or those below `&reads=` (a folder, s3:// or https://) in `<run>/`.
NCBI's public bucket, `&reads=s3://sra-pub-run-odp/sra`, holds `.sra` archives, which only the sra-tools can open: such a run
is a rejection that says so.

An object is the head of a file (ADR 0013): a sketch needs a few thousand reads, and a run has gigabytes. Runs under a dbGaP
consent are listed as controlled, with a licence that no spec allows, and nothing of their reads is touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, eutils, sample_folder, sra_metadata
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.observations import Observations
from medvec_assets.connectors.sra_metadata import Run
from medvec_assets.connectors.sra_places import Archive, OnWeb, Reads, ReadsFile, Store, Unlisted
from medvec_assets.fingerprints import set_digest
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.object_store import ObjectStore
from resources.settings import Settings

LICENSE = "NCBI SRA public"  # NCBI places no restrictions on the use of public SRA data
HEAD_BYTES = 4 << 20  # of a gzipped FASTQ: about 16 MB of text, 40,000 reads of 150 bases
PIECE_RUNS = 500  # runs per listing
MAX_TABLE_BYTES = 256 << 20  # a RunInfo table of 600,000 runs
NO_VERSION = "observed"  # SRA has no releases; a constant, so that only content moves a partition's digest
RUN_PAGE = "https://www.ncbi.nlm.nih.gov/sra/"
_TABLE = re.compile(r".*RunInfo\.csv", re.IGNORECASE)
_HEAD = re.compile(r"bytes=0-([0-9]+)(&md5=[0-9a-f]{32})?")
_REMEDIES = {
    "reads_missing": "the run is public, and no file of its reads was found: add <run>_1.fastq.gz to the mirror, or name a "
    "place that has it (&reads=)",
    "sra_archive": "the run is there as an .sra archive only: make FASTQ of it with sra-tools (fasterq-dump --split-files RUN, "
    "then gzip) in a folder, and name that folder (&reads=FOLDER)",
    "study_withdrawn": "NCBI does not know the study any more; what was made of it goes",
    "study_missing": "NCBI knows no such study: correct the accession in MEDVEC_SOURCES",
}


class _Place(Protocol):
    """A mirror or the service."""

    reads: Reads

    def runs(self, known_studies: frozenset[str]) -> Iterator[Run | Rejection]:
        """Every run that is told of."""
        ...

    def version_lines(self) -> Iterator[str]:
        """What moves when anything changes; reads no reads."""
        ...


def open_connector(settings: Settings, dataset_id: str) -> SraRuns:
    """The runs of MEDVEC_SOURCES' entry for this dataset, or of the sample bundle."""
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    is_service = source.startswith(("https://", "http://"))
    place: _Place = _Service(source, settings) if is_service else _Mirror(source)
    landing, observations = Landing(settings, dataset_id), Observations(settings, dataset_id)
    return SraRuns(place, landing, observations, settings.decode_threads)


class SraRuns:
    """Connector of dataset sra_runs (medvec_assets.connectors.Connector)."""

    def __init__(self, place: _Place, landing: Landing, observations: Observations, workers: int) -> None:
        self._place = place
        self._landing = landing
        self._observations = observations
        self._workers = workers
        self.is_remote = place.reads.is_remote

    def version(self) -> str:
        """A digest of what is told of every run, and of the files of a mirror; no reads are read."""
        return f"listing-{set_digest(self._place.version_lines())[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Everything there is, in pieces of PIECE_RUNS. Raises SourceError `source_empty` if that is nothing."""
        known = _known(previous)
        studies = frozenset(one.study for one in known.values())
        self._place.reads.refresh()
        found = False
        with ThreadPoolExecutor(self._workers, thread_name_prefix="sra-listing") as pool:
            told = self._place.runs(studies)
            while piece := list(islice(told, PIECE_RUNS)):
                found = True
                rows = [row for some in pool.map(lambda run: self._rows(run, known), piece) for row in some]
                objects = pl.DataFrame([row for row in rows if not isinstance(row, Rejection)], schema=LISTING)
                yield Listing(objects, tuple(row for row in rows if isinstance(row, Rejection)))
        if not found:
            # Not an empty listing: that would withdraw every run because of one mistyped prefix.
            remedy = "correct the URI in MEDVEC_SOURCES, or add a RunInfo table (*RunInfo.csv) to the mirror"
            raise SourceError("the source tells of no run", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """A file of reads, or its head where the URI says so. Raises ObjectRejected, also for a URI of another place."""
        place, _, fragment = uri.partition("#")
        head = _HEAD.fullmatch(fragment)
        if head is None:
            return self._place.reads.whole(place, max_bytes)
        length = int(head[1]) + 1
        if length > max_bytes:
            remedy = "raise the limit if memory allows"
            raise ObjectRejected(
                "the head of a file has more bytes than allowed", code="object_too_large", remedy=remedy
            )
        if head[2] is None:  # listed with its own digest, by which the stages keep it
            return self._place.reads.head(place, length)
        return self._landing.bytes(f"head {length}{head[2]}", lambda: self._place.reads.head(place, length))

    def _rows(self, run: Run | Rejection, known: dict[str, _Known]) -> list[dict[str, Any] | Rejection]:
        if isinstance(run, Rejection):
            return [run]
        if not run.is_public:
            return [_controlled(run)]
        try:
            files = self._place.reads.files(run)
        except Unlisted:
            return []  # not public any more: what was known of it gets its tombstone
        if not files:
            return [Rejection(run.accession, "reads_missing", _REMEDIES["reads_missing"])]
        if isinstance(files, Archive):
            return [Rejection(run.accession, "sra_archive", _REMEDIES["sra_archive"])]
        return [self._row(run, file, known) for file in files]

    def _row(self, run: Run, file: ReadsFile, known: dict[str, _Known]) -> dict[str, Any] | Rejection:
        is_head = file.size_bytes > HEAD_BYTES
        uri = f"{file.uri}#bytes=0-{HEAD_BYTES - 1}" if is_head else file.uri
        if file.md5:
            checksum, kind = file.md5, "source_md5" if is_head else "md5"
            uri = f"{uri}&md5={file.md5}" if is_head else uri
        else:
            before = known.get(uri)
            unchanged = before is not None and (before.file_bytes, before.etag) == (file.size_bytes, file.etag)
            kind = "sha256"
            try:
                checksum = before.checksum if before and unchanged else self._digest(file)
            except ObjectRejected as refusal:  # removed between listing and reading
                return Rejection(file.object_id, refusal.code, refusal.remedy)
        noted = {"bytes": file.size_bytes, "etag": file.etag}
        return _listed(
            run,
            object_id=file.object_id,
            uri=uri,
            size_bytes=min(file.size_bytes, HEAD_BYTES),
            checksum=checksum,
            checksum_kind=kind,
            media_type="application/gzip" if file.uri.endswith(".gz") else "text/plain",
            license=LICENSE,
            access_tier="open",
            attributes=_attributes(run, file=noted),
        )

    def _digest(self, file: ReadsFile) -> str:
        """Of a file, or its head, whose md5 nobody publishes. What crosses the web for it is kept as the stages keep an
        object, by the digest, so that it crosses once."""

        def read() -> str:
            data = self._place.reads.head(file.uri, min(file.size_bytes, HEAD_BYTES))
            digest = hashlib.sha256(data).hexdigest()
            if self.is_remote:
                self._landing.bytes(f"sha256-{digest}", lambda: data)
            return digest

        return self._observations.of(f"{file.uri} {file.size_bytes}", file.etag, read)


# ---------------------------------------------------------------- rows


@dataclass(frozen=True)
class _Known:
    """What the last manifest says of an object."""

    checksum: str
    file_bytes: int | None
    etag: str | None
    study: str


def _known(previous: pl.DataFrame) -> dict[str, _Known]:
    known = {}
    for row in previous.iter_rows(named=True):
        told = json.loads(row["attributes"])
        noted = told.get("file", {})
        known[row["uri"]] = _Known(row["checksum"], noted.get("bytes"), noted.get("etag"), told.get("study", ""))
    return known


def _attributes(run: Run, **further: Any) -> str:
    told = {"study": run.study, "platform": run.platform, "layout": run.layout}
    return json.dumps(told | further, sort_keys=True)


def _controlled(run: Run) -> dict[str, Any]:
    """A run under a dbGaP consent: listed, so that its refusal is seen and its release is noticed, and never read."""
    return _listed(
        run,
        object_id=run.accession,
        uri=f"{RUN_PAGE}{run.accession}",
        size_bytes=run.megabytes * 1_000_000,
        checksum=hashlib.sha256(f"{run.hashes} {run.consent}".encode()).hexdigest(),
        checksum_kind="run_hash",
        media_type="application/octet-stream",
        license=f"dbGaP consent {run.consent}"[:200],
        access_tier="controlled",
        attributes=_attributes(run),
    )


def _listed(run: Run, **own: Any) -> dict[str, Any]:
    return {
        "cohort": run.study.lower(),
        "subject_ref": run.biosample,
        "record_ref": run.accession,
        "upstream_version": NO_VERSION,
        "first_seen_version": NO_VERSION,
        "removed_in_version": None,
        **own,
    }


# ---------------------------------------------------------------- the two kinds of source


class _Mirror:
    """RunInfo tables and reads in one folder or bucket."""

    def __init__(self, uri: str) -> None:
        self._store = ObjectStore(uri)
        self.reads: Reads = Store(self._store)

    def runs(self, known_studies: frozenset[str]) -> Iterator[Run | Rejection]:
        for info in self._store.list():
            if _TABLE.fullmatch(info.key):
                yield from sra_metadata.runs(_text(self._store.get(info.key, MAX_TABLE_BYTES)))

    def version_lines(self) -> Iterator[str]:
        return (f"{info.uri} {info.size_bytes} {info.etag}" for info in self._store.list())


class _Service:
    """E-utilities, and a place of reads beside them."""

    def __init__(self, uri: str, settings: Settings) -> None:
        self._place = eutils.place(uri, "studies", "reads")
        self._eutils = eutils.Eutils(self._place.base_url, settings)
        given = self._place.files
        if not given:
            self.reads: Reads = OnWeb(None, self._pages_of)
        elif given.startswith(("https://", "http://")):
            self.reads = OnWeb(given, self._pages_of)
        else:
            self.reads = Store(ObjectStore(given), in_folders=True)

    def runs(self, known_studies: frozenset[str]) -> Iterator[Run | Rejection]:
        for study in self._place.wanted:
            found = self._eutils.search("sra", _term(study))
            if found.count:
                for page in self._eutils.records("sra", _term(study), "efetch", rettype="runinfo", retmode="text"):
                    yield from sra_metadata.runs(page)
            elif found.unknown:
                code = "study_withdrawn" if study in known_studies else "study_missing"
                yield Rejection(study, code, _REMEDIES[code])
            else:
                # Not a word of why: taking it for withdrawn would throw the study's runs away.
                raise SourceUnavailable("NCBI's search of a study gave nothing", remedy="run again later")

    def version_lines(self) -> Iterator[str]:
        for run in self.runs(frozenset()):
            if isinstance(run, Run):
                yield f"{run.accession} {run.hashes} {run.consent} {run.study} {run.biosample}"
            else:
                yield f"{run.object_id} {run.code}"

    def _pages_of(self, study: str) -> Iterator[str]:
        return self._eutils.records("sra", _term(study), "efetch", rettype="full", retmode="xml")


def _term(accession: str) -> str:
    return f"{accession}[Accession]"


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        remedy = "export it again from SRA's web page or with efetch"
        raise SourceError("a RunInfo table is not UTF-8", code="wrong_encoding", remedy=remedy) from None
