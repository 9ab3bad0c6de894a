"""The one place that turns a spec into assets and checks.

Belongs here: keys, groups, owners, kinds, tags, partitions and retries of every asset, and its call of one stage.
Does not belong here: what a stage does (stages), what its materialization says (metadata), when it runs by itself
(automation), which datasets exist (catalog).
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl
from dagster import AssetExecutionContext
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from medvec_assets import automation, checks, governance, metadata, pictures, printing, status
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.failures import RETRIES, permanent_or_retry
from medvec_assets.jobs import build_jobs
from medvec_assets.modalities import modality
from medvec_assets.runtime import Runtime
from medvec_assets.scorer import scores
from medvec_assets.stages import embeddings, maintain, manifest, records, retire, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.sync import sync_all

# Partitioned checks, backfill policies and observable sources are beta or preview in the pinned release: the snapshot
# test of every asset's spec shows what an upgrade changes, so the warning at each of their uses tells nothing new.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

GPU_POD = {"dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}}
UPSTREAM = "upstream"
Asset = dg.AssetsDefinition | dg.AssetSpec


@dataclass(frozen=True)
class DatasetDefinitions:
    """Everything Dagster is told about one dataset."""

    assets: Sequence[Asset]
    checks: Sequence[dg.AssetChecksDefinition]
    jobs: Sequence[dg.JobDefinition]
    schedules: Sequence[dg.ScheduleDefinition]


def build_dataset(spec: DatasetSpec) -> DatasetDefinitions:
    """Assets, checks, jobs and schedules of one dataset, from its spec alone."""
    plan = dg.DynamicPartitionsDefinition(name=f"{spec.id}_partitions")
    assets: list[Asset] = [_upstream(spec), _manifest(spec), _plan(spec, plan), _records(spec, plan)]
    for space in spec.spaces:
        assets += [_embeddings(spec, space, plan), _vectors(spec, space, plan)]
    full_sync = _full_sync(spec)
    return DatasetDefinitions(
        assets,
        _plan_checks(spec),
        [full_sync, *build_jobs(spec)],
        automation.schedules(spec, full_sync),
    )


def build_maintenance(catalog: Sequence[DatasetSpec]) -> dg.JobDefinition:
    """The one job that is of no dataset: what is kept up after all of them lies in tables that they share."""

    @dg.op(name="maintenance_op", description="What `medvec maintain` does.", retry_policy=RETRIES)
    def keep_up(context: dg.OpExecutionContext, runtime: dg.ResourceParam[Runtime]) -> None:
        with permanent_or_retry(), runtime.context(context.run_id, with_index=True) as ctx:
            for line in printing.maintained(asdict(maintain.maintain(ctx, catalog))):
                context.log.info(line)

    @dg.job(name="maintenance", description="Merge small files, delete old ones, shorten logs, let the index shrink.")
    def maintenance_job() -> None:
        keep_up()

    return maintenance_job


def plan_key(spec: DatasetSpec) -> dg.AssetKey:
    return dg.AssetKey([spec.id, checks.PLAN])


def partition_chain(spec: DatasetSpec) -> list[dg.AssetKey]:
    """The partitioned assets of a dataset, upstream first."""
    names = [records.ASSET]
    for space in spec.spaces:
        names += [embeddings.asset_name(space), vectors.asset_name(space)]
    return [dg.AssetKey([spec.id, name]) for name in names]


def publish_plan(instance: dg.DagsterInstance, spec: DatasetSpec, plan: pl.DataFrame) -> list[str]:
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
    tags = {"source": spec.source, "access_tier": str(spec.access_tier), "modality": spec.modality, "data": spec.sample}
    return {"group_name": spec.source, "owners": list(spec.owners), "kinds": kinds, "tags": tags}


def _upstream(spec: DatasetSpec) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, UPSTREAM])
    described = dg.AssetSpec(
        key, description=f"What {spec.title} publishes. {spec.citation}", **_common(spec, {spec.connector})
    )

    def observe(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[dg.ObserveResult]:
        with permanent_or_retry(), runtime.context(context.run_id) as ctx:
            version = ctx.connector(spec).version()
        yield dg.ObserveResult(
            asset_key=key, data_version=dg.DataVersion(version), metadata={"upstream_version": version}
        )

    made: dg.AssetsDefinition = dg.multi_observable_source_asset(specs=[described], name=f"{spec.id}__{UPSTREAM}")(
        observe
    )
    return made


def _manifest(spec: DatasetSpec) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, manifest.ASSET])

    def refresh(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[Any]:
        with permanent_or_retry(), runtime.context(context.run_id) as ctx:
            done = manifest.refresh(ctx, spec)
            found = list(checks.of_manifest(ctx, spec))
            # The partitioned assets stand below the plan, not below this asset and its checks: what fails here is
            # stopped by not being published. The next run that passes publishes it.
            moved = publish_plan(context.instance, spec, done.plan) if all(one.passed for one in found) else []
            yield metadata.of_manifest(ctx, spec, done, moved)
            yield from checks.results(key, found)

    made: dg.AssetsDefinition = dg.asset(
        key=key,
        deps=[[spec.id, UPSTREAM]],
        description=f"One row per smallest thing {spec.title} versions; plans the partitions.",
        code_version=manifest.VERSION,
        check_specs=checks.specs(key, checks.MANIFEST_CHECKS, None),
        retry_policy=RETRIES,
        **_common(spec, {"deltalake", "bronze"}),
    )(refresh)
    return made


def _plan(spec: DatasetSpec, plan: dg.DynamicPartitionsDefinition) -> dg.AssetSpec:
    return dg.AssetSpec(
        plan_key(spec),
        deps=[[spec.id, manifest.ASSET]],
        partitions_def=plan,
        description="The partition plan: one event per partition whose content changed, reported by the manifest.",
        **_common(spec, {"deltalake", "bronze"}),
    )


def _records(spec: DatasetSpec, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, records.ASSET])

    def body(ctx: Context, partition: str) -> Iterator[Any]:
        outcome = records.build(ctx, spec, partition)
        scores.bring_up(ctx, spec, partition)
        yield metadata.of_records(ctx, spec, partition, outcome)
        yield from checks.results(key, checks.of_records(ctx, spec, partition))

    form = modality(spec.modality)
    return _partitioned(
        spec,
        key,
        plan,
        body,
        deps=[plan_key(spec)],
        description="One row per de-identified, normalised record; payload by reference; digest of the model input.",
        code_version=f"{form.version}+{form.deid_profile}",
        check_specs=checks.RECORDS_CHECKS,
        kinds={"deltalake", "silver"},
    )


def _embeddings(spec: DatasetSpec, space: str, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, embeddings.asset_name(space)])

    def body(ctx: Context, partition: str) -> Iterator[Any]:
        outcomes = embeddings.build(ctx, spec, space, partition)
        changed = outcomes[spec.spaces[space].version].changed
        drawn = pictures.of_partition(ctx, spec, space, partition) if changed else {}
        yield metadata.of_embeddings(ctx, spec, space, partition, outcomes, drawn)
        yield from checks.results(key, checks.of_embeddings(ctx, spec, space, partition))

    return _partitioned(
        spec,
        key,
        plan,
        body,
        deps=[[spec.id, records.ASSET]],
        description=f"One vector per record in space {space!r}, by {spec.spaces[space].encoder}.",
        code_version=f"{spec.spaces[space].version}+{modality(spec.modality).input_versions[space]}",
        check_specs=checks.EMBEDDINGS_CHECKS,
        kinds={"deltalake", "gold", "pytorch"},
        op_tags=GPU_POD,
        pool="gpu",
    )


def _vectors(spec: DatasetSpec, space: str, plan: dg.DynamicPartitionsDefinition) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.id, vectors.asset_name(space)])

    def body(ctx: Context, partition: str) -> Iterator[Any]:
        started = time.monotonic()
        done = vectors.build(ctx, spec, space, partition)
        yield metadata.of_vectors(ctx, spec, space, partition, done, time.monotonic() - started)
        yield from checks.results(key, checks.of_vectors(ctx, spec, space, partition))

    return _partitioned(
        spec,
        key,
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
    key: dg.AssetKey,
    plan: dg.DynamicPartitionsDefinition,
    body: Callable[[Context, str], Iterator[Any]],
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
    def compute(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[Any]:
        with permanent_or_retry(), runtime.context(context.run_id, with_index=with_index) as ctx:
            yield from body(ctx, context.partition_key)

    made: dg.AssetsDefinition = dg.asset(
        key=key,
        deps=deps,
        partitions_def=plan,
        description=description,
        code_version=code_version,
        check_specs=checks.specs(key, check_specs, plan),
        automation_condition=automation.on_changed_partitions(),
        # No backfill policy: each partition is a run of its own. Any policy, multi_run(1) too, makes range runs, whose
        # check results are stored without their partition, so nothing below would ever see them as passed.
        backfill_policy=None,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.freshness.max_age),
        retry_policy=RETRIES,
        op_tags=op_tags,
        pool=pool,
        **_common(spec, kinds),
    )(compute)
    return made


def _plan_check(
    spec: DatasetSpec, name: str, description: str, judge: Callable[[Context, DatasetSpec, datetime], checks.Finding]
) -> dg.AssetChecksDefinition:
    """A check that stands on the plan and runs by itself, on its schedule."""

    def look(context: dg.AssetCheckExecutionContext, runtime: dg.ResourceParam[Runtime]) -> dg.AssetCheckResult:
        with permanent_or_retry(), runtime.context(context.run.run_id) as ctx:
            return next(checks.results(plan_key(spec), [judge(ctx, spec, datetime.now(UTC))]))

    made: dg.AssetChecksDefinition = dg.asset_check(asset=plan_key(spec), name=name, description=description)(look)
    return made


def _plan_checks(spec: DatasetSpec) -> list[dg.AssetChecksDefinition]:
    return [
        _plan_check(
            spec,
            checks.FRESHNESS_CHECK,
            "Every materialized partition is made from what the source publishes now. A warning while it is "
            "younger than the spec's limit, an error after that.",
            checks.freshness,
        ),
        _plan_check(
            spec,
            governance.AGREEMENT_CHECK,
            "The dataset may be here: agreement on file, in scope and valid, residency kept. A warning when it ends soon.",
            governance.agreement,
        ),
        _plan_check(
            spec,
            governance.WITHDRAWAL_CHECK,
            "What the source took back is gone from records, embeddings and index by the source's deadline.",
            governance.withdrawals,
        ),
        _standing(spec),
    ]


def _standing(spec: DatasetSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=plan_key(spec),
        name=checks.STANDING_CHECK,
        description="What is broken or stale right now, with an exact count, some by name and the command that mends it: "
        "the answer of `medvec status`. A warning if all that is found is stale, an error if something is broken.",
    )
    def nothing_broken_or_stale(
        context: dg.AssetCheckExecutionContext, runtime: dg.ResourceParam[Runtime]
    ) -> dg.AssetCheckResult:
        with permanent_or_retry():
            found = status.of_dataset(runtime, spec, context.instance, context.run.run_id)
            return next(checks.results(plan_key(spec), [checks.standing(found)]))

    return nothing_broken_or_stale


def _full_sync(spec: DatasetSpec) -> dg.JobDefinition:
    @dg.op(
        name=f"{spec.id}_full_sync_op",
        description="Diff every partition with the index, heal, retire old partitions.",
        retry_policy=RETRIES,
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
