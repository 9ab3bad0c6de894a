"""Where one object is one record and one model input: a radiograph in a PNG, a brain in a NIfTI file.

Belongs here: the loop over objects, the record's columns, the check of a model input against its digest.
Does not belong here: any file format (modalities.raster, modalities.volume), DICOM series (the package's `records`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import OPEN, RECORD_FRAME, LandPayload, ReadObject, Rejected, of_study
from resources.errors import ObjectRejected


@dataclass(frozen=True)
class Parsed:
    """What is kept of one object: `attributes` are allow-listed, `dropped` counts the header's fields that are not.

    `payload` writes a file of just what the model input is made of, of which the same is made again."""

    model_input: NDArray[np.uint8]
    attributes: dict[str, Any]
    dropped: int
    payload: Callable[[], bytes]


class OneObject(ABC):
    """A modality (medvec_assets.modalities.PayloadModality) of single-object records; space `image` takes uint8 [224, 224, 3]."""

    version: str
    deid_profile: str
    input_versions: dict[str, str]
    piece_objects: int
    payload_media_type: str
    kind: str
    """What a record is, a term of its own kind of pseudonym: `image`, `volume`."""

    @abstractmethod
    def parsed(self, data: bytes, described: Mapping[str, Any]) -> Parsed:
        """One object's bytes, with what the source says of it (the manifest row's attributes). Raises ObjectRejected."""

    @abstractmethod
    def model_input(self, data: bytes) -> NDArray[np.uint8]:
        """The model input of one object's bytes alone (an upload takes this path too). Raises ObjectRejected."""

    @abstractmethod
    def shows(self, described: Mapping[str, Any]) -> str:
        """The record's `modality`, a DICOM term where there is one."""

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload | None = None
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record per good object; every other one with the reason, and each but the first of one record_ref."""
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        taken: set[str] = set()
        for row in objects.sort("record_ref", "object_id").iter_rows(named=True):
            try:
                made, payload = self._record(row, read, pseudonyms)
            except ObjectRejected as refusal:
                rejected.append(Rejected(row["object_id"], refusal.code, refusal.remedy, refusal.disposition))
                continue
            if made["record_id"] in taken:
                remedy = "two files claim to be the same record: remove one at the source"
                rejected.append(Rejected(row["object_id"], "duplicate_record", remedy))
                continue
            taken.add(made["record_id"])
            if land is not None and row["access_tier"] != OPEN:
                made["payload_uri"] = land(payload())
            rows.append(made)
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def _record(
        self, row: Mapping[str, Any], read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[dict[str, Any], Callable[[], bytes]]:
        """A row of RECORD_FRAME, and what writes its payload."""
        described = json.loads(row["attributes"])
        parsed = self.parsed(read(row["uri"]), described)
        actions = {"attributes_dropped": parsed.dropped, "attributes_kept": len(parsed.attributes)}
        made = {
            "record_id": pseudonyms.of(self.kind, row["record_ref"]),
            "subject_key": pseudonyms.subject(row["subject_ref"]),
            "object_ids": [row["object_id"]],
            "cohort": row["cohort"],
            "modality": self.shows(described),
            "license": row["license"],
            "access_tier": row["access_tier"],
            "text": None,
            "attributes": json.dumps(parsed.attributes | of_study(described.get("study"), pseudonyms), sort_keys=True),
            "payload_uri": f"object:{row['object_id']}",  # the source's own name of it stays in bronze
            "deid_profile": self.deid_profile,
            "deid_actions": json.dumps(actions, sort_keys=True),
            "content_digests": json.dumps({"image": array_digest(parsed.model_input)}),
        }
        return made, parsed.payload

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.uint8] | Rejected]:
        """The model input of every record, made again from its object; Rejected `payload_changed` if it is another."""
        columns = ("record_id", "object_uris", "content_digests")
        return [self._input(row, space, read) for row in records.select(columns).iter_rows(named=True)]

    def _input(self, row: Mapping[str, Any], space: str, read: ReadObject) -> NDArray[np.uint8] | Rejected:
        try:
            array = self.model_input(read(row["object_uris"][0]))
        except ObjectRejected as refusal:
            return Rejected(row["record_id"], refusal.code, refusal.remedy, refusal.disposition)
        if array_digest(array) != json.loads(row["content_digests"])[space]:
            return Rejected(row["record_id"], "payload_changed", "materialize the records of this partition again")
        return array
