"""Tie-aware recall@10 of the index against exact search, on the vectors of an existing home (after `make run`).

    python -m bench.recall [--queries N] [--json]

Queries are stored vectors with a little noise, so that no query is its own answer. A hit counts if its score is at
least the k-th exact score less 1e-5: by id, ties would cost 4-6 points that no reader can see.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pyarrow.compute as pc

from medvec_assets.catalog import dataset
from medvec_assets.stages import entities, generations
from medvec_assets.stages.context import Context
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import open_index

K = 10
TIE = 1e-5


def measure(settings: Settings, dataset_id: str, space: str, queries: int) -> dict[str, Any]:
    """Recall over the whole live collection, and within the smallest and the largest cohort."""
    spec = dataset(dataset_id)
    with open_index(settings) as index:
        ctx = Context(settings, Lakehouse.open(settings), "bench", index=index)
        (live,) = [one for one in generations.of_space(ctx, spec, space) if one["state"] == "live"]
        gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
        assert gold is not None
        where = pc.field("space_version") == live["space_version"]
        matrices = {}
        for partition in sorted(gold.partition_values("partition")):
            held = entities.desired(spec, gold, live["space_version"], partition)
            frame = gold.read(["vector_id", "vector"], where & (pc.field("partition") == partition))
            kept = frame.join(held.select("vector_id"), on="vector_id")
            matrices[partition] = np.array(kept["vector"].to_list(), np.float32)
        everything = np.concatenate(list(matrices.values()))
        rng = np.random.default_rng(0)
        asked = everything[rng.choice(len(everything), queries, replace=False)]
        asked = asked + rng.normal(0, 0.01, asked.shape).astype(np.float32)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        ef = spec.spaces[space].ef_search
        sizes = sorted((len(matrix), name) for name, matrix in matrices.items() if len(matrix) >= K)
        scopes: dict[str, tuple[Any, list[str] | None]] = {"everything": (everything, None)}
        for label, (_, name) in (("smallest cohort", sizes[0]), ("largest cohort", sizes[-1])):
            scopes[f"{label} ({name})"] = (matrices[name], [name])
        recall = {}
        for label, (matrix, partitions) in scopes.items():
            found = index.search(live["collection"], asked, K, ef=ef, partitions=partitions)
            exact = np.sort(asked @ matrix.T, axis=1)[:, -K]
            right = [sum(hit.score >= floor - TIE for hit in hits) for hits, floor in zip(found, exact, strict=True)]
            recall[label] = round(float(np.mean(right)) / K, 4)
        return {"entities": len(everything), "queries": queries, "ef": ef, "recall@10": recall}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tie-aware recall of the index")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(Settings(), "tcia_catalog", "text", options.queries)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
