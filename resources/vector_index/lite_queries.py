"""Scalar queries inside the Milvus Lite server process, without turning every row's vector into Python floats.

Belongs here: the one engine function that reconcile leans on, and why it is replaced. Does not belong here: the server
process (lite_process), what the client asks (milvus).

Milvus Lite 3.2.2 answers a query by copying all vectors, and by making a dict of all fields, vector included, of each
row that fits: 6-12 thousand rows/s at 384 dimensions, so that reading back keys and fingerprints took longer than the
rest of a sync. Here only the columns asked for are touched. The rule of which row is live is the engine's own:
the highest sequence number of a key, unless a later tombstone names it. `tests/integration/test_lite_queries.py` holds
both answers against each other; whatever does not fit (vectors, JSON, unflushed rows, cursors) goes the engine's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from milvus_lite.engine.collection import Collection
from milvus_lite.schema.types import DataType
from milvus_lite.search.indexed_filter import evaluate_segment_filter

_PLAIN = (DataType.VARCHAR, DataType.INT64)


def query(
    collection: Collection,
    expr: str | None = None,
    output_fields: list[str] | None = None,
    limit: int | None = None,
    **others: Any,
) -> list[dict[str, Any]]:
    """What `Collection.query` answers, in the same order. Only while no write runs: the server process sees to that."""
    plain = {field.name for field in collection.schema.fields if field.dtype in _PLAIN}
    fits = expr and plain.issuperset(output_fields or ["*"]) and not any(others.values())
    if not fits or output_fields is None or collection._memtable.size():
        answer: list[dict[str, Any]] = Collection.query(
            collection, expr, output_fields=output_fields, limit=limit, **others
        )
        return answer
    columns = list(dict.fromkeys([*output_fields, collection.pk_field]))
    found: list[dict[str, Any]] = []
    for segment, live in _live(collection, str(expr)):
        found.extend(segment.table.select(columns).take(live).to_pylist())
        if limit is not None and len(found) >= limit:
            break
    return found[:limit]


def count(collection: Collection, expr: str) -> int:
    """How many rows fit. The engine's own count(*) with a filter makes a dict of each, vector included."""
    if collection._memtable.size():
        return len(Collection.query(collection, expr, output_fields=[collection.pk_field]))
    return sum(len(live) for _, live in _live(collection, expr))


def _live(collection: Collection, expr: str) -> Iterator[tuple[Any, list[int]]]:
    """Of each segment that has any, the numbers of its live rows that fit."""
    collection._require_loaded()
    compiled = collection._compile_filter(expr)
    plan = collection._indexed_filter_plan(compiled)
    segments, tombstones = collection._read_snapshot()
    for segment in segments:
        fitting = np.flatnonzero(evaluate_segment_filter(segment, compiled, plan)).tolist() if segment.num_rows else []
        live = [row for row in fitting if _is_live(segment, row, segments, tombstones)]
        if live:
            yield segment, live


def _is_live(segment: Any, row: int, segments: tuple[Any, ...], tombstones: Any) -> bool:
    key, sequence = segment.pks[row], segment.seqs[row]
    for other in segments:
        at = other.pk_to_row.get(key)
        if at is not None and other.seqs[at] > sequence:
            return False
    return not tombstones.is_deleted(key, int(sequence))
