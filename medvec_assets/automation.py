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
- A partition whose run failed for good is not requested again until it changes: `nothing_broken_or_stale` names it every day.

The sensor and the schedules are off until somebody switches them on in the UI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from medvec_assets import checks, governance
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.runtime import Runtime
from resources.errors import PolicyRefused

WEEKLY_FULL_SYNC = "0 3 * * 0"  # Sunday 03:00 UTC: what receipts and counts cannot show is found within a week
DAILY_MAINTENANCE = "0 1 * * *"  # before the weekly diff, which then reads few files
DAILY_LOOK = "0 7 * * *"  # after the weekly looks at the sources (06:00 and 06:30 UTC)
DAILY_CHECKS = (
    checks.FRESHNESS_CHECK,
    checks.STANDING_CHECK,
    governance.AGREEMENT_CHECK,
    governance.WITHDRAWAL_CHECK,
)


def on_changed_partitions() -> dg.AutomationCondition[Any]:
    """Request a partition when its own upstream partition moved, and never past a failed blocking check."""
    C = dg.AutomationCondition
    # Not `any_deps_updated()`: of the partitions that were made since the last tick it knows of one only that what is below
    # was made by the same run: of 3 that were requested and made together, 2 were requested again (Dagster 1.13). What was
    # requested from here was requested with all that is below it, or waits as pending. A backfill of many partitions while
    # the sensor is on still costs each a second run that finds nothing to do: no tag tells it from one of records alone.
    made = C.newly_updated() & ~C.executed_with_root_target()
    made_otherwise = made & ~C.all_new_updates_have_run_tags(tag_keys={AUTOMATION_CONDITION_TAG})
    updated = C.any_deps_match(made_otherwise | C.will_be_requested())
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
    standing_job = dg.define_asset_job(
        f"{spec.id}_standing",
        selection=dg.AssetSelection.checks(*(checks.plan_check_key(spec, name) for name in DAILY_CHECKS)),
        description=f"What of {spec.id} is broken, stale, past its agreement, or was withdrawn and is still here.",
    )
    refused = _unless_refused(spec)
    # The daily look is taken whatever the site may have: that something is here against the policy is what it must find.
    crons = (
        (refresh_job, spec.freshness.observe_cron, refused),
        (standing_job, DAILY_LOOK, lambda context: dg.RunRequest()),
        (full_sync, WEEKLY_FULL_SYNC, refused),
    )
    return [
        dg.ScheduleDefinition(
            job=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            execution_fn=decide,
            required_resource_keys={"runtime"},
        )
        for job, cron, decide in crons
    ]


def maintenance_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every day, whatever the site may have: old versions of what it may have no more must go too."""
    return dg.ScheduleDefinition(job=job, cron_schedule=DAILY_MAINTENANCE, execution_timezone="UTC")


def access_audit_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(job=job, cron_schedule=DAILY_LOOK, execution_timezone="UTC")


def _unless_refused(spec: DatasetSpec) -> Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason]:
    """A dataset that this site may not have is skipped with the rule named; its run would fail every time."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        runtime: Runtime = context.resources.runtime
        try:
            with runtime.context("schedule") as ctx:
                ctx.require_allowed(spec, "schedule")
        except PolicyRefused as refusal:
            return dg.SkipReason(str(refusal))
        return dg.RunRequest()

    return evaluate
