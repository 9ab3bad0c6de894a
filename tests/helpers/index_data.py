"""Entities for the tests of a real vector index: clustered vectors, ids as hashes are, and what a search of them finds."""

from __future__ import annotations

from itertools import count

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from resources.vector_index import ENTITY_SCHEMA, CollectionSpec, Layout, VectorIndex
from resources.vector_index.plan import IVF_FLAT

DIM = 32
LAYOUT = Layout(IVF_FLAT, shards=2, nlist=64, nprobe=16)
EVERYWHERE = {"nprobe": 64}  # exact search
_names = count()


def spec(dim: int = DIM, **properties: str) -> CollectionSpec:
    """A collection no other test uses."""
    return CollectionSpec(f"demo__text__open__g{next(_names)}", dim, "COSINE", LAYOUT, properties)


def clustered(rows: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around 20 centres: on unstructured ones recall means nothing."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, dim))
    vectors = centres[random.integers(0, 20, rows)] + 0.3 * random.normal(size=(rows, dim))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def entity_ids(partition: str, rows: int) -> list[str]:
    """Ids spread evenly over the key space, as hashes are, and different in every partition."""
    random = np.random.default_rng(list(partition.encode()))
    return [random.bytes(16).hex() for _ in range(rows)]


def batch(partition: str, vectors: NDArray[np.float32], fingerprint: str = "v1") -> pa.RecordBatch:
    rows = len(vectors)
    offsets = np.arange(rows + 1, dtype=np.int32) * vectors.shape[1]
    columns = {
        "entity_id": entity_ids(partition, rows),
        "vector": pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel())),
        "partition": [partition] * rows,
        "cohort": [partition.partition(".")[0]] * rows,
        "record_id": [f"{partition}/{row}" for row in range(rows)],
        "members": list(range(1, rows + 1)),
        "license": ["CC BY 4.0"] * rows,
        "modality": ["CT"] * rows,
        "part_kind": ["whole"] * rows,
        "part_index": [0] * rows,
        "row_fingerprint": [f"{fingerprint}-{row}" for row in range(rows)],
        "delta_version": [7] * rows,
        "attributes": ['{"body_part":"LIVER \\"left\\"","instances":12}'] * rows,
    }
    return pa.RecordBatch.from_pydict(columns, schema=ENTITY_SCHEMA)


def fingerprints(index: VectorIndex, name: str, partition: str) -> dict[str, str]:
    return {key: value for chunk in index.fingerprints(name, partition) for key, value in chunk.items()}


def recall(
    index: VectorIndex,
    name: str,
    queries: NDArray[np.float32],
    among: NDArray[np.float32],
    partitions: list[str] | None = None,
) -> float:
    """Tie-aware recall@10 against exact search `among`, of a collection of LAYOUT: a hit counts if it is no worse than the
    true tenth."""
    best = np.sort(queries @ among.T, axis=1)[:, ::-1]
    params = LAYOUT.search_params(10, len(among) / index.count(name))
    answer = index.search(name, queries, 10, params=params, partitions=partitions)
    assert partitions is None or {hit.entity["partition"] for hits in answer for hit in hits} <= set(partitions)
    assert [len({hit.entity["entity_id"] for hit in hits}) for hits in answer] == [10] * len(queries)
    return float(
        np.mean([[hit.score for hit in hits] >= floor - 1e-5 for hits, floor in zip(answer, best[:, 9], strict=True)])
    )


def new_alias() -> str:
    """An alias no other test uses."""
    return f"demo__text__alias{next(_names)}"
