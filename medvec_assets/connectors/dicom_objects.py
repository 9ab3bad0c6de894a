"""DICOM objects in a folder, a bucket, or Imaging Data Commons' bucket layout.

Belongs here: which objects there are, whose they are, which series they form, their checksums and licences.
Does not belong here: whether an object is a good image (modalities.imaging decides and rejects), what may be used.

Two layouts, told apart object by object:
- `<cohort>/.../<file>`: the cohort is the first folder, subject and series stand in the file's header. Name folders
  after collections and never after patients: a cohort's name is seen by everybody. The licence of a cohort's objects is
  the first line of `<cohort>/LICENSE` ("CC BY 4.0"); without it nothing of the cohort may become a vector.
- `<crdc_series_uuid>/<instance>.dcm`: cohort, subject, series, licence and versions come from the index of Imaging Data
  Commons (package idc-index-data), and no header is read.
Without a source in the settings the sample bundle is read: real files of two installed packages, where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Connector, Listing, Rejection, cohort_slug, nbia
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.observations import Observations
from medvec_assets.fingerprints import set_digest
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.object_store import ObjectInfo, ObjectStore
from resources.settings import Settings

PIECE_OBJECTS = 2_000  # objects per listing: bounds memory, and one filtered scan of the index serves them all
HEAD_BYTES = 4 << 20  # of a file that are parsed for patient and series, which stand before any pixel
LICENSE_FILE, MAX_LICENSE_BYTES = "LICENSE", 64 << 10
UNSPECIFIED = "unspecified"
NO_VERSION = "observed"  # a folder has no releases; a constant, so that only content moves a partition's digest
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INDEX_COLUMNS = {
    "crdc_series_uuid": "uuid",
    "collection_id": "cohort",
    "PatientID": "subject_ref",
    "SeriesInstanceUID": "record_ref",
    "license_short_name": "license",
    "series_revised_idc_version": "revised",
    "series_init_idc_version": "init",
}


@dataclass(frozen=True)
class _Root:
    """One place that is listed. A sample root has a cohort and a licence; only its top-level .dcm files count."""

    store: ObjectStore
    landing: Landing
    cohort: str | None = None
    license: str | None = None

    def objects(self) -> Iterator[ObjectInfo]:
        for info in self.store.list():
            if self.cohort is None or ("/" not in info.key and info.key.endswith(".dcm")):
                yield info

    def digest_and_head(self, info: ObjectInfo, head_bytes: int = 0) -> tuple[str, bytes]:
        return self.landing.digest_and_head(self.store, info.key, info.size_bytes, head_bytes)

    def is_license(self, key: str) -> bool:
        folder, _, name = key.rpartition("/")
        return self.license is None and name == LICENSE_FILE and "/" not in folder

    def license_of(self, key: str) -> str:
        """The licence of the objects in the key's first folder, as it is stated there."""
        if self.license is not None:
            return self.license
        folder, slash, _ = key.partition("/")
        try:
            text = self.store.get(f"{folder}/{LICENSE_FILE}" if slash else LICENSE_FILE, MAX_LICENSE_BYTES)
        except ObjectRejected:  # there is none, or it is no statement of one line
            return UNSPECIFIED
        return text.decode("utf-8", "replace").partition("\n")[0].strip() or UNSPECIFIED


@dataclass(frozen=True)
class _Known:
    """What the last manifest says of an object."""

    size_bytes: int
    etag: str | None
    checksum: str
    media_type: str
    subject_ref: str
    record_ref: str


def open_connector(settings: Settings, dataset_id: str) -> Connector:
    """The objects of MEDVEC_SOURCES' entry for this dataset, or the sample bundle. An address ending in `nbia-api` is NBIA's."""
    source = settings.sources.get(dataset_id)
    if source and nbia.is_nbia(source):
        return nbia.open_connector(settings, dataset_id)
    landing = Landing(settings, dataset_id)
    roots = (_Root(ObjectStore(source), landing),) if source else _sample_roots(landing)
    return DicomObjects(roots, Observations(settings, dataset_id), workers=settings.decode_threads)


def _sample_roots(landing: Landing) -> tuple[_Root, ...]:
    """Real acquisitions of pydicom's packages (both MIT), found without importing them."""
    folders = {"pydicom_data": ("data_store", "data"), "pydicom_tests": ("pydicom", "data/test_files")}
    roots = []
    for cohort, (package, folder) in folders.items():
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            remedy = "install the project's dependencies (make setup), or name a folder in MEDVEC_SOURCES"
            raise ConfigError(f"the sample bundle needs the package {package}", remedy=remedy)
        path = Path(next(iter(found.submodule_search_locations))) / folder
        roots.append(_Root(ObjectStore(str(path)), landing, cohort, "MIT"))
    return tuple(roots)


class DicomObjects:
    """Connector of dataset tcia_radiology (medvec_assets.connectors.Connector)."""

    def __init__(self, roots: tuple[_Root, ...], observations: Observations, workers: int) -> None:
        self.is_remote = any(root.store.folder is None for root in roots)
        self._roots = roots
        self._observations = observations
        self._workers = workers

    def version(self) -> str:
        """A digest of every object's URI, size and etag; reads no object."""
        infos = (info for root in self._roots for info in root.objects())
        return f"listing-{set_digest(f'{i.uri} {i.size_bytes} {i.etag}' for i in infos)[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Everything there is, in pieces of PIECE_OBJECTS. Raises SourceError `source_empty` if that is nothing."""
        known = _known(previous)
        found = False
        with ThreadPoolExecutor(self._workers, thread_name_prefix="dicom-listing") as pool:
            for root in self._roots:
                objects = (info for info in root.objects() if not root.is_license(info.key))
                while piece := list(islice(objects, PIECE_OBJECTS)):
                    found = True
                    yield _listing(root, piece, known, self._observations, pool)
        if not found:
            # Not an empty listing: that would withdraw every series because of one mistyped prefix.
            remedy = "correct the URI in MEDVEC_SOURCES, or mount the folder"
            raise SourceError("the source holds no object", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One object of this source by its manifest URI. Raises ObjectRejected, also for a URI of another place."""
        for root in self._roots:
            key = root.store.key_of(uri)
            if key is not None:
                return root.store.get(key, max_bytes)
        remedy = "refresh the manifest: it names objects of another source"
        raise ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)


def _known(previous: pl.DataFrame) -> dict[str, _Known]:
    columns = ("uri", "size_bytes", "attributes", "checksum", "checksum_kind", "subject_ref", "record_ref")
    if previous.is_empty():
        return {}
    known = {}
    for uri, size, attributes, checksum, kind, subject, record in previous.select(columns).iter_rows():
        noted = json.loads(attributes)
        if kind == "sha256":
            media_type = "application/octet-stream" if noted.get("header") == "unreadable" else "application/dicom"
            known[uri] = _Known(size, noted.get("etag"), checksum, media_type, subject, record)
    return known


# ---------------------------------------------------------------- one piece of a listing


def _listing(
    root: _Root,
    piece: list[ObjectInfo],
    known: Mapping[str, _Known],
    observations: Observations,
    pool: ThreadPoolExecutor,
) -> Listing:
    series = _index_rows({uuid for info in piece if (uuid := _series_uuid(root, info.key))})
    plain = {info.key for info in piece if _series_uuid(root, info.key) is None}
    licenses = {folder: root.license_of(key) for folder, key in {_folder(key): key for key in plain}.items()}

    def described(info: ObjectInfo) -> dict[str, Any] | Rejection:
        try:
            uuid = _series_uuid(root, info.key)
            if uuid is None:
                return _plain_row(root, info, known.get(info.uri), observations, licenses[_folder(info.key)])
            return _idc_row(root, info, series.get(uuid), known.get(info.uri), observations)
        except ObjectRejected as refusal:  # removed between listing and reading
            return Rejection(object_id(root, info.key), refusal.code, refusal.remedy)

    rows = list(pool.map(described, piece))
    objects = pl.DataFrame([row for row in rows if not isinstance(row, Rejection)], schema=LISTING)
    return Listing(objects, tuple(row for row in rows if isinstance(row, Rejection)))


def object_id(root: _Root, key: str) -> str:
    """A surrogate: file names can hold names of people. The sample's two roots are kept apart by their cohort."""
    path = f"{root.cohort}/{key}" if root.cohort else key
    return f"obj-{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}"


def _series_uuid(root: _Root, key: str) -> str | None:
    first, slash, _ = key.partition("/")
    return first if root.cohort is None and slash and _UUID.fullmatch(first) else None


def _row(root: _Root, info: ObjectInfo, **differing: str) -> dict[str, Any]:
    return {
        "object_id": object_id(root, info.key),
        "uri": info.uri,
        "size_bytes": info.size_bytes,
        "checksum_kind": "sha256",
        "media_type": "application/dicom",
        "access_tier": "open",
        "upstream_version": NO_VERSION,
        "first_seen_version": NO_VERSION,
        "removed_in_version": None,
        "attributes": json.dumps({"etag": info.etag}),
        **differing,
    }


def _unchanged(info: ObjectInfo, known: _Known | None) -> bool:
    """An object at the same place with the same size and etag is not read again."""
    return known is not None and bool(info.etag) and (known.size_bytes, known.etag) == (info.size_bytes, info.etag)


def _plain_row(
    root: _Root, info: ObjectInfo, known: _Known | None, observations: Observations, license: str
) -> dict[str, Any]:
    cohort = root.cohort or _slug(info.key)
    if known is None or not _unchanged(info, known):
        fact = observations.of(_state(info), info.etag, lambda: json.dumps(_observed(root, info, cohort)))
        known = _Known(info.size_bytes, info.etag, *json.loads(fact))
    attributes = {"etag": info.etag}
    if known.media_type != "application/dicom":
        attributes["header"] = "unreadable"
    return _row(
        root,
        info,
        cohort=cohort,
        checksum=known.checksum,
        media_type=known.media_type,
        license=license,
        subject_ref=known.subject_ref,
        record_ref=known.record_ref,
        attributes=json.dumps(attributes),
    )


def _observed(root: _Root, info: ObjectInfo, cohort: str) -> tuple[str, str, str, str]:
    """Checksum, media type, subject and record: one read of the whole object, whose first bytes hold the header."""
    from medvec_assets.modalities.imaging.dicom_file import series_header

    checksum, head = root.digest_and_head(info, HEAD_BYTES)
    header = series_header(head)
    surrogate = object_id(root, info.key)
    series = header.series_uid if header and header.series_uid else surrogate
    # Without a patient, a series is its own subject: its instances must fall into one partition.
    subject = header.patient_id if header and header.patient_id else f"unknown:{series}"
    # A series UID is unique by the standard only. With cohort and subject in it, copies in two folders, or under two
    # patients, are separate records, and a record never spans two partitions.
    record_ref = f"{cohort}/{series}/{subject}"
    media_type = "application/dicom" if header else "application/octet-stream"
    return checksum, media_type, subject, record_ref


def _state(info: ObjectInfo) -> str:
    return f"{info.uri} {info.size_bytes}"


def _folder(key: str) -> str:
    return key.partition("/")[0] if "/" in key else ""


def _slug(key: str) -> str:
    """The cohort of a key: its first folder, or `root` for an object in none."""
    return cohort_slug(_folder(key)) if _folder(key) else "root"


# ---------------------------------------------------------------- Imaging Data Commons


def _index_rows(uuids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The index's rows of these series, by crdc_series_uuid."""
    wanted = sorted(uuids)
    if not wanted:
        return {}
    found = find_spec("idc_index_data")
    if found is None or not found.submodule_search_locations:
        remedy = "install the project's dependencies (make setup)"
        raise ConfigError("Imaging Data Commons' layout needs the package idc-index-data", remedy=remedy)
    index = Path(next(iter(found.submodule_search_locations))) / "idc_index.parquet"
    rows = (
        pl.scan_parquet(index)
        .filter(pl.col("crdc_series_uuid").is_in(wanted))
        .select(pl.col(name).alias(short) for name, short in _INDEX_COLUMNS.items())
        .collect()
    )
    return {row["uuid"]: row for row in rows.iter_rows(named=True)}


def _idc_row(
    root: _Root,
    info: ObjectInfo,
    series: Mapping[str, Any] | None,
    known: _Known | None,
    observations: Observations,
) -> dict[str, Any] | Rejection:
    surrogate = object_id(root, info.key)
    if series is None:
        remedy = "it is of a superseded or unknown revision: remove it, or update idc-index-data"
        return Rejection(surrogate, "series_not_in_index", remedy)
    if known is not None and _unchanged(info, known):
        checksum = known.checksum
    else:  # by another name: the layout of an object's place may change, and then its header counts
        checksum = observations.of(f"idc {_state(info)}", info.etag, lambda: root.digest_and_head(info)[0])
    return _row(
        root,
        info,
        cohort=series["cohort"],
        checksum=checksum,
        license=series["license"] or UNSPECIFIED,
        subject_ref=series["subject_ref"] or f"unknown:{series['record_ref']}",
        record_ref=series["record_ref"],
        upstream_version=f"v{series['revised']}",
        first_seen_version=f"v{series['init']}",
    )
