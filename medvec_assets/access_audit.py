"""The daily look at the query service's access log: seal what was left, verify it, tell who walks through a dataset.

Belongs here: the job and when it fails. Does not belong here: the log (resources.access_log), the rules of harvesting.

A job and no asset: the log is of no dataset, and what fails here is no reason to stop a dataset's automation. Annotations
are real objects here: Dagster reads those of an op (as in factory).
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from medvec_assets.checks import MAX_NAMED
from medvec_assets.failures import RETRIES, permanent_or_retry
from medvec_assets.query.harvesting import harvesting, keep
from medvec_assets.runtime import Runtime
from resources.access_log import Keys
from resources.access_log.places import Place
from resources.access_log.sealing import archive, seal
from resources.access_log.verifying import verify


def build_access_audit() -> dg.JobDefinition:
    """`access_audit`: its run fails where the log does not stand or somebody harvests, and names what it found."""

    def look(context: dg.OpExecutionContext, runtime: dg.ResourceParam[Runtime]) -> None:
        settings = runtime.settings
        with permanent_or_retry():
            lake, place, keys = archive(settings), Place.of(settings), Keys.of(settings)
            sealed = seal(lake, place, keys)
            report = verify(lake, place, keys)
            walks = harvesting(settings, runtime.lake)
            keep(runtime.lake, walks)
        told: dict[str, Any] = {
            "events": report.events,
            "writers": report.writers,
            "sealed_now": sum(one.events for one in sealed),
            "killed": len(report.killed),
            "elsewhere": report.elsewhere,
            "faults": _some(report.faults),
            "harvesting": _some(
                [f"{one.who} in {one.dataset}: {one.rule}, {one.subjects} subjects until {one.until}" for one in walks]
            ),
        }
        context.add_output_metadata(told)
        if report.faults or walks:
            raise dg.Failure(
                f"{len(report.faults)} faults in the access log, {len(walks)} callers who walk through a dataset. "
                "What to do: medvec audit verify and medvec audit alerts name each; keep all files as they are",
                {name: told[name] for name in ("faults", "harvesting")},
                allow_retries=False,
            )

    described = "Seal what killed services left of the access log, verify all of it, look for harvesting."
    op: dg.OpDefinition = dg.op(
        name="access_audit_op", description=described, retry_policy=RETRIES, out=dg.Out(dg.Nothing)
    )(look)

    @dg.job(name="access_audit", description=described)
    def access_audit_job() -> None:
        op()

    return access_audit_job


def _some(found: Sequence[Any]) -> list[str]:
    return [str(one) for one in found[:MAX_NAMED]]
