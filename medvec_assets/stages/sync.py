"""Reconciling everything that has embeddings, whatever is due.

Belongs here: walking a dataset's embedded partitions. Does not belong here: the reconcile itself (vectors).
"""

from __future__ import annotations

from collections.abc import Iterator

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.scorer.verdicts import Verdicts
from medvec_assets.stages import embeddings, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import current_plan


def sync_all(ctx: Context, spec: DatasetSpec, *, full: bool, floats: bool = False) -> Iterator[vectors.Synced]:
    """Reconcile every planned partition that has embeddings, in every space, but for those whose de-identification leaks:
    what the index holds of them is not shown, and `medvec status` names them."""
    assert ctx.index is not None, "a sync needs a context with an index"
    verdicts = Verdicts(ctx.lake, spec.id)
    planned = {name for name in current_plan(ctx, spec)["partition"] if not verdicts.leaks(name)}
    with ctx.index.settled_once():
        for space in spec.spaces:
            asset, version = embeddings.asset_name(space), spec.spaces[space].version
            heads = ctx.audit.latest(spec.id)
            for partition in sorted(p for (name, at, p) in heads if (name, at) == (asset, version) and p in planned):
                yield from vectors.build(ctx, spec, space, partition, full=full, floats=floats)
        vectors.settle(ctx, spec)
