"""Tables sorted anew so that a stay's or a person's rows are found: shards by subject, then each part's bytes in a row.

Belongs here: two passes over tables of any size in bounded memory, the parts' index, reading one part.
Does not belong here: which tables and columns (mimic_tables, omop), where they come from, what a row means (modalities).

    pass 1, once for each table's checksum    rows.arrow: record batches, each of one shard; shards.json: whose they are
    pass 2, once for each set of tables       group-N: parts.bin, index.parquet (part, subject, offset, size_bytes, sha256)

A shard is the first 8 bits of a hash of the subject's number; a group is one shard or several, about GROUP_ROWS rows. Both
are landed by content, so a killed run goes on with the table, then with the group, in which it was. A part's bytes are its
rows as JSON objects (keys sorted, no nulls), one a line, lines sorted: the order of rows in a table changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from medvec_assets.connectors.landing import Landing
from resources.errors import ObjectRejected, SourceError

SHARDS = 256
GROUP_ROWS = 500_000  # rows of all tables that are sorted at a time: some 200 MB
BUFFER_BYTES = 16 << 20  # of rows that wait to be written by shard, by polars' own estimate: some 400,000
MAX_LOST_SHARE = 0.5  # of a table's rows; above it its columns have moved, and no row is what it seems
MIN_JUDGED_ROWS = 20  # fewer may be lost for another reason
_GOLDEN = 0x9E3779B97F4A7C15  # Fibonacci hashing: the same for ever, unlike a library's own hash
_ROWS, _SHARDS_FILE, _BYTES, _INDEX = "rows.arrow", "shards.json", "parts.bin", "index.parquet"
_LINES = pl.Schema({"part": pl.Int64(), "subject": pl.Int64(), "line": pl.String()})


@dataclass(frozen=True)
class ShardedTable:
    """A table after pass 1, in its landed folder."""

    folder: Path

    @cached_property
    def _facts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = json.loads((self.folder / _SHARDS_FILE).read_text())
        return found

    @property
    def rows(self) -> int:
        return self._facts["rows"][0]

    @property
    def left_out(self) -> int:
        """Rows that had no place in any shard: no number where the subject's should be, or another number of fields."""
        return self._facts["left_out"][0]

    def of(self, shards: range) -> pl.DataFrame:
        """The rows of these shards, in the table's order within each."""
        with pa.memory_map(str(self.folder / _ROWS)) as source:
            opened = pa.ipc.open_file(source)
            batches = [opened.get_batch(i) for i, shard in enumerate(self._facts["batches"]) if shard in shards]
            frame = pl.from_arrow(pa.Table.from_batches(batches, opened.schema), rechunk=True)
        assert isinstance(frame, pl.DataFrame)
        return frame


def require_rows_kept(name: str, kept: int, lost: int) -> None:
    """SourceError `schema_drift` if most rows of the table called `name` belong to nobody who is listed."""
    if kept + lost >= MIN_JUDGED_ROWS and lost > MAX_LOST_SHARE * (kept + lost):
        raise SourceError(
            f"of table {name} {lost} rows name no subject, stay or person that this release lists; {kept} do",
            code="schema_drift",
            remedy="its columns have moved, or it is of another release: fetch or export it again; nothing was committed",
        )


def shard_table(landing: Landing, name: str, key: str, frames: Callable[[], Iterator[pl.DataFrame]]) -> ShardedTable:
    """Pass 1: the table called `name` (its checksum stands in it), by the number in column `key`. `frames()` gives its
    rows, columns of String, and one frame at least."""
    return ShardedTable(landing.made(name, lambda folder: _write_shards(folder, key, frames())))


def _write_shards(folder: Path, key: str, frames: Iterator[pl.DataFrame]) -> None:
    folder.mkdir()
    shards: list[int] = []
    rows = left_out = 0
    writer: pa.ipc.RecordBatchFileWriter | None = None
    with pa.OSFile(str(folder / _ROWS), "wb") as sink:
        for frame in _buffered(frames):
            if writer is None:
                schema = pa.schema([(name, pa.large_string()) for name in frame.columns])
                writer = pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
            for shard, piece in _by_shard(frame, key):
                if shard is None:
                    left_out += piece.height
                    continue
                rows += piece.height
                batches = piece.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks().to_batches()
                for batch in batches:
                    writer.write_batch(batch)
                shards += [shard] * len(batches)
            del frame  # before the next is read
        assert writer is not None  # `frames` gives one frame at least, if without rows
        writer.close()
    facts = {"rows": [rows], "left_out": [left_out], "batches": shards}
    (folder / _SHARDS_FILE).write_text(json.dumps(facts))


def _by_shard(frame: pl.DataFrame, key: str) -> Iterator[tuple[int | None, pl.DataFrame]]:
    """The rows of each shard, in their order; None: of no number."""
    ordered = frame.with_columns(_shard=_shard_of(frame[key])).sort("_shard", maintain_order=True)
    start = 0
    for rows, shard in ordered["_shard"].rle().struct.unnest().iter_rows():
        yield shard, ordered.slice(start, rows).drop("_shard")
        start += rows


def _buffered(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    held: list[pl.DataFrame] = []
    size = 0
    for frame in frames:
        held.append(frame)
        size += int(frame.estimated_size())
        if size >= BUFFER_BYTES:
            joined, held, size = pl.concat(held), [], 0
            yield joined
            del joined
    if held:
        yield pl.concat(held)


def _shard_of(subjects: pl.Series) -> pl.Series:
    """UInt8, null where the field is no whole number."""
    numbers = subjects.cast(pl.Int64, strict=False)
    hashed = numbers.fill_null(0).to_numpy().astype(np.uint64) * np.uint64(_GOLDEN) >> np.uint64(56)
    found = pl.Series("_shard", hashed.astype(np.uint8))
    return pl.select(pl.when(numbers.is_not_null()).then(found)).to_series()


# ---------------------------------------------------------------- parts


class Parts:
    """The parts of one set of tables after pass 2. Safe to share between threads."""

    def __init__(
        self, landing: Landing, name: str, tables: Iterable[ShardedTable], lines: Callable[[range], pl.DataFrame]
    ) -> None:
        """`lines(shards)` gives every row of the parts in these shards: Int64 part and subject, String line. `name` says
        what decides them: the tables' checksums and the version of `lines`."""
        self._landing, self._name, self._lines = landing, name, lines
        rows = sum(table.rows for table in tables)
        groups = 1 << min(8, max(0, (max(0, rows - 1) // GROUP_ROWS).bit_length()))
        self._step = SHARDS // groups
        self._opened: dict[int, _Group] = {}
        self._opening = Lock()

    def indexes(self) -> Iterator[pl.DataFrame]:
        """A frame for each group: part, subject, size_bytes (Int64), sha256 (String)."""
        for first in range(0, SHARDS, self._step):
            yield pl.read_parquet(self._folder(first) / _INDEX, columns=["part", "subject", "size_bytes", "sha256"])

    def read(self, part: int, subject: int, max_bytes: int) -> bytes:
        """One part's bytes. ObjectRejected `object_missing`, or `object_too_large` before any is read."""
        shard = (subject * _GOLDEN & 0xFFFFFFFFFFFFFFFF) >> 56
        return self._group(shard // self._step * self._step).read(part, max_bytes)

    def _group(self, first: int) -> _Group:
        with self._opening:
            if first not in self._opened:
                self._opened[first] = _Group(self._folder(first))
            return self._opened[first]

    def _folder(self, first: int) -> Path:
        shards = range(first, first + self._step)
        return self._landing.made(
            f"{self._name}-{first}+{self._step}", lambda folder: _write_group(folder, self._lines(shards))
        )


class _Group:
    """24 bytes a part are held in memory: 13 MB for all stays of MIMIC-IV."""

    def __init__(self, folder: Path) -> None:
        index = pl.read_parquet(folder / _INDEX, columns=["part", "offset", "size_bytes"]).sort("part")
        self._parts: NDArray[np.int64] = index["part"].to_numpy()
        self._offsets: NDArray[np.int64] = index["offset"].to_numpy()
        self._sizes: NDArray[np.int64] = index["size_bytes"].to_numpy()
        self._file = (folder / _BYTES).open("rb", buffering=0)

    def read(self, part: int, max_bytes: int) -> bytes:
        at = int(np.searchsorted(self._parts, part))
        if at == len(self._parts) or self._parts[at] != part:
            remedy = "refresh the manifest: the source has removed it, or another release is read now"
            raise ObjectRejected("the tables hold no such part", code="object_missing", remedy=remedy)
        size = int(self._sizes[at])
        if size > max_bytes:
            raise ObjectRejected(
                f"a part has {size} bytes, more than the {max_bytes} allowed",
                code="object_too_large",
                remedy="ask the source whether so many rows are of one stay or person",
            )
        return os.pread(self._file.fileno(), size, int(self._offsets[at]))


def _write_group(folder: Path, lines: pl.DataFrame) -> None:
    folder.mkdir()
    joined = (
        lines.select(_LINES.names())
        .cast(_LINES)
        .sort("part", "line")
        .group_by("part", maintain_order=True)
        .agg(pl.col("subject").first(), text=pl.col("line").str.join("\n") + "\n")
    )
    digests, sizes = [], []
    with (folder / _BYTES).open("wb") as file:
        for text in joined["text"]:
            data = text.encode()
            digests.append(hashlib.sha256(data).hexdigest())
            sizes.append(file.write(data))
    ends = np.cumsum(np.array(sizes, np.int64))
    joined.select(
        "part",
        "subject",
        pl.Series("offset", ends - np.array(sizes, np.int64), pl.Int64()),
        pl.Series("size_bytes", sizes, pl.Int64()),
        pl.Series("sha256", digests, pl.String()),
    ).write_parquet(folder / _INDEX)


def listed(
    index: pl.DataFrame,
    ids: Sequence[str],
    uris: Sequence[str],
    *,
    cohort: str,
    license: str,
    tier: str,
    media_type: str,
    release: str,
) -> pl.DataFrame:
    """LISTING of the parts of `index` (`Parts.index`), each a record and an object of its own, called `ids`.

    Let `uris` name no release: a part that did not change stays as it is listed.
    """
    names = pl.Series(ids, dtype=pl.String())
    return index.select(
        names.alias("object_id"),
        pl.lit(cohort).alias("cohort"),
        pl.Series("uri", uris, pl.String()),
        "size_bytes",
        pl.col("sha256").alias("checksum"),
        pl.lit("sha256").alias("checksum_kind"),
        pl.lit(media_type).alias("media_type"),
        pl.lit(license).alias("license"),
        pl.lit(tier).alias("access_tier"),
        pl.col("subject").cast(pl.String).alias("subject_ref"),
        names.alias("record_ref"),
        pl.lit(release).alias("upstream_version"),
        pl.lit(release).alias("first_seen_version"),
        pl.lit(None, pl.String).alias("removed_in_version"),
        pl.lit("{}").alias("attributes"),
    )


def digest(*fields: str) -> str:
    """What a landed table or a set of them is called by."""
    return hashlib.sha256("\x1f".join(fields).encode()).hexdigest()[:32]
