"""A DICOM series told in one line of text: from catalogue rows to the descriptor that a text encoder reads.

Belongs here: which catalogue fields make a descriptor, how they are spelled for an encoder that never learnt DICOM
codes, which descriptors are refused. Does not belong here: reading the catalogue (idc_index), pixels (imaging).

Whole columns at a time, and once per distinct row: of the catalogue's million descriptors one in seven is distinct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import text_digest
from medvec_assets.json_columns import json_objects
from medvec_assets.modalities import RECORD_FRAME, ReadObject, Rejected
from resources.errors import SourceError

MAX_FIELD_CHARS = 1024  # DICOM's long strings end at 64; MiniLM reads 256 tokens, about 1,000 characters

# The encoder is general and never learnt DICOM codes: bare codes gave precision@10 .78 over 20 queries on the sample
# cohorts' 3,584 distinct descriptors, code and words .85, words alone .84. The gain is in codes that are not spoken
# (RTSTRUCT, SR). The code stays in front, as people type it too.
MODALITY_WORDS = {
    "ANN": "ANN annotations",
    "CR": "CR computed radiography x-ray",
    "CT": "CT computed tomography",
    "DX": "DX digital radiography x-ray",
    "FUSION": "image fusion",
    "KO": "KO key object selection",
    "M3D": "M3D 3D model",
    "MG": "MG mammography",
    "MR": "MR magnetic resonance imaging MRI",
    "NM": "NM nuclear medicine scintigraphy",
    "OT": "other",
    "PR": "PR presentation state",
    "PT": "PT positron emission tomography PET",
    "REG": "REG spatial registration",
    "RF": "RF fluoroscopy x-ray",
    "RTDOSE": "RTDOSE radiotherapy dose",
    "RTPLAN": "RTPLAN radiotherapy plan",
    "RTSTRUCT": "RTSTRUCT radiotherapy structure contours",
    "RWV": "RWV real world value mapping",
    "SC": "SC secondary capture",
    "SEG": "SEG segmentation",
    "SM": "SM slide microscopy pathology",
    "SR": "SR structured report measurements",
    "US": "US ultrasound",
    "XA": "XA x-ray angiography",
    "XC": "XC photograph",
}
# BodyPartExamined holds at most 16 characters, so regions are run together.
BODY_PART_WORDS = {
    "ABDOMENPELVIS": "abdomen and pelvis",
    "BONYPELVIS": "bony pelvis",
    "CHESTABDOMEN": "chest and abdomen",
    "CHESTABDPELVIS": "chest, abdomen and pelvis",
    "CSPINE": "cervical spine",
    "HEADNECK": "head and neck",
    "LOWERLIMB": "lower limb",
    "LSPINE": "lumbar spine",
    "NECKCHESTABDOMEN": "neck, chest and abdomen",
    "NECKCHESTABDPELV": "neck, chest, abdomen and pelvis",
    "TLSPINE": "thoracolumbar spine",
    "TSPINE": "thoracic spine",
    "WHOLEBODY": "whole body",
}

_SOURCE_FIELDS = {
    "modality": pl.String(),
    "body_part": pl.String(),
    "series_description": pl.String(),
    "study_description": pl.String(),
    "manufacturer": pl.String(),
    "instances": pl.Int64(),
}
_TEXT_FIELDS = [name for name, dtype in _SOURCE_FIELDS.items() if dtype == pl.String]

_CONTROL = r"[\x00-\x1f\x7f-\x9f]"
_REMEDIES = {
    "missing_field": "the source's index gives this series no modality; ask the source to complete it",
    "control_characters": "a descriptor field holds control characters; ask the source to correct it",
    "field_too_long": f"a descriptor field is longer than {MAX_FIELD_CHARS} characters; ask the source to correct it",
}


class SeriesDescriptor:
    """One record per catalogue row; the model input of space `text` is the record's own text."""

    version = "series-descriptor-1"
    deid_profile = "open-catalogue-1"
    input_versions = {"text": "descriptor-1"}  # noqa: RUF012  (the protocol's attribute)
    piece_objects = 0

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """Catalogue rows as RECORD_FRAME; ids stay the source's, which publishes them openly. `read` is not used.

        Refused, one code each: `missing_field` (no modality), `control_characters`, `field_too_long`. A series without
        any description stays: its modality and collection still say something. Raises SourceError where `attributes`
        are not the catalogue connector's.
        """
        described = objects.rename({"attributes": "source_attributes"}).join(
            _descriptors(objects), on=["source_attributes", "cohort"], how="left", maintain_order="left"
        )
        refused = described.filter(pl.col("code").is_not_null()).select("object_id", "code")
        rejected = [Rejected(object_id, code, _REMEDIES[code]) for object_id, code in refused.iter_rows()]
        subjects = _mapped(objects.select("subject_ref"), "subject_ref", "subject_key", pseudonyms.subject)
        records = (
            described.filter(pl.col("code").is_null())
            .join(subjects, on="subject_ref", how="left", maintain_order="left")
            .with_columns(
                record_id=pl.col("object_id"),
                object_ids=pl.concat_list("object_id"),
                payload_uri=pl.col("uri"),
                deid_profile=pl.lit(self.deid_profile),
                deid_actions=pl.lit("{}"),
                payload=pl.lit(None, pl.Binary),
            )
        )
        return records.select(RECORD_FRAME.keys()), rejected

    def model_inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[str]:
        """The records' texts, in order; `read` is not used."""
        texts: list[str] = records["text"].to_list()
        return texts


def descriptor_text() -> pl.Expr:
    """The descriptor of rows with `cohort` and tidied fields, as one line: parts that a row lacks are left out.

    The collection stands in it because some things are told nowhere else: without it a query for vestibular schwannoma
    finds 0 of 10, with it 7.

    `CT computed tomography liver. Arterial phase 3.0. CT abdomen with contrast. tcga lihc`
    """
    modality = pl.col("modality").replace(MODALITY_WORDS)
    body_part = pl.col("body_part").replace(BODY_PART_WORDS).str.to_lowercase()
    what = pl.concat_str(modality, body_part, separator=" ", ignore_nulls=True)
    collection = _tidy(pl.col("cohort").str.replace_all("[_-]", " "))
    return pl.concat_str(
        what, pl.col("series_description"), pl.col("study_description"), collection, separator=". ", ignore_nulls=True
    )


def _descriptors(objects: pl.DataFrame) -> pl.DataFrame:
    """Everything a record takes from its catalogue fields, once per distinct (source_attributes, cohort), which is one
    in four rows: code (null where fine), modality, text, attributes, content_digests."""
    distinct = objects.select(pl.col("attributes").alias("source_attributes"), "cohort").unique()
    fields = distinct.with_columns(_fields(distinct["source_attributes"])).with_columns(code=_rejection_code())
    tidied = fields.with_columns(_tidy(pl.col(name)) for name in _TEXT_FIELDS).with_columns(text=descriptor_text())
    digests = _mapped(tidied, "text", "content_digests", lambda text: f'{{"text":"{text_digest(text)}"}}')
    described = tidied.join(digests, on="text", how="left").with_columns(
        attributes=json_objects(**{name: pl.col(name) for name in _SOURCE_FIELDS})
    )
    return described.select("source_attributes", "cohort", "code", "modality", "text", "attributes", "content_digests")


def _fields(attributes: pl.Series) -> list[pl.Series]:
    """The descriptor's fields out of the manifest's JSON, one series each, null where absent."""
    try:
        decoded = attributes.str.json_decode(pl.Struct(_SOURCE_FIELDS))
    except pl.exceptions.PolarsError:
        raise SourceError(
            "attributes of a catalogue's manifest are not the JSON that connector idc_index writes",
            remedy="rebuild the manifest; if it happens again, compare the connector's keys with this modality's",
        ) from None
    return [decoded.struct.field(name) for name in _SOURCE_FIELDS]


def _rejection_code() -> pl.Expr:
    """Why a row is refused, null where it is fine. Looked for in the fields as they came, before they are tidied."""
    fields = [*(pl.col(name) for name in _TEXT_FIELDS), pl.col("cohort")]
    control = pl.any_horizontal(field.str.contains(_CONTROL).fill_null(False) for field in fields)
    too_long = pl.any_horizontal((field.str.len_chars() > MAX_FIELD_CHARS).fill_null(False) for field in fields)
    return (
        pl.when(control)
        .then(pl.lit("control_characters"))
        .when(too_long)
        .then(pl.lit("field_too_long"))
        .when(_tidy(pl.col("modality")).is_null())
        .then(pl.lit("missing_field"))
    )


def _tidy(field: pl.Expr) -> pl.Expr:
    """Unicode NFC, white space collapsed and cut at the ends; null where nothing is left."""
    tidied = field.str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(tidied != "").then(tidied)


def _mapped(frame: pl.DataFrame, source: str, target: str, function: Callable[[str], str]) -> pl.DataFrame:
    """(source, target): function(source) once per distinct value of `source`."""
    distinct = frame.select(pl.col(source).unique())
    return distinct.with_columns(pl.Series(target, [function(value) for value in distinct[source]], pl.String()))


MODALITY = SeriesDescriptor()
