"""How a collection is laid out for its size: write channels, index, build and search parameters. Pure.

Belongs here: the table, how widely a search looks, and how two layouts differ. Does not belong here: how many entities a
collection will have (stages.vectors), making it (schema).

IVF_FLAT is planned, and HNSW made where a spec asks for it: HNSW loses copies of one vector, which a cohort of many
partitions has (ADR 0011). DISKANN's build never ends on 2.3.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

FLAT, HNSW, IVF_FLAT = "FLAT", "HNSW", "IVF_FLAT"
INDEX_TYPES = (FLAT, HNSW, IVF_FLAT)
# Exact search of 10,000 x 384 takes 2-4 ms on one core, less than the rest of a request; nothing is built or missed.
FLAT_FLOATS = 4_000_000
FEW_HITS = 100  # so many of the best neighbours lie in the lists that are near; more reach farther


@dataclass(frozen=True)
class Layout:
    """What is decided when a collection is made; of `nlist` and what begins with `hnsw` or `ef` only what is its type's
    matters. `nprobe` and `ef_search`, which say how widely to look, may change later.

    A server spreads the values of the partition key over `num_partitions`, has at least one segment for each of them
    and shard, and builds one index for each segment (1 GB at most): `nlist` is of a segment, and made smaller for a
    small one.
    """

    index_type: str
    shards: int
    nlist: int
    nprobe: int
    num_partitions: int = 4
    hnsw_m: int = 16
    ef_construction: int = 200
    ef_search: int = 256

    @property
    def build_params(self) -> dict[str, int]:
        return {
            FLAT: {},
            HNSW: {"M": self.hnsw_m, "efConstruction": self.ef_construction},
            IVF_FLAT: {"nlist": self.nlist},
        }[self.index_type]

    def search_params(self, limit: int, share: float = 1.0) -> dict[str, int]:
        """How widely to look for `limit` hits among that `share` (0 to 1) of the entities to which a filter restricts it.

        IVF_FLAT compares only what the filter leaves of the lists it opens, and what is nearest of a part may lie in lists
        that are far: by the square of the share recall holds, and a question of a third of the entities or less is exact.
        HNSW's beam must be as wide as the answer.
        """
        if self.index_type == HNSW:
            return {"ef": max(self.ef_search, limit)}
        if self.index_type == IVF_FLAT:
            wanted = self.nprobe * max(1.0, limit / FEW_HITS) / max(share, 1e-9) ** 2
            return {"nprobe": math.ceil(min(self.nlist, wanted))}
        return {}


# Up to so many entities. Measured to 1 M x 384 (docs/benchmarks.md); the rows below that follow from it, as a segment
# does not grow with its collection, and are to be proved by `medvec verify --recall`.
# A shard is a write channel: two keep two cores busy, 16 is what a server accepts as shipped. 2.3.5 builds about one index
# of a segment a second and searches each by itself: 217,002 entities in its own 64 partitions took 140 s to settle and
# 48 ms for the widest question, however little was compared.
_TABLE: tuple[tuple[float, Layout], ...] = (
    (250_000, Layout(IVF_FLAT, 2, 256, 32)),
    (2_000_000, Layout(IVF_FLAT, 2, 1_024, 128)),
    (20_000_000, Layout(IVF_FLAT, 4, 1_024, 128, num_partitions=16)),
    (200_000_000, Layout(IVF_FLAT, 8, 1_024, 128, num_partitions=64)),
    (float("inf"), Layout(IVF_FLAT, 16, 1_024, 128, num_partitions=64)),
)


def planned(entities: int, dim: int, **given: Any) -> Layout:
    """The layout for a collection expected to hold `entities` vectors of `dim`; what is `given` and not None stands.

    `given` are fields of Layout: a spec's own choice.
    """
    found = next(layout for most, layout in _TABLE if entities <= most)
    if entities * dim <= FLAT_FLOATS:
        found = replace(found, index_type=FLAT, shards=1)
    return replace(found, **{name: value for name, value in given.items() if value is not None})


_MATTER = {FLAT: (), HNSW: ("ef_search", "hnsw_m", "ef_construction"), IVF_FLAT: ("nprobe", "nlist")}


def differences(wanted: Layout, found: Layout) -> list[str]:
    """What of `found` is not as planned, as `shards 2, planned 4`. Shards or partitions of 0 are what nobody can choose."""
    names = ["index_type", "shards", "num_partitions"]
    if wanted.index_type == found.index_type:
        names += _MATTER[wanted.index_type]
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in names]
    chosen = [pair for pair in pairs if pair[:2] not in (("shards", 0), ("num_partitions", 0))]
    return [f"{name} {have}, planned {want}" for name, have, want in chosen if have != want]
