"""The record of lineage: audit/materializations, append-only and hash-chained.

Belongs here: writing a materialization's facts, reading the latest ones, verifying chains (also those of resources.exports).
Does not belong here: deciding what is stale (stages), or Dagster's event log, which is operational.

There is one chain per dataset, asset, space version and partition, because one partition is one run: writers of
different partitions never wait for each other. Two runs of one partition at once show as a fork (two rows with the
same predecessor), which `broken_chains` tells apart from a changed or missing row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from resources import tables
from resources.lakehouse import Lakehouse

GENESIS = "0" * 64
ChainKey = tuple[str, str, str]
"""(asset, space_version, partition); space_version is "-" where an asset has none."""


@dataclass(frozen=True)
class Materialization:
    """What one run did to one partition of one asset. Digests are of content, never of code."""

    dataset: str
    asset: str
    partition: str
    table_path: str
    table_version: int
    run_id: str
    input_digest: str
    output_digest: str
    upstream_version: str = "-"
    space_version: str = "-"
    encoder: str = "-"
    weights_digest: str = "-"
    deid_profile: str = "-"
    code_version: str = "-"
    image_digest: str = "-"
    rows_in: int = 0
    rows_out: int = 0
    rows_computed: int = 0
    rows_skipped: int = 0
    rows_quarantined: int = 0
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def chain(self) -> ChainKey:
        return (self.asset, self.space_version, self.partition)


class Audit:
    """Reads and extends the chains of one lake. Keeps the heads it has read until the table moves on."""

    def __init__(self, lake: Lakehouse) -> None:
        self._lake = lake
        self._heads: dict[str, dict[ChainKey, dict[str, Any]]] = {}
        self._version = -1

    def latest(self, dataset: str) -> dict[ChainKey, dict[str, Any]]:
        """The newest row of every chain of `dataset`, as columns of audit/materializations."""
        snapshot = self._lake.snapshot(tables.materializations())
        if snapshot is None:
            return {}
        if snapshot.version != self._version:
            self._heads.clear()
            self._version = snapshot.version
        if dataset not in self._heads:
            # Of two forked rows written in the same microsecond the same one stays the head when files are merged.
            rows = snapshot.read(where=pc.field("dataset") == dataset).sort("sequence", "finished_at", "row_hash")
            self._heads[dataset] = {_chain(row): row for row in rows.iter_rows(named=True)}
        return self._heads[dataset]

    def record(self, done: Materialization) -> None:
        """Append one materialization to its chain."""
        heads = self.latest(done.dataset)
        head = heads.get(done.chain)
        row = asdict(done) | {
            "sequence": head["sequence"] + 1 if head else 0,
            "previous_hash": head["row_hash"] if head else GENESIS,
        }
        row["row_hash"] = row_hash(row)
        table = pa.Table.from_pylist([row], schema=tables.MATERIALIZATIONS)
        commit = self._lake.append(tables.materializations(), table, {"asset": done.asset, "run_id": done.run_id})
        if commit.version == self._version + 1 and done.dataset in self._heads:  # nobody else wrote in between
            self._heads[done.dataset][done.chain] = row
            self._version = commit.version

    def broken_chains(self, dataset: str, version: int | None = None) -> list[str]:
        """Every changed, missing or forked row, in words. Empty means the record stands (at `version`, or now)."""
        snapshot = self._lake.snapshot(tables.materializations(), version)
        if snapshot is None:
            return []
        rows = snapshot.read(where=pc.field("dataset") == dataset)
        return list(faults(rows, tables.MATERIALIZATIONS, _chain))


def row_hash(row: dict[str, Any], schema: pa.Schema = tables.MATERIALIZATIONS) -> str:
    """SHA-256 over every column but `row_hash` itself, in the order of `schema`."""
    fields = [_canonical(row[name]) for name in schema.names if name != "row_hash"]
    return hashlib.sha256("\x1f".join(fields).encode()).hexdigest()


def _canonical(value: Any) -> str:
    # Delta keeps microseconds in UTC whatever zone the writer was in.
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else str(value)


def _chain(row: dict[str, Any]) -> ChainKey:
    return (row["asset"], row["space_version"], row["partition"])


def faults(
    rows: pl.DataFrame, schema: pa.Schema, chain_of: Callable[[dict[str, Any]], tuple[str, ...]]
) -> Iterable[str]:
    """Every changed, missing or forked row of the chains in `rows`, in words."""
    chains: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows.sort("sequence").iter_rows(named=True):
        chains.setdefault(chain_of(row), []).append(row)
    for chain, links in chains.items():
        name = "/".join(chain)
        hashes = {GENESIS} | {link["row_hash"] for link in links}
        predecessors: set[str] = set()
        for link in links:
            if row_hash(link, schema) != link["row_hash"]:
                yield f"{name} row {link['sequence']}: the row was changed after it was written"
            if link["previous_hash"] not in hashes:
                yield f"{name} row {link['sequence']}: its predecessor is missing"
            if link["previous_hash"] in predecessors:
                yield f"{name} row {link['sequence']}: forked (two runs of this partition at once)"
            predecessors.add(link["previous_hash"])
