"""The one place that turns a spec into assets and checks.

Belongs here: keys, groups, owners, kinds, tags, partitions, retries and metadata of every asset.
Does not belong here: what a stage does (stages), when it runs by itself (automation), which datasets exist (catalog).
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from medvec_assets import automation, checks, pictures
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import modality
from medvec_assets.runtime import Runtime
from medvec_assets.stages import embeddings, manifest, records, retire, vectors
from medvec_assets.stages.context import Context, Outcome
from medvec_assets.stages.sync import sync_all
from resources import tables
from resources.errors import MedvecError
from resources.tables import TableSpec

# Partitioned checks, backfill policies and observable sources are beta or preview in the pinned release: the snapshot
# test of every asset's spec shows what an upgrade changes, so the warning at each of their uses tells nothing new.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

# Only failures that say they are retryable are retried: `permanent_or_retry` turns the rest into Failures that are not.
RETRIES = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
GPU_POD = {"dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}}
Asset = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset


@dataclass(frozen=True)
class DatasetDefinitions:
    """Everything Dagster is told about one dataset."""

    assets: Sequence[Any]
    checks: Sequence[dg.AssetChecksDefinition]
    jobs: Sequence[dg.JobDefinition]
    schedules: Sequence[dg.ScheduleDefinition]


def build_dataset(spec: DatasetSpec) -> DatasetDefinitions:
    """Assets, checks, jobs and schedules of one dataset, from its spec alone."""
    plan = dg.DynamicPartitionsDefinition(name=f"{spec.id}_partitions")
    assets: list[Any] = [_upstream(spec), _manifest(spec, plan), _plan(spec, plan), _records(spec, plan)]
    for space in spec.spaces:
        assets += [_embeddings(spec, space, plan), _vectors(spec, space, plan)]
    full_sync = _full_sync(spec)
    return DatasetDefinitions(assets, [_freshness(spec)], [full_sync], automation.schedules(spec, full_sync))


def plan_key(spec: DatasetSpec) -> dg.AssetKey:
    return dg.AssetKey([spec.id, "partitions"])


def partition_chain(spec: DatasetSpec) -> list[dg.AssetKey]:
    """The partitioned assets of a dataset, upstream first."""
    names = [records.ASSET]
    for space in spec.spaces:
        names += [embeddings.asset_name(space), vectors.asset_name(space)]
    return [dg.AssetKey([spec.id, name]) for name in names]


def publish_plan(instance: dg.DagsterInstance, spec: DatasetSpec, plan: Any) -> list[str]:
    """Make Dagster's dynamic partitions the plan's, and report one event per partition whose content moved.

    Level-triggered: compared with what was last reported, so a manifest run killed before this point loses nothing.
    """
    name = f"{spec.id}_partitions"
    planned = dict(plan.select("partition", "content_digest").rows())
    known = set(instance.get_dynamic_partitions(name))
    if planned.keys() - known:
        instance.add_dynamic_partitions(name, sorted(planned.keys() - known))
    for gone in sorted(known - planned.keys()):
        instance.delete_dynamic_partition(name, gone)
    reported = instance.event_log_storage.get_latest_tags_by_partition(
        plan_key(spec), event_type=dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[DATA_VERSION_TAG]
    )
    moved = [p for p, digest in sorted(planned.items()) if reported.get(p, {}).get(DATA_VERSION_TAG) != digest]
    for partition in moved:
        event = dg.AssetMaterialization(
            plan_key(spec), partition=partition, tags={DATA_VERSION_TAG: planned[partition]}
        )
        instance.report_runless_asset_event(event)
    return moved


def _common(spec: DatasetSpec, kinds: set[str]) -> dict[str, Any]:
    tags = {"source": spec.source, "access_tier": str(spec.access_tier), "modality": spec.modality, "data": spec.kind}
    return {"group_name": spec.source, "owners": list(spec.owners), "kinds": kinds, "tags": tags}


def _upstream(spec: DatasetSpec) -> Any:
    common = _common(spec, set())
    del common["kinds"], common["owners"]

    @dg.observable_source_asset(
        key=[spec.id, "upstream"], description=f"What {spec.title} publishes. {spec.citation}", **common
    )
    def upstream(context: dg.OpExecutionContext, runtime: dg.ResourceParam[Runtime]) -> dg.ObserveResult:
        with runtime.context(context.run_id) as ctx:
            version = ctx.connector(spec).version()
        return dg.ObserveResult(data_version=dg.DataVersion(version), metadata={"upstream_version": version})

    return upstream


def _manifest(spec: DatasetSpec, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, manifest.ASSET])

    @dg.asset(
        key=key,
        deps=[[spec.id, "upstream"]],
        description=f"One row per smallest thing {spec.title} versions; plans the partitions.",
        code_version=manifest.VERSION,
        check_specs=checks.specs(key, checks.MANIFEST_CHECKS, None),
        retry_policy=RETRIES,
        **_common(spec, {"delta", "bronze"}),
    )
    def manifest_asset(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[Any]:
        with permanent_or_retry(), runtime.context(context.run_id) as ctx:
            done = manifest.refresh(ctx, spec)
            moved = publish_plan(context.instance, spec, done.plan)
            extra = {"partitions": done.plan.height, "partitions_changed": len(moved)}
            yield _result(ctx, tables.manifest(spec.id), done.outcome, done.upstream_version, extra)
            yield from checks.results(checks.of_manifest(ctx, spec))

    return manifest_asset


def _plan(spec: DatasetSpec, plan: dg.DynamicPartitionsDefinition) -> dg.AssetSpec:
    return dg.AssetSpec(
        plan_key(spec),
        deps=[[spec.id, manifest.ASSET]],
        partitions_def=plan,
        description="The partition plan: one event per partition whose content changed, reported by the manifest.",
        **_common(spec, {"delta"}),
    )


def _records(spec: DatasetSpec, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    def body(ctx: Context, context: AssetExecutionContext) -> Iterator[Any]:
        outcome = records.build(ctx, spec, context.partition_key)
        yield _result(ctx, tables.records(spec.id), outcome, _upstream_version(ctx, spec, context.partition_key))
        yield from checks.results(checks.of_records(ctx, spec, context.partition_key))

    form = modality(spec.modality)
    return _partitioned(
        spec,
        records.ASSET,
        plan,
        body,
        deps=[plan_key(spec)],
        description="One row per de-identified, normalised record; payload by reference; digest of the model input.",
        code_version=f"{form.version}+{form.deid_profile}",
        check_specs=checks.RECORDS_CHECKS,
        kinds={"delta", "silver"},
    )


def _embeddings(spec: DatasetSpec, space: str, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    def body(ctx: Context, context: AssetExecutionContext) -> Iterator[Any]:
        partition = context.partition_key
        outcomes = embeddings.build(ctx, spec, space, partition)
        current = outcomes[spec.spaces[space].version]
        extra = {
            "encoder": spec.spaces[space].encoder,
            "weights_digest": embeddings.target(ctx, spec, space).card.weights_digest,
            "embeddings_computed": sum(o.computed for o in outcomes.values()),
            "rows_skipped": sum(o.skipped for o in outcomes.values()),
        }
        if current.changed:
            extra |= pictures.of_partition(ctx, spec, space, partition)
        version = _upstream_version(ctx, spec, partition)
        yield _result(ctx, tables.embeddings(spec.id, space), current, version, extra)
        yield from checks.results(checks.of_embeddings(ctx, spec, space, partition))

    return _partitioned(
        spec,
        embeddings.asset_name(space),
        plan,
        body,
        deps=[[spec.id, records.ASSET]],
        description=f"One vector per record in space {space!r}, by {spec.spaces[space].encoder}.",
        code_version=f"{spec.spaces[space].version}+{modality(spec.modality).input_versions[space]}",
        check_specs=checks.EMBEDDINGS_CHECKS,
        kinds={"delta", "gold", "torch"},
        op_tags=GPU_POD,
        pool="gpu",
    )


def _vectors(spec: DatasetSpec, space: str, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    def body(ctx: Context, context: AssetExecutionContext) -> Iterator[Any]:
        partition = context.partition_key
        started = time.monotonic()
        done = vectors.build(ctx, spec, space, partition)
        yield dg.MaterializeResult(
            metadata={
                "dagster/uri": ctx.settings.index,
                "dagster/storage_kind": "milvus",
                "dagster/partition_row_count": sum(one.upserted + one.unchanged for one in done),
                "collections": [one.collection for one in done],
                "vectors_upserted": sum(one.upserted for one in done),
                "vectors_deleted": sum(one.deleted for one in done),
                "vectors_unchanged": sum(one.unchanged for one in done),
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        yield from checks.results(checks.of_vectors(ctx, spec, space, partition))

    return _partitioned(
        spec,
        vectors.asset_name(space),
        plan,
        body,
        deps=[[spec.id, embeddings.asset_name(space)]],
        description=f"The search index of space {space!r}, reconciled with its embeddings.",
        code_version="reconcile-1",
        check_specs=checks.VECTORS_CHECKS,
        kinds={"milvus"},
        pool="milvus",
        with_index=True,
    )


def _partitioned(
    spec: DatasetSpec,
    name: str,
    plan: dg.DynamicPartitionsDefinition,
    body: Callable[[Context, AssetExecutionContext], Iterator[Any]],
    *,
    deps: Sequence[Any],
    description: str,
    code_version: str,
    check_specs: dict[str, tuple[str, bool]],
    kinds: set[str],
    op_tags: dict[str, Any] | None = None,
    pool: str | None = None,
    with_index: bool = False,
) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, name])

    @dg.asset(
        key=key,
        deps=deps,
        partitions_def=plan,
        description=description,
        code_version=code_version,
        check_specs=checks.specs(key, check_specs, plan),
        automation_condition=automation.on_changed_partitions(),
        # A range run loses per-partition checks and records: one partition is one run.
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness.max_age),
        retry_policy=RETRIES,
        op_tags=op_tags,
        pool=pool,
        **_common(spec, kinds),
    )
    def partitioned_asset(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[Any]:
        with permanent_or_retry(), runtime.context(context.run_id, with_index=with_index) as ctx:
            yield from body(ctx, context)

    return partitioned_asset


def _freshness(spec: DatasetSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[spec.id, manifest.ASSET],
        name=checks.FRESHNESS_CHECK,
        description="Every materialized partition is made from what the source publishes now, and is not too old.",
    )
    def partitions_fresh(
        context: dg.AssetCheckExecutionContext, runtime: dg.ResourceParam[Runtime]
    ) -> dg.AssetCheckResult:
        with runtime.context(context.run.run_id) as ctx:
            return next(checks.results(iter([checks.freshness(ctx, spec, datetime.now(UTC))])))

    return partitions_fresh


def _full_sync(spec: DatasetSpec) -> dg.JobDefinition:
    @dg.op(
        name=f"{spec.id}_full_sync_op", description="Diff every partition with the index, heal, retire old partitions."
    )
    def full_sync(context: dg.OpExecutionContext, runtime: dg.ResourceParam[Runtime]) -> None:
        with permanent_or_retry(), runtime.context(context.run_id, with_index=True) as ctx:
            for done in sync_all(ctx, spec, full=True):
                context.log.info(
                    f"{done.collection} {done.partition}: {done.upserted} written, {done.deleted} deleted, "
                    f"{done.unchanged} unchanged"
                )
            retire.retire(ctx, spec)

    @dg.job(name=f"{spec.id}_full_sync", description=f"Diff {spec.id}'s whole index with its embeddings and heal it.")
    def full_sync_job() -> None:
        full_sync()

    return full_sync_job


def _upstream_version(ctx: Context, spec: DatasetSpec, partition: str) -> str:
    return str(ctx.audit.latest(spec.id)[(records.ASSET, "-", partition)]["upstream_version"])


def _result(
    ctx: Context, table: TableSpec, outcome: Outcome, upstream_version: str, extra: dict[str, Any] | None = None
) -> dg.MaterializeResult:
    rows = outcome.rows_out
    metadata: dict[str, Any] = {
        "dagster/uri": ctx.lake.uri(table),
        "dagster/storage_kind": "delta",
        "dagster/partition_row_count" if "partition" in table.partition_by else "dagster/row_count": rows,
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
    return dg.MaterializeResult(metadata=metadata | (extra or {}), data_version=dg.DataVersion(outcome.output_digest))


def _column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, str(field.type), constraints=dg.TableColumnConstraints(nullable=field.nullable))
            for field in schema
        ]
    )


class permanent_or_retry:
    """Turn a failure into one Dagster retries, or one it must not: a defect fails the same way three times."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MedvecError):
            raise dg.Failure(
                description=str(error),
                metadata={"code": error.code, "what to do": error.remedy},
                allow_retries=error.retryable,
            ) from error
        if isinstance(error, Exception) and not isinstance(error, dg.Failure | dg.RetryRequested):
            raise dg.Failure(description=f"defect: {type(error).__name__}", allow_retries=False) from error
