"""The bytes of source objects against the checksums of the manifest, and of payloads against their names.

Read one after another through the dataset's connector, never from what an earlier read kept: one object is in memory, at
most connectors.MAX_OBJECT_BYTES of it. Checksums that are the source's own (an ETag, a UUID of a series) tell nothing of the
bytes; such objects are counted, not read. A payload is named by the digest of its bytes.

Belongs here: this comparison. Does not belong here: what the bytes mean.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.connectors import MAX_OBJECT_BYTES
from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.stages.context import Context
from medvec_assets.stages.payloads import Payloads
from medvec_assets.stages.records import CHECKED_ON_READ
from resources.errors import MedvecError, ObjectRejected


@dataclass
class Read:
    """What was read: objects, payloads and their bytes, and objects without a checksum of bytes."""

    objects: int = 0
    payloads: int = 0
    size_bytes: int = 0
    without_checksum: int = 0


def check(ctx: Context, ledger: Ledger, spec: DatasetSpec, objects: pl.DataFrame, partition: str, read: Read) -> None:
    """`objects`: manifest rows (object_id, uri, checksum, checksum_kind). A source that does not answer is told once."""
    checked = objects.filter(pl.col("checksum_kind").is_in(CHECKED_ON_READ))
    read.without_checksum += objects.height - checked.height
    if checked.is_empty():
        return
    columns = ("object_id", "uri", "checksum_kind", "checksum")
    for object_id, uri, kind, checksum in checked.select(columns).iter_rows():
        try:
            data = ctx.connector(spec).read(uri, max_bytes=MAX_OBJECT_BYTES)
        except ObjectRejected as refusal:
            ledger.add("object_readable", [object_id], partition=partition, detail=refusal.code)
            continue
        except MedvecError as failure:
            ledger.add("object_readable", [f"{object_id} and those after it"], partition=partition, detail=failure.code)
            return
        read.objects += 1
        read.size_bytes += len(data)
        if hashlib.new(kind, data, usedforsecurity=False).hexdigest() != checksum:
            ledger.add("object_bytes", [object_id], partition=partition, detail=f"{kind} differs")


def check_payloads(
    ctx: Context, ledger: Ledger, spec: DatasetSpec, records: pl.DataFrame, partition: str, read: Read
) -> None:
    """`records`: record_id and payload_uri; those of which nothing was landed are passed over."""
    landed = Payloads(ctx.lake.root, spec.id)
    for record_id, uri in records.select("record_id", "payload_uri").iter_rows():
        if not landed.holds(uri):
            continue
        try:
            read.size_bytes += len(landed.read(uri))
            read.payloads += 1
        except ObjectRejected:
            ledger.add("payload_whole", [record_id], partition=partition, detail=uri)
