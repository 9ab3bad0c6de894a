"""What a vector index holds and answers, as plain data, and the rules of its names and filters.

Belongs here: collection and hit types, the entity's fields, safe filter strings, key ranges.
Does not belong here: pymilvus (milvus, connection), a server process (lite).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from resources.errors import IndexInvalid
from resources.vector_index.plan import INDEX_TYPES, Layout

ENTITY_FIELDS = (
    "entity_id",
    "vector",
    "partition",
    "cohort",
    "record_id",
    "members",
    "license",
    "modality",
    "part_kind",
    "part_index",
    "row_fingerprint",
    "delta_version",
    "attributes",
)
"""Every field of an entity: what `VectorIndex.write` expects as columns and `get` answers."""

SCALAR_FIELDS = tuple(name for name in ENTITY_FIELDS if name != "vector")

MAX_BYTES = {
    "entity_id": 64,
    "partition": 255,
    "cohort": 255,
    "record_id": 255,
    "license": 255,
    "modality": 64,
    "part_kind": 64,
    "row_fingerprint": 64,
}
"""The string fields and how long each may be, in UTF-8 bytes: Milvus counts bytes."""

RESERVED_PREFIX = "medvec.index."
UUID_KEY = "medvec.uuid"
METRIC_KEY = f"{RESERVED_PREFIX}metric"
INDEX_TYPE_KEY = f"{RESERVED_PREFIX}type"
NLIST_KEY = f"{RESERVED_PREFIX}nlist"
HNSW_M_KEY = f"{RESERVED_PREFIX}hnsw_m"
EF_CONSTRUCTION_KEY = f"{RESERVED_PREFIX}ef_construction"
# How widely to look is readers' business: shown among a collection's own properties.
EF_SEARCH_KEY = "medvec.ef_search"
NPROBE_KEY = "medvec.nprobe"

MAX_RESULT_ROWS = 16_384  # Milvus refuses a query or search that could answer more

_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_PARTITION = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_ENTITY_ID = re.compile(r"[0-9a-f]{32}")
_KEYS = 1 << 128  # an id is 32 hex digits


@dataclass(frozen=True)
class CollectionSpec:
    """A collection to be made: its name, vectors, layout and the facts that stand in its properties."""

    name: str
    dim: int
    metric: str  # COSINE or IP: a larger score is a better hit
    layout: Layout
    properties: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        collection_name(self.name)
        if self.metric not in ("COSINE", "IP"):
            raise IndexInvalid(
                f"collection {self.name}: metric {self.metric} is not a similarity", remedy="use COSINE or IP"
            )
        if self.layout.index_type not in INDEX_TYPES:
            raise IndexInvalid(
                f"collection {self.name}: no index of type {self.layout.index_type!r} is made",
                remedy=f"use one of {', '.join(INDEX_TYPES)}",
            )
        own = (UUID_KEY, EF_SEARCH_KEY, NPROBE_KEY)
        reserved = [key for key in self.properties if key in own or key.startswith(RESERVED_PREFIX)]
        if reserved:
            raise IndexInvalid(
                f"collection {self.name}: properties {', '.join(reserved)} are written by the index itself",
                remedy="leave them out of the spec",
            )


@dataclass(frozen=True)
class CollectionInfo:
    """A collection that exists. `uuid` names this very instance: dropped and made again, it is another one.

    `declared` is the layout it was made with, without its shards and partitions: how to search it.
    """

    name: str
    uuid: str
    dim: int
    properties: dict[str, str]
    declared: Layout


@dataclass(frozen=True)
class IndexHit:
    """One neighbour: the similarity (1 is identical for unit vectors) and every scalar field of the entity."""

    score: float
    entity: dict[str, Any]


@dataclass(frozen=True)
class KeyRange:
    """The entity ids from `low` to below `high`, as numbers of 128 bits; the outermost bounds are open.

    Parts cover their whole without a gap, also for ids that are not hex, so that a walk misses none.
    """

    low: int = 0
    high: int = _KEYS

    def split(self, parts: int) -> list[KeyRange]:
        """`parts` ranges of the same width, or fewer. Raises IndexInvalid if the range is a single id."""
        width = self.high - self.low
        if width <= 1:
            raise IndexInvalid(
                f"more entities than one answer holds have ids at {self.low:032x}",
                remedy="something other than medvec writes here: drop the collection and sync it again",
            )
        bounds = sorted({self.low + width * part // parts for part in range(parts + 1)})
        return [KeyRange(low, high) for low, high in pairwise(bounds)]

    @property
    def filter(self) -> str:
        low = [f'entity_id >= "{self.low:032x}"'] if self.low > 0 else []
        high = [f'entity_id < "{self.high:032x}"'] if self.high < _KEYS else []
        return " and ".join(low + high)


def key_ranges(entities: int, limit: int) -> list[KeyRange]:
    """Ranges that hold about three quarters of `limit` each, if `entities` uniformly distributed ids are in them."""
    return KeyRange().split(max(1, math.ceil(entities / (limit * 3 // 4))))


def collection_name(name: str) -> str:
    """`name` if it may name a collection or an alias; otherwise IndexInvalid."""
    if not _COLLECTION.fullmatch(name):
        raise IndexInvalid(
            f"{name!r} cannot name a collection", remedy="use letters, digits and underscores, no digit first"
        )
    return name


def partition_filter(*partitions: str) -> str:
    """The filter for entities of any of `partitions` (at least one). IndexInvalid if a name is not plain."""
    for partition in partitions:
        if not _PARTITION.fullmatch(partition):
            raise IndexInvalid(
                f"{partition!r} cannot name a partition", remedy="use letters, digits, '_', '.' and '-', at most 255"
            )
    if len(partitions) == 1:
        return f'partition == "{partitions[0]}"'
    return f"partition in [{_quoted(partitions)}]"


def id_filter(entity_ids: Sequence[str]) -> str:
    """The filter for these entities. IndexInvalid if an id is not 32 lower-case hex digits."""
    for entity_id in entity_ids:
        if not _ENTITY_ID.fullmatch(entity_id):
            raise IndexInvalid(f"{entity_id!r} is no entity id", remedy="entity ids are 32 lower-case hex digits")
    return f"entity_id in [{_quoted(entity_ids)}]"


def both(*filters: str) -> str:
    """All of the filters that are not empty."""
    return " and ".join(part for part in filters if part)


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """`items` in slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
