"""Lineage: from a vector back to the source's object, licence and release, and to every commit and run in between.

Belongs here: walking gold -> silver -> bronze -> audit for one vector id. The record is audit/materializations; Delta's
log and Dagster's event log are cleaned up and are not asked.
Does not belong here: the index's live content (verify), or who asked (audit of access).
Never in an answer: `subject_key`, `subject_ref`, a record's text, the source URI of an object that is not open.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import AccessTier, DatasetSpec
from medvec_assets.query.published import LIVE, Grants, granted, visible
from medvec_assets.query.rows import entity_of, find_embeddings, find_records, one_of, read, source_uri
from resources import tables
from resources.errors import NotFound, QueryInvalid
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

VECTOR_ID = re.compile(r"[0-9a-f]{32}")
_EMBEDDING = [
    "space_version",
    "encoder",
    "weights_digest",
    "dim",
    "content_digest",
    "fingerprint",
    "part_kind",
    "part_index",
    "part_locator",
    "license",
    "access_tier",
    "run_id",
    "created_at",
]
_RECORD = [
    "cohort",
    "partition",
    "object_ids",
    "modality",
    "license",
    "access_tier",
    "attributes",
    "payload_uri",
    "deid_profile",
    "deid_actions",
    "content_digests",
]
_OBJECT = [
    "object_id",
    "uri",
    "size_bytes",
    "checksum",
    "checksum_kind",
    "media_type",
    "license",
    "access_tier",
    "upstream_version",
    "first_seen_version",
    "removed_in_version",
]
_RECEIPT = ["collection_uuid", "delta_version", "entities", "entities_digest", "run_id", "reconciled_at"]

Row = dict[str, Any]


def lineage(vector_id: str, settings: Settings, lake: Lakehouse, grants: Grants = None) -> dict[str, Any]:
    """Where `vector_id` came from, as a JSON-ready object with the keys vector, embedding, record, objects, upstream,
    commits, runs. Where several versions of a space hold the vector, the live one is told and the others are listed
    in `embedding.other_versions`.

    Raises QueryInvalid if the id is not 32 hex digits, NotFound if nothing visible and granted has it.
    """
    if not VECTOR_ID.fullmatch(vector_id):
        raise QueryInvalid(
            "that is not a vector id: it must be 32 lower-case hex digits",
            remedy="copy the vector_id of a search hit",
        )
    for spec in (one for one in CATALOG if granted(one, grants)):
        for space in spec.spaces:
            versions = _versions(spec, space, vector_id, settings, lake)
            if versions and (told := _told(spec, space, versions, settings, lake)) is not None:
                return told
    raise NotFound(
        f"no vector {vector_id} is in the lake",
        remedy="check the id; the vector of a withdrawn or suppressed record is not found either",
    )


def _versions(spec: DatasetSpec, space: str, vector_id: str, settings: Settings, lake: Lakehouse) -> list[Row]:
    """The vector's embedding rows, live space version first, then the newest; each with its `collection` or None."""
    if not visible(spec, settings):
        return []
    wanted = (pc.field("dataset") == spec.id) & (pc.field("space") == space)
    generations = read(lake, tables.generations(), where=wanted).sort("generation", descending=True).to_dicts()
    rows = []
    for row in find_embeddings(lake, spec.id, space, "vector_id", vector_id).to_dicts():
        if visible(spec, settings, row["access_tier"]):
            key = (row["space_version"], row["access_tier"])
            own = [one for one in generations if (one["space_version"], one["access_tier"]) == key]
            own.sort(key=lambda one: one["state"] != LIVE)
            live = bool(own) and own[0]["state"] == LIVE
            rows.append(row | {"collection": own[0]["collection"] if own else None, "live": live})
    rows.sort(key=lambda row: (row["live"], row["created_at"]), reverse=True)
    return rows


def _told(
    spec: DatasetSpec, space: str, versions: list[Row], settings: Settings, lake: Lakehouse
) -> dict[str, Any] | None:
    """The whole story of versions[0]; None if its record is withdrawn or suppressed."""
    row = versions[0]
    made_up = spec.is_synthetic(settings.sources)
    records = find_records(lake, spec.id, [row["record_id"]], [row["partition"]], _RECORD, made_up=made_up).to_dicts()
    if not records:
        return None
    objects = read(lake, tables.manifest(spec.id), _OBJECT, one_of("object_id", records[0]["object_ids"]))
    audit = read(lake, tables.materializations(), where=_audited(spec, space, row)).sort("sequence", "finished_at")
    commits = _commits(space, audit)
    embedding = _picked(row, _EMBEDDING)
    embedding["other_versions"] = [_picked(other, _EMBEDDING) for other in versions[1:]]
    return {
        "vector": _vector(spec, space, row, lake),
        "embedding": embedding,
        "record": _record(spec, records[0]),
        "objects": [_object(one) for one in objects.sort("object_id").iter_rows(named=True)],
        "upstream": _upstream(spec, audit),
        "commits": commits,
        "runs": _runs([row["run_id"], *(commit["run_id"] for commit in commits)], audit),
    }


def _vector(spec: DatasetSpec, space: str, row: Row, lake: Lakehouse) -> Row:
    where = (
        (pc.field("dataset") == spec.id)
        & (pc.field("collection") == row["collection"])
        & (pc.field("partition") == row["partition"])
    )
    receipts = read(lake, tables.index_receipts(), where=where) if row["collection"] else pl.DataFrame()
    latest = receipts.sort("reconciled_at").to_dicts()[-1] if receipts.height else None
    return {
        "vector_id": row["vector_id"],
        "dataset": spec.id,
        "space": space,
        "space_version": row["space_version"],
        "collection": row["collection"],
        "partition": row["partition"],
        "entity_id": entity_of(row),
        "index_receipt": _picked(latest, _RECEIPT) if latest else None,
    }


def _record(spec: DatasetSpec, record: Row) -> Row:
    told = {"record_id": record["record_id"], **_picked(record, _RECORD)}
    for name in ("attributes", "deid_actions", "content_digests"):
        told[name] = json.loads(told[name])
    told["attributes"] = {name: value for name, value in told["attributes"].items() if name in spec.index_attributes}
    told["source_uri"] = source_uri(spec.id, told.pop("payload_uri"), told["object_ids"])
    return told


def _object(row: Row) -> Row:
    told = _picked(row, _OBJECT)
    if row["access_tier"] != AccessTier.OPEN:
        told["uri"] = None  # a restricted source's path may hold its subject's id
    return told


def _audited(spec: DatasetSpec, space: str, row: Row) -> pc.Expression:
    """The audit rows this story can need: the manifest's, the partition's, and those of the run that computed it."""
    return (pc.field("dataset") == spec.id) & (
        (pc.field("asset") == "manifest")
        | ((pc.field("partition") == row["partition"]) & (pc.field("asset") == "records"))
        | (
            (pc.field("partition") == row["partition"])
            & (pc.field("space_version") == row["space_version"])
            & one_of("asset", [f"{space}_embeddings", f"{space}_vectors"])
        )
        | (pc.field("run_id") == row["run_id"])
    )


def _commits(space: str, audit: pl.DataFrame) -> list[Row]:
    """The latest commit of each layer, in the order of the data's way. A layer without one yet is left out."""
    found = []
    for asset in ("manifest", "records", f"{space}_embeddings", f"{space}_vectors"):
        rows = audit.filter(pl.col("asset") == asset).sort("finished_at", "sequence").to_dicts()
        if rows:
            last = rows[-1]
            found.append(
                {
                    "asset": asset,
                    "table": last["table_path"],
                    "version": last["table_version"],
                    "run_id": last["run_id"],
                    "committed_at": _json(last["finished_at"]),
                }
            )
    return found


def _upstream(spec: DatasetSpec, audit: pl.DataFrame) -> Row:
    """What the source had published when the manifest was last written."""
    rows = audit.filter(pl.col("asset") == "manifest").sort("finished_at", "sequence").to_dicts()
    return {
        "dataset": spec.id,
        "source": spec.source,
        "title": spec.title,
        "citation": spec.citation,
        "version": rows[-1]["upstream_version"] if rows else None,
        "observed_at": _json(rows[-1]["finished_at"]) if rows else None,
    }


def _runs(run_ids: list[str], audit: pl.DataFrame) -> list[Row]:
    """Each run once, in the order of `run_ids`, with what the audit table knows of it here."""
    runs = []
    for run_id in dict.fromkeys(run_ids):
        rows = audit.filter(pl.col("run_id") == run_id).sort("finished_at", "sequence").to_dicts()
        last = rows[-1] if rows else None
        runs.append(
            {
                "run_id": run_id,
                "assets": list(dict.fromkeys(row["asset"] for row in rows)),
                "code_version": last["code_version"] if last else None,
                "image_digest": last["image_digest"] if last else None,
                "finished_at": _json(last["finished_at"]) if last else None,
            }
        )
    return runs


def _picked(row: Row, names: list[str]) -> Row:
    return {name: _json(row[name]) for name in names}


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
