"""How a collection is laid out for its size: write channels, index, build and search parameters. Pure.

Belongs here: the table, and how two layouts differ. Does not belong here: how many entities a collection will have
(stages.vectors), making it (schema).

Only FLAT and HNSW are planned: DISKANN's build never ends on 2.3.5, and IVF was not measured on any server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

FLAT, HNSW = "FLAT", "HNSW"
INDEX_TYPES = (FLAT, HNSW)
# Exact search of 10,000 x 384 takes 2-4 ms on one core, less than the rest of a request; nothing is built or missed.
FLAT_FLOATS = 4_000_000


@dataclass(frozen=True)
class Layout:
    """What is decided when a collection is made. `hnsw_m`, `ef_construction` and `ef_search` mean nothing to FLAT.

    `ef_search` is the beam at which recall@10 is at least .98, and .95 in every cohort: it may change later.
    """

    index_type: str
    shards: int
    hnsw_m: int
    ef_construction: int
    ef_search: int

    @property
    def build_params(self) -> dict[str, int]:
        return {"M": self.hnsw_m, "efConstruction": self.ef_construction} if self.index_type == HNSW else {}


# Up to so many entities. Measured to 1 M x 384 (docs/benchmarks.md): recall@10 at ef 64 is enough at 26k and .88 at
# 1 M; 128 gave .988 within one cohort of 26k, 256 .997; 256 gave .976 at 1 M with every duplicate in, which medvec
# indexes once. The rows below that are the usual advice, to be proved by `medvec verify --recall`.
# A shard is a write channel: two keep two cores busy, 16 is what a server accepts as shipped.
_TABLE: tuple[tuple[float, Layout], ...] = (
    (2_000_000, Layout(HNSW, 2, 16, 200, 256)),
    (20_000_000, Layout(HNSW, 4, 16, 200, 384)),
    (200_000_000, Layout(HNSW, 8, 24, 300, 512)),
    (float("inf"), Layout(HNSW, 16, 32, 400, 512)),
)


def planned(entities: int, dim: int, **given: Any) -> Layout:
    """The layout for a collection expected to hold `entities` vectors of `dim`; what is `given` and not None stands.

    `given` are fields of Layout: a spec's own choice.
    """
    found = next(layout for most, layout in _TABLE if entities <= most)
    if entities * dim <= FLAT_FLOATS:
        found = replace(found, index_type=FLAT, shards=1)
    return replace(found, **{name: value for name, value in given.items() if value is not None})


def differences(wanted: Layout, found: Layout) -> list[str]:
    """What of `found` is not as planned, as `shards 2, planned 4`. A shards number of 0 is one nobody can choose."""
    names = ["index_type", "shards", "ef_search"]
    if wanted.index_type == found.index_type == HNSW:
        names += ["hnsw_m", "ef_construction"]
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in names]
    return [
        f"{name} {have}, planned {want}" for name, have, want in pairs if have != want and (name, have) != ("shards", 0)
    ]
