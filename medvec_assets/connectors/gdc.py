"""The Genomic Data Commons: gene expression files, through its REST API or as `gdc-client download` leaves them in a folder.

Belongs here: which files there are, whose they are, their MD5, licence and release. Does not belong here: what a table
says (modalities.expression), other data types.

    https://api.gdc.cancer.gov   `status` gives the data release, `files` the files, a page at a time, `data/<file id>` the bytes.
                                 Controlled files need a token: MEDVEC_CREDENTIALS='{"gdc": "..."}', sent as X-Auth-Token
    folder or s3://              `gdc_manifest*.txt` (id filename md5 size state) says which files were asked for,
                                 `<file id>/<file name>` are they, `files.json` is /files' own answer about them, and
                                 `status.json`, where it stands, /status' own

A cohort is a project, a subject a case, a record an aliquot. A new version of a file has a new id; the old one becomes a
tombstone, and so do all files of a case that GDC redacts. Every file's MD5 is published, so that listing reads no file.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, sample_folder
from medvec_assets.fingerprints import set_digest
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.http_source import MAX_ANSWER_BYTES, HttpSource
from resources.object_store import ObjectInfo, ObjectStore
from resources.settings import Settings

SOURCE = "gdc"
DATA_TYPE, WORKFLOW = "Gene Expression Quantification", "STAR - Counts"
OPEN_LICENSE = "NCI GDC open access"
PAGE_FILES = 1_000
REQUESTS_PER_SECOND = 8.0  # GDC publishes no limit; its own client keeps 8 connections
FIELDS = (
    "file_id",
    "file_name",
    "md5sum",
    "file_size",
    "access",
    "acl",
    "state",
    "data_type",
    "experimental_strategy",
    "data_release",
    "updated_datetime",
    "analysis.workflow_type",
    "associated_entities.entity_id",
    "associated_entities.entity_type",
    "associated_entities.case_id",
    "cases.case_id",
    "cases.primary_site",
    "cases.disease_type",
    "cases.project.project_id",
    "cases.samples.sample_type",
    "cases.samples.tissue_type",
)
"""What is asked of a file: nothing of a person but whose it is."""
_MANIFEST_NAME = re.compile(r"gdc_manifest[^/]*\.txt|manifest\.txt|MANIFEST\.txt")
_MANIFEST_COLUMNS = ["id", "filename", "md5", "size", "state"]
_REMEDIES = {
    "no_aliquot": "the file names no single aliquot of a single case: its metadata must have associated_entities and cases",
    "object_missing": "the manifest asks for a file that is not in the folder: run gdc-client download again",
    "size_mismatch": "the file is not as long as its manifest says: run gdc-client download again",
    "manifest_disagrees": "manifest and files.json give different MD5s: make both anew, of one data release",
    "metadata_missing": "the manifest's file is not in files.json: make both anew, of one query",
}
Hit = Mapping[str, Any]


def open_connector(settings: Settings, dataset_id: str) -> GdcService | GdcFolder:
    """GDC's API where the settings name its https:// address, else a folder or bucket, else the sample bundle."""
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    if not source.startswith(("http://", "https://")):
        return GdcFolder(ObjectStore(source))
    token = settings.credentials.get(SOURCE)
    headers = {"X-Auth-Token": token.get_secret_value()} if token else {}
    web = HttpSource(source, requests_per_second=REQUESTS_PER_SECOND, credential=SOURCE, headers=headers)
    return GdcService(web)


class GdcService:
    """Connector over the REST API."""

    is_remote = True

    def __init__(self, web: HttpSource) -> None:
        self._web = web
        self._told = ""  # the release that version() gave last: what is listed must be of it

    def version(self) -> str:
        """`Data Release 45.0 - December 04, 2025`. SourceUnavailable while GDC says that it is not well."""
        self._told = _release_of(self._web.json("status"))
        return self._told

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every published file of the wanted kind, a page at a time, by id. Nothing of `previous` is needed.

        Raises SourceUnavailable `release_changed` (retryable, and nothing is committed) if the data release is another one
        at the end than version() gave, or if pages and total disagree; SourceError `schema_drift` for another answer.
        """
        release = self._told or self.version()
        ids: set[str] = set()
        total = None
        while total is None or len(ids) < total:
            hits, total_now = _page(self._web.json("files", body=_query(len(ids))))
            before = len(ids)
            ids.update(str(hit.get("file_id")) for hit in hits)
            if total not in (None, total_now) or len(ids) != before + len(hits) or (len(ids) < total_now and not hits):
                raise _changed()
            total = total_now
            yield _listing([(hit, f"{self._web.base_url}/data/{hit.get('file_id')}", "") for hit in hits])
        if self.version() != release:
            raise _changed()

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One file by its manifest URI. ObjectRejected `object_missing` for one that GDC has withdrawn."""
        if not uri.startswith(f"{self._web.base_url}/data/"):
            raise _foreign()
        return self._web.bytes(uri, max_bytes=max_bytes)


class GdcFolder:
    """Connector over what gdc-client has left."""

    def __init__(self, store: ObjectStore) -> None:
        self.is_remote = store.folder is None
        self._store = store

    def version(self) -> str:
        """The data release, where the folder says it, and a digest of its metadata and of every file's size and etag."""
        objects = self._objects()
        digest = set_digest(f"{info.key} {info.size_bytes} {info.etag}" for info in objects.values())
        release = _release_of(self._json("status.json")) if "status.json" in objects else "no release"
        return f"{release}, folder {digest[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """The files that the manifest asks for and that are of the wanted kind. Nothing of `previous` is needed.

        Rejected, one code each: a file that is not there, or not whole, or of which manifest and metadata disagree.
        Raises SourceError `source_empty` without a manifest, `schema_drift` if it or files.json is laid out otherwise.
        """
        objects = self._objects()
        hits, _ = _page(self._json("files.json"))
        described = {str(hit.get("file_id")): hit for hit in hits}
        rows = self._manifest(objects)
        while asked := list(islice(rows, PAGE_FILES)):
            found: list[tuple[Hit, str, str]] = []
            rejected: list[Rejection] = []
            for row in asked:
                hit = described.get(row["id"])
                if hit is not None and not _is_wanted(hit):
                    continue
                info = objects.get(f"{row['id']}/{row['filename']}")
                code = _defect(row, hit, info)
                if code or hit is None or info is None:
                    rejected.append(Rejection(row["id"], code, _REMEDIES[code]))
                else:
                    found.append((hit, info.uri, info.etag))
            listing = _listing(found)
            yield Listing(listing.objects, (*rejected, *listing.rejected))

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One file of this folder by its manifest URI."""
        key = self._store.key_of(uri)
        if key is None:
            raise _foreign()
        return self._store.get(key, max_bytes)

    def _objects(self) -> dict[str, ObjectInfo]:
        return {info.key: info for info in self._store.list()}

    def _json(self, key: str) -> Any:
        try:
            return json.loads(self._store.get(key, MAX_ANSWER_BYTES))
        except ObjectRejected:
            raise SourceError(
                f"the folder has no usable {key}",
                code="source_empty",
                remedy="put /files' answer there as files.json: medvec_assets/connectors/gdc.py names the fields",
            ) from None
        except ValueError:
            raise _drift(key) from None

    def _manifest(self, objects: Mapping[str, ObjectInfo]) -> Iterator[dict[str, str]]:
        """The rows of every manifest in the folder, a file's once."""
        names = sorted(key for key in objects if _MANIFEST_NAME.fullmatch(key))
        if not names:
            raise SourceError(
                "the folder has no manifest of GDC's",
                code="source_empty",
                remedy="put the manifest that gdc-client was given beside its files, as gdc_manifest.txt",
            )
        seen: set[str] = set()
        for name in names:
            text = self._store.get(name, MAX_ANSWER_BYTES).decode("utf-8", "replace")
            rows = csv.DictReader(io.StringIO(text), delimiter="\t")
            if rows.fieldnames is None or list(rows.fieldnames) != _MANIFEST_COLUMNS:
                raise _drift(name)
            for row in rows:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row


def _query(start: int) -> dict[str, Any]:
    def equal(field: str, value: str) -> dict[str, Any]:
        return {"op": "=", "content": {"field": field, "value": value}}

    wanted = [equal("data_type", DATA_TYPE), equal("analysis.workflow_type", WORKFLOW)]
    return {
        "filters": {"op": "and", "content": wanted},
        "fields": ",".join(FIELDS),
        "format": "JSON",
        "sort": "file_id:asc",
        "from": start,
        "size": PAGE_FILES,
    }


def _page(answer: Any) -> tuple[list[Hit], int]:
    try:
        return list(answer["data"]["hits"]), int(answer["data"]["pagination"]["total"])
    except (KeyError, TypeError, ValueError):
        raise _drift("files") from None


def _release_of(status: Any) -> str:
    if not isinstance(status, dict) or not status.get("data_release"):
        raise _drift("status")
    if status.get("status", "OK") != "OK":
        raise SourceUnavailable("GDC's status is not OK", remedy="run again later; gdc.cancer.gov tells of maintenance")
    return str(status["data_release"])


def _is_wanted(hit: Hit) -> bool:
    return hit.get("data_type") == DATA_TYPE and (hit.get("analysis") or {}).get("workflow_type") == WORKFLOW


def _defect(row: Mapping[str, str], hit: Hit | None, info: ObjectInfo | None) -> str:
    if hit is None:
        return "metadata_missing"
    if row["md5"] != hit.get("md5sum"):
        return "manifest_disagrees"
    if info is None:
        return "object_missing"
    return "" if str(info.size_bytes) == row["size"] else "size_mismatch"


def _listing(files: Sequence[tuple[Hit, str, str]]) -> Listing:
    """`files`: description, URI and etag of each. What is null of a row is told by the manifest stage's own rules."""
    rows = [_row(hit, uri, etag) for hit, uri, etag in files if _is_wanted(hit)]
    objects = pl.DataFrame([row for row in rows if isinstance(row, dict)], schema=LISTING)
    return Listing(objects, tuple(row for row in rows if isinstance(row, Rejection)))


def _row(hit: Hit, uri: str, etag: str) -> dict[str, Any] | Rejection:
    file_id = str(hit.get("file_id"))
    aliquots = [one for one in hit.get("associated_entities") or [] if one.get("entity_type") == "aliquot"]
    cases = hit.get("cases") or []
    if len(aliquots) != 1 or len(cases) != 1 or aliquots[0].get("case_id") != cases[0].get("case_id"):
        return Rejection(file_id, "no_aliquot", _REMEDIES["no_aliquot"])
    (case,), (aliquot,) = cases, aliquots
    is_open = hit.get("access") == "open"
    sample: Hit = next(iter(case.get("samples") or []), {})
    told = {
        "sample_type": sample.get("sample_type"),
        "tissue_type": sample.get("tissue_type"),
        "primary_site": case.get("primary_site"),
        "disease_type": case.get("disease_type"),
        "strategy": hit.get("experimental_strategy"),
        "workflow": WORKFLOW,
        "etag": etag,
    }
    since = _since(hit)
    return {
        "object_id": file_id,
        "cohort": _slug((case.get("project") or {}).get("project_id")),
        "uri": uri,
        "size_bytes": hit.get("file_size"),
        "checksum": hit.get("md5sum"),
        "checksum_kind": "md5",
        "media_type": "text/tab-separated-values",
        "license": OPEN_LICENSE if is_open else f"dbGaP {' '.join(hit.get('acl') or ['controlled'])}",
        "access_tier": "open" if is_open else "controlled",
        "subject_ref": case.get("case_id"),
        "record_ref": aliquot.get("entity_id"),
        "upstream_version": since,
        "first_seen_version": since,
        "removed_in_version": None,
        "attributes": json.dumps({name: value for name, value in told.items() if value}, sort_keys=True),
    }


def _since(hit: Hit) -> str:
    """The release in which the file came, which a file of one id never leaves: of `34.0 - 37.0` the first."""
    release = str(hit.get("data_release") or "").partition(" - ")[0].strip()
    return release or str(hit.get("updated_datetime") or "unknown")


def _slug(project: str | None) -> str | None:
    """`TCGA-LIHC` -> `tcga_lihc`."""
    return re.sub(r"[^a-z0-9]+", "_", project.lower()).strip("_") if project else None


def _changed() -> SourceUnavailable:
    return SourceUnavailable(
        "GDC published another data release while it was listed",
        code="release_changed",
        remedy="run again: nothing of the mixed listing was kept",
    )


def _drift(what: str) -> SourceError:
    return SourceError(
        f"GDC's {what} is not laid out as its documentation says",
        code="schema_drift",
        remedy="compare https://docs.gdc.cancer.gov/API/Users_Guide with medvec_assets/connectors/gdc.py",
    )


def _foreign() -> ObjectRejected:
    return ObjectRejected(
        "the object is not in this source",
        code="object_missing",
        remedy="refresh the manifest: it names objects of another source",
    )
