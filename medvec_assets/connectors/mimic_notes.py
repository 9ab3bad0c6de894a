"""Notes of MIMIC-IV-Note: one object for each note, a row of a table whose field of text runs over lines (ADR 0013).

Belongs here: the two tables' columns, one pass over each, finding a note again by its id. Does not belong here: fetching
(physionet), whether a text is fit or what may be kept of it (modalities.notes, deid.notes).

    notes.bin       each note's canonical bytes, deflated, one after another
    index.parquet   note_id, subject_id, offset, stored_bytes, size_bytes, sha256, sorted by note_id
    rejected.json   rows that are no note

A note's canonical bytes are its row as a JSON object: keys sorted, no spaces, UTF-8 wherever the table is. Bytes of another
encoding stay as they are, so that the note's digest is the source's, and the modality refuses it. `discharge_detail` and
`radiology_detail` (authors, exam codes) are not read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.connectors import LISTING, Listing, Rejection
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.physionet import PhysioNetProject, Published, open_project
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.json_columns import json_objects
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

VERSION = "mimic-note-1"  # of a note's canonical bytes
COLUMNS = ("note_id", "subject_id", "hadm_id", "note_type", "note_seq", "charttime", "storetime", "text")
TABLES = {"discharge": "note/discharge.csv.gz", "radiology": "note/radiology.csv.gz"}
"""Cohort -> its table's path in a release."""
MEDIA_TYPE = "application/json"
ROWS_PER_LISTING = 50_000
MAX_FIELD_CHARS = 64 << 20  # a field beyond it is a quotation that never ends, not a note
MAX_BROKEN_SHARE = 0.5  # of a table's rows; above it the columns have moved, and no row is what it seems
_NOTE_ID = re.compile(r"\d{1,10}-[A-Z]{2}-\d{1,6}")
_ROW_WITHIN = re.compile(r"\n\d{1,10}-[A-Z]{2}-\d{1,6},\d{1,10},\d*,[A-Z]{2},")
_REMEDIES = {
    "bad_row": f"a row has another number of fields than its header's {len(COLUMNS)}; ask the source to write it again",
    "bad_note_id": "a note is named <subject>-<type>-<number>, and its subject is a number; ask the source to correct it",
    "broken_quoting": "a quotation mark is missing: one field holds the rows that follow; ask the source to write them again",
}
_INDEX = {
    "note_id": pl.String(),
    "subject_id": pl.String(),
    "offset": pl.Int64(),
    "stored_bytes": pl.Int64(),
    "size_bytes": pl.Int64(),
    "sha256": pl.String(),
}


def open_connector(settings: Settings, dataset_id: str) -> MimicNotes:
    """MEDVEC_SOURCES' release for this dataset (see physionet), or the sample bundle."""
    return MimicNotes(
        open_project(settings, dataset_id),
        Landing(settings, dataset_id),
        Pseudonyms(settings.pseudonym_secret, dataset_id),
    )


class MimicNotes:
    """Connector of dataset mimic_notes (medvec_assets.connectors.Connector)."""

    is_remote = False  # what crosses the web are tables, which are landed here; a note is read from them

    def __init__(self, project: PhysioNetProject, landing: Landing, pseudonyms: Pseudonyms) -> None:
        self._project, self._landing, self._pseudonyms = project, landing, pseudonyms
        self._opened: dict[str, _LandedTable] = {}
        self._opening = threading.Lock()

    def version(self) -> str:
        """`mimic-iv-note <release> sha256sums:<digest>`: one small request."""
        return f"{self._project.name} {self._project.published().version}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every note, ROWS_PER_LISTING at a time. A table whose published checksum is known is not read again.

        `previous` tells since which release a note has been what it is. Raises SourceError, before the last listing, if a
        table is not the published one, cannot be read, lacks a column, or the release changed meanwhile.
        """
        published = self._project.published()
        license = self._project.license(published)
        release = f"{self._project.name} {published.release}"
        known = _known(previous)
        for cohort in TABLES:
            table = self._table(published, cohort)
            for piece in table.index().iter_slices(ROWS_PER_LISTING):
                yield Listing(self._listed(piece, cohort, license, release, known))
            yield Listing(pl.DataFrame(schema=LISTING), tuple(table.rejected(cohort)))
        self._project.confirm(published)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """A note's canonical bytes. ObjectRejected `object_missing` if this release has no such note."""
        table, _, note_id = unquote(uri.rpartition("#")[2]).partition("/")
        if table not in TABLES:
            remedy = "refresh the manifest: it names objects of another source"
            raise ObjectRejected("the object is no note of MIMIC-IV-Note", code="object_missing", remedy=remedy)
        return self._current(table).read(note_id, max_bytes)

    def _current(self, cohort: str) -> _LandedTable:
        with self._opening:
            if cohort not in self._opened:
                self._opened[cohort] = self._table(self._project.published(), cohort)
            return self._opened[cohort]

    def _table(self, published: Published, cohort: str) -> _LandedTable:
        path = TABLES[cohort]

        def make(folder: Path) -> None:
            _land(folder, path, self._project.fetch(published, path))

        return _LandedTable(self._landing.made(f"{VERSION}-{published.sha256(path)}", make))

    def _listed(
        self, index: pl.DataFrame, cohort: str, license: str, release: str, known: pl.DataFrame
    ) -> pl.DataFrame:
        ids = [self._pseudonyms.of("note", note_id) for note_id in index["note_id"]]
        told = index.with_columns(pl.Series("object_id", ids, pl.String())).join(known, on="object_id", how="left")
        unchanged = (pl.col("sha256") == pl.col("known_sha256")).fill_null(False)
        since = pl.when(unchanged).then("known_since").otherwise(pl.lit(release))
        first = pl.coalesce("known_first", pl.lit(release))
        values: dict[str, pl.Expr] = {
            "object_id": pl.col("object_id"),
            "cohort": pl.lit(cohort),
            "uri": pl.format("physionet:{}#{}/{}", pl.lit(self._project.name), pl.lit(cohort), "note_id"),
            "size_bytes": pl.col("size_bytes"),
            "checksum": pl.col("sha256"),
            "checksum_kind": pl.lit("sha256"),
            "media_type": pl.lit(MEDIA_TYPE),
            "license": pl.lit(license),
            "access_tier": pl.lit("registered"),
            "subject_ref": pl.col("subject_id"),
            "record_ref": pl.col("object_id"),
            "upstream_version": since,
            "first_seen_version": first,
            "removed_in_version": pl.lit(None, pl.String),
            "attributes": json_objects(first=first, since=since),
        }
        return told.select(values[name].alias(name) for name in LISTING)


def _known(previous: pl.DataFrame) -> pl.DataFrame:
    """object_id, known_sha256, known_since, known_first of the last manifest's notes."""
    noted = previous["attributes"].str.json_decode(pl.Struct({"first": pl.String(), "since": pl.String()}))
    return previous.select(
        "object_id",
        pl.col("checksum").alias("known_sha256"),
        noted.struct.field("since").alias("known_since"),
        noted.struct.field("first").alias("known_first"),
    )


# ---------------------------------------------------------------- a landed table


class _LandedTable:
    """One table after its pass. Safe to share between threads; opened at its first read, 50 bytes a note."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._names: NDArray[np.bytes_] | None = None

    def index(self) -> pl.DataFrame:
        return pl.read_parquet(self._folder / "index.parquet")

    def rejected(self, cohort: str) -> Iterator[Rejection]:
        for row, code in json.loads((self._folder / "rejected.json").read_text()):
            yield Rejection(f"{cohort}-row-{row}", code, _REMEDIES[code])

    def read(self, note_id: str, max_bytes: int) -> bytes:
        names = self._open()
        at = int(np.searchsorted(names, note_id.encode()))
        if at == len(names) or names[at] != note_id.encode():
            remedy = "refresh the manifest: the source has removed it, or another release is read now"
            raise ObjectRejected("the table holds no such note", code="object_missing", remedy=remedy)
        offset, stored, size = (int(value) for value in self._places[at])
        if size > max_bytes:
            raise ObjectRejected(
                f"a note has {size} bytes, more than the {max_bytes} allowed",
                code="object_too_large",
                remedy="ask the source whether it is one note",
            )
        return zlib.decompress(os.pread(self._file.fileno(), stored, offset), bufsize=max(1, size))

    def _open(self) -> NDArray[np.bytes_]:
        with self._lock:
            if self._names is None:
                index = self.index()
                self._places = index.select("offset", "stored_bytes", "size_bytes").to_numpy()
                self._file = (self._folder / "notes.bin").open("rb", buffering=0)
                self._names = index["note_id"].to_numpy().astype("S24")
            return self._names


@dataclass
class _Rows:
    """The rows of one table, told apart as they stream by."""

    path: str
    rejected: list[tuple[int, str]]
    total: int = 0

    def notes(self, file: Path) -> Iterator[dict[str, str]]:
        """Each row that is a note, by column. SourceError: `schema_drift`, `table_unreadable`."""
        csv.field_size_limit(MAX_FIELD_CHARS)
        try:
            with gzip.open(file, "rt", encoding="utf-8", errors="surrogateescape", newline="") as lines:
                reader = csv.reader(lines)
                header = [name.removeprefix("\ufeff").strip() for name in next(reader, [])]
                self._check(header)
                for row in reader:
                    self.total += 1
                    fields = dict(zip(header, row, strict=False))
                    code = "bad_row" if len(row) != len(header) else _flaw(fields)
                    if code is None:
                        yield {name: fields[name] for name in COLUMNS}
                    else:
                        self.rejected.append((self.total, code))
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise SourceError(
                f"{self.path} cannot be read as a table ({type(error).__name__})",
                code="table_unreadable",
                remedy="fetch the file again; if its checksum is the published one, tell the source",
            ) from None
        if len(self.rejected) > MAX_BROKEN_SHARE * self.total:
            raise SourceError(
                f"of {self.path} {len(self.rejected)} of {self.total} rows are no note",
                code="schema_drift",
                remedy="the table's layout has changed, or the file was cut by a tool: fetch it again and compare",
            )

    def _check(self, header: list[str]) -> None:
        missing = [name for name in COLUMNS if header.count(name) != 1]
        if missing:
            raise SourceError(
                f"{self.path} has no column, or two, called: {', '.join(missing)}",
                code="schema_drift",
                remedy="compare the release's description with the connector's columns; nothing was committed",
            )


def _flaw(fields: dict[str, str]) -> str | None:
    if not _NOTE_ID.fullmatch(fields["note_id"]) or not re.fullmatch(r"\d{1,10}", fields["subject_id"]):
        return "bad_note_id"
    return "broken_quoting" if _ROW_WITHIN.search(fields["text"]) else None


def _land(folder: Path, path: str, file: Path) -> None:
    """One pass over a table: memory holds one note and the index."""
    folder.mkdir()
    rows = _Rows(path, [])
    columns: dict[str, list[object]] = {name: [] for name in _INDEX}
    offset = 0
    with (folder / "notes.bin").open("wb") as out:
        for note in rows.notes(file):
            data = json.dumps(note, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            raw = data.encode("utf-8", "surrogateescape")
            stored = out.write(zlib.compress(raw, 1))
            values = (note["note_id"], note["subject_id"], offset, stored, len(raw), hashlib.sha256(raw).hexdigest())
            for name, value in zip(_INDEX, values, strict=True):
                columns[name].append(value)
            offset += stored
    # By the bytes of the id, as reading looks it up. Sorting is stable: of two notes with one id the first is read.
    pl.DataFrame(columns, schema=_INDEX).sort("note_id", maintain_order=True).write_parquet(folder / "index.parquet")
    (folder / "rejected.json").write_text(json.dumps(rows.rejected))
