"""Radiographs of Stanford AIMI in CheXpert's layout: tables of images beside folders of patients and studies.

Belongs here: which images there are, whose they are, what the tables say of them. Does not belong here: pixels and which
of a table's values may be kept (modalities.raster), how a container is listed (azure_blobs).

    train.csv, valid.csv      Path, Sex, Age, Frontal/Lateral, AP/PA, and one column for each of 14 observations
    .../patient00001/study1/view1_frontal.jpg

MEDVEC_SOURCES names a mirror (a folder or s3://) or the Azure container that AIMI's download page gives; the signature of
that link stands in MEDVEC_CREDENTIALS as "aimi". AIMI's newer door, Redivis, is not spoken here: how it lists a table's
files is not documented publicly. A mirror of it in this layout is read.

An image that no table tells of, and a row whose image is not there, go to quarantine: one of the two is wrong.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, cohort_slug, sample_folder
from medvec_assets.connectors.azure_blobs import AzureBlobs
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.source_files import (
    Checksums,
    SourceFile,
    SourceFiles,
    StoredFiles,
    changed_meanwhile,
    is_web,
    listing_digest,
    pieces,
)
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.raster import FINDINGS
from resources.errors import SourceError
from resources.settings import Settings

SOURCE = "aimi"
LICENSE = "Stanford University Dataset Research Use Agreement"
TABLES = ("train.csv", "valid.csv")
MAX_TABLE_BYTES = 256 << 20  # train.csv of 223,414 images has 22 million
NO_VERSION = "observed"  # a container has no releases
COLUMNS = {"Path": "path", "Sex": "sex", "Age": "age", "Frontal/Lateral": "view", "AP/PA": "projection"}
# What stands before the patient differs between a table's paths, the archive's and the container's folders.
_IMAGE = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_[a-z]+)\.(jpg|jpeg|png)$")
_MEDIA_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}
_PICTURES = tuple(f".{name}" for name in _MEDIA_TYPES)


def open_connector(settings: Settings, dataset_id: str) -> Aimi:
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    landing = Landing(settings, dataset_id)
    if not is_web(source):
        return Aimi(StoredFiles(source, landing), settings, dataset_id)
    secret = settings.credentials.get(SOURCE)
    return Aimi(AzureBlobs(source, secret.get_secret_value() if secret else "", SOURCE, landing), settings, dataset_id)


class Aimi:
    """Connector of dataset aimi_chest_xray (medvec_assets.connectors.Connector)."""

    def __init__(self, files: SourceFiles, settings: Settings, dataset_id: str) -> None:
        self.is_remote = files.is_remote
        self._files = files
        self._settings = settings
        self._dataset_id = dataset_id

    def version(self) -> str:
        """A digest of every file's path, size and etag; reads no file."""
        return f"listing-{listing_digest(self._files.list())[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every image that a table tells of. Raises SourceError `source_empty`, `schema_drift`; SourceUnavailable
        `source_changed` if files came or went while they were listed."""
        version, tables = self._tables()
        told = self._told(tables)
        checksums = Checksums(self._files, previous, self._settings, self._dataset_id)
        seen: set[str] = set()
        for piece in pieces(one for one in self._files.list() if one.key.lower().endswith(_PICTURES)):
            seen.update(image[0] for one in piece if (image := _image(one.key)))
            yield self._listing(piece, told, checksums)
        if self.version() != version:
            raise changed_meanwhile("the source of chest radiographs")
        if not seen:
            remedy = "correct the address in MEDVEC_SOURCES, or mount the folder"
            raise SourceError("the source holds no image", code="source_empty", remedy=remedy)
        yield Listing(pl.DataFrame(schema=LISTING), tuple(self._unmatched(told, seen)))

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        return self._files.get(uri, max_bytes)

    # ---------------------------------------------------------------- tables

    def _tables(self) -> tuple[str, list[SourceFile]]:
        """The version as `version` gives it, and the tables, in one listing."""
        tables: list[SourceFile] = []

        def noted() -> Iterator[SourceFile]:
            for one in self._files.list():
                if one.key.rpartition("/")[2] in TABLES:
                    tables.append(one)
                yield one

        version = f"listing-{listing_digest(noted())[:32]}"
        if not tables:
            remedy = f"give a place that holds {' or '.join(TABLES)}"
            raise SourceError("the source holds no table of its images", code="source_empty", remedy=remedy)
        return version, sorted(tables, key=lambda one: one.key)

    def _told(self, tables: list[SourceFile]) -> pl.DataFrame:
        """One row per row of a table: the image's key, the table's cohort, and what it says, as JSON."""
        return pl.concat([_rows(one, self._table(one)) for one in tables])

    def _table(self, table: SourceFile) -> bytes:
        if not self.is_remote:
            return self._files.get(table.uri, MAX_TABLE_BYTES)
        name = f"table {table.uri} {table.etag}"
        return Landing(self._settings, self._dataset_id).bytes(
            name, lambda: self._files.get(table.uri, MAX_TABLE_BYTES)
        )

    # ---------------------------------------------------------------- images

    def _listing(self, piece: list[SourceFile], told: pl.DataFrame, checksums: Checksums) -> Listing:
        named = [(one, _image(one.key)) for one in piece]
        keys = [image[0] for _, image in named if image]
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in told.filter(pl.col("image").is_in(keys)).iter_rows(named=True):
            rows.setdefault(row["image"], []).append(row)
        # What is refused for another reason is not read: it has no row in the manifest to be known by.
        by_uri = checksums.of([one for one, image in named if image and len(rows.get(image[0], [])) == 1])
        made: list[dict[str, Any]] = []
        rejected: list[Rejection] = []
        for one, image in named:
            said = rows.get(image[0], []) if image else []
            refusal = _refusal(image is not None, said, by_uri.get(one.uri))
            if refusal is not None:
                rejected.append(Rejection(self._object_id(one.key), *refusal))
            else:
                assert image is not None
                made.append(self._row(one, image, said[0], by_uri[one.uri]))
        return Listing(pl.DataFrame(made, schema=LISTING), tuple(rejected))

    def _row(
        self, one: SourceFile, image: tuple[str, str, str], said: dict[str, Any], checksum: tuple[str, str] | None
    ) -> dict[str, Any]:
        assert checksum is not None
        key, patient, ending = image
        return {
            "object_id": self._object_id(one.key),
            "cohort": said["cohort"],
            "uri": one.uri,
            "size_bytes": one.size_bytes,
            "checksum": checksum[0],
            "checksum_kind": checksum[1],
            "media_type": _MEDIA_TYPES[ending],
            "license": LICENSE,
            "access_tier": "registered",
            "subject_ref": patient,
            "record_ref": key,
            "upstream_version": NO_VERSION,
            "first_seen_version": NO_VERSION,
            "removed_in_version": None,
            "attributes": json.dumps(
                {"etag": one.etag, "study": key.rpartition("/")[0]} | json.loads(said["said"]), sort_keys=True
            ),
        }

    def _unmatched(self, told: pl.DataFrame, seen: set[str]) -> Iterator[Rejection]:
        """Rows without an image, by a pseudonym of what they name."""
        for image, line in told.select("image", "line").iter_rows():
            if image is None:
                remedy = (
                    "a row has the header's fields and a path that ends in patientN/studyN/viewN_KIND.jpg: correct it"
                )
                yield Rejection(self._object_id(f"row {line}"), "row_not_understood", remedy)
            elif image not in seen:
                remedy = "transfer the image, or take its row out of the table"
                yield Rejection(self._object_id(f"row {line}"), "image_missing", remedy)

    def _object_id(self, key: str) -> str:
        """Keyed: whoever knows the layout could try all paths against a plain digest."""
        return f"obj-{Pseudonyms(self._settings.pseudonym_secret, SOURCE).of('object', key)}"


def _refusal(understood: bool, said: list[dict[str, Any]], checksum: tuple[str, str] | None) -> tuple[str, str] | None:
    if not understood:
        return "name_not_understood", "an image is patientN/studyN/viewN_KIND.jpg: rename it, or keep it elsewhere"
    if not said:
        return "not_in_table", f"add the image to {' or '.join(TABLES)}, or remove it"
    if len(said) > 1:
        return "duplicate_row", "two rows of the tables tell of this image: remove one"
    if checksum is None:
        return "object_missing", "it was removed while it was listed: refresh the manifest"
    return None


def _image(path: str) -> tuple[str, str, str] | None:
    """(patient/study/view, patient, ending) of a path; None if it is none of an image."""
    found = _IMAGE.search(path)
    return (f"{found[1]}/{found[2]}/{found[3]}", found[1], found[4]) if found else None


def _rows(table: SourceFile, data: bytes) -> pl.DataFrame:
    name = table.key.rpartition("/")[2]
    try:
        lines = csv.reader(StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header, *body = list(lines)
    except (csv.Error, UnicodeDecodeError, ValueError):
        raise _drift(name, "is no table in UTF-8") from None
    missing = [column for column in (*COLUMNS, *FINDINGS) if column not in header]
    if missing:
        raise _drift(name, f"lacks the columns {', '.join(missing)}")
    rows = [_row_of(f"{table.key} {number}", header, fields) for number, fields in enumerate(body)]
    return pl.DataFrame(rows, schema=dict.fromkeys(("image", "line", "cohort", "said"), pl.String()), orient="row")


def _row_of(line: str, header: list[str], fields: list[str]) -> tuple[str | None, str, str, str]:
    """(image, line, cohort, what is said of it as JSON); no image for a row that is not understood."""
    row = dict(zip(header, fields, strict=False)) if len(fields) == len(header) else {}
    path = row.get("Path", "")
    image = _image(path)
    said: dict[str, Any] = {short: row[column] for column, short in COLUMNS.items() if row.get(column)}
    said.pop("path", None)  # it names the patient, and is the record's reference already
    findings = {column: row[column] for column in FINDINGS if row.get(column)}
    cohort = cohort_slug(path.partition("/")[0]) if path.count("/") > 2 else SOURCE
    text = json.dumps(said | ({"findings": findings} if findings else {}), sort_keys=True)
    return image[0] if image else None, line, cohort, text


def _drift(table: str, what: str) -> SourceError:
    remedy = "give the table as AIMI publishes it, or teach medvec_assets/connectors/aimi.py the new layout"
    return SourceError(f"{table} {what}", code="schema_drift", remedy=remedy)
