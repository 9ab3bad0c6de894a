"""The partition plan: which shard of its cohort an object belongs to. Polars in, polars out; no I/O, no Dagster.

Belongs here: how cohorts are cut into leaves, which leaf an object falls in, and the digest that tells whether a
partition's content changed. Does not belong here: where the plan is kept (stages), what runs a partition (factory).

A partition is a *leaf* of its cohort's binary tree: `<cohort>` while it is whole, `<cohort>.<prefix>` once it was cut,
where prefix is the leading bits of H(subject). So one subject of a cohort is in one leaf, and a split moves a leaf's
rows to its two children and touches nothing else. A cohort's leaves always cover every bit string exactly once: a
complete prefix code. A plan only ever splits; merging would move rows for nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from medvec_assets.catalog.spec import Sharding
from resources.errors import ConfigError, IntegrityError, NotFound

MAX_BITS = 16  # 65,536 leaves of one cohort: far above the few thousand partitions a dataset should have
CONTENT_COLUMNS = (
    "object_id",
    "cohort",
    "uri",
    "size_bytes",
    "checksum",
    "checksum_kind",
    "media_type",
    "license",
    "access_tier",
    "subject_ref",
    "record_ref",
    "attributes",
    "removed_in_version",
)
"""What a partition's content is: not the release it came with, which moves for objects that did not change."""
CONTENT_VERSION = "content-2"
"""Names the definition in content_digests: another one moves every digest, and makes every manifest be listed again."""
_HASHERS = 4  # partitions hashed at a time: each has its text in memory, some 30 MB

_NAME = re.compile(rf"(?P<cohort>[A-Za-z0-9_-]+)(\.(?P<prefix>[01]{{1,{MAX_BITS}}}))?")


@dataclass(frozen=True, order=True)
class Partition:
    """One leaf: a cohort and the leading bits (characters 0 and 1, at most MAX_BITS) of its subjects' hashes."""

    cohort: str
    prefix: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(str(self)):
            raise ConfigError(
                f"{str(self)!r} is not a partition",
                remedy=f"name it <cohort> or <cohort>.<prefix>: cohort of A-Z a-z 0-9 _ -, prefix of 1-{MAX_BITS} bits",
                code="partition_name",
            )

    def __str__(self) -> str:
        return f"{self.cohort}.{self.prefix}" if self.prefix else self.cohort

    @classmethod
    def parse(cls, name: str) -> Partition:
        """The partition that `str()` writes as `name`. Raises ConfigError."""
        cohort, dot, prefix = name.partition(".")
        if dot and not prefix:  # "liver." would otherwise read as "liver"
            cohort = name
        return cls(cohort, prefix)

    @property
    def children(self) -> tuple[Partition, Partition]:
        return Partition(self.cohort, self.prefix + "0"), Partition(self.cohort, self.prefix + "1")


Leaves = tuple[Partition, ...]
"""The leaves of all cohorts of a dataset, sorted."""


@lru_cache(maxsize=1 << 18)  # planning and assigning ask for the same subjects
def subject_bits(source: str, subject_ref: str) -> str:
    """The first MAX_BITS bits of H(subject) as characters 0 and 1; `source` keeps sources' equal ids apart."""
    digest = hashlib.sha256(f"{source}\x1f{subject_ref}".encode()).digest()
    return f"{int.from_bytes(digest[:2], 'big'):016b}"


def plan(objects: pl.DataFrame, current: Iterable[Partition], sharding: Sharding, source: str) -> Leaves:
    """The leaves that hold `objects` (cohort, subject_ref, size_bytes), starting from those of the `current` plan.

    A new cohort begins as one leaf. A leaf above `sharding.max_objects` or `max_bytes` is split until it is not, down
    to MAX_BITS or to one subject, which is never divided. Leaves without objects stay. Raises IntegrityError where
    `current` is not a complete plan.
    """
    leaves = set(_complete(current))
    known = {leaf.cohort for leaf in leaves}
    leaves |= {Partition(cohort) for cohort in objects["cohort"].unique() if cohort not in known}
    subjects = _with_bits(
        objects.group_by("cohort", "subject_ref").agg(objects=pl.len(), size_bytes=pl.col("size_bytes").sum()), source
    )
    while too_big := _too_big(subjects, leaves, sharding):
        leaves -= too_big
        leaves |= {child for leaf in too_big for child in leaf.children}
    return tuple(sorted(leaves))


def split(leaves: Iterable[Partition], partition: Partition) -> Leaves:
    """`leaves` with `partition` cut in two, by hand. Raises NotFound, or ConfigError at MAX_BITS."""
    kept = set(leaves)
    if partition not in kept:
        raise NotFound(f"{partition} is not a partition of this dataset", remedy="list them with `medvec partitions`")
    if len(partition.prefix) == MAX_BITS:
        raise ConfigError(
            f"{partition} is cut to {MAX_BITS} bits already",
            remedy="leave it as it is; its cohort is as finely divided as a plan goes",
        )
    return tuple(sorted(kept - {partition} | set(partition.children)))


def assign(objects: pl.DataFrame, leaves: Iterable[Partition], source: str) -> pl.Series:
    """The partition (String, in the order of `objects`) of each row of `objects` (cohort, subject_ref).

    Raises NotFound where a cohort has no leaves (it was never planned), IntegrityError where the plan is not complete.
    """
    pairs = _with_bits(objects.select("cohort", "subject_ref").unique(), source)
    placed = _placed(pairs, _complete(leaves)).select("cohort", "subject_ref", "partition")
    assigned = objects.select("cohort", "subject_ref").join(
        placed, on=["cohort", "subject_ref"], how="left", maintain_order="left"
    )["partition"]
    if assigned.null_count():
        unplanned = objects.filter(assigned.is_null())["cohort"].unique().sort().to_list()
        raise NotFound(
            f"{len(unplanned)} cohorts have no partition, such as {unplanned[0]!r}",
            remedy="plan() the objects first: it gives every new cohort a leaf",
        )
    return assigned


def content_digests(manifest: pl.DataFrame) -> pl.DataFrame:
    """One row per partition of `manifest`, sorted: partition, objects, size_bytes, content_digest.

    The digest covers CONTENT_COLUMNS of every row, tombstones too, whatever their order (an object_id stands for one
    row); `objects` and `size_bytes` count what is still published. It is the SHA-256 of, for n rows by the bytes of
    their object_id: CONTENT_VERSION in ASCII; n; of each column n bytes, 1, or 0 where null; the n sizes; of each other
    column n lengths in bytes, then the UTF-8 of its texts one after another. Columns are in the order of
    CONTENT_COLUMNS, integers 8 bytes little endian; a null is 0 or the empty text.
    """
    ordered = manifest if manifest["partition"].is_sorted() else manifest.sort("partition", "object_id")
    names, slices, start = [], [], 0
    for rows, partition in ordered["partition"].rle().struct.unnest().iter_rows():
        names.append(partition)
        slices.append(ordered.slice(start, rows))
        start += rows
    # Hashing and polars leave the interpreter free: .9 s per million rows on two cores instead of 1.4.
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pl.Series(pool.map(_content_digest, slices), dtype=pl.String())
    published = pl.col("removed_in_version").is_null()
    counts = manifest.group_by("partition").agg(
        objects=published.sum().cast(pl.Int64), size_bytes=pl.col("size_bytes").filter(published).sum()
    )
    named = pl.DataFrame({"partition": pl.Series(names, dtype=pl.String()), "content_digest": digests})
    return counts.join(named, on="partition").sort("partition")


def utf8_columns(texts: pl.DataFrame) -> Iterator[tuple[NDArray[np.int64], memoryview]]:
    """Of each column of `texts` (String) the lengths of its values in bytes, int64 [rows], and their UTF-8 joined.

    A null is an empty text; without rows nothing is yielded. For whoever looks at every byte: .3 s per million rows of
    a manifest, where joining its fields to one text took 1.2.
    """
    layout = pa.schema([(name, pa.large_string()) for name in texts.columns])
    for batch in texts.select(pl.all().fill_null("")).to_arrow().cast(layout).combine_chunks().to_batches():
        for column in batch.columns:
            _, offsets, data = column.buffers()
            ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
            yield np.diff(ends), memoryview(data or b"")[ends[0] : ends[-1]]


def _content_digest(rows: pl.DataFrame) -> str:
    """What content_digests says of one partition's rows, of which there is at least one."""
    ordered = rows if rows["object_id"].is_sorted() else rows.sort("object_id")
    content = ordered.select(CONTENT_COLUMNS)
    digest = hashlib.sha256(CONTENT_VERSION.encode() + rows.height.to_bytes(8, "little"))
    for present in content.select(pl.all().is_not_null()).iter_columns():
        digest.update(present.to_numpy().tobytes())
    digest.update(content["size_bytes"].fill_null(0).to_numpy().astype("<i8").tobytes())
    for lengths, text in utf8_columns(content.drop("size_bytes")):
        digest.update(lengths.astype("<i8").tobytes())
        digest.update(text)
    return digest.hexdigest()


def _too_big(subjects: pl.DataFrame, leaves: Iterable[Partition], sharding: Sharding) -> set[Partition]:
    """Leaves over a limit that a further bit could relieve."""
    over = pl.col("objects") > sharding.max_objects
    if sharding.max_bytes is not None:
        over |= pl.col("size_bytes") > sharding.max_bytes
    sizes = (
        _placed(subjects, leaves)
        .group_by("partition")
        .agg(pl.col("objects").sum(), pl.col("size_bytes").sum(), subjects=pl.len())
        .filter(over, pl.col("subjects") > 1)
    )
    named = {Partition.parse(name) for name in sizes["partition"]}
    return {leaf for leaf in named if len(leaf.prefix) < MAX_BITS}


def _with_bits(subjects: pl.DataFrame, source: str) -> pl.DataFrame:
    """`subjects` with their `bits`; one of several cohorts is hashed once, by the cache of subject_bits."""
    bits = [subject_bits(source, subject) for subject in subjects["subject_ref"]]
    return subjects.with_columns(pl.Series("bits", bits, pl.String()))


def _placed(subjects: pl.DataFrame, leaves: Iterable[Partition]) -> pl.DataFrame:
    """`subjects` (cohort, bits, ...) with their `partition`, null where the cohort has no leaves.

    One join per prefix length in use: a row's leading bits of that length either name a leaf or do not.
    """
    by_length: dict[int, list[Partition]] = defaultdict(list)
    for leaf in leaves:
        by_length[len(leaf.prefix)].append(leaf)
    found = subjects.with_columns(partition=pl.lit(None, pl.String))
    for length, same_length in sorted(by_length.items()):
        names = pl.DataFrame(
            {
                "cohort": [leaf.cohort for leaf in same_length],
                "lead": [leaf.prefix for leaf in same_length],
                "name": [str(leaf) for leaf in same_length],
            },
            schema={"cohort": pl.String(), "lead": pl.String(), "name": pl.String()},
        )
        found = (
            found.with_columns(lead=pl.col("bits").str.slice(0, length))
            .join(names, on=["cohort", "lead"], how="left")
            .with_columns(pl.coalesce("partition", "name").alias("partition"))
            .drop("lead", "name")
        )
    return found


def _complete(leaves: Iterable[Partition]) -> Leaves:
    """`leaves`, if each cohort's cover every bit string exactly once; otherwise IntegrityError."""
    prefixes: dict[str, list[str]] = defaultdict(list)
    for leaf in sorted(leaves):
        prefixes[leaf.cohort].append(leaf.prefix)
    for cohort, ordered in prefixes.items():
        overlap = any(later.startswith(earlier) for earlier, later in pairwise(ordered))
        covered = sum(1 << (MAX_BITS - len(prefix)) for prefix in ordered)
        if overlap or covered != 1 << MAX_BITS:
            raise IntegrityError(
                f"the partition plan of cohort {cohort!r} does not cover each subject exactly once",
                remedy="restore the previous version of the dataset's bronze partitions table",
                code="partition_plan",
            )
    return tuple(Partition(cohort, prefix) for cohort, ordered in prefixes.items() for prefix in ordered)
