"""Imaging: DICOM objects to one record and one model input per series.

Belongs here: the `imaging` modality; its parts are dicom_file (bytes to data set), image_rules (what is accepted),
pixels (frame to model input) and series (instances to record). Does not belong here: where objects are (connectors),
full de-identification (deid), encoders.

Open objects were de-identified by their publisher, and the technical allow list takes what it names; of any other the
attributes and the model input are those of the copy that deid.dicom makes, the record's payload, and `version` moves with
that profile too. An image that says that text is burned into it becomes no vector, and one of another source that may have
some neither.

A record's `object_ids` begins with its representative instance, the middle one of the series; the others follow in
order. So a model input is made again from one object, `object_uris[0]`, whatever the size of the series.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid.technical import PROFILE
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, LandPayload, ReadObject, Rejected, of_study
from medvec_assets.modalities.imaging.pixels import INPUT_VERSION, image_input, thumbnail
from medvec_assets.modalities.imaging.series import Series, read_series
from resources.errors import ObjectRejected

__all__ = ["MODALITY", "Imaging", "image_input", "thumbnail"]

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Imaging Data Commons' layout: a bucket and two random UUIDs. Any other URI may hold a name and stays in bronze.
_PUBLIC_URI = re.compile(rf"s3://[a-z0-9.-]+/{_UUID}/{_UUID}\.dcm")


class Imaging:
    """The modality `imaging` (medvec_assets.modalities.PayloadModality); space `image` takes uint8 [224, 224, 3]."""

    version = "imaging-3"
    deid_profile = PROFILE
    input_versions: dict[str, str] = {"image": INPUT_VERSION}  # noqa: RUF012  (the protocol's attribute is a dict)
    piece_objects = 64
    payload_media_type = "application/dicom"  # the de-identified copy of the representative instance

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload | None = None
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record per record_ref with at least one good image; every other object with the reason."""
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        for _, group in objects.sort("record_ref", "object_id").group_by("record_ref", maintain_order=True):
            series, refused = read_series(group.iter_rows(named=True), read, pseudonyms)
            rejected += refused
            if series is not None:
                made = self._record(series, pseudonyms)
                if land is not None and series.payload is not None:
                    made["payload_uri"] = land(series.payload)
                rows.append(made)
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def _record(self, series: Series, pseudonyms: Pseudonyms) -> dict[str, Any]:
        row = series.instances[0].row
        return {
            "record_id": pseudonyms.of("series", row["record_ref"]),
            "subject_key": pseudonyms.subject(row["subject_ref"]),
            "object_ids": [instance.object_id for instance in series.instances],
            "cohort": row["cohort"],
            "modality": series.attributes.get("modality", "OT"),  # DICOM's own code for "other"
            "license": row["license"],
            "access_tier": row["access_tier"],
            "text": None,
            "attributes": json.dumps(series.attributes | of_study(series.study_uid, pseudonyms), sort_keys=True),
            "payload_uri": row["uri"] if _PUBLIC_URI.fullmatch(row["uri"]) else f"object:{row['object_id']}",
            "deid_profile": series.deid_profile,
            "deid_actions": json.dumps(series.deid_actions, sort_keys=True),
            "content_digests": json.dumps({"image": array_digest(series.model_input)}),
        }

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.uint8] | Rejected]:
        """The model input of every record, made again from its representative object; Rejected `payload_changed` if
        it is not the one whose digest the record holds."""
        columns = ("record_id", "object_uris", "content_digests")
        return [self._input(row, space, read) for row in records.select(columns).iter_rows(named=True)]

    def _input(self, row: Mapping[str, Any], space: str, read: ReadObject) -> NDArray[np.uint8] | Rejected:
        try:
            array = image_input(read(row["object_uris"][0]))
        except ObjectRejected as refusal:
            return Rejected(row["record_id"], refusal.code, refusal.remedy, refusal.disposition)
        if array_digest(array) != json.loads(row["content_digests"])[space]:
            return Rejected(row["record_id"], "payload_changed", "materialize the records of this partition again")
        return array


MODALITY = Imaging()
