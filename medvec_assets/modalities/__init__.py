"""Modalities: from a source's objects to a de-identified record and a model input. Pure: bytes come in through `read`.

Belongs here: parsing, normalising, what may be kept of an object. Does not belong here: where objects are (connectors),
encoders, Delta, Dagster.

A modality declares `version` by hand: it moves when records would come out differently, and moving it costs no GPU
hour unless the model input's digest moves too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import polars as pl

from medvec_assets.catalog.spec import STUDY
from medvec_assets.deid.pseudonyms import Pseudonyms

ReadObject = Callable[[str], bytes]
"""Reads one object by its manifest `uri`; verified against the manifest's checksum by the caller."""

LandPayload = Callable[[bytes], str]
"""Writes a record's de-identified bytes to the lake; the `payload_uri` under which they stand there."""

OPEN = "open"
"""The access tier whose objects were de-identified by whoever published them: they stay at their source."""

RECORD_FRAME: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "subject_key": pl.String(),
    "object_ids": pl.List(pl.String()),
    "cohort": pl.String(),
    "modality": pl.String(),
    "license": pl.String(),
    "access_tier": pl.String(),
    "text": pl.String(),  # null where the record has none
    "attributes": pl.String(),  # JSON object, sorted keys, allow-listed
    "payload_uri": pl.String(),  # of an open object its URI; else what LandPayload gave, or a surrogate `object:<id>`
    "deid_profile": pl.String(),
    "deid_actions": pl.String(),  # JSON object: action -> count
    "content_digests": pl.String(),  # JSON object: space -> digest of the model input
    "payload": pl.Binary(),  # a small model input itself, which nothing has to be read for; null for most modalities
}


@dataclass(frozen=True)
class Rejected:
    """One object (or record) that goes to quarantine, or is skipped by a rule."""

    object_id: str
    code: str
    remedy: str
    disposition: str = "quarantined"  # or "skipped"


class Modality(Protocol):
    version: str
    deid_profile: str
    input_versions: dict[str, str]
    """space -> preprocessing version: part of every fingerprint of that space."""
    piece_objects: int
    """Objects of which a process of its own may make records at a time, about a second of work; then nothing in `records`
    depends on objects of another record_ref. 0: it makes many at once with threads of its own, in this process."""

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """`objects`: manifest rows, all rows of a record_ref together.

        Returns a frame of RECORD_FRAME and every object that did not make it: objects = sum of object_ids + rejected.
        """
        ...

    def model_inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[Any | Rejected]:
        """One model input per row of `records`, or the reason there is none (`object_id` = record_id). Its columns are those
        of the records table, plus `object_uris`: list[str], the manifest uris of its object_ids in order; of a record that
        has a payload in the lake that one alone.
        str for text encoders; uint8 array [224, 224, 3] for image encoders; float32 array [features] for projections.
        Its digest is in content_digests."""
        ...


@runtime_checkable
class PayloadModality(Modality, Protocol):
    """A modality that can give the de-identified bytes of its records, of which `model_inputs` makes the same as of the
    source's own."""

    payload_media_type: str

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload | None = None
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """The payload of each record that is not OPEN is given to `land`, whose answer is its payload_uri."""
        ...


def of_study(study: str | None, pseudonyms: Pseudonyms) -> dict[str, str]:
    """The attribute that says of which study a record is, `study` being the source's own name of it; none without one."""
    return {STUDY: pseudonyms.of("study", study)} if study else {}


def make_records(
    form: Modality, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload
) -> tuple[pl.DataFrame, list[Rejected]]:
    """What `form.records` gives, with `land` where it has payloads."""
    if isinstance(form, PayloadModality):
        return form.records(objects, read, pseudonyms, land)
    return form.records(objects, read, pseudonyms)


@cache
def modality(name: str) -> Modality:
    """The modality called `name` in a spec, a module here."""
    found: Modality = import_module(f"{__name__}.{name}").MODALITY
    return found
