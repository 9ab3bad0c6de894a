"""Tie-aware recall@10 of the live collection of an existing home (after `make run`), at the settings medvec chose.

    python -m bench.recall [--queries N] [--json]

The measure is the product's own (stages.recall), the one that `medvec promote` refuses by.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from bench import world
from medvec_assets.catalog import dataset
from medvec_assets.stages import generations, recall
from resources import tables
from resources.settings import Settings
from resources.vector_index import open_index


def measure(settings: Settings, dataset_id: str, space: str, queries: int) -> list[dict[str, Any]]:
    """Recall over the whole live collection, and within the smallest and the largest cohort."""
    spec = dataset(dataset_id)
    with open_index(settings) as index:
        ctx = world.context(settings, index)
        (live,) = [one for one in generations.of_space(ctx, spec, space) if one["state"] == "live"]
        gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
        assert gold is not None  # it has a live generation
        return [asdict(one) for one in recall.measure(ctx, spec, live, gold, queries)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Tie-aware recall of the index")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(Settings(), "tcia_catalog", "text", options.queries)
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
