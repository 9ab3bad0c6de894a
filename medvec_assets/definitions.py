"""The whole pipeline on one screen. Loading this touches no file, no server and no network, and imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from medvec_assets import automation, lineage_report
from medvec_assets.access_audit import build_access_audit
from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.factory import build_dataset, build_maintenance
from medvec_assets.runtime import Runtime


def build_defs(catalog: Sequence[DatasetSpec], runtime: Runtime) -> dg.Definitions:
    """Definitions for `catalog`, with every stage run by `runtime`."""
    built = [build_dataset(spec) for spec in catalog]
    maintenance, access_audit = build_maintenance(catalog), build_access_audit()
    audited, weekly_audit = lineage_report.build(catalog)
    return dg.Definitions(
        assets=[audited, *(asset for one in built for asset in one.assets)],
        asset_checks=[check for one in built for check in one.checks],
        jobs=[maintenance, access_audit, *(job for one in built for job in one.jobs)],
        schedules=[
            automation.maintenance_schedule(maintenance),
            weekly_audit,
            automation.access_audit_schedule(access_audit),
            *(schedule for one in built for schedule in one.schedules),
        ],
        resources={"runtime": runtime},
        # One partition is one run and its steps are a chain: a process per step would only load torch again.
        executor=dg.in_process_executor,
    )


defs = build_defs(CATALOG, Runtime())
