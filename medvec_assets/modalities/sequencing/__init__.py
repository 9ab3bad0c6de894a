"""Sequencing runs: files of reads to one record and one k-mer sketch per run.

Belongs here: the `sequencing` modality; its parts are fastq (bytes to reads) and sketch (reads to features). Does not
belong here: where files are and which are open (connectors), encoders.

A record is a run; its objects are the files of reads that are good, each the head of its file. Names of reads, which tell of
machine and run, and the reads themselves are used and not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, ReadObject, Rejected
from medvec_assets.modalities.sequencing.fastq import Reads, read_fastq
from medvec_assets.modalities.sequencing.sketch import features, sketch
from resources.errors import ObjectRejected

_HEAD = "#bytes="  # in the URI of an object that is the head of a file (connectors.sra_runs)
_PUBLIC_URI = ("https://", "s3://")
_NOT_OPEN = "reads under a consent stay with who holds it: no vector is made of them here"


class Sequencing:
    """The modality `sequencing` (medvec_assets.modalities.Modality); space `kmer` takes float32 [1024]."""

    version = "sequencing-1"
    deid_profile = "reads-not-kept-1"
    input_versions: dict[str, str] = {"kmer": "kmer-21-16-1024-1"}  # noqa: RUF012  (the protocol's attribute is a dict)
    piece_objects = 12

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """One record per record_ref with at least one good file of reads; every other object with the reason."""
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        for _, group in objects.sort("record_ref", "object_id").group_by("record_ref", maintain_order=True):
            files: list[tuple[Mapping[str, Any], Reads]] = []
            for row in group.iter_rows(named=True):
                try:
                    _check_open(row)
                    files.append((row, read_reads(row["uri"], read)))
                except ObjectRejected as refusal:
                    rejected.append(Rejected(row["object_id"], refusal.code, refusal.remedy, refusal.disposition))
            try:
                if files:
                    rows.append(self._record(files, pseudonyms))
            except ObjectRejected as refusal:
                rejected += [Rejected(row["object_id"], refusal.code, refusal.remedy) for row, _ in files]
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def _record(self, files: list[tuple[Mapping[str, Any], Reads]], pseudonyms: Pseudonyms) -> dict[str, Any]:
        found = sketch([reads for _, reads in files])
        row = files[0][0]
        told = json.loads(row["attributes"])
        lengths = np.concatenate([reads.lengths for _, reads in files])
        attributes = {name: told[name] for name in ("platform", "layout") if told.get(name)} | {
            "read_length": int(np.median(lengths)),
            "reads_used": len(lengths),
            "gc_share": round(found.gc_share, 3),
        }
        return {
            "record_id": row["record_ref"],
            "subject_key": pseudonyms.subject(row["subject_ref"]),
            "object_ids": [row["object_id"] for row, _ in files],
            "cohort": row["cohort"],
            "modality": "SEQ",
            "license": row["license"],
            "access_tier": row["access_tier"],
            "text": None,
            "attributes": json.dumps(attributes, sort_keys=True),
            "payload_uri": row["uri"] if row["uri"].startswith(_PUBLIC_URI) else f"object:{row['object_id']}",
            "deid_profile": self.deid_profile,
            "deid_actions": json.dumps({"attributes_kept": len(attributes)}),
            "content_digests": json.dumps({"kmer": array_digest(features(found.hashes))}),
        }

    def model_inputs(
        self, records: pl.DataFrame, space: str, read: ReadObject
    ) -> Sequence[NDArray[np.float32] | Rejected]:
        """The features of every record, made again from its objects; Rejected `payload_changed` if they are not the ones
        whose digest the record holds."""
        columns = ("record_id", "object_uris", "content_digests")
        return [self._input(row, space, read) for row in records.select(columns).iter_rows(named=True)]

    def _input(self, row: Mapping[str, Any], space: str, read: ReadObject) -> NDArray[np.float32] | Rejected:
        try:
            array = features(sketch([read_reads(uri, read) for uri in row["object_uris"]]).hashes)
        except ObjectRejected as refusal:
            return Rejected(row["record_id"], refusal.code, refusal.remedy, refusal.disposition)
        if array_digest(array) != json.loads(row["content_digests"])[space]:
            return Rejected(row["record_id"], "payload_changed", "materialize the records of this partition again")
        return array


def read_reads(uri: str, read: ReadObject) -> Reads:
    """The first reads of the object at `uri`."""
    return read_fastq(read(uri), is_head=_HEAD in uri)


def _check_open(row: Mapping[str, Any]) -> None:
    """A second door behind the licence rule of the records stage: a spec that allowed a consent by mistake stops here."""
    if row["access_tier"] != "open":
        raise ObjectRejected("a run is not open", code="not_open", remedy=_NOT_OPEN)


MODALITY = Sequencing()
