"""What a materialization says of itself in Dagster: Dagster's standard keys, and ours.

Belongs here: turning a stage's outcome into metadata. Does not belong here: measuring (stages), pictures, the record of
lineage (resources.audit), which holds the same facts for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings, manifest, records, vectors
from medvec_assets.stages.context import Context, Outcome
from medvec_assets.stages.vectors import Synced
from resources import tables
from resources.tables import TableSpec

# Columns that are made of columns of another name one layer up; those of the same name are handed on as they are.
_RECORDS_MADE_OF: Mapping[str, tuple[str, ...]] = {
    "record_id": ("record_ref",),
    "subject_key": ("subject_ref",),
    "object_ids": ("object_id",),
    "payload_uri": ("uri",),
    "modality": ("uri", "attributes"),
    "text": ("uri", "attributes"),
    "content_digests": ("uri", "attributes"),
}
_EMBEDDINGS_MADE_OF: Mapping[str, tuple[str, ...]] = {
    "vector_id": ("record_id",),
    "content_digest": ("content_digests",),
    "fingerprint": ("content_digests",),
    "vector": ("content_digests",),
}


def of_manifest(
    ctx: Context, spec: DatasetSpec, done: manifest.Refreshed, moved: Sequence[str]
) -> dg.MaterializeResult[None]:
    table = tables.manifest(spec.id)
    counts = {"partitions": done.plan.height, "partitions_changed": len(moved)}
    return _result(ctx, table, done.outcome, done.upstream_version, counts)


def of_records(ctx: Context, spec: DatasetSpec, partition: str, outcome: Outcome) -> dg.MaterializeResult[None]:
    table = tables.records(spec.id)
    lineage = _column_lineage(table, dg.AssetKey([spec.id, manifest.ASSET]), tables.MANIFEST, _RECORDS_MADE_OF)
    return _result(ctx, table, outcome, _upstream_version(ctx, spec, partition), lineage)


def of_embeddings(
    ctx: Context,
    spec: DatasetSpec,
    space: str,
    partition: str,
    outcomes: Mapping[str, Outcome],
    pictures: Mapping[str, Any],
) -> dg.MaterializeResult[None]:
    """`outcomes` by space version; the table's facts are those of the current version, the counts of all.

    `pictures`: metadata entries that people look for, so they stand first of ours.
    """
    table = tables.embeddings(spec.id, space)
    lineage = _column_lineage(table, dg.AssetKey([spec.id, records.ASSET]), tables.RECORDS, _EMBEDDINGS_MADE_OF)
    extra = {
        "encoder": spec.spaces[space].encoder,
        "weights_digest": embeddings.target(ctx, spec, space).card.weights_digest,
        "embeddings_computed": sum(one.computed for one in outcomes.values()),
        "rows_skipped": sum(one.skipped for one in outcomes.values()),
    }
    current = outcomes[spec.spaces[space].version]
    return _result(ctx, table, current, _upstream_version(ctx, spec, partition), {**pictures, **extra, **lineage})


def of_vectors(
    ctx: Context, spec: DatasetSpec, space: str, partition: str, done: Sequence[Synced], seconds: float
) -> dg.MaterializeResult[None]:
    head = ctx.audit.latest(spec.id)[(vectors.asset_name(space), spec.spaces[space].version, partition)]
    metadata = {
        "dagster/uri": ctx.settings.index,
        "dagster/storage_kind": "milvus",
        "dagster/partition_row_count": sum(one.upserted + one.unchanged for one in done),
        "collections": [one.collection for one in done],
        "vectors_upserted": sum(one.upserted for one in done),
        "vectors_deleted": sum(one.deleted for one in done),
        "vectors_unchanged": sum(one.unchanged for one in done),
        "delta_version": head["table_version"],
        "upstream_version": head["upstream_version"],
        "seconds": round(seconds, 3),
    }
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(head["output_digest"]))


def _result(
    ctx: Context, table: TableSpec, outcome: Outcome, upstream_version: str, extra: Mapping[str, Any]
) -> dg.MaterializeResult[None]:
    partitioned = "partition" in table.partition_by
    metadata: dict[str, Any] = {
        "dagster/uri": ctx.lake.uri(table),
        "dagster/storage_kind": "deltalake",
        "dagster/partition_row_count" if partitioned else "dagster/row_count": outcome.rows_out,
        "dagster/column_schema": _column_schema(table.schema),
        "table": dg.MetadataValue.path(ctx.lake.uri(table)),
        "delta_version": outcome.table_version,
        "committed": outcome.changed,
        "upstream_version": upstream_version,
        "quarantined": outcome.quarantined,
        "rows_in": outcome.rows_in,
    }
    if outcome.seconds:
        metadata["seconds"] = round(outcome.seconds, 3)
        metadata["rows_per_second"] = round(outcome.computed / outcome.seconds, 1)
    return dg.MaterializeResult(metadata=metadata | dict(extra), data_version=dg.DataVersion(outcome.output_digest))


def _upstream_version(ctx: Context, spec: DatasetSpec, partition: str) -> str:
    return str(ctx.audit.latest(spec.id)[records.chain_of(partition)]["upstream_version"])


def _column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, str(field.type), constraints=dg.TableColumnConstraints(nullable=field.nullable))
            for field in schema
        ]
    )


def _column_lineage(
    table: TableSpec, upstream: dg.AssetKey, above: pa.Schema, made_of: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    deps = {
        name: [dg.TableColumnDep(upstream, source) for source in made_of.get(name, (name,)) if source in above.names]
        for name in table.schema.names
    }
    known = {name: sources for name, sources in deps.items() if sources}
    return {"dagster/column_lineage": dg.TableColumnLineage(known)}
