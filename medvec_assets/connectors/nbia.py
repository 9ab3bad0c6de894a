"""NBIA's REST API, TCIA's own door: collections, series and single images, an MD5 for each.

Belongs here: the protocol, and its rows as listings. Does not belong here: what a DICOM file holds (modalities.imaging),
Imaging Data Commons (dicom_objects, idc_index), which licence is allowed (policy).

    MEDVEC_SOURCES      {"tcia_radiology": "https://services.cancerimagingarchive.net/nbia-api"}, all of it, or with
                        ?Collection=LIDC-IDRI&Collection=... the collections that are wanted
    MEDVEC_CREDENTIALS  {"tcia": "user:password"} for restricted collections; without it only what is public is seen

`services/v1/` is asked for what is public and `services/v2/`, with a bearer token of `oauth/token`, for the rest. One series
is one record and its UID the record's reference, as through Imaging Data Commons: ids stay the same if the door is changed.

What is asked for: one getSeries a collection, and for each series that is new or has changed getSOPInstanceUIDs and one
getM5HashForImage an image (NBIA's own spelling). getUpdatedSeries would name changed series without a list of all, and
never one that was removed. getImageWithMD5Hash would give a series in one zip: images are read one by one, so that a
broken-off transfer costs one image, and one bad image is refused alone.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, cohort_slug
from medvec_assets.connectors.observations import Observations
from medvec_assets.fingerprints import set_digest
from resources.errors import ConfigError, MedvecError, ObjectRejected, SourceError
from resources.http_source import HttpSource
from resources.settings import Settings

CREDENTIAL = "tcia"
CLIENT_ID = "NBIA"  # the client that NBIA's documentation gives to everybody
REQUESTS_PER_SECOND = 10.0  # no limit is published
WORKERS = 4
PIECE_SERIES = 32  # per listing: bounds memory
UNSPECIFIED = "unspecified"
_CC = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NEEDED = ("SeriesInstanceUID", "PatientID", "ImageCount")


@dataclass(frozen=True)
class _Series:
    """One series as getSeries tells of it."""

    uid: str
    collection: str
    patient: str
    license: str | None
    images: int
    size_bytes: int
    state: str
    """Time stamp, number of images and bytes: it moves when the series does."""


def is_nbia(source: str) -> bool:
    """Whether an entry of MEDVEC_SOURCES names this door: a web address whose path ends in `nbia-api`."""
    parts = urlsplit(source)
    return parts.scheme in ("https", "http") and parts.path.rstrip("/").endswith("/nbia-api")


def open_connector(settings: Settings, dataset_id: str) -> Nbia:
    source = urlsplit(settings.sources[dataset_id])
    if source.scheme != "https" and source.hostname not in ("127.0.0.1", "localhost"):
        raise ConfigError(
            "NBIA over plain http would send its token unencrypted", remedy="write https:// in MEDVEC_SOURCES"
        )
    secret = settings.credentials.get(CREDENTIAL)
    base = f"{source.scheme}://{source.netloc}{source.path.rstrip('/')}"
    door = _Door(base, secret.get_secret_value() if secret else "")
    return Nbia(door, parse_qs(source.query).get("Collection", []), Observations(settings, dataset_id))


class _Door:
    """Requests to one NBIA, with a token where there are credentials: a new one when the last has expired (2 hours)."""

    def __init__(self, base: str, secret: str) -> None:
        self.base = base
        self.version = "v2" if secret else "v1"
        self._secret = secret
        self._renewing = threading.Lock()
        self._open = self._source({})
        self._source_now = None if secret else self._open

    def _source(self, headers: Mapping[str, str]) -> HttpSource:
        pace = REQUESTS_PER_SECOND
        return HttpSource(self.base, requests_per_second=pace, credential=CREDENTIAL, headers=headers)

    def bytes(self, name: str, params: Mapping[str, str], max_bytes: int) -> bytes:
        path = f"services/{self.version}/{name}"
        source = self._source_now or self._renewed(None)
        try:
            return source.bytes(path, max_bytes=max_bytes, params=params)
        except SourceError as refusal:
            if refusal.code != "credentials_refused" or not self._secret:
                raise
            return self._renewed(source).bytes(path, max_bytes=max_bytes, params=params)

    def rows(self, name: str, **params: str) -> list[dict[str, Any]]:
        """A JSON list of objects; an empty answer is an empty list, which is how NBIA says that there is nothing."""
        data = self.bytes(name, params, 1 << 30)
        rows = _parsed(data) if data.strip() else []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _drift(name, "does not answer with a list of objects")
        return rows

    def _renewed(self, used: HttpSource | None) -> HttpSource:
        """A source with a fresh token, unless another thread has just renewed the one that was `used`."""
        with self._renewing:
            if self._source_now is used or self._source_now is None:
                user, _, password = self._secret.partition(":")
                form = {"username": user, "password": password, "client_id": CLIENT_ID, "grant_type": "password"}
                answer = _parsed(self._open.text("oauth/token", form=form))
                token = answer.get("access_token") if isinstance(answer, dict) else None
                if not token:
                    raise _drift("oauth/token", "does not answer with an access_token")
                self._source_now = self._source({"Authorization": f"Bearer {token}"})
            return self._source_now


class Nbia:
    """Connector of dataset tcia_radiology through NBIA (medvec_assets.connectors.Connector)."""

    is_remote = True

    def __init__(self, door: _Door, collections: list[str], observations: Observations) -> None:
        self._door = door
        self._wanted = collections
        self._observations = observations
        self._published: list[_Series] | None = None

    def version(self) -> str:
        """A digest of every series' state. What it saw is what the next `listings` lists: one state, asked for once."""
        self._published = sorted(self._asked_series(), key=lambda one: (one.collection, one.uid))
        digest = set_digest(f"{one.uid} {one.state} {one.license} {one.patient}" for one in self._published)
        return f"nbia-{digest[:32]}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every published image, PIECE_SERIES series at a time. Raises SourceError `source_empty` if there is none."""
        if self._published is None:
            self.version()
        published, self._published = iter(self._published or ()), None
        known = _known(previous)
        found = False
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="nbia") as pool:
            while piece := list(islice(published, PIECE_SERIES)):
                found = True
                yield self._listing(piece, known, pool)
        if not found:
            remedy = "correct the collections in MEDVEC_SOURCES, or give credentials for restricted ones"
            raise SourceError("NBIA shows no series", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One image by its manifest URI. Raises ObjectRejected `object_missing`, also for a URI of another place."""
        head, _, query = uri.partition("?")
        if head != self._door.base + "/image":
            remedy = "refresh the manifest: it names objects of another source"
            raise ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)
        return self._door.bytes("getSingleImage", dict(parse_qsl(query)), max_bytes)

    # ---------------------------------------------------------------- series

    def _asked_series(self) -> Iterator[_Series]:
        there = [str(row["Collection"]) for row in self._door.rows("getCollectionValues") if row.get("Collection")]
        missing = sorted(set(self._wanted) - set(there))
        if missing:
            remedy = "correct MEDVEC_SOURCES, or give credentials that may see them"
            raise SourceError(f"NBIA shows no collection {missing}", code="source_missing", remedy=remedy)
        for collection in sorted(self._wanted or there):
            for row in self._door.rows("getSeries", Collection=collection):
                yield self._series(row, collection)

    def _series(self, row: Mapping[str, Any], collection: str) -> _Series:
        absent = [name for name in _NEEDED if row.get(name) in (None, "")]
        images, size = (_whole(row.get(name)) for name in ("ImageCount", "FileSize"))
        if absent or images is None:
            raise _drift("getSeries", f"lacks {', '.join(absent) or 'a number of images'} in a series of {collection}")
        uid, size = str(row["SeriesInstanceUID"]), size or 0
        state = f"{row.get('TimeStamp') or row.get('DateReleased') or '-'} {images} {size}"
        license = _short_license(row.get("LicenseName"), row.get("LicenseURI"))
        return _Series(uid, collection, str(row["PatientID"]), license, images, size, state)

    def _license(self, one: _Series) -> str:
        """Of the series' own metadata, where the list of series does not tell."""
        if one.license is not None:
            return one.license
        rows = self._door.rows("getSeriesMetaData", SeriesInstanceUID=one.uid)
        told = rows[0] if rows else {}
        return _short_license(told.get("License Name"), told.get("License URI")) or UNSPECIFIED

    # ---------------------------------------------------------------- images

    def _listing(self, piece: list[_Series], known: Mapping[str, dict[str, str]], pool: ThreadPoolExecutor) -> Listing:
        fresh = [one for one in piece if len(known.get(f"{one.uid} {one.state}", ())) < one.images]
        asked = self._checksums(fresh, pool)
        rows: list[dict[str, Any]] = []
        rejected: list[Rejection] = []
        for one in piece:
            md5s = asked.get(one.uid) or known.get(f"{one.uid} {one.state}", {})
            license = self._license(one)
            for sop, md5 in sorted(md5s.items()):
                if _MD5.fullmatch(md5):
                    rows.append(self._row(one, sop, md5, license))
                else:
                    remedy = "it may just be replaced: refresh later; else ask TCIA's help desk for its checksum"
                    rejected.append(Rejection(_object_id(sop), "checksum_not_published", remedy))
        return Listing(pl.DataFrame(rows, schema=LISTING), tuple(rejected))

    def _checksums(self, series: list[_Series], pool: ThreadPoolExecutor) -> dict[str, dict[str, str]]:
        """series UID -> SOP instance UID -> MD5."""
        groups = list(zip(series, pool.map(self._instances, series), strict=True))
        asked = [(one, sop) for one, sops in groups for sop in sops]
        md5s = dict(zip(asked, pool.map(self._observed_md5, asked), strict=True))
        return {one.uid: {sop: md5s[one, sop] for sop in sops} for one, sops in groups}

    def _instances(self, one: _Series) -> list[str]:
        def ask() -> str:
            rows = self._door.rows("getSOPInstanceUIDs", SeriesInstanceUID=one.uid)
            return " ".join(sorted({str(row["SOPInstanceUID"]) for row in rows if row.get("SOPInstanceUID")}))

        return self._observations.of(f"series {one.uid}", one.state, ask).split()

    def _observed_md5(self, image: tuple[_Series, str]) -> str:
        one, sop = image
        return self._observations.of(f"image {sop}", one.state, lambda: self._md5(sop))

    def _md5(self, sop: str) -> str:
        """As NBIA says it, or nothing where it knows none: the image is then refused alone."""
        try:
            return (
                self._door.bytes("getM5HashForImage", {"SOPInstanceUid": sop}, 4096).decode("ascii", "replace").strip()
            )
        except MedvecError as error:
            if error.code in ("object_missing", "request_refused", "object_too_large"):
                return ""
            raise

    def _row(self, one: _Series, sop: str, md5: str, license: str) -> dict[str, Any]:
        query = urlencode({"SeriesInstanceUID": one.uid, "SOPInstanceUID": sop})
        return {
            "object_id": _object_id(sop),
            "cohort": cohort_slug(one.collection),
            "uri": f"{self._door.base}/image?{query}",
            "size_bytes": one.size_bytes
            // max(1, one.images),  # a series' size is told, not an image's: each has its share
            "checksum": md5,
            "checksum_kind": "md5",
            "media_type": "application/dicom",
            "license": license,
            "access_tier": "open" if license.startswith("CC ") else "controlled",
            "subject_ref": one.patient,
            "record_ref": one.uid,
            "upstream_version": one.state.partition(" ")[0],
            "first_seen_version": "observed",  # NBIA does not tell when a series was first there
            "removed_in_version": None,
            "attributes": json.dumps({"sop": sop, "state": one.state}),
        }


def _known(previous: pl.DataFrame) -> dict[str, dict[str, str]]:
    """series UID and state -> SOP instance UID -> MD5, of the last manifest."""
    known: dict[str, dict[str, str]] = {}
    if previous.is_empty():
        return known
    columns = ("record_ref", "checksum", "checksum_kind", "attributes")
    for series, checksum, kind, attributes in previous.select(columns).iter_rows():
        noted = json.loads(attributes)
        if kind == "md5" and "state" in noted:
            known.setdefault(f"{series} {noted['state']}", {})[noted["sop"]] = checksum
    return known


def _object_id(sop: str) -> str:
    return f"obj-{sha256(sop.encode()).hexdigest()[:32]}"


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _short_license(name: Any, uri: Any) -> str | None:
    """`CC BY 4.0` of a Creative Commons address, as Imaging Data Commons writes it; another licence by its name."""
    found = _CC.search(str(uri or ""))
    if found:
        return f"CC {found[1].upper()} {found[2]}"
    return str(name).strip() or None if name else None


def _parsed(data: bytes | str) -> Any:
    """JSON, or None for what is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _drift(name: str, what: str) -> SourceError:
    remedy = "the service's protocol may have changed: compare its documentation with the connector"
    return SourceError(f"NBIA's {name} {what}", code="schema_drift", remedy=remedy)
