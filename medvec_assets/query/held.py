"""What is shown of the records behind hits, held in memory partition by partition while the lake has them.

Belongs here: finding records by id in narrow columns; what must not be shown is not found. `subject_key` and `study` go
with a found record for the access log and the grouping of hits, and into no answer. Does not belong here: which hits there
are.

A query's hits lie anywhere in a dataset, and reading 10 rows of silver takes 30 ms: opening files, decoding columns. Of a
record 200 bytes are needed. They are kept for each partition as long as its data files are the same ones; file names
are never used twice, so what is held is what the newest version says. A partition that is not held yet is read for the
few rows that are asked for, and held from then on, in the background.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import STUDY, SYNTHETIC, DatasetSpec
from medvec_assets.query.facts import Moment
from medvec_assets.query.rows import one_of
from resources import tables
from resources.lakehouse import Snapshot

MAX_BYTES = 512 << 20  # about 2 million records
_COLUMNS = ("record_id", "subject_key", "source_uri", "deid_profile", "partition", "study")
_READ = ("record_id", "subject_key", "payload_uri", "object_ids", "deid_profile", "partition")


class Shown(NamedTuple):
    """Of a record that exists and may be shown."""

    subject_key: str
    source_uri: str  # as rows.source_uri has it
    deid_profile: str
    partition: str
    study: str | None


@dataclass
class _Block:
    """A partition's rows in the order of their ids' hashes."""

    files: frozenset[str]
    rows: pl.DataFrame
    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, files: frozenset[str], rows: pl.DataFrame) -> _Block:
        hashes = np.fromiter(map(_hash, rows["record_id"]), np.uint64, rows.height)
        order = np.argsort(hashes, kind="stable")
        return cls(files, rows[order].rechunk(), hashes[order])

    @property
    def size_bytes(self) -> int:
        return int(self.rows.estimated_size()) + self.hashes.nbytes

    def find(self, record_ids: list[str]) -> dict[str, Shown]:
        hashes = np.fromiter(map(_hash, record_ids), np.uint64, len(record_ids))
        places = np.searchsorted(self.hashes, hashes)  # of all at once: one by one takes twice as long
        found: dict[str, Shown] = {}
        for record_id, hashed, at in zip(record_ids, hashes.tolist(), places.tolist(), strict=True):
            while at < len(self.hashes) and self.hashes[at] == hashed:
                name, *told = self.rows.row(at)
                if name == record_id:
                    found[record_id] = Shown(*told)
                    break
                at += 1
        return found


@dataclass
class _Dataset:
    """Which files the partitions of a records table have at one version."""

    snapshot: Snapshot
    files: dict[str, frozenset[str]] = field(default_factory=dict)

    def of(self, partition: str) -> frozenset[str]:
        if partition not in self.files:
            self.files[partition] = frozenset(self.snapshot.file_paths({"partition": partition}))
        return self.files[partition]


class HeldRecords:
    """Safe between threads. `background=False` holds a partition before it answers."""

    def __init__(self, max_bytes: int = MAX_BYTES, *, background: bool = True) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._datasets: dict[str, _Dataset] = {}
        self._blocks: OrderedDict[tuple[str, str, bool], _Block] = OrderedDict()
        self._bytes = 0
        self._loader = ThreadPoolExecutor(1, "hold") if background else None
        self._loading: set[tuple[str, str, bool]] = set()

    def find(self, moment: Moment, spec: DatasetSpec, wanted: Mapping[str, str]) -> dict[str, Shown]:
        """Those of `wanted` (record id -> the partition it is expected in) that still exist, whose subject is not
        suppressed and whose partition's de-identification does not leak. A record that a split has moved since is looked for
        everywhere. Where the deployment reads the dataset's made-up sample, only those that say that they are made up."""
        snapshot = moment.snapshot(tables.records(spec.id))
        if snapshot is None or not wanted:
            return {}
        made_up = spec.is_synthetic(moment.facts.settings.sources)
        by_partition: dict[str, list[str]] = {}
        for record_id, partition in wanted.items():
            by_partition.setdefault(partition, []).append(record_id)
        found: dict[str, Shown] = {}
        cold: list[str] = []
        for partition, ids in by_partition.items():
            block = self._block(spec, partition, snapshot, made_up)
            if block is None:
                cold.append(partition)
            else:
                found |= block.find(ids)
        if cold:
            ids = [record_id for partition in cold for record_id in by_partition[partition]]
            found |= _by_id(_rows(spec, snapshot, one_of("partition", cold) & one_of("record_id", ids), made_up))
        if moved := wanted.keys() - found.keys():
            found |= _by_id(_rows(spec, snapshot, one_of("record_id", moved), made_up))
        gone = moment.suppressed()
        leaking = {one for one in {one.partition for one in found.values()} if moment.leaks(spec.id, one)}
        return {
            record_id: one
            for record_id, one in found.items()
            if one.subject_key not in gone and one.partition not in leaking
        }

    def close(self) -> None:
        if self._loader is not None:
            self._loader.shutdown(cancel_futures=True)

    def _block(self, spec: DatasetSpec, partition: str, snapshot: Snapshot, made_up: bool) -> _Block | None:
        key = (spec.id, partition, made_up)
        with self._lock:
            known = self._datasets.get(spec.id)
            if known is None or known.snapshot is not snapshot:
                known = self._datasets[spec.id] = _Dataset(snapshot)
            files = known.of(partition)
            block = self._blocks.get(key)
            if block is not None and block.files == files:
                self._blocks.move_to_end(key)
                return block
            if self._loader is not None:
                if key not in self._loading:
                    self._loading.add(key)
                    self._loader.submit(self._hold, spec, key, files, snapshot)
                return None
        return self._hold(spec, key, files, snapshot)

    def _hold(self, spec: DatasetSpec, key: tuple[str, str, bool], files: frozenset[str], snapshot: Snapshot) -> _Block:
        _, partition, made_up = key
        try:
            block = _Block.of(files, _rows(spec, snapshot, pc.field("partition") == partition, made_up))
            with self._lock:
                self._forget(key)
                if block.size_bytes <= self._max_bytes:
                    self._blocks[key] = block
                    self._bytes += block.size_bytes
                while self._bytes > self._max_bytes:
                    self._forget(next(iter(self._blocks)))
            return block
        finally:
            with self._lock:
                self._loading.discard(key)

    def _forget(self, key: tuple[str, str, bool]) -> None:
        if (block := self._blocks.pop(key, None)) is not None:
            self._bytes -= block.size_bytes


def _hash(record_id: str) -> int:
    """One id at a time: polars takes 0.2 ms for the few of a query, this 1 us each, and 50 ms for a partition's 50,000."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest())


def _rows(spec: DatasetSpec, snapshot: Snapshot, where: pc.Expression, made_up: bool) -> pl.DataFrame:
    rows = snapshot.read([*_READ, *(["attributes"] if made_up or spec.has_studies else [])], where)
    if made_up:
        rows = rows.filter(pl.col("attributes").str.json_path_match(f"$.{SYNTHETIC}") == "true")
    landed = pl.col("payload_uri").str.starts_with(tables.payloads(spec.id))
    uri = pl.when(landed).then("object:" + pl.col("object_ids").list.first()).otherwise("payload_uri")
    study = pl.col("attributes").str.json_path_match(f"$.{STUDY}") if spec.has_studies else pl.lit(None, pl.String)
    return rows.with_columns(source_uri=uri, study=study).select(_COLUMNS)


def _by_id(rows: pl.DataFrame) -> dict[str, Shown]:
    return {record_id: Shown(*told) for record_id, *told in reversed(rows.rows())}
