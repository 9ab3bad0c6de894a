"""What the lake says that every question needs: worked out from a table once, and again when a commit follows.

Belongs here: live spaces, suppression, the state of collections, plans, upstream versions. Does not belong here: rows of
single records (held), or a decision on a question (query.search).

A `Moment` is one request's view: of each table one snapshot, looked up when first asked for. So a request is answered
from one state, each table costs it one look for a newer commit, and nothing older than its beginning is ever told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import polars as pl
import pyarrow.compute as pc

from medvec_assets.query.published import Grants, LiveSpace, declared_spaces, granted_spaces, live_rows
from medvec_assets.query.rows import read_of
from medvec_assets.scorer.verdicts import Verdicts
from resources import tables
from resources.settings import Settings
from resources.tables import TableSpec

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse, Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class Reconciled:
    """The state of a collection, as its receipts tell: `stamp` moves with every sync that changed it."""

    stamp: str
    delta_version: int


# Looked at by every question, at once.
_OF_ALL = (
    tables.generations,
    tables.suppression,
    tables.deid_scores,
    tables.index_receipts,
    tables.materializations,
)
NEVER = Reconciled("never", 0)


class Facts:
    """Of one lake. Safe between threads."""

    def __init__(self, settings: Settings, lake: Lakehouse) -> None:
        self.settings = settings
        self.lake = lake
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[Snapshot | None, object]] = {}
        # In a bucket a look for newer commits is a request of 10 ms and more: they are made side by side.
        self._pool = ThreadPoolExecutor(8, "lake") if lake.root.startswith("s3://") else None

    def kept(self, name: Hashable, snapshot: Snapshot | None, make: Callable[[], T]) -> T:
        """What `make` gives, kept under `name` while `snapshot` is the table's newest."""
        with self._lock:
            found = self._kept.get(name)
        if found is not None and found[0] is snapshot:
            return cast(T, found[1])
        value = make()
        with self._lock:
            self._kept[name] = (snapshot, value)
        return value

    def forget(self, name: Hashable) -> None:
        with self._lock:
            self._kept.pop(name, None)

    def snapshots(self, specs: Sequence[TableSpec]) -> list[Snapshot | None]:
        return list((self._pool.map if self._pool else map)(self.lake.snapshot, specs))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@dataclass
class Moment:
    """One request's view of the lake."""

    facts: Facts
    _seen: dict[str, Snapshot | None] = field(default_factory=dict)
    _upstream: dict[str, dict[str, str]] = field(default_factory=dict)

    def look(self, *specs: TableSpec) -> None:
        """Fix the snapshots of these tables, those that are not fixed yet."""
        missing = [spec for spec in specs if spec.path not in self._seen]
        if not missing:
            return
        self._seen |= dict(zip((spec.path for spec in missing), self.facts.snapshots(missing), strict=True))

    def snapshot(self, spec: TableSpec) -> Snapshot | None:
        if spec.path not in self._seen:
            self.look(spec)
        return self._seen[spec.path]

    def live(self, grants: Grants) -> list[LiveSpace]:
        """Every visible, granted live space, in the order of (dataset, space, tier)."""
        self.look(*(table() for table in _OF_ALL))
        table = tables.generations()
        snapshot = self.snapshot(table)
        spaces = self.facts.kept(table.path, snapshot, lambda: declared_spaces(live_rows(snapshot)))
        return granted_spaces(spaces, self.facts.settings, grants)

    def suppressed(self) -> frozenset[str]:
        table = tables.suppression()
        snapshot = self.snapshot(table)
        return self.facts.kept(
            table.path, snapshot, lambda: frozenset(read_of(snapshot, table, ["subject_key"])["subject_key"])
        )

    def leaks(self, dataset: str, partition: str) -> bool:
        """Whether the partition's newest de-identification score says that identifiers came through."""
        table = tables.deid_scores()
        made = self.facts.kept((table.path, dataset), self.snapshot(table), lambda: Verdicts(self.facts.lake, dataset))
        return made.leaks(partition)

    def reconciled(self, collection: str) -> Reconciled:
        table = tables.index_receipts()
        snapshot = self.snapshot(table)
        return self.facts.kept(table.path, snapshot, lambda: _reconciled(snapshot)).get(collection, NEVER)

    def plan(self, dataset: str) -> pl.DataFrame:
        """The dataset's partitions: columns cohort, partition, objects."""
        table = tables.partitions(dataset)
        snapshot = self.snapshot(table)
        columns = ["cohort", "partition", "objects"]
        return self.facts.kept(table.path, snapshot, lambda: read_of(snapshot, table, columns))

    def upstream_version(self, dataset: str, partition: str) -> str:
        """The release of the source that the partition's records were made of; empty if nothing tells."""
        if dataset not in self._upstream:  # asked for each hit
            table = tables.materializations()
            snapshot = self.snapshot(table)
            made = self.facts.kept((table.path, dataset), snapshot, lambda: _upstream_versions(snapshot, dataset))
            self._upstream[dataset] = made
        return self._upstream[dataset].get(partition, "")

    def state(self, live: Sequence[LiveSpace]) -> str:
        """Equal while the collections of `live` and what they hold are; the same in every process."""
        told = ((one.collection, str(one.generation), self.reconciled(one.collection).stamp) for one in live)
        return "\x1f".join(field for one in told for field in one)

    def versions(self, datasets: Sequence[str]) -> str:
        """Equal while nothing of the lake changed that decides whether a found record of `datasets` may be shown."""
        specs = [tables.generations(), tables.suppression(), tables.deid_scores()]
        specs += [table(name) for name in datasets for table in (tables.records, tables.partitions)]
        self.look(*specs)
        # Versions begin again where a table is deleted and made anew: the object differs then.
        held = [self._seen[spec.path] for spec in specs]
        return ",".join("-" if one is None else f"{one.version}.{one.opened}" for one in held)


def _reconciled(snapshot: Snapshot | None) -> dict[str, Reconciled]:
    rows = read_of(snapshot, tables.index_receipts(), ["collection", "delta_version", "reconciled_at"])
    newest = rows.group_by("collection").agg(pl.len(), pl.max("reconciled_at"), pl.max("delta_version"))
    return {
        name: Reconciled(f"{count} {at.timestamp()} {version}", version) for name, count, at, version in newest.rows()
    }


def _upstream_versions(snapshot: Snapshot | None, dataset: str) -> dict[str, str]:
    where = (pc.field("dataset") == dataset) & (pc.field("asset") == "records")
    rows = read_of(snapshot, tables.materializations(), ["partition", "sequence", "upstream_version"], where)
    newest = rows.sort("sequence", maintain_order=True).unique("partition", keep="last", maintain_order=True)
    return dict(newest.select("partition", "upstream_version").rows())
