"""Gold against the index: every entity, and the floats of those that were chosen.

Belongs here: naming the vector behind each entity that differs. Does not belong here: healing (stages.vectors), counts of
a whole collection (stages.verify).
"""

from __future__ import annotations

import polars as pl

from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.stages import entities, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.embeddings import Target
from medvec_assets.stages.generations import Generation
from resources.lakehouse import Snapshot


def partition(
    ctx: Context,
    ledger: Ledger,
    aim: Target,
    gold: Snapshot,
    generation: Generation,
    name: str,
    chosen: pl.Series | None,
) -> tuple[int, int]:
    """One partition of one collection; how many entities it should hold, and of how many the floats were compared.

    `chosen`: only the floats of these vector ids are compared; None: all of them."""
    assert ctx.index is not None, "the index part of the audit needs a context with an index"
    collection, tier = generation["collection"], generation["access_tier"]
    where = {"space": aim.space, "partition": name}
    rows = entities.gold_rows(gold, aim.space_version, name).filter(pl.col("access_tier") == tier)
    desired = entities.of_rows(aim.spec, rows, name)
    if ctx.index.describe(collection) is None:
        ledger.add("entity_indexed", desired["vector_id"], **where, detail=f"{collection} is not in the index")
        return desired.height, 0
    actual = vectors.indexed_entities(ctx.index, collection, name)
    wanted = desired.select("entity_id", "vector_id", "row_fingerprint")
    held = pl.DataFrame(
        {"entity_id": list(actual), "held": list(actual.values())}, schema={"entity_id": pl.String, "held": pl.String}
    )
    both = wanted.join(held, on="entity_id", how="left")
    ledger.add("entity_indexed", both.filter(pl.col("held").is_null())["vector_id"], **where, detail=collection)
    differ = pl.col("held").is_not_null() & (pl.col("held") != pl.col("row_fingerprint"))
    ledger.add("entity_fields", both.filter(differ)["vector_id"], **where, detail=collection)
    extra = held.join(wanted, on="entity_id", how="anti")["entity_id"]
    ledger.add("entity_extra", extra, **where, detail=f"entity of {collection}")
    present = desired.join(held, on="entity_id", how="semi")
    if chosen is not None:
        present = present.filter(pl.col("vector_id").is_in(chosen.implode()))
    other = vectors.other_vectors(
        ctx.index, collection, entities.Held(gold, aim.space_version, name, tier, rows), present
    )
    wrong = present.filter(pl.col("entity_id").is_in(sorted(other)))["vector_id"]
    ledger.add("entity_vector", wrong, **where, detail=collection)
    return desired.height, present.height
