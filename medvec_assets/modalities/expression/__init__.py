"""Expression: one sample's table of genes or probes to one record and one model input per space that it fits.

Belongs here: the `expression` modality; its parts are tables (bytes to numbers and what is refused), normalise (scales)
and genes (the frozen gene list of each space). Does not belong here: where samples are (connectors), the projections
(resources.encoders).

A record stands in every space whose gene list its sample has measured: an array of one platform in `expression`, counts
of RNA-seq in `rna_seq`. What fits none is refused.
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
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, ReadObject, Rejected
from medvec_assets.modalities.expression.genes import gene_lists
from medvec_assets.modalities.expression.tables import SampleTable, read_table
from resources.errors import ObjectRejected

ATTRIBUTES = (
    "platform",
    "organism",
    "molecule",
    "strategy",
    "workflow",
    "sample_type",
    "tissue_type",
    "primary_site",
    "disease_type",
    "tissue",
    "cell_type",
    "disease",
    "disease_state",
    "class",
)
"""What is kept of what a source tells of a sample: how it was measured and what it is of, never whose it is."""
# Terms, not prose: a value with an @, a colon, a line or many words is left out.
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.()/+'-]{0,79}")
_NOTES = ("etag", "file")  # what connectors keep for themselves
_PUBLIC_URI = ("https://", "s3://")
_SECOND = "the record has another good object before this one: nothing to do, or ask the source which one is meant"


class Expression:
    """The modality `expression` (medvec_assets.modalities.Modality); its spaces take float32 [features of their list]."""

    version = "expression-1"
    deid_profile = "expression-terms-1"
    input_versions: dict[str, str] = {"expression": "log2-intensity-1", "rna_seq": "log2-cpm-1"}  # noqa: RUF012
    piece_objects = 0  # a second process costs 1.8 times the processor time: tables are read by polars, and are large

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record per record_ref, of its first good object by id; further ones are skipped as `second_object`."""
        rows: dict[str, dict[str, Any]] = {}
        rejected: list[Rejected] = []
        for row in objects.sort("record_ref", "object_id").iter_rows(named=True):
            if row["record_ref"] in rows:
                rejected.append(Rejected(row["object_id"], "second_object", _SECOND, "skipped"))
                continue
            try:
                table = read_table(read(row["uri"]), {genes.quantity for genes in gene_lists().values()})
                rows[row["record_ref"]] = self._record(row, table, pseudonyms)
            except ObjectRejected as refusal:
                rejected.append(Rejected(row["object_id"], refusal.code, refusal.remedy, refusal.disposition))
        return pl.DataFrame(list(rows.values()), schema=RECORD_FRAME), rejected

    def _record(self, row: Mapping[str, Any], table: SampleTable, pseudonyms: Pseudonyms) -> dict[str, Any]:
        digests = {space: array_digest(values) for space, values in _inputs(table).items()}
        told = json.loads(row["attributes"]) | table.head
        told = {name: value for name, value in told.items() if name not in _NOTES}
        kept = {name: told[name] for name in ATTRIBUTES if _TERM.fullmatch(str(told.get(name) or ""))}
        actions = {"attributes_dropped": len(told) - len(kept), "attributes_kept": len(kept)}
        is_open = row["access_tier"] == "open"
        return {
            "record_id": row["record_ref"] if is_open else pseudonyms.of("sample", row["record_ref"]),
            "subject_key": pseudonyms.subject(row["subject_ref"]),
            "object_ids": [row["object_id"]],
            "cohort": row["cohort"],
            "modality": self.modality_of(digests),
            "license": row["license"],
            "access_tier": row["access_tier"],
            "text": None,
            "attributes": json.dumps(kept, sort_keys=True),
            "payload_uri": row["uri"]
            if is_open and row["uri"].startswith(_PUBLIC_URI)
            else f"object:{row['object_id']}",
            "deid_profile": self.deid_profile,
            "deid_actions": json.dumps(actions, sort_keys=True),
            "content_digests": json.dumps(digests, sort_keys=True),
        }

    @staticmethod
    def modality_of(spaces: Mapping[str, str]) -> str:
        return "RNA-Seq" if "rna_seq" in spaces else "microarray"

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.float32] | Rejected]:
        """The model input of every record, made again from its object; Rejected `payload_changed` if it is not the one
        whose digest the record holds."""
        columns = ("record_id", "object_uris", "content_digests")
        return [self._input(row, space, read) for row in records.select(columns).iter_rows(named=True)]

    def _input(self, row: Mapping[str, Any], space: str, read: ReadObject) -> NDArray[np.float32] | Rejected:
        try:
            array = expression_input(read(row["object_uris"][0]), space)
        except ObjectRejected as refusal:
            return Rejected(row["record_id"], refusal.code, refusal.remedy, refusal.disposition)
        if array_digest(array) != json.loads(row["content_digests"])[space]:
            return Rejected(row["record_id"], "payload_changed", "materialize the records of this partition again")
        return array


def expression_input(data: bytes, space: str) -> NDArray[np.float32]:
    """The model input of one sample's table for `space`. Raises ObjectRejected."""
    genes = gene_lists()[space]
    return genes.model_input(read_table(data, {genes.quantity}))


def _inputs(table: SampleTable) -> dict[str, NDArray[np.float32]]:
    """space -> model input, for every space that the table fits; the last refusal if that is none."""
    found: dict[str, NDArray[np.float32]] = {}
    refusal: ObjectRejected | None = None
    for space, genes in gene_lists().items():
        try:
            found[space] = genes.model_input(table)
        except ObjectRejected as reason:
            if refusal is None or reason.code != "gene_set_mismatch":
                refusal = reason
    if not found and refusal is not None:
        raise refusal
    return found


MODALITY = Expression()
