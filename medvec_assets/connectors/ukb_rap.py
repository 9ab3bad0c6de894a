"""Brain MRI of UK Biobank as bulk files inside its Research Analysis Platform (RAP), and who has withdrawn.

Belongs here: which bulk files there are, whose visit they are of, the withdrawal list. Does not belong here: volumes
(modalities.volume), the platform's API (dnanexus), whether this may run here (policy: only at `enclave:rap`).

    .../<eid>_20252_<instance>_<array>.zip     or .nii.gz, .nii: field 20252, a T1 structural scan
    .../w<application>_<YYYYMMDD>.csv          the withdrawal list as UK Biobank mails it: one eid a line, each list whole

MEDVEC_SOURCES: the mounted folder (`/mnt/project/Bulk/Brain MRI/T1`) or `https://api.dnanexus.com/project-xxxx/Bulk/Brain
MRI/T1` with the token "ukb" in MEDVEC_CREDENTIALS. Withdrawal lists lie below the same place or, since bulk folders are
UK Biobank's, below the one that "ukb_withdrawals" names. The newest counts.

A mount publishes no checksums: each file is read once for one, and again only if it changes. The API's listing has them.

**Withdrawal.** A participant on the list is marked as removed in the manifest from the list's date on; the spec says how
long until everything of theirs must be gone. One who is on the list and not in the manifest is never written into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Listing, Rejection, sample_folder
from medvec_assets.connectors.dnanexus import DnanexusProject
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
from medvec_assets.fingerprints import input_digest
from resources.errors import SourceError
from resources.settings import Settings

SOURCE = "ukb"
WITHDRAWALS = "ukb_withdrawals"  # the entry of MEDVEC_SOURCES that all datasets of UK Biobank share
LICENSE = "UK Biobank Material Transfer Agreement"
NO_VERSION = "observed"  # bulk files carry no release
MAX_LIST_BYTES = 16 << 20  # 500,000 eids are 4 million bytes
_BULK = re.compile(r"(\d{7})_(20252)_(\d)_(\d+)\.(zip|nii|nii\.gz)")
_VOLUME_ENDINGS = (".zip", ".nii", ".nii.gz")
_LIST = re.compile(r"w\d+_(\d{4})-?(\d{2})-?(\d{2})\.csv")
_EID = re.compile(r"\d{7}")
_MEDIA_TYPES = {"zip": "application/zip", "nii": "application/x-nifti", "nii.gz": "application/gzip"}


def open_connector(settings: Settings, dataset_id: str) -> UkbRap:
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    lists = settings.sources.get(WITHDRAWALS)
    landing = Landing(settings, dataset_id)
    at = partial(_files, settings=settings, landing=landing)
    return UkbRap(at(source), at(lists) if lists else None, settings, dataset_id)


def _files(source: str, settings: Settings, landing: Landing) -> SourceFiles:
    if not is_web(source):
        return StoredFiles(source, landing)
    token = settings.credentials.get(SOURCE)
    return DnanexusProject(source, token.get_secret_value() if token else "", SOURCE)


@dataclass(frozen=True)
class _Withdrawn:
    """Who withdrew, by the newest list, and the release from which they count as removed."""

    eids: frozenset[str] = frozenset()
    release: str = ""


class UkbRap:
    """Connector of dataset ukb_brain_mri (medvec_assets.connectors.Connector)."""

    def __init__(self, files: SourceFiles, lists: SourceFiles | None, settings: Settings, dataset_id: str) -> None:
        self.is_remote = files.is_remote
        self._files = files
        self._lists = lists
        self._settings = settings
        self._dataset_id = dataset_id
        self._pseudonyms = Pseudonyms(settings.pseudonym_secret, SOURCE)

    def version(self) -> str:
        """A digest of every file's path, size and etag, withdrawal lists too; reads no file."""
        return self._looked()[0]

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Every bulk file of the field. Raises SourceError `source_empty`, `withdrawal_list_invalid`; SourceUnavailable
        `source_changed` if files came or went while they were listed."""
        version, newest = self._looked()
        withdrawn = self._withdrawn(newest)
        checksums = Checksums(self._files, previous, self._settings, self._dataset_id)
        known = {} if previous.is_empty() else {row["object_id"]: row for row in previous.iter_rows(named=True)}
        found = False
        for piece in pieces(one for one in self._files.list() if one.key.endswith(_VOLUME_ENDINGS)):
            found = True
            yield self._listing(piece, withdrawn, known, checksums)
        if self.version() != version:
            raise changed_meanwhile("the project")
        if not found:
            remedy = "mount the project, or correct the folder in MEDVEC_SOURCES"
            raise SourceError("the source holds no bulk file", code="source_empty", remedy=remedy)

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        return self._files.get(uri, max_bytes)

    # ---------------------------------------------------------------- withdrawals

    def _looked(self) -> tuple[str, tuple[SourceFiles, SourceFile] | None]:
        """The version, and the newest withdrawal list with where it lies."""
        dated: list[tuple[str, str, SourceFiles, SourceFile]] = []
        digests = []
        for files in (self._files, self._lists):
            if files is not None:
                digests.append(listing_digest(_noting(files, dated)))
        newest = max(dated, key=lambda one: one[:2], default=None)
        return f"listing-{input_digest(*digests)[:32]}", (newest[2], newest[3]) if newest else None

    def _withdrawn(self, newest: tuple[SourceFiles, SourceFile] | None) -> _Withdrawn:
        """A list that does not read as one stops the run: with half of it, participants would come back."""
        if newest is None:
            return _Withdrawn()
        files, file = newest
        text = files.get(file.uri, MAX_LIST_BYTES).decode("utf-8-sig", "replace")
        # A list is mailed with or without a heading.
        lines = [line.strip().strip('"') for line in text.splitlines() if line.strip()]
        eids = [line for line in lines if line.lower() != "eid"]
        if not eids or not all(map(_EID.fullmatch, eids)):
            remedy = "put the list there as UK Biobank mailed it: one participant of seven digits a line"
            raise SourceError("the newest withdrawal list is none", code="withdrawal_list_invalid", remedy=remedy)
        return _Withdrawn(frozenset(eids), f"withdrawn-{_date(file)}")

    # ---------------------------------------------------------------- files

    def _listing(
        self, piece: list[SourceFile], withdrawn: _Withdrawn, known: dict[str, dict[str, Any]], checksums: Checksums
    ) -> Listing:
        rows: list[dict[str, Any]] = []
        rejected: list[Rejection] = []
        wanted: list[tuple[SourceFile, re.Match[str]]] = []
        for one in piece:
            bulk = _BULK.fullmatch(one.key.rpartition("/")[2])
            object_id = self._object_id(one.key)
            if bulk is None:
                remedy = "a bulk file is eid_20252_instance_array.zip or .nii.gz: keep others elsewhere"
                rejected.append(Rejection(object_id, "name_not_understood", remedy))
            elif bulk[1] in withdrawn.eids:
                if object_id in known:  # and its bytes are not read any more
                    rows.append(self._withdrawn_row(one, bulk, known[object_id], withdrawn.release))
            elif one.refusal is not None:
                rejected.append(Rejection(object_id, *one.refusal))
            else:
                wanted.append((one, bulk))
        found = checksums.of([one for one, _ in wanted])
        for one, bulk in wanted:
            checksum = found[one.uri]
            if checksum is None:
                remedy = "it was removed while it was listed: refresh the manifest"
                rejected.append(Rejection(self._object_id(one.key), "object_missing", remedy))
            else:
                rows.append(self._row(one, bulk, checksum, None))
        return Listing(pl.DataFrame(rows, schema=LISTING), tuple(rejected))

    def _row(
        self, one: SourceFile, bulk: re.Match[str], checksum: tuple[str, str], removed: str | None
    ) -> dict[str, Any]:
        eid, field, instance, array, ending = bulk.groups()
        return {
            "object_id": self._object_id(one.key),
            "cohort": f"instance_{instance}",
            "uri": one.uri,
            "size_bytes": one.size_bytes,
            "checksum": checksum[0],
            "checksum_kind": checksum[1],
            "media_type": _MEDIA_TYPES[ending],
            "license": LICENSE,
            "access_tier": "controlled",
            "subject_ref": eid,
            "record_ref": f"{eid}_{field}_{instance}_{array}",
            "upstream_version": NO_VERSION,
            "first_seen_version": NO_VERSION,
            "removed_in_version": removed,
            "attributes": json.dumps({"etag": one.etag, "instance": int(instance), "study": f"{eid}_{instance}"}),
        }

    def _withdrawn_row(
        self, one: SourceFile, bulk: re.Match[str], last: dict[str, Any], release: str
    ) -> dict[str, Any]:
        """A tombstone with the date of the list that first named them: a later list must not restart the clock."""
        since = json.loads(last["attributes"]).get("withdrawn", release)
        row = self._row(one, bulk, (last["checksum"], last["checksum_kind"]), since)
        return row | {"attributes": json.dumps(json.loads(row["attributes"]) | {"withdrawn": since})}

    def _object_id(self, key: str) -> str:
        """Keyed: there are ten million eids, and a plain digest of a name is found by trying all."""
        return f"obj-{self._pseudonyms.of('object', key)}"


def _noting(files: SourceFiles, dated: list[tuple[str, str, SourceFiles, SourceFile]]) -> Iterator[SourceFile]:
    """Every file; withdrawal lists are noted on the way, with their date and path."""
    for one in files.list():
        if _LIST.fullmatch(one.key.rpartition("/")[2]):
            dated.append((_date(one), one.key, files, one))
        yield one


def _date(file: SourceFile) -> str:
    found = _LIST.fullmatch(file.key.rpartition("/")[2])
    assert found is not None
    return "-".join(found.groups())
