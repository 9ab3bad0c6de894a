"""How many subjects are near a set of records, a cohort or a vector: counts by attribute, and nothing else.

No id, score or vector leaves. Counts below the source's minimum are hidden, and those that would tell them (small_cells).
Two questions that differ a little could still be subtracted; so, where a source has a minimum, the set that is asked with
has at least so many subjects, `top_k` goes in steps of the minimum and `min_score` in steps of SCORE_STEP.

Belongs here: this count. Does not belong here: scores (exact), suppression (small_cells), HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import AccessTier
from medvec_assets.query import small_cells
from medvec_assets.query.exact import scored
from medvec_assets.query.published import Grants, LiveSpace, dataset_of, live_spaces, require_visible, visible
from medvec_assets.query.rows import find_records, one_of, read
from resources import tables
from resources.errors import NotFound, QueryInvalid
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse, Snapshot

MAX_QUERIES = 1_000  # of a larger set so many are asked with, evenly by vector id
MAX_K = 1_000
MAX_PAIRS = 500_000_000  # scores computed for one answer, twice with top_k: 0.4 TFLOP at 384 dimensions
SCORE_STEP = 0.05
SETS = ("record_ids", "cohort", "vector")
_ROW = ["partition", "record_id", "subject_key", "cohort", "modality", "license", "attributes"]


@dataclass(frozen=True)
class NeighboursRequest:
    """One set (of SETS), and either `top_k` neighbours of each of its vectors or all from `min_score` on. `by`: as
    small_cells.counts."""

    dataset: str
    by: tuple[str, ...] = ("cohort",)
    space: str | None = None
    record_ids: tuple[str, ...] | None = field(default=None, repr=False)
    cohort: str | None = None
    vector: Sequence[float] | None = field(default=None, repr=False)
    top_k: int | None = None
    min_score: float | None = None


@dataclass(frozen=True)
class NeighbourCounts:
    """`counts`: rows of `by` and subjects, null where hidden. `queries`: vectors that were asked with."""

    dataset: str
    space: str
    by: tuple[str, ...]
    smallest_count: int
    queries: int
    delta_version: int
    counts: list[dict[str, str | int | None]]


def neighbour_counts(
    asked: NeighboursRequest, settings: Settings, lake: Lakehouse, grants: Grants = None
) -> NeighbourCounts:
    """Raises QueryInvalid for what may not be asked or costs too much, NotFound, PolicyRefused."""
    spec = dataset_of(asked.dataset, grants)
    require_visible(spec, settings)
    small_cells.require_countable(spec, asked.by)
    _require_coarse(asked, spec.smallest_count)
    live = _live(asked, live_spaces(settings, lake, grants))
    gold = lake.snapshot(tables.embeddings(spec.id, live.space))
    if gold is None:
        raise NotFound(f"{spec.id} has no vectors yet", remedy="materialize it first: medvec run")
    tiers = [str(tier) for tier in AccessTier if visible(spec, settings, tier)]
    where = (pc.field("space_version") == live.space_version) & one_of("access_tier", tiers)
    gone = read(lake, tables.suppression(), ["subject_key"])["subject_key"]
    own, queries = _queries(asked, gold, where, gone, spec.smallest_count)
    if gold.count(where) * len(queries) > MAX_PAIRS:
        raise QueryInvalid(
            f"{len(queries):,} vectors against all of {spec.id} are too many at once",
            remedy="ask with fewer records",
        )
    near = _near(asked, gold, where, queries, own, gone)
    # Only of records that are still there: gold may hold rows of a partition that is being made again.
    made_up = spec.is_synthetic(settings.sources)
    kept = find_records(lake, spec.id, near["record_id"], near["partition"], [], made_up=made_up)
    rows = small_cells.labelled(near.join(kept, on="record_id", how="semi"), asked.by)
    table = small_cells.tabulated(rows, asked.by, spec.smallest_count)
    return NeighbourCounts(
        spec.id, live.space, asked.by, spec.smallest_count, len(queries), gold.version, table.to_dicts()
    )


def _require_coarse(asked: NeighboursRequest, smallest: int) -> None:
    if sum(getattr(asked, name) is not None for name in SETS) != 1:
        raise QueryInvalid("one set is asked with", remedy=f"give exactly one of {', '.join(SETS)}")
    if (asked.top_k is None) == (asked.min_score is None):
        raise QueryInvalid("it is not said how near", remedy="give either top_k or min_score")
    if asked.top_k is not None and not 1 <= asked.top_k <= MAX_K:
        raise QueryInvalid(f"top_k is {asked.top_k}", remedy=f"give 1 to {MAX_K}")
    if smallest > 1:
        if asked.top_k is not None and asked.top_k % smallest:
            raise QueryInvalid("top_k would tell one subject from the next", remedy=f"give a multiple of {smallest}")
        steps = None if asked.min_score is None else asked.min_score / SCORE_STEP
        if steps is not None and abs(steps - round(steps)) > 1e-6:
            raise QueryInvalid("min_score would tell one subject from the next", remedy=f"give steps of {SCORE_STEP}")


def _live(asked: NeighboursRequest, every: Sequence[LiveSpace]) -> LiveSpace:
    found = [one for one in every if one.dataset == asked.dataset and asked.space in (None, one.space)]
    if not found:
        raise NotFound(f"{asked.dataset} has no such space that answers", remedy="see GET /v1/datasets")
    if len({one.space for one in found}) > 1:
        spaces = ", ".join(sorted({one.space for one in found}))
        raise QueryInvalid(f"{asked.dataset} has several spaces", remedy=f"name one of: {spaces}")
    return found[0]


def _queries(
    asked: NeighboursRequest, gold: Snapshot, where: pc.Expression, gone: pl.Series, smallest: int
) -> tuple[pl.Series, NDArray[np.float32]]:
    """The record ids that are the set, which are no neighbours of themselves, and float32 [q, dim] to ask with."""
    if asked.vector is not None:
        vector = np.asarray(asked.vector, np.float64)
        largest = np.abs(vector).max(initial=0.0)
        if not np.isfinite(largest) or largest == 0:
            raise QueryInvalid("the vector has no direction", remedy="give finite numbers, not all of them zero")
        unit = vector / largest / np.linalg.norm(vector / largest)
        return pl.Series([], dtype=pl.String), unit.astype(np.float32)[np.newaxis, :]
    inside = (
        one_of("record_id", asked.record_ids) if asked.record_ids is not None else pc.field("cohort") == asked.cohort
    )
    names = ["record_id", "subject_key", "vector_id"]
    members = gold.read(names, where & inside).filter(~pl.col("subject_key").is_in(gone.implode())).sort("vector_id")
    if members.is_empty():
        raise NotFound(f"{asked.dataset} has no such records", remedy="give record ids of hits, or a cohort of it")
    if members["subject_key"].n_unique() < smallest:
        raise QueryInvalid(
            f"the set has fewer subjects than may be counted ({smallest})", remedy="ask with more records, or a cohort"
        )
    step = -(-members.height // MAX_QUERIES)
    chosen = members["vector_id"].gather_every(step)
    vectors = gold.read(["vector"], where & inside & one_of("vector_id", chosen))["vector"]
    return members["record_id"].unique(), np.asarray(vectors.to_list(), np.float32)


def _near(
    asked: NeighboursRequest,
    gold: Snapshot,
    where: pc.Expression,
    queries: NDArray[np.float32],
    own: pl.Series,
    gone: pl.Series,
) -> pl.DataFrame:
    """Rows (_ROW) near at least one query, streamed. With top_k twice over: first how near the k-th of each query is."""
    fits = ~pl.col("record_id").is_in(own.implode()) & ~pl.col("subject_key").is_in(gone.implode())
    least = np.full(len(queries), asked.min_score if asked.min_score is not None else -np.inf, np.float32)
    if asked.top_k is not None:
        best = np.empty((0, len(queries)), np.float32)
        for rows, scores in scored(gold, ["record_id", "subject_key"], where, queries):
            best = np.concatenate([best, scores[rows.select(fits).to_series().to_numpy()]])
            if len(best) > asked.top_k:
                best = np.partition(best, len(best) - asked.top_k, axis=0)[-asked.top_k :]
        least = best.min(axis=0) if len(best) else least
    found = [pl.DataFrame(schema=dict.fromkeys(_ROW, pl.String()))]
    for rows, scores in scored(gold, _ROW, where, queries):
        near = pl.Series((scores >= least).any(axis=1))
        found.append(rows.filter(near & rows.select(fits).to_series()))
    return pl.concat(found)
