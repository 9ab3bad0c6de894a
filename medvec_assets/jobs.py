"""Jobs that move readers: promote and rollback, unpartitioned, over a whole space.

Belongs here: their ops, what a run of them says, and when it is tried again. Does not belong here: the conditions and
the flip (stages.promote), partitioned work and its jobs (factory).

A job and no asset: what is promoted is a decision about generations, and automation must not take it. Annotations are
real objects here: Dagster reads those of an op (as in factory).
"""

from collections.abc import Callable
from typing import Any

import dagster as dg

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.failures import RETRIES, permanent_or_retry
from medvec_assets.runtime import Runtime
from medvec_assets.stages import recall, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.promote import Promotion, promote, rollback

Move = Callable[[Context, DatasetSpec, str], Promotion]
MILVUS_POOL = "milvus"


def build_jobs(spec: DatasetSpec) -> list[dg.JobDefinition]:
    """`<dataset>_promote` and `<dataset>_rollback`, an op per space. One refused space does not hold up the others."""
    return [
        _job(
            spec,
            "promote",
            promote,
            "Let readers see the generation of the present encoder, if every partition is reconciled, every entity agrees "
            "and recall@10 is measured and high enough. Refused, it names every reason.",
        ),
        _job(
            spec,
            "rollback",
            rollback,
            "Let readers see the generation that the last promotion took from them. Launch it for one space by choosing "
            "its op.",
        ),
    ]


def _job(spec: DatasetSpec, name: str, move: Move, description: str) -> dg.JobDefinition:
    ops = [_op(spec, name, space, move, description) for space in spec.spaces]

    @dg.job(name=f"{spec.id}_{name}", description=description)
    def made() -> None:
        for op in ops:
            op()

    return made


def _op(spec: DatasetSpec, name: str, space: str, move: Move, description: str) -> dg.OpDefinition:
    def body(context: dg.OpExecutionContext, runtime: dg.ResourceParam[Runtime]) -> None:
        # A refusal is an IntegrityError, which is permanent; partitions that changed meanwhile are a CommitConflict.
        with permanent_or_retry(), runtime.context(context.run_id, with_index=True) as ctx:
            told = facts(move(ctx, spec, space))
        context.add_output_metadata(told)
        # The asset's page says it too: that is where somebody looks who wonders which encoder answers.
        context.log_event(dg.AssetObservation([spec.id, vectors.asset_name(space)], metadata=told))

    op: dg.OpDefinition = dg.op(
        name=f"{spec.id}_{name}_{space}",
        description=description,
        retry_policy=RETRIES,
        pool=MILVUS_POOL,
        out=dg.Out(dg.Nothing),
    )(body)
    return op


def facts(done: Promotion) -> dict[str, Any]:
    """What readers see now, and why that is well, as metadata."""
    told: dict[str, Any] = {
        "space": done.space,
        "space_version": done.space_version,
        "readers_see": list(done.collections),
        "readers_saw": list(done.previous),
        "changed": done.changed,
    }
    if done.delta_version is not None:
        told["delta_version"] = done.delta_version
    for one in done.recall:
        told[f"recall@{recall.K} {one.scope}"] = one.recall
    return told
