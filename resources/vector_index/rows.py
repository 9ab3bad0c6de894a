"""Arrow batches -> the rows pymilvus takes, in slices that fit one request.

Belongs here: validation of entity columns and their conversion. Does not belong here: sending them (milvus).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from resources.errors import IndexInvalid
from resources.vector_index.types import ENTITY_FIELDS, MAX_BYTES, SCALAR_FIELDS

MAX_REQUEST_BYTES = 8 << 20  # an eighth of the 64 MB a server accepts: replies and retries stay cheap
MAX_REQUEST_ROWS = 4096  # more gain nothing: measured on Lite and 2.3.5
ENTITY_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
        pa.field("partition", pa.string(), nullable=False),
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("members", pa.int64(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("part_kind", pa.string(), nullable=False),
        pa.field("part_index", pa.int64(), nullable=False),
        pa.field("row_fingerprint", pa.string(), nullable=False),
        pa.field("delta_version", pa.int64(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),  # one JSON object as text
    ]
)
_NULLABLE = pa.schema([field.with_nullable(True) for field in ENTITY_SCHEMA])  # nulls get an error of ours
_REMEDY = "mend what builds the index entities; nothing of this batch was written"


def slices(batch: pa.RecordBatch, partition: str, dim: int) -> Iterator[list[dict[str, Any]]]:
    """The batch as row dicts, at most MAX_REQUEST_ROWS rows and about MAX_REQUEST_BYTES each.

    Takes and refuses what `checked` does, before the first slice.
    """
    if batch.num_rows == 0 and set(ENTITY_FIELDS) <= set(batch.schema.names):
        return
    batch, vectors = checked(batch, partition, dim)
    row_bytes = max(1, -(-(batch.nbytes + vectors.nbytes) // batch.num_rows))
    rows = min(MAX_REQUEST_ROWS, max(1, MAX_REQUEST_BYTES // row_bytes))
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        columns = [part.column(name).to_pylist() for name in SCALAR_FIELDS]
        names = (*SCALAR_FIELDS, "vector")
        yield [dict(zip(names, row, strict=True)) for row in zip(*columns, vectors[start : start + rows], strict=True)]


def checked(batch: pa.RecordBatch, partition: str, dim: int) -> tuple[pa.RecordBatch, NDArray[np.float32]]:
    """The batch with ENTITY_SCHEMA's columns and types, and its vectors as float32 [rows, dim].

    `batch` has the columns of ENTITY_SCHEMA (others are left out); `vector` holds `dim` finite values per row.
    Raises IndexInvalid if a column is missing or of another kind, a value null or over-long, an id malformed, a row of
    another partition, or a vector bad.
    """
    missing = [name for name in ENTITY_FIELDS if name not in batch.schema.names]
    if missing:
        raise IndexInvalid(f"index entities of {partition} lack {', '.join(missing)}", remedy=_REMEDY)
    try:
        batch = batch.select(ENTITY_SCHEMA.names).cast(_NULLABLE)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # its words may quote a value
        raise IndexInvalid(f"index entities of {partition} are not of ENTITY_SCHEMA's types", remedy=_REMEDY) from None
    _check_scalars(batch, partition)
    return batch, _vectors(batch.column("vector"), partition, dim)


def _check_scalars(batch: pa.RecordBatch, partition: str) -> None:
    for name in SCALAR_FIELDS:
        column = batch.column(name)
        if column.null_count:
            raise IndexInvalid(f"index entities of {partition}: {name} has nulls", remedy=_REMEDY)
        longest = pc.max(pc.binary_length(column)).as_py() if name in MAX_BYTES else 0
        if longest > MAX_BYTES.get(name, 0):
            raise IndexInvalid(
                f"index entities of {partition}: a {name} has {longest} bytes, {MAX_BYTES[name]} are allowed",
                remedy=_REMEDY,
            )
    if not pc.all(pc.equal(batch.column("partition"), partition)).as_py():
        raise IndexInvalid(f"index entities of {partition}: a row belongs to another partition", remedy=_REMEDY)
    if not pc.all(pc.match_substring_regex(batch.column("entity_id"), "^[0-9a-f]{32}$")).as_py():
        raise IndexInvalid(
            f"index entities of {partition}: an entity_id is not 32 lower-case hex digits", remedy=_REMEDY
        )


def _vectors(column: pa.Array, partition: str, dim: int) -> NDArray[np.float32]:
    """float32 [rows, dim], without a copy where Arrow's buffer allows."""
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    widths = pc.list_value_length(column)
    if column.null_count or not pc.all(pc.equal(widths, dim)).as_py():
        raise IndexInvalid(f"index entities of {partition}: a vector has not {dim} dimensions", remedy=_REMEDY)
    if not np.isfinite(flat).all():
        raise IndexInvalid(f"index entities of {partition}: a vector is not finite", remedy=_REMEDY)
    vectors: NDArray[np.float32] = flat.reshape(-1, dim)
    return vectors
