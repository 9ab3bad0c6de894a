"""The vectors stage against bare pymilvus: the same vectors, from gold or from memory, until they are indexed and loaded.

    python -m bench.sync [--server lite|milvus] [--entities N] [--rounds N] [--json]

Vectors are clustered around real catalogue descriptors' fingerprints, not encoded: what is measured is the sync. On a
Milvus server of the tests' own, a first fill by bulk import is also measured against a bare bulk import.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
from resources.settings import Settings
from resources.vector_index import Layout, lite_server, open_index

COLLECTION, BARE = "tcia_catalog__text__open__g1", "bare"


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


def measure(count: int, rounds: int, server: str) -> dict[str, Any]:
    """Seconds of a full sync, of the bare client, of a sync without change and of one with 1 % changed."""
    times: dict[str, list[float]] = defaultdict(list)
    with world.served(server) as (given, data):
        place = data / "bulk" if data else None
        if place is not None:
            place.mkdir()
        for _ in range(rounds):
            with world.home(count, distinct=True) as (settings, spec):
                settings = Settings(home=settings.home, sources=settings.sources, **given)
                _round(settings, spec, place, times)
    median = {name: statistics.median(found) for name, found in times.items()}
    report = {
        "server": server,
        "entities": count,
        "bare_per_second": round(count / median["bare"]),
        "sync_per_second": round(count / median["sync"]),
        "sync_over_bare": round(median["bare"] / median["sync"], 3),
        "no_change_over_full": round(median["no_change"] / median["sync"], 4),
        "one_percent_over_full": round(median["one_percent"] / median["sync"], 4),
    }
    if place is not None:
        report |= {
            "bare_import_per_second": round(count / median["bare_import"]),
            "import_per_second": round(count / median["import"]),
            "import_over_bare": round(median["bare_import"] / median["import"], 3),
        }
    return report


def _round(settings: Settings, spec: Any, place: Path | None, times: dict[str, list[float]]) -> None:
    with open_index(settings) as index:
        ctx = world.context(settings, index)
        card = encoders.card(spec.spaces["text"].encoder, settings)
        encoders.load = lambda ref, settings: Clustered(card)
        manifest.refresh(ctx, spec)
        records.build(ctx, spec, world.COHORT)
        embeddings.build(ctx, spec, "text", world.COHORT)
        rows, layout = _rows(ctx, spec), vectors.planned_layout(ctx, spec, "text", card.dim)
        with bare_client(settings) as client:
            times["bare"].append(filled(client, layout, partial(insert, client, rows, settings)))
            times["sync"].append(timed(lambda: vectors.build(ctx, spec, "text", world.COHORT)))
            if place is not None:
                index.drop(COLLECTION)
                times["bare_import"].append(filled(client, layout, partial(_import, client, rows, place)))
                with open_index(_importing(settings, place)) as importing:
                    again = world.context(settings, importing)
                    times["import"].append(timed(partial(vectors.build, again, spec, "text", world.COHORT)))
        times["no_change"].append(timed(lambda: vectors.build(ctx, spec, "text", world.COHORT)))
        _change_one_percent(ctx, spec)
        times["one_percent"].append(timed(lambda: vectors.build(ctx, spec, "text", world.COHORT)))
        index.drop(COLLECTION)


def _importing(settings: Settings, place: Path) -> Settings:
    return settings.model_copy(update={"index_bulk_uri": str(place), "index_bulk_rows": 1})


def timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rows(ctx: Any, spec: Any) -> pa.Table:
    """The entities of the collection, in memory."""
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, "text"))
    frame = entities.desired(spec, gold, spec.spaces["text"].version, world.COHORT)
    held = entities.Held(gold, spec.spaces["text"].version, world.COHORT, str(spec.access_tier), pl.DataFrame())
    return pa.Table.from_batches(entities.batches(held, frame))


@contextmanager
def bare_client(settings: Settings) -> Iterator[Any]:
    from pymilvus import MilvusClient

    if settings.index_uri:
        yield MilvusClient(settings.index_uri)
        return
    with lite_server(Path(settings.index)) as server:
        yield MilvusClient(server.uri)


def filled(client: Any, layout: Layout, fill: Callable[[], None]) -> float:
    """Seconds until a collection of pymilvus alone is made, filled, indexed and loaded."""
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
    params = client.prepare_index_params()
    params.add_index("vector", index_type=layout.index_type, metric_type="COSINE", params=layout.build_params)
    start = time.perf_counter()
    client.create_collection(BARE, schema=schema, num_shards=layout.shards, num_partitions=layout.num_partitions)
    fill()
    client.create_index(BARE, params)
    while int(client.describe_index(BARE, "vector")["pending_index_rows"]):
        time.sleep(0.2)
    client.load_collection(BARE)
    seconds = time.perf_counter() - start
    client.drop_collection(BARE)
    return seconds


def insert(client: Any, table: pa.Table, settings: Settings) -> None:
    """Upsert on Lite, which keeps no copies; insert on a server, whose upsert ignores the partition key."""
    write = client.insert if settings.index_uri else client.upsert
    for batch in table.to_batches(4096):
        rows = batch.to_pylist()
        for row in rows:
            row |= {"vector": np.asarray(row["vector"], np.float32), "attributes": json.loads(row["attributes"])}
        write(BARE, rows)
    client.flush(BARE)


def _import(client: Any, table: pa.Table, place: Path) -> None:
    import pyarrow.parquet as pq

    path = place / "bare.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False)
    handler = client._get_connection()
    task = handler.do_bulk_insert(BARE, "", [str(path)])
    while (state := handler.get_bulk_insert_state(task).state_name) != "Completed":
        assert not state.startswith("Failed")
        time.sleep(0.2)


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
    parser.add_argument("--server", choices=("lite", "milvus"), default="lite")
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.entities, options.rounds, options.server)
    print(json.dumps(result) if options.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
