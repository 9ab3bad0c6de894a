"""Generations: which collection holds which version of a space, and which of them readers see.

Belongs here: audit/generations and the alias that follows it. Does not belong here: filling a collection (vectors),
flipping readers to a new generation (promote, an issue of its own).

States: `live` (readers see it), `filling` (being built beside the live one), `retiring` (kept for rollback).
Both live and filling are maintained: embedded, reconciled and verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages.context import Context
from resources import encoders, tables
from resources.errors import CommitConflict, ConfigError

Generation = Mapping[str, Any]
"""One row of audit/generations."""
MAINTAINED = ("live", "filling")


def of_space(ctx: Context, spec: DatasetSpec, space: str) -> list[Generation]:
    """All generations of a space, oldest first."""
    snapshot = ctx.lake.snapshot(tables.generations())
    if snapshot is None:
        return []
    where = (pc.field("dataset") == spec.id) & (pc.field("space") == space)
    return list(snapshot.read(where=where).sort("generation").iter_rows(named=True))


def maintained_versions(ctx: Context, spec: DatasetSpec, space: str) -> list[str]:
    """The space versions to embed: the spec's own, and older ones that readers still see and can still be computed."""
    current = spec.spaces[space].version
    versions = [current]
    for generation in of_space(ctx, spec, space):
        version = generation["space_version"]
        if generation["state"] in MAINTAINED and version not in versions and _loadable(ctx, version):
            versions.append(version)
    return versions


def _loadable(ctx: Context, encoder_ref: str) -> bool:
    try:
        encoders.card(encoder_ref, ctx.settings)
    except ConfigError:
        return False
    return True


def collection_name(spec: DatasetSpec, space: str, access_tier: str, generation: int) -> str:
    return f"{alias_name(spec, space, access_tier)}__g{generation}"


def alias_name(spec: DatasetSpec, space: str, access_tier: str) -> str:
    return f"{spec.id}__{space}__{access_tier}"


@retry(
    retry=retry_if_exception_type(CommitConflict),
    stop=stop_after_attempt(8),
    wait=wait_random_exponential(0.1, 5),
    reraise=True,
)
def ensure(ctx: Context, spec: DatasetSpec, space: str, access_tier: str, space_version: str) -> Generation:
    """The generation that holds `space_version`, opened if there is none: live if it is the first, else filling."""
    base = ctx.lake.ensure(tables.generations())
    rows = base.read(where=pc.field("dataset") == spec.id).to_dicts()
    mine = [row for row in rows if row["space"] == space and row["access_tier"] == access_tier]
    for row in mine:
        if row["space_version"] == space_version and row["state"] in MAINTAINED:
            return row
    number = max((row["generation"] for row in mine), default=0) + 1
    opened = {
        "dataset": spec.id,
        "space": space,
        "access_tier": access_tier,
        "generation": number,
        "space_version": space_version,
        "collection": collection_name(spec, space, access_tier, number),
        "state": "filling" if any(row["state"] == "live" for row in mine) else "live",
        "created_at": datetime.now(UTC),
    }
    table = pa.Table.from_pylist([*rows, opened], schema=tables.GENERATIONS)
    facts = {"asset": "generations", "run_id": ctx.run_id, "collection": opened["collection"]}
    ctx.lake.replace(base, {"dataset": spec.id}, table.to_batches(), facts)
    return opened
