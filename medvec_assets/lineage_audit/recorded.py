"""The rows that stand against those whose digest the audit recorded, and which rows they are that differ.

A digest tells that a partition differs, not where. The audit's row names the Delta version it was written for: while that
version is kept, the rows of both are compared and the changed ones named; after that the partition is.

Belongs here: manifest, records and embeddings against their chains. Does not belong here: the chains themselves
(resources.audit).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow.compute as pc

from medvec_assets import fingerprints, partitions
from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.query.rows import one_of
from medvec_assets.stages import embeddings, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import CHAIN as MANIFEST_CHAIN
from resources import tables
from resources.audit import ChainKey
from resources.errors import StorageError
from resources.lakehouse import Snapshot

MAX_OBJECTS = 250_000  # manifest rows in memory together
Heads = Mapping[ChainKey, Mapping[str, Any]]
# Who computed a vector, and when, is not in a digest: it may differ between equal rows.
_NOT_DIGESTED = frozenset({"run_id", "created_at", "vector"})


def manifest(ctx: Context, ledger: Ledger, heads: Heads, snapshot: Snapshot, plan: Snapshot) -> None:
    """The manifest against the plan's digest of each partition, and the plan against the audit."""
    head = heads.get(MANIFEST_CHAIN)
    if head is None:
        ledger.add("rows_recorded", ["manifest"], detail="the audit has no row of it")
        return
    planned = plan.read(["partition", "content_digest"])
    columns = ["partition", *partitions.CONTENT_COLUMNS]
    unplanned = ~one_of("partition", planned["partition"])
    pieces = [partitions.content_digests(_streamed(snapshot, columns, where)) for where in (*_groups(plan), unplanned)]
    stand = pl.concat(pieces)
    empty = fingerprints.input_digest("empty")
    both = planned.join(stand, on="partition", how="full", coalesce=True, suffix="_now")
    differ = both.filter(pl.col("content_digest").ne_missing(pl.col("content_digest_now").fill_null(empty)))
    for partition in differ["partition"].sort():
        where = pc.field("partition") == partition
        _name(ctx, ledger, snapshot, head, where, columns, "object_id", partition)
    lines = (f"{name}\x1f{digest}" for name, digest in planned.rows())
    if fingerprints.set_digest(lines) != head["output_digest"]:
        ledger.add("rows_recorded", [plan.spec.path], detail="the plan is not the one that was recorded")


def _groups(plan: Snapshot) -> Iterator[pc.Expression]:
    """The planned partitions, a bite at a time: a manifest of a million rows would be 1.5 GB at once."""
    names: list[str] = []
    objects = 0
    for name, more in plan.read(["partition", "objects"]).sort("partition").iter_rows():
        if names and objects + more > MAX_OBJECTS:
            yield one_of("partition", names)
            names, objects = [], 0
        names.append(name)
        objects += more
    yield one_of("partition", names)


def _streamed(snapshot: Snapshot, columns: list[str], where: pc.Expression) -> pl.DataFrame:
    """What `read` gives, with a third of its peak: that reads ahead whatever it is going to filter out."""
    frames = [pl.DataFrame(batch) for batch in snapshot.scan(columns, where)]
    return pl.concat(frames) if frames else snapshot.read(columns, pc.scalar(False))


def of_records(ctx: Context, ledger: Ledger, heads: Heads, snapshot: Snapshot, partition: str) -> None:
    columns = list(snapshot.spec.schema.names)
    _check(
        ctx,
        ledger,
        snapshot,
        heads.get(records.chain_of(partition)),
        lambda one: records.stored_digest(one, partition),
        pc.field("partition") == partition,
        columns,
        "record_id",
        partition,
    )


def of_embeddings(
    ctx: Context, ledger: Ledger, heads: Heads, snapshot: Snapshot, space: str, version: str, partition: str
) -> None:
    _check(
        ctx,
        ledger,
        snapshot,
        heads.get(embeddings.chain_of(space, version, partition)),
        lambda one: embeddings.stored_digest(one, version, partition),
        (pc.field("space_version") == version) & (pc.field("partition") == partition),
        [name for name in snapshot.spec.schema.names if name not in _NOT_DIGESTED],
        "vector_id",
        partition,
        space=space,
    )


def _check(
    ctx: Context,
    ledger: Ledger,
    snapshot: Snapshot,
    head: Mapping[str, Any] | None,
    digest: Callable[[Snapshot], str],
    where: pc.Expression,
    columns: list[str],
    key: str,
    partition: str,
    space: str = "-",
) -> None:
    if head is None:
        if snapshot.count(where):
            told = f"partition {partition} of {snapshot.spec.path}"
            ledger.add("rows_recorded", [told], space=space, partition=partition, detail="the audit has no row of it")
    elif digest(snapshot) != head["output_digest"]:
        _name(ctx, ledger, snapshot, head, where, columns, key, partition, space)


def _name(
    ctx: Context,
    ledger: Ledger,
    snapshot: Snapshot,
    head: Mapping[str, Any],
    where: pc.Expression,
    columns: list[str],
    key: str,
    partition: str,
    space: str = "-",
) -> None:
    """Put the rows that differ from the recorded version into the ledger, or the partition where that cannot be told."""
    told = f"version {snapshot.version} against {head['table_version']}, which was recorded"
    found: dict[str, str] = {}
    try:
        before = ctx.lake.snapshot(snapshot.spec, head["table_version"])
        assert before is not None
        rows = [_flat(one.read(columns, where)) for one in (before, snapshot)]
        for was, now in ((rows[0], rows[1]), (rows[1], rows[0])):
            lone = was.join(now, on=columns, how="anti", nulls_equal=True)
            for name in lone[key]:
                found[name] = "changed" if name in found else "missing" if was is rows[0] else "not recorded"
    except StorageError:  # vacuumed: the partition is all that can be named
        found = {}
    if not found:
        what = f"partition {partition} of {snapshot.spec.path}"
        ledger.add("rows_recorded", [what], space=space, partition=partition, detail=told)
    for name, how in sorted(found.items()):
        ledger.add("rows_recorded", [name], space=space, partition=partition, detail=f"{how}: {told}")


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    lists = [name for name, kind in rows.schema.items() if isinstance(kind, pl.List)]
    return rows.with_columns(pl.col(name).list.join("\x1f") for name in lists)


def chains(ctx: Context, ledger: Ledger, version: int | None = None) -> int:
    """The hash chains of the dataset's audit rows; how many rows there are."""
    for sentence in ctx.audit.broken_chains(ledger.dataset, version):
        name, _, detail = sentence.partition(": ")
        ledger.add("audit_chain", [name], detail=detail)
    snapshot = ctx.lake.snapshot(tables.materializations(), version)
    return snapshot.count(pc.field("dataset") == ledger.dataset) if snapshot is not None else 0
