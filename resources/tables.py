"""The tables of the lake: name, columns, physical partitioning. Every schema change is made here.

Belongs here: `TableSpec`s and the functions that name a dataset's tables. Does not belong here: reading or writing
(lakehouse), or what the values mean for one modality.

JSON columns (`attributes`, `content_digests`, `deid_actions`) hold one object with sorted keys; `{}` when empty.
`leak_places`, `not_plantable` and `dimensions` hold a JSON array of strings, `cells` one of [{dimension: label}, count or null].
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

_STR, _I64, _I32, _TS = pa.string(), pa.int64(), pa.int32(), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSpec:
    """One Delta table: `path` below the lake's root, its schema and the columns it is physically partitioned by."""

    path: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    stats_columns: tuple[str, ...] = ()
    """Columns whose min/max may stand in Delta's log. Never text, subject or id columns: the log outlives a delete."""


def _schema(*required: tuple[str, pa.DataType], optional: tuple[tuple[str, pa.DataType], ...] = ()) -> pa.Schema:
    return pa.schema(
        [pa.field(n, t, nullable=False) for n, t in required] + [pa.field(n, t, nullable=True) for n, t in optional]
    )


MANIFEST = _schema(
    ("object_id", _STR),
    ("cohort", _STR),
    ("partition", _STR),
    ("uri", _STR),
    ("size_bytes", _I64),
    ("checksum", _STR),
    ("checksum_kind", _STR),
    ("media_type", _STR),
    ("license", _STR),
    ("access_tier", _STR),
    ("subject_ref", _STR),
    ("record_ref", _STR),
    ("upstream_version", _STR),
    ("first_seen_version", _STR),
    ("attributes", _STR),
    optional=(("removed_in_version", _STR),),
)
PARTITIONS = _schema(
    ("partition", _STR),
    ("cohort", _STR),
    ("prefix", _STR),
    ("objects", _I64),
    ("size_bytes", _I64),
    ("content_digest", _STR),
    ("upstream_version", _STR),
    ("plan_version", _I64),
)
QUARANTINE = _schema(
    ("object_id", _STR),
    ("partition", _STR),
    ("stage", _STR),
    ("disposition", _STR),
    ("code", _STR),
    ("remedy", _STR),
)
RECORDS = _schema(
    ("record_id", _STR),
    ("subject_key", _STR),
    ("cohort", _STR),
    ("partition", _STR),
    ("object_ids", pa.list_(_STR)),
    ("modality", _STR),
    ("license", _STR),
    ("access_tier", _STR),
    ("attributes", _STR),
    ("payload_uri", _STR),
    ("deid_profile", _STR),
    ("deid_actions", _STR),
    ("content_digests", _STR),
    optional=(("text", _STR), ("payload", pa.binary())),
)
EMBEDDINGS = _schema(
    ("space_version", _STR),
    ("partition", _STR),
    ("vector_id", _STR),
    ("record_id", _STR),
    ("part_kind", _STR),
    ("part_index", _I32),
    ("part_locator", _STR),
    ("subject_key", _STR),
    ("cohort", _STR),
    ("modality", _STR),
    ("attributes", _STR),
    ("encoder", _STR),
    ("weights_digest", _STR),
    ("dim", _I32),
    ("vector", pa.list_(pa.float32())),
    ("license", _STR),
    ("access_tier", _STR),
    ("content_digest", _STR),
    ("fingerprint", _STR),
    ("run_id", _STR),
    ("created_at", _TS),
)
MATERIALIZATIONS = _schema(
    ("dataset", _STR),
    ("asset", _STR),
    ("partition", _STR),
    ("space_version", _STR),
    ("sequence", _I64),
    ("table_path", _STR),
    ("table_version", _I64),
    ("upstream_version", _STR),
    ("run_id", _STR),
    ("encoder", _STR),
    ("weights_digest", _STR),
    ("deid_profile", _STR),
    ("code_version", _STR),
    ("image_digest", _STR),
    ("rows_in", _I64),
    ("rows_out", _I64),
    ("rows_computed", _I64),
    ("rows_skipped", _I64),
    ("rows_quarantined", _I64),
    ("input_digest", _STR),
    ("output_digest", _STR),
    ("finished_at", _TS),
    ("previous_hash", _STR),
    ("row_hash", _STR),
)
INDEX_RECEIPTS = _schema(
    ("dataset", _STR),
    ("collection", _STR),
    ("partition", _STR),
    ("collection_uuid", _STR),
    ("delta_version", _I64),
    ("entities", _I64),
    ("entities_digest", _STR),
    ("run_id", _STR),
    ("reconciled_at", _TS),
    optional=(("definition", _STR),),  # not in receipts of before 0.2, which prove a count and a digest only
)
INDEX_RECALL = _schema(
    ("dataset", _STR),
    ("space", _STR),
    ("collection", _STR),
    ("collection_uuid", _STR),
    ("delta_version", _I64),
    ("scope", _STR),
    ("entities", _I64),
    ("queries", _I64),
    ("k", _I64),
    ("ef", _I64),
    ("recall", pa.float64()),
    ("run_id", _STR),
    ("measured_at", _TS),
    optional=(("nprobe", _I64),),  # not in measurements of before 0.3, all of HNSW
)
GENERATIONS = _schema(
    ("dataset", _STR),
    ("space", _STR),
    ("access_tier", _STR),
    ("generation", _I32),
    ("space_version", _STR),
    ("collection", _STR),
    ("state", _STR),
    ("created_at", _TS),
)
REFUSALS = _schema(
    ("dataset", _STR),
    ("asset", _STR),
    ("partition", _STR),
    ("rule", _STR),
    ("site", _STR),
    ("agreement", _STR),
    ("run_id", _STR),
    ("refused_at", _TS),
)
WITHDRAWALS = _schema(
    ("dataset", _STR),
    ("object_id", _STR),
    ("subject_key", _STR),
    ("cohort", _STR),
    ("partition", _STR),
    ("removed_in_version", _STR),
    ("seen_at", _TS),
    ("due_at", _TS),
)
DEID_SCORES = _schema(
    ("dataset", _STR),
    ("partition", _STR),
    ("input_digest", _STR),
    ("seed_digest", _STR),
    ("profile", _STR),
    ("planted", _I64),
    ("kinds", _I64),
    ("places", _I64),
    ("copies", _I64),
    ("records", _I64),
    ("leaks", _I64),
    ("leak_places", _STR),
    ("not_plantable", _STR),
    ("failure", _STR),
    ("run_id", _STR),
    ("scored_at", _TS),
)
EXPORTS = _schema(
    ("dataset", _STR),
    ("sequence", _I64),
    ("dimensions", _STR),
    ("smallest_count", _I64),
    ("cells", _STR),
    ("exported_at", _TS),
    ("previous_hash", _STR),
    ("row_hash", _STR),
)
SUPPRESSION = _schema(
    ("subject_key", _STR),
    ("reason", _STR),
    ("since", _TS),
    optional=(("source", _STR),),  # whose pseudonym the key is; null in rows of before 0.2: they concern every source
)
API_KEYS = _schema(
    ("key_id", _STR),
    ("event", _STR),
    ("owner", _STR),
    ("roles", pa.list_(_STR)),
    ("secret_sha256", _STR),
    ("created_at", _TS),
    ("expires_at", _TS),
    ("recorded_at", _TS),
    optional=(("datasets", pa.list_(_STR)),),  # none: every dataset
)
HARVESTING = _schema(
    ("looked_at", _TS),
    ("rule", _STR),
    ("alerts", _I64),
)
ACCESS = _schema(
    ("writer", _STR),
    ("place", _STR),
    ("segment", _I64),
    ("first_sequence", _I64),
    ("last_sequence", _I64),
    ("events", _I64),
    ("first_at", _TS),
    ("last_at", _TS),
    ("previous_hash", _STR),
    ("last_hash", _STR),
    ("head_sequence", _I64),
    ("torn_bytes", _I64),
    ("ended", _STR),  # "" while its writer goes on, else how it ended: closed, killed
    ("lines_digest", _STR),
    ("follows", pa.list_(_STR)),
    ("public_key", _STR),
    ("sealed_at", _TS),
    ("seal_hash", _STR),
    ("signature", _STR),
    ("lines", pa.binary()),
)


def manifest(dataset: str) -> TableSpec:
    return TableSpec(f"bronze/{dataset}/manifest", MANIFEST, (), ("size_bytes",))


def partitions(dataset: str) -> TableSpec:
    return TableSpec(f"bronze/{dataset}/partitions", PARTITIONS, (), ("objects",))


def quarantine(dataset: str) -> TableSpec:
    return TableSpec(f"bronze/{dataset}/quarantine", QUARANTINE, ("stage", "partition"), ())


def records(dataset: str) -> TableSpec:
    return TableSpec(f"silver/{dataset}/records", RECORDS, ("partition",), ())


def payloads(dataset: str) -> str:
    """The folder of a dataset's payloads, below the lake's root: no table."""
    return f"payload/{dataset}/"


def embeddings(dataset: str, space: str) -> TableSpec:
    return TableSpec(f"gold/{dataset}/{space}_embeddings", EMBEDDINGS, ("space_version", "partition"), ("created_at",))


def materializations() -> TableSpec:
    return TableSpec("audit/materializations", MATERIALIZATIONS, ("dataset",), ("finished_at", "sequence"))


def index_receipts() -> TableSpec:
    return TableSpec("audit/index_receipts", INDEX_RECEIPTS, ("dataset",), ("reconciled_at",))


def index_recall() -> TableSpec:
    return TableSpec("audit/index_recall", INDEX_RECALL, ("dataset",), ("measured_at",))


def generations() -> TableSpec:
    return TableSpec("audit/generations", GENERATIONS, ("dataset",), ("generation",))


def deid_scores() -> TableSpec:
    return TableSpec("audit/deid_scores", DEID_SCORES, ("dataset",), ("scored_at",))


def exports() -> TableSpec:
    return TableSpec("audit/exports", EXPORTS, ("dataset",), ("exported_at", "sequence"))


def suppression() -> TableSpec:
    return TableSpec("audit/suppression", SUPPRESSION, (), ("since",))


def refusals() -> TableSpec:
    return TableSpec("audit/refusals", REFUSALS, ("dataset",), ("refused_at",))


def withdrawals() -> TableSpec:
    return TableSpec("audit/withdrawals", WITHDRAWALS, ("dataset",), ("due_at",))


def api_keys() -> TableSpec:
    return TableSpec("audit/api_keys", API_KEYS, (), ("recorded_at",))


def harvesting() -> TableSpec:
    return TableSpec("audit/harvesting", HARVESTING, (), ("looked_at",))


def access() -> TableSpec:
    return TableSpec("audit/access", ACCESS, (), ("first_at", "last_at"))
