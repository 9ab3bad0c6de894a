"""Reads the first batch of a table of vectors and ends: `python -m tests.helpers.half_read ROOT`, of a folder or bucket."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec

DIM = 384
BLOCKS = TableSpec(
    "test/blocks",
    pa.schema(
        [pa.field("partition", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32()), nullable=False)]
    ),
    ("partition",),
)


def fill(lake: Lakehouse, partitions: int = 4, rows: int = 20_000) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(rows * DIM, np.float32), DIM).cast(pa.list_(pa.float32()))
    for number in range(partitions):
        block = pa.RecordBatch.from_arrays([pa.array([str(number)] * rows), vectors], schema=BLOCKS.schema)
        lake.replace(lake.ensure(BLOCKS), {"partition": str(number)}, [block], {})


def read_one_batch(root: str) -> None:
    snapshot = Lakehouse.open(Settings(lake_uri=root)).snapshot(BLOCKS)
    assert snapshot is not None
    for _ in snapshot.scan(batch_rows=8_192):
        break


if __name__ == "__main__":
    read_one_batch(sys.argv[1])
