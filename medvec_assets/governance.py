"""Checks of what a compliance officer answers for: agreements that hold, withdrawals that were honoured in time.

Belongs here: these two rules as findings. Does not belong here: the rules of residency (resources.policy), removing what
was withdrawn (stages), checks of a partition's content (checks).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.checks import MAX_NAMED, Finding
from medvec_assets.stages import withdrawal
from medvec_assets.stages.context import Context
from resources import policy, tables

AGREEMENT_CHECK = "agreement_valid"
WITHDRAWAL_CHECK = "withdrawals_honoured"
RENEW_BEFORE = timedelta(days=60)  # sources take weeks to renew an agreement


def agreement(ctx: Context, spec: DatasetSpec, now: datetime) -> Finding:
    """Whether the dataset may be here today, or is not here: a warning while its agreement ends soon."""
    refusal = ctx.refusal(spec)
    found = policy.agreement_of(ctx.settings, spec.terms)
    numbers = {
        "site": ctx.settings.site,
        "residency": spec.residency.where,
        "agreement": spec.residency.agreement or "none is needed",
        **({"holder": found.holder, "expires": str(found.expires)} if found else {}),
        "made_up": ctx.is_synthetic(spec),
    }
    if refusal is not None:
        is_here = bool(ctx.audit.latest(spec.id))
        return Finding(
            AGREEMENT_CHECK, not is_here, refusal.remedy, numbers | {"rule": refusal.rule, "is_here": is_here}
        )
    ends_soon = found is not None and found.expires < (now + RENEW_BEFORE).date()
    remedy = "begin to renew the agreement with the source: on the day after it ends no work on this dataset is done"
    return Finding(AGREEMENT_CHECK, not ends_soon, remedy, numbers, dg.AssetCheckSeverity.WARN)


def withdrawals(ctx: Context, spec: DatasetSpec, now: datetime) -> Finding:
    """Whether everything that the source took back is gone from records, embeddings and index by its deadline; every
    subject that is not is named, by its pseudonym."""
    late = withdrawal.overdue(ctx, spec, now)
    noted = ctx.lake.snapshot(tables.withdrawals())
    rows = noted.read(["dataset", "object_id"]) if noted else pl.DataFrame(schema={"dataset": pl.String})
    subjects = sorted({one.subject_key for one in late})
    numbers = {
        "objects_withdrawn_so_far": rows.filter(pl.col("dataset") == spec.id).height,
        "grace_days": spec.withdrawal_grace.days,
        "objects_past_deadline": len({one.object_id for one in late}),
        "subjects_past_deadline": subjects,
        "for_example": [f"{one.object_id}: {one.layer}, due {one.due_at:%Y-%m-%d}" for one in late[:MAX_NAMED]],
    }
    remedy = f"medvec run --dataset {spec.id} --all (and look why it has not run since: medvec status)"
    return Finding(WITHDRAWAL_CHECK, not late, remedy, numbers)
