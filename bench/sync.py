"""The vectors stage against bare pymilvus: the same vectors, from gold or from memory, until they are indexed and loaded.

    python -m bench.sync [--entities N] [--rounds N] [--json]

Vectors are clustered around real catalogue descriptors' fingerprints, not encoded: what is measured is the sync.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from bench import world
from medvec_assets.stages import embeddings, entities, manifest, records, vectors
from resources import encoders, tables
from resources.encoders import EncoderCard
from resources.vector_index import lite_server, open_index


class Clustered:
    """Stands in for the encoder: 384-d unit vectors around 500 centres, made from the text's own bytes."""

    def __init__(self, card: EncoderCard) -> None:
        self.card, self.precision, self.device = card, "fp32", "cpu"
        self._centres = np.random.default_rng(0).standard_normal((500, card.dim)).astype(np.float32)

    def encode(self, batch: Any) -> Any:
        seeds = [int.from_bytes(text.encode()[-8:].ljust(8), "big") for text in batch]
        noise = np.stack([np.random.default_rng(seed).standard_normal(self.card.dim) for seed in seeds])
        block = self._centres[[seed % 500 for seed in seeds]] + 0.5 * noise.astype(np.float32)
        return block / np.linalg.norm(block, axis=1, keepdims=True)


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Seconds of a full sync, of the bare client, of a sync without change and of one with 1 % changed."""
    times: dict[str, list[float]] = {"bare": [], "sync": [], "no_change": [], "one_percent": []}
    for _ in range(rounds):
        with world.home(count, distinct=True) as (settings, spec), open_index(settings) as index:
            ctx = world.context(settings, index)
            card = encoders.card(spec.spaces["text"].encoder, settings)
            encoders.load = lambda ref, settings, card=card: Clustered(card)  # type: ignore[assignment]
            manifest.refresh(ctx, spec)
            records.build(ctx, spec, world.COHORT)
            embeddings.build(ctx, spec, "text", world.COHORT)
            times["bare"].append(_bare(ctx, spec))
            times["sync"].append(_timed(lambda ctx=ctx, spec=spec: vectors.build(ctx, spec, "text", world.COHORT)))
            times["no_change"].append(_timed(lambda ctx=ctx, spec=spec: vectors.build(ctx, spec, "text", world.COHORT)))
            _change_one_percent(ctx, spec)
            times["one_percent"].append(
                _timed(lambda ctx=ctx, spec=spec: vectors.build(ctx, spec, "text", world.COHORT))
            )
    median = {name: statistics.median(found) for name, found in times.items()}
    return {
        "entities": count,
        "bare_per_second": round(count / median["bare"]),
        "sync_per_second": round(count / median["sync"]),
        "sync_over_bare": round(median["bare"] / median["sync"], 3),
        "no_change_over_full": round(median["no_change"] / median["sync"], 4),
        "one_percent_over_full": round(median["one_percent"] / median["sync"], 4),
    }


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare(ctx: Any, spec: Any) -> float:
    """The same entities from memory through pymilvus alone: upsert, flush, index, load."""
    from pymilvus import MilvusClient

    gold = ctx.lake.snapshot(tables.embeddings(spec.id, "text"))
    frame = entities.desired(spec, gold, spec.spaces["text"].version, world.COHORT)
    held = entities.Held(gold, spec.spaces["text"].version, world.COHORT, str(spec.access_tier), pl.DataFrame())
    batches = entities.batches(held, frame)
    rows = [
        row | {"vector": np.asarray(row["vector"], np.float32), "attributes": json.loads(row["attributes"])}
        for batch in batches
        for row in batch.to_pylist()
    ]
    with lite_server(Path(ctx.settings.index)) as server:
        return _fill(MilvusClient(server.uri), rows, spec.spaces["text"])


def _fill(client: Any, rows: list[dict[str, Any]], space: Any) -> float:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("entity_id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=384)
    schema.add_field("partition", DataType.VARCHAR, max_length=255, is_partition_key=True)
    for name in ("cohort", "record_id", "license", "modality", "part_kind", "row_fingerprint"):
        schema.add_field(name, DataType.VARCHAR, max_length=255)
    for name in ("members", "part_index", "delta_version"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("attributes", DataType.JSON)
    start = time.perf_counter()
    client.create_collection("bare", schema=schema)
    for first in range(0, len(rows), 4096):
        client.upsert("bare", rows[first : first + 4096])
    client.flush("bare")
    params = client.prepare_index_params()
    build = {"M": space.hnsw_m, "efConstruction": space.ef_construction}
    params.add_index("vector", index_type="HNSW", metric_type="COSINE", params=build)
    client.create_index("bare", params)
    client.load_collection("bare")
    seconds = time.perf_counter() - start
    client.drop_collection("bare")
    return seconds


def _change_one_percent(ctx: Any, spec: Any) -> None:
    """Rewrite gold so that every hundredth row has another attribute, as a changed normalisation would."""
    table = tables.embeddings(spec.id, "text")
    base = ctx.lake.snapshot(table)
    where = pc.field("partition") == world.COHORT
    changed = []
    for batch in base.scan(None, where):
        column = batch["attributes"].to_pylist()
        column[::100] = [json.dumps(json.loads(one) | {"instances": 424242}, sort_keys=True) for one in column[::100]]
        place = batch.schema.get_field_index("attributes")
        changed.append(batch.set_column(place, table.schema.field("attributes"), pa.array(column)))
    ctx.lake.replace(base, {"partition": world.COHORT}, changed, {"asset": "bench"})
    head = ctx.audit.latest(spec.id)[(embeddings.asset_name("text"), spec.spaces["text"].version, world.COHORT)]
    kept = {
        name: head[name]
        for name in head
        if name not in ("sequence", "previous_hash", "row_hash", "finished_at", "run_id")
    }
    kept |= {"table_version": base.version + 1, "output_digest": "changed"}
    ctx.record(**{name: value for name, value in kept.items() if name not in ("code_version", "image_digest")})


def main() -> None:
    parser = argparse.ArgumentParser(description="The vectors stage against bare pymilvus")
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.entities, options.rounds)
    print(json.dumps(result) if options.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
