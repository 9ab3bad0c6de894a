"""Exact neighbours in one version of a table of embeddings: streamed, one batch of vectors in memory, no index asked.

Belongs here: scores of many rows against few queries. Does not belong here: what may be asked, and shown (as_of, cohorts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from resources.errors import QueryInvalid
from resources.lakehouse import Snapshot

CONTENT = ("partition", "license", "access_tier", "content_digest", "part_kind", "part_index")
"""What makes rows one entity of the index (stages.entities): they have one vector and are one hit."""


def scored(
    gold: Snapshot, columns: Sequence[str], where: pc.Expression, queries: NDArray[np.float32]
) -> Iterator[tuple[pl.DataFrame, NDArray[np.float32]]]:
    """Batches of matching rows (`columns`), and their cosines with `queries` [q, dim]: float32 [rows, q].

    Raises QueryInvalid where the stored vectors have another dimension."""
    dim = queries.shape[1]
    for batch in gold.scan([*columns, "vector"], where):
        flat = batch["vector"].flatten().to_numpy()
        if flat.size != batch.num_rows * dim:
            raise QueryInvalid(
                f"the question has {dim} dimensions, and the vectors of {gold.spec.path} have another number",
                remedy="give a vector made by the space's encoder",
            )
        rows = pl.from_arrow(pa.table({name: batch[name] for name in columns}))
        assert isinstance(rows, pl.DataFrame)
        yield rows, flat.reshape(-1, dim) @ queries.T


def nearest_contents(gold: Snapshot, where: pc.Expression, query: NDArray[np.float32], limit: int) -> pl.DataFrame:
    """The `limit` distinct contents nearest to `query` [dim]: CONTENT and `score`, best first, ties by content."""
    kept = pl.DataFrame()
    least = -np.inf
    for rows, scores in scored(gold, CONTENT, where, query[np.newaxis, :]):
        own = rows.with_columns(pl.Series("score", scores[:, 0], pl.Float32))
        near = own.filter(pl.col("score") >= least)
        if near.is_empty():
            continue
        near = near.unique(CONTENT, keep="first")
        kept = (pl.concat([kept, near]) if kept.height else near).unique(CONTENT, keep="first")
        kept = kept.sort("score", *CONTENT, descending=[True, *[False] * len(CONTENT)]).head(limit)
        if kept.height == limit:
            least = float(kept["score"][-1])
    return kept
