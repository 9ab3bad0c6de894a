"""Generations: which collection holds which version of a space, and which of them readers see.

Belongs here: audit/generations and its changes of state. Does not belong here: filling a collection (vectors), whether
readers may be moved (promote).

States: `live` (readers see it), `filling` (being built beside the live one), `retiring` (kept for rollback, as it was),
`dropped`. Live and filling ones are maintained: embedded, reconciled and verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages.context import Context
from resources import encoders, tables
from resources.errors import CommitConflict, ConfigError
from resources.lakehouse import Snapshot

Generation = Mapping[str, Any]
"""One row of audit/generations."""
MAINTAINED = ("live", "filling")


def of_space(ctx: Context, spec: DatasetSpec, space: str) -> list[Generation]:
    """All generations of a space, oldest first."""
    snapshot = ctx.lake.snapshot(tables.generations())
    if snapshot is None:
        return []
    where = (pc.field("dataset") == spec.id) & (pc.field("space") == space)
    return list(snapshot.read(where=where).sort("generation", "access_tier").iter_rows(named=True))


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
    _commit(ctx, spec, base, [*rows, opened])
    return opened


def flip(
    ctx: Context,
    spec: DatasetSpec,
    space: str,
    known: Sequence[Generation],
    chosen: Sequence[Generation],
    left: str = "retiring",
) -> tuple[str, ...]:
    """Make `chosen` the live generations of a space in one commit, and what was live `left`; the collections of these.

    CommitConflict if the space's generations are not those of `known` any more.
    """
    base = ctx.lake.ensure(tables.generations())
    rows = base.read(where=pc.field("dataset") == spec.id).to_dicts()
    mine = sorted(
        (row for row in rows if row["space"] == space), key=lambda row: (row["generation"], row["access_tier"])
    )
    if mine != list(known):
        raise CommitConflict(
            f"the generations of {spec.id} {space} changed meanwhile", remedy="look again, then repeat"
        )
    names = {one["collection"] for one in chosen}
    was_live = tuple(row["collection"] for row in rows if row["space"] == space and row["state"] == "live")
    for row in rows:
        if row["collection"] in names:
            row["state"] = "live"
        elif row["collection"] in was_live:
            row["state"] = left
    _commit(ctx, spec, base, rows)
    return was_live


def mark_dropped(ctx: Context, spec: DatasetSpec, space: str) -> None:
    """Let no rollback lead to what is retiring any more."""
    base = ctx.lake.ensure(tables.generations())
    rows = base.read(where=pc.field("dataset") == spec.id).to_dicts()
    retiring = [row for row in rows if row["space"] == space and row["state"] == "retiring"]
    for row in retiring:
        row["state"] = "dropped"
    if retiring:
        _commit(ctx, spec, base, rows)


def _commit(ctx: Context, spec: DatasetSpec, base: Snapshot, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=tables.GENERATIONS)
    facts = {"asset": "generations", "run_id": ctx.run_id}
    ctx.lake.replace(base, {"dataset": spec.id}, table.to_batches(), facts)
