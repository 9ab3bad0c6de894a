"""Quarantine: what did not make it, why, and what to do. Nothing is dropped silently.

Belongs here: replacing and reading the rows of one stage and partition. Does not belong here: deciding what is bad.
A row holds a code of ours, never a parser's message, which may quote a patient's name.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages.context import Context
from resources import tables
from resources.audit import ChainKey

Row = tuple[str, str, str, str]
"""(object_id, disposition, code, remedy)"""


def stage_of(chain: ChainKey) -> str:
    """The stage under which a chain's rows stand: two maintained versions of a space do not overwrite each other's."""
    asset, space_version, _ = chain
    return asset if space_version == "-" else f"{asset} {space_version}"


def replace(
    ctx: Context, spec: DatasetSpec, chain: ChainKey, rows: Sequence[Row], partition: str | None = None
) -> None:
    """Make `rows` the quarantine of this chain's asset and partition; commits only if that changes anything."""
    stage, partition = stage_of(chain), partition or chain[2]
    base = ctx.lake.ensure(tables.quarantine(spec.id))
    where = (pc.field("stage") == stage) & (pc.field("partition") == partition)
    existing = base.read(["object_id", "disposition", "code", "remedy"], where).rows()
    if sorted(existing) == sorted(rows):
        return
    columns = list(zip(*sorted(rows), strict=True)) if rows else [(), (), (), ()]
    object_ids, dispositions, codes, remedies = columns
    table = pa.table(
        {
            "object_id": pa.array(object_ids, pa.string()),
            "partition": pa.array([partition] * len(rows), pa.string()),
            "stage": pa.array([stage] * len(rows), pa.string()),
            "disposition": pa.array(dispositions, pa.string()),
            "code": pa.array(codes, pa.string()),
            "remedy": pa.array(remedies, pa.string()),
        },
        schema=tables.QUARANTINE,
    )
    ctx.lake.replace(
        base,
        {"stage": stage, "partition": partition},
        table.to_batches(),
        {"asset": "quarantine", "run_id": ctx.run_id},
        ctx.transaction(spec, chain),
    )


def read(ctx: Context, spec: DatasetSpec, stage: str | None = None, partition: str | None = None) -> pl.DataFrame:
    """Quarantine rows, narrowed to a stage and a partition if given."""
    snapshot = ctx.lake.snapshot(tables.quarantine(spec.id))
    if snapshot is None:
        return pl.DataFrame(schema=pl.Schema(tables.QUARANTINE))
    where = None
    for name, value in (("stage", stage), ("partition", partition)):
        if value is not None:
            term = pc.field(name) == value
            where = term if where is None else where & term
    return snapshot.read(where=where)
