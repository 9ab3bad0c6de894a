"""The one automation condition, and the schedules.

Belongs here: when Dagster starts something by itself. Does not belong here: what is stale (stages.due), what an asset does.

Why not `AutomationCondition.eager()`: it fires downstream even when the upstream's blocking check failed, and a
partitioned asset below an unpartitioned one is requested for every partition (1 changed of 501 gave 1,002 requests).
So the manifest reports one event per partition whose content changed on the external asset `<dataset>/partitions`, and
each partitioned asset waits for its own partition's upstream: changed, present, not in progress, blocking checks passed.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from medvec_assets.catalog.spec import DatasetSpec

WEEKLY_FULL_SYNC = "0 3 * * 0"  # Sunday 03:00 UTC: what receipts and counts cannot show is found within a week


def on_changed_partitions() -> dg.AutomationCondition:
    """Request a partition when its own upstream partition moved, and never past a failed blocking check."""
    C = dg.AutomationCondition
    return (
        C.any_deps_updated().since_last_handled()
        & ~C.any_deps_missing()
        & ~C.any_deps_in_progress()
        & ~C.in_progress()
        & C.all_deps_blocking_checks_passed()
    ).with_label("its partition changed upstream and no blocking check failed")


def schedules(spec: DatasetSpec, full_sync: dg.JobDefinition) -> Sequence[dg.ScheduleDefinition]:
    """Observe the source and refresh its manifest on the spec's cron; diff the whole index weekly."""
    observe = dg.define_asset_job(
        f"{spec.id}_refresh",
        selection=dg.AssetSelection.assets([spec.id, "upstream"], [spec.id, "manifest"]),
        description=f"Observe what {spec.title} publishes and refresh the manifest.",
    )
    return [
        dg.ScheduleDefinition(
            name=f"{spec.id}_observe", job=observe, cron_schedule=spec.freshness.observe_cron, execution_timezone="UTC"
        ),
        dg.ScheduleDefinition(
            name=f"{spec.id}_full_sync", job=full_sync, cron_schedule=WEEKLY_FULL_SYNC, execution_timezone="UTC"
        ),
    ]
