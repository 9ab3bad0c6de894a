"""The one automation condition, and the schedules.

Belongs here: when Dagster starts something by itself. Does not belong here: what is stale (stages.due), what an asset does.

Why not `AutomationCondition.eager()`: it fires downstream even when the upstream's blocking check failed, and a
partitioned asset below an unpartitioned one is requested for every partition (1 changed of 501 gave 1,002 requests).
So the manifest reports one event per partition whose content changed on the external asset `<dataset>/partitions`, and
each partitioned asset waits for its own partition's upstream: changed, present, not in progress, blocking checks passed.

What follows from that, and is meant:
- A manifest that fails a blocking check, or that the site may not have, reports nothing, so nothing is requested.
- Switching the sensor on requests nothing that changed before: on a laptop that has run the sample, the catalogue's
  other cohorts do not start by themselves. `medvec run --all` or a backfill brings them.
- A partition whose run failed for good is not requested again until it changes: `partitions_fresh` names it every day.

The sensor and the schedules are off until somebody switches them on in the UI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from medvec_assets import checks
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.runtime import Runtime
from resources.errors import PolicyRefused

WEEKLY_FULL_SYNC = "0 3 * * 0"  # Sunday 03:00 UTC: what receipts and counts cannot show is found within a week
DAILY_FRESHNESS = "0 7 * * *"  # after the weekly looks at the sources (06:00 and 06:30 UTC)


def on_changed_partitions() -> dg.AutomationCondition[Any]:
    """Request a partition when its own upstream partition moved, and never past a failed blocking check."""
    C = dg.AutomationCondition
    updated = C.any_deps_updated()
    # Not `since_last_handled()`: it forgets a change as soon as the partition is materialized, also one that came while
    # its run was reading what was there before. Here only a request settles it, unless a change came with it; the price
    # is a run that finds nothing to do after somebody materialized a changed partition by hand.
    pending = updated.since(C.newly_requested() & ~updated)
    return (
        pending
        & ~C.any_deps_missing()
        & ~C.any_deps_in_progress()
        & ~C.in_progress()
        & C.all_deps_blocking_checks_passed()
    ).with_label("its partition changed upstream and no blocking check failed")


def schedules(spec: DatasetSpec, full_sync: dg.JobDefinition) -> Sequence[dg.ScheduleDefinition]:
    """Refresh the manifest on the spec's cron, look for stale partitions daily, diff the whole index weekly."""
    refresh_job = dg.define_asset_job(
        f"{spec.id}_refresh",
        selection=dg.AssetSelection.assets([spec.id, "upstream"], [spec.id, "manifest"]),
        description=f"Observe what {spec.title} publishes and refresh the manifest.",
    )
    freshness_job = dg.define_asset_job(
        f"{spec.id}_freshness",
        selection=dg.AssetSelection.checks(checks.freshness_key(spec)),
        description=f"Which partitions of {spec.id} are not made from what is published now.",
    )
    crons = (
        (refresh_job, spec.freshness.observe_cron),
        (freshness_job, DAILY_FRESHNESS),
        (full_sync, WEEKLY_FULL_SYNC),
    )
    return [
        dg.ScheduleDefinition(
            job=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            execution_fn=_unless_refused(spec),
            required_resource_keys={"runtime"},
        )
        for job, cron in crons
    ]


def _unless_refused(spec: DatasetSpec) -> Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason]:
    """A dataset that this site may not have is skipped with the rule named; its run would fail every time."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        runtime: Runtime = context.resources.runtime
        try:
            with runtime.context("schedule") as ctx:
                ctx.require_allowed(spec)
        except PolicyRefused as refusal:
            return dg.SkipReason(str(refusal))
        return dg.RunRequest()

    return evaluate
