"""A modality whose objects are text files: reads every object, so that what the records stage does to reading shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import text_digest
from medvec_assets.modalities import OPEN, RECORD_FRAME, LandPayload, ReadObject, Rejected
from resources.errors import ObjectRejected


class BytesModality:
    """One record per record_ref: the texts of its objects in order. The first word is its DICOM-like modality."""

    def __init__(self) -> None:
        self.version = "bytes-1"
        self.deid_profile = "none-1"
        self.input_versions = {"text": "plain-1"}
        self.piece_objects = 0

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        for _, group in objects.group_by("record_ref", maintain_order=True):
            kept, texts = [], []
            for row in group.iter_rows(named=True):
                try:
                    texts.append(read(row["uri"]).decode())
                    kept.append(row)
                except ObjectRejected as refusal:
                    rejected.append(Rejected(row["object_id"], refusal.code, refusal.remedy))
            if kept:
                rows.append(self._record(kept, " ".join(texts), pseudonyms))
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def _record(self, objects: Sequence[dict[str, Any]], text: str, pseudonyms: Pseudonyms) -> dict[str, Any]:
        first = objects[0]
        return {
            "record_id": first["record_ref"],
            "subject_key": pseudonyms.subject(first["subject_ref"]),
            "object_ids": [row["object_id"] for row in objects],
            "cohort": first["cohort"],
            "modality": text.split(" ")[0],
            "license": first["license"],
            "access_tier": first["access_tier"],
            "text": text,
            "attributes": "{}",
            "payload_uri": first["uri"],
            "deid_profile": self.deid_profile,
            "deid_actions": "{}",
            "content_digests": json.dumps({"text": text_digest(text)}),
        }

    def model_inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[Any | Rejected]:
        return records["text"].to_list()


class PayloadBytesModality(BytesModality):
    """As above; a word that begins with @ is a name and stays at the source. Its inputs are read from the payload."""

    payload_media_type = "text/plain"

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload | None = None
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        frame, rejected = super().records(objects, lambda uri: _without_names(read(uri)), pseudonyms)
        rows = frame.to_dicts()
        for row in rows:
            if land is not None and row["access_tier"] != OPEN:
                row["payload_uri"] = land(row["text"].encode())
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def model_inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[Any | Rejected]:
        return [self._input(*row, read) for row in records.select("record_id", "object_uris", "text").iter_rows()]

    def _input(self, record_id: str, uris: list[str], text: str, read: ReadObject) -> str | Rejected:
        try:
            found = b" ".join(_without_names(read(uri)) for uri in uris).decode()
        except ObjectRejected as refusal:
            return Rejected(record_id, refusal.code, refusal.remedy)
        assert found == text
        return found


def _without_names(data: bytes) -> bytes:
    return b" ".join(word for word in data.split(b" ") if not word.startswith(b"@"))


MODALITY = BytesModality()
