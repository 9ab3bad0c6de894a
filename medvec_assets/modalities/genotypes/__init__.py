"""Genotypes: one sample's calls at the panel's sites to one record and one row of dosages.

Belongs here: the `genotypes` modality; its parts are reference (which sites, alleles and means) and calls (the spelling of
an object, and its dosages). Does not belong here: VCF files (connectors), the projection (resources/encoders/fitted).

A row always has all features of the panel; those outside its block, and missing calls, hold the panel's mean, which the
projection takes to nothing. So two rows compare within one block only: `block` stands in a record's attributes, and its
cohort is the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digests
from medvec_assets.json_columns import json_objects
from medvec_assets.modalities import RECORD_FRAME, ReadObject, Rejected
from medvec_assets.modalities.genotypes.calls import Dosages, decode
from medvec_assets.modalities.genotypes.reference import NAME
from resources.errors import ObjectRejected, SourceError

MIN_CALL_RATE = 0.9  # of a block's sites. What is imputed pulls a sample to the panel's middle, whoever it is
_LABELS = {"population": pl.String(), "superpopulation": pl.String(), "sex": pl.String()}
_REMEDIES = {
    "calls_unreadable": "the object is not in the spelling of the connector vcf_objects; refresh the manifest",
    "bad_genotype": "a call names an allele that its record has not, or is not of two alleles; ask the source to correct it",
    "strand_mismatch": "the calls are of the other strand; read a file that is aligned to the forward strand of GRCh37",
    "allele_mismatch": "REF is not GRCh37's at a panel site; read a file of that build",
    "too_many_missing": f"fewer than {MIN_CALL_RATE:.0%} of its block's panel sites have a call; nothing to do, or call it again",
    "sample_not_in_panel": "the panel file does not list this sample; complete it, or drop the column from the VCF",
}


class Genotypes:
    """The modality `genotypes` (medvec_assets.modalities.Modality); space `genotype` takes float32 [features]."""

    version = "genotypes-1"
    deid_profile = "open-genotypes-1"
    input_versions: dict[str, str] = {"genotype": f"dosage-1-{NAME}"}  # noqa: RUF012  (the protocol's attribute is a dict)
    piece_objects = 0

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record per object. Sample ids stay the source's, which publishes them openly, as it does the labels.

        Refused, one code each, the first that holds: what `decode` refuses, `too_many_missing`, `sample_not_in_panel`.
        Raises SourceError where `attributes` are not the connector's.
        """
        rejected: list[Rejected] = []
        data: list[bytes] = []
        read_rows: list[int] = []
        for row, (object_id, uri) in enumerate(objects.select("object_id", "uri").iter_rows()):
            try:
                data.append(read(uri))
                read_rows.append(row)
            except ObjectRejected as refusal:
                rejected.append(Rejected(object_id, refusal.code, refusal.remedy, refusal.disposition))
        found = decode(data)
        known = objects[read_rows]
        known = (
            known.drop("attributes").with_columns(*_labels(known["attributes"]), *_columns(found)).with_columns(_code())
        )
        refused = known.filter(pl.col("code").is_not_null()).select("object_id", "code")
        rejected += [Rejected(object_id, code, _REMEDIES[code]) for object_id, code in refused.iter_rows()]
        good = known.filter(pl.col("code").is_null()).with_columns(
            record_id=pl.col("object_id"),
            object_ids=pl.concat_list("object_id"),
            modality=pl.lit("genotypes"),
            text=pl.lit(None, pl.String),
            payload_uri=pl.col("uri"),
            deid_profile=pl.lit(self.deid_profile),
            deid_actions=pl.lit("{}"),
            payload=pl.lit(None, pl.Binary),
            attributes=json_objects(
                **{name: pl.col(name) for name in (*_LABELS, "block", "call_rate", "sites", "other_alleles")}
            ),
        )
        subjects = pl.Series("subject_key", [pseudonyms.subject(ref) for ref in good["subject_ref"]], pl.String())
        return good.with_columns(subjects).select(RECORD_FRAME.keys()), rejected

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.float32] | Rejected]:
        """The dosages of every record, made again from its object; Rejected `payload_changed` if they are not those whose
        digest the record holds."""
        digests = records["content_digests"].str.json_path_match(f"$.{space}").to_list()
        ids = records["record_id"].to_list()
        found: list[NDArray[np.float32] | Rejected | None] = [None] * records.height
        data: list[bytes] = []
        for row, uri in enumerate(records["object_uris"].list.first().to_list()):
            try:
                data.append(read(uri))
            except ObjectRejected as refusal:
                found[row] = Rejected(ids[row], refusal.code, refusal.remedy, refusal.disposition)
        values = decode(data).values
        rows = [row for row, refused in enumerate(found) if refused is None]
        for row, array, made in zip(rows, values, array_digests(values), strict=True):
            found[row] = array if made == digests[row] else _changed(ids[row])
        return cast(Sequence[NDArray[np.float32] | Rejected], found)


def _changed(record_id: str) -> Rejected:
    return Rejected(record_id, "payload_changed", "materialize the records of this partition again")


def _labels(attributes: pl.Series) -> list[pl.Series]:
    """The panel's labels out of the manifest's JSON, null where the panel does not list the sample."""
    try:
        decoded = attributes.str.json_decode(pl.Struct(_LABELS))
    except pl.exceptions.PolarsError:
        raise SourceError(
            "attributes of a genotype manifest are not the JSON that connector vcf_objects writes",
            remedy="rebuild the manifest; if it happens again, compare the connector's keys with this modality's",
        ) from None
    return [decoded.struct.field(name) for name in _LABELS]


def _columns(found: Dosages) -> list[pl.Series]:
    """What a record takes from its dosages."""
    return [
        pl.Series("call_rate", np.round(found.called / np.maximum(found.sites, 1), 4)),
        pl.Series("block", found.blocks, pl.String()),
        pl.Series("sites", found.sites),
        pl.Series("other_alleles", found.other_alleles),
        pl.Series("refusal", found.refusals, pl.String()),
        pl.Series("content_digests", [f'{{"genotype":"{one}"}}' for one in array_digests(found.values)], pl.String()),
    ]


def _code() -> pl.Expr:
    """Why a row is no record, null where it is fine."""
    code = (
        pl.when(pl.col("refusal").is_not_null())
        .then(pl.col("refusal"))
        .when(pl.col("call_rate") < MIN_CALL_RATE)
        .then(pl.lit("too_many_missing"))
        .when(pl.col("population").is_null())
        .then(pl.lit("sample_not_in_panel"))
    )
    return code.alias("code")


MODALITY = Genotypes()
