"""The query service over HTTP against pymilvus asked directly: the same vectors, collection and settings, side by side.

    python -m bench.service [--entities N] [--queries N] [--clients N] [--workers N] [--server milvus|lite]

Both are asked the same question one after the other, in turns, so that what else the machine does falls on both. Vectors are
384-d in 500 clusters, written to the lake and the index as the stages would leave them, in partitions of 50,000; questions
are raw vectors near stored ones, so that no encoder is measured; `text_p50_ms` is of texts, with the real encoder.
pymilvus answers every scalar field, as the service asks for. The load's clients are threads of this process, and share the
cores with both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import world
from bench.sync import bare_client
from medvec_assets import fingerprints
from medvec_assets.query.search import SearchEngine, SearchRequest
from resources import encoders, tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec
from resources.vector_index import SCALAR_FIELDS, CollectionSpec, open_index, planned

DATASET, SPACE, COLLECTION, DIM, LIMIT = "tcia_catalog", "text", "tcia_catalog__text__open__g1", 384, 10
PARTITION_ROWS = 50_000
TEXTS = 100
START_SECONDS = 180.0
_EMPTY = {pa.string(): "-", pa.int64(): 0, pa.int32(): 0, pa.list_(pa.string()): []}


def measure(entities: int, queries: int, clients: int, workers: int, server: str) -> dict[str, Any]:
    with world.served(server) as (given, _), tempfile.TemporaryDirectory(prefix="medvec-bench-") as folder:
        settings = Settings(home=Path(folder), **given)
        asked = _fill(settings, entities, queries)
        with bare_client(settings) as client, _service(settings, workers) as port:
            params = planned(entities, DIM).search_params(LIMIT)

            def direct(number: int) -> None:
                client.search(
                    COLLECTION,
                    data=[asked[number]],
                    limit=LIMIT,
                    output_fields=list(SCALAR_FIELDS),
                    search_params={"params": params},
                    anns_field="vector",
                )

            with _asking(settings, port, asked) as service:
                report = _side_by_side(direct, service, queries, clients)
        report |= _kept(settings, asked[0])
    load = os.getloadavg()[0]
    return {
        "server": server,
        "workers": workers,
        "entities": entities,
        "queries": queries,
        **report,
        "load": round(load, 1),
    }


def _side_by_side(
    direct: Callable[[int], None], service: Callable[[int], dict[str, Any]], queries: int, clients: int
) -> dict[str, Any]:
    warm = queries // 4
    for number in range(warm):
        direct(number)
        service(number)
    took: dict[str, list[float]] = {"direct": [], "service": []}
    lake: list[float] = []
    for number in range(warm, queries // 2):
        began = time.perf_counter()
        direct(number)
        between = time.perf_counter()
        told = service(number)
        took["direct"].append(between - began)
        took["service"].append(time.perf_counter() - between)
        lake.append(told["explain"]["timings_ms"]["lake"])
    together: list[int] = []

    def coalesced(number: int) -> None:
        together.append(service(number)["explain"]["coalesced"])

    rates: dict[str, list[float]] = {"direct": [], "service": []}
    numbers = range(queries // 2, queries)
    for part in np.array_split(numbers, 4):
        for name, ask in (("direct", direct), ("service", coalesced)):
            with ThreadPoolExecutor(clients) as pool:
                began = time.perf_counter()
                list(pool.map(ask, part.tolist()))
                rates[name].append(len(part) / (time.perf_counter() - began))
    p50 = {name: float(np.median(found)) * 1_000 for name, found in took.items()}
    p95 = {name: float(np.percentile(found, 95)) * 1_000 for name, found in took.items()}
    rate = {name: float(np.median(found)) for name, found in rates.items()}
    words = [_timed(partial(service, number)) for number in range(-TEXTS, 0)]
    again = [_timed(lambda: service(0)) for _ in range(200)]
    return {
        "direct_p50_ms": round(p50["direct"], 2),
        "service_p50_ms": round(p50["service"], 2),
        "service_minus_direct_p50_ms": round(p50["service"] - p50["direct"], 2),
        "direct_p95_ms": round(p95["direct"], 2),
        "service_p95_ms": round(p95["service"], 2),
        "lake_p50_ms": round(float(np.median(lake)), 2),
        "clients": clients,
        "coalesced_mean": round(float(np.mean(together)), 1),
        "direct_per_second": round(rate["direct"], 1),
        "service_per_second": round(rate["service"], 1),
        "service_over_direct": round(rate["service"] / rate["direct"], 3),
        "text_p50_ms": round(float(np.median(words)) * 1_000, 2),
        "repeated_over_http_p50_ms": round(float(np.median(again)) * 1_000, 2),
    }


def _kept(settings: Settings, vector: Any) -> dict[str, float]:
    """A repeated question within a process."""
    request = SearchRequest(vector=vector.tolist(), datasets=(DATASET,))
    with open_index(settings) as index, closing(SearchEngine(settings, Lakehouse.open(settings), index)) as engine:
        engine.search(request)
        took = [_timed(lambda: engine.search(request)) for _ in range(500)]
    return {"repeated_in_process_p50_ms": round(float(np.median(took)) * 1_000, 3)}


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---------------------------------------------------------------- the service


@contextmanager
def _service(settings: Settings, workers: int) -> Iterator[int]:
    """The service in `workers` processes of its own, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")}
    environment |= {"MEDVEC_HOME": str(settings.home), "MEDVEC_API_PORT": str(port)}
    environment |= {"MEDVEC_API_WORKERS": str(workers)}
    environment |= {"MEDVEC_INDEX_URI": settings.index_uri} if settings.index_uri else {}
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service does not start: run `medvec doctor`")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def _asking(settings: Settings, port: int, asked: Any) -> Iterator[Callable[[int], dict[str, Any]]]:
    """Asks the question of a number, on one connection for each thread."""
    import threading

    key = (settings.home / "keys" / "api.key").read_text()
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    shared = {"datasets": [DATASET], "limit": LIMIT, "explain": True}
    bodies = [json.dumps(shared | {"vector": vector.tolist()}) for vector in asked]
    words = [json.dumps(shared | {"text": f"contrast enhanced CT of the liver, series {n}"}) for n in range(TEXTS)]
    bodies += words  # asked for by numbers from -TEXTS on
    local = threading.local()

    def answered(number: int) -> http.client.HTTPResponse:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        local.connection.request("POST", "/v1/search", bodies[number], headers)
        found: http.client.HTTPResponse = local.connection.getresponse()
        return found

    def ask(number: int) -> dict[str, Any]:
        try:
            answer = answered(number)
        except ConnectionError:  # the service closed it for being idle
            local.connection.close()
            answer = answered(number)
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200 or len(told["hits"]) != LIMIT:
            raise RuntimeError(f"the service answered {answer.status}")
        return told

    yield ask


# ---------------------------------------------------------------- the lake and the index


def _fill(settings: Settings, entities: int, queries: int) -> Any:
    """Silver, gold's receipts and the index, and vectors to ask with."""
    lake, random = Lakehouse.open(settings), np.random.default_rng(0)
    centres = random.standard_normal((500, DIM)).astype(np.float32)
    digest = encoders.card("minilm@1", settings).weights_digest

    def vectors(count: int) -> Any:
        found = centres[random.integers(500, size=count)] + 0.5 * random.standard_normal((count, DIM), np.float32)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    with open_index(settings) as index:
        spec = CollectionSpec(COLLECTION, DIM, "COSINE", planned(entities, DIM), {"medvec.weights_digest": digest})
        info = index.ensure(spec)
        for start in range(0, entities, PARTITION_ROWS):
            partition, count = f"bench.{start // PARTITION_ROWS:04b}", min(PARTITION_ROWS, entities - start)
            ids = [f"1.3.6.1.4.1.14519.5.2.1.{number:032d}" for number in range(start, start + count)]
            _append(lake, tables.records(DATASET), [_record(one, partition) for one in ids])
            index.write(COLLECTION, partition, _entities(ids, partition, vectors(count)), count, empty=True)
            plan = {"cohort": "bench", "partition": partition, "objects": count}
            _append(lake, tables.partitions(DATASET), [plan])
            receipt = {"dataset": DATASET, "collection": COLLECTION, "partition": partition, "entities": count}
            _append(lake, tables.index_receipts(), [receipt | {"collection_uuid": info.uuid}])
        index.settle(COLLECTION)
    live = {"dataset": DATASET, "space": SPACE, "access_tier": "open", "generation": 1, "state": "live"}
    _append(lake, tables.generations(), [live | {"space_version": "minilm@1", "collection": COLLECTION}])
    return vectors(queries)


def _append(lake: Lakehouse, table: TableSpec, rows: list[dict[str, Any]]) -> None:
    now = datetime.now(UTC)
    defaults = {f.name: None if f.nullable else _EMPTY.get(f.type, now) for f in table.schema}
    lake.append(table, pa.Table.from_pylist([defaults | row for row in rows], schema=table.schema), {})


def _record(record_id: str, partition: str) -> dict[str, Any]:
    key = fingerprints.input_digest("subject", record_id)
    uri = f"s3://idc-open-data/{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:32]}/*"
    told = {"record_id": record_id, "subject_key": f"k000000-{key[:32]}", "cohort": "bench", "partition": partition}
    return told | {"payload_uri": uri, "attributes": "{}", "deid_profile": "technical-1"}


def _entities(ids: list[str], partition: str, vectors: Any) -> Iterator[pa.RecordBatch]:
    attributes = json.dumps(
        {"modality": "CT", "body_part": "LIVER", "series_description": "ax t1 post", "instances": 64}
    )
    fixed = {"partition": partition, "cohort": "bench", "members": 1, "license": "CC BY 4.0", "modality": "CT"}
    fixed |= {"part_kind": "whole", "part_index": 0, "row_fingerprint": "0" * 32, "delta_version": 1}
    for start in range(0, len(ids), 8_192):
        part = ids[start : start + 8_192]
        columns: dict[str, Any] = {name: [value] * len(part) for name, value in fixed.items()}
        columns |= {"record_id": part, "entity_id": [fingerprints.input_digest("entity", one)[:32] for one in part]}
        columns |= {"attributes": [attributes] * len(part), "vector": list(vectors[start : start + 8_192])}
        yield pa.RecordBatch.from_pydict(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description="The query service against pymilvus")
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--server", choices=("lite", "milvus"), default="milvus")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.entities, options.queries, options.clients, options.workers, options.server)
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
