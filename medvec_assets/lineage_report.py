"""The asset `audit/lineage_report`: the lineage audit of all datasets, once a week, with a check that fails if a link is broken.

Belongs here: its wiring and its metadata. Does not belong here: what the audit looks at (lineage_audit).

Annotations are real objects here: Dagster reads those of an asset (as in factory).
"""

import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.failures import RETRIES, permanent_or_retry
from medvec_assets.lineage_audit import audit, report
from medvec_assets.runtime import Runtime

KEY = dg.AssetKey(["audit", "lineage_report"])
CHECK = "no_broken_link"
# Rows are compared in whole partitions; so many vectors of each space are read from the source, a few made again. Every
# vector: medvec audit lineage --all.
SCOPE = {"sample": 500, "recompute": 3}
WEEKLY = "0 5 * * 0"  # Sunday 05:00 UTC, after the weekly diff of the index has healed what it finds
MAX_NAMED = 20


def build(catalog: Sequence[DatasetSpec]) -> tuple[dg.AssetsDefinition, dg.ScheduleDefinition]:
    def look(context: AssetExecutionContext, runtime: dg.ResourceParam[Runtime]) -> Iterator[Any]:
        started, scope = datetime.now(UTC), audit.Scope(**SCOPE, seed=secrets.randbits(31))
        with permanent_or_retry(), runtime.context(context.run_id, with_index=True) as ctx:
            found = audit.run(ctx, catalog, scope)
            told = report.of(ctx.settings, scope, found, started, context.run_id)
            files = report.write(told, ctx.settings, f"{ctx.lake.root}/reports")
        yield dg.MaterializeResult(asset_key=KEY, metadata=_metadata(told, files))
        yield _check(told)

    owners = sorted({owner for spec in catalog for owner in spec.owners})
    made: dg.AssetsDefinition = dg.asset(
        key=KEY,
        group_name="audit",
        owners=owners,
        kinds={"json", "html"},
        description="Every link from vector to source object derived again, with a signed report: `medvec audit lineage`.",
        check_specs=[dg.AssetCheckSpec(CHECK, asset=KEY, description="No link of the lineage is broken.")],
        retry_policy=RETRIES,
        pool="milvus",
    )(look)
    job = dg.define_asset_job(
        "lineage_audit", selection=dg.AssetSelection.assets(KEY), description="Materialize audit/lineage_report."
    )
    return made, dg.ScheduleDefinition(job=job, cron_schedule=WEEKLY, execution_timezone="UTC")


def _metadata(told: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    counts = [one["counts"] for one in told["datasets"]]
    names = ("vectors", "records", "objects_read", "entities", "entity_vectors_compared", "vectors_made_again")
    # A count that may not be shown is left out of the sum, which then tells nothing of it.
    sums = {name: sum(one.get(name) or 0 for one in counts) for name in names}
    [page] = [uri for name, uri in files.items() if name.endswith(".html")]
    return {**sums, "broken_links": told["broken_links"], "report": page, "report_id": told["id"]}


def _check(told: dict[str, Any]) -> dg.AssetCheckResult:
    named = [f"{one['dataset']} {one['rule']}: {one['object']}" for one in told["broken"][:MAX_NAMED]]
    remedies = list(dict.fromkeys(one["remedy"] for one in told["broken"]))
    metadata: dict[str, Any] = {"broken_links": told["broken_links"], "for_example": named}
    if remedies:
        metadata["what to do"] = "; ".join(remedies)
    return dg.AssetCheckResult(asset_key=KEY, check_name=CHECK, passed=told["ok"], metadata=metadata)
