"""Names, filters, key ranges and Arrow conversion of the vector index: no server."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import IndexInvalid
from resources.vector_index import ENTITY_FIELDS, ENTITY_SCHEMA, CollectionSpec
from resources.vector_index.plan import planned
from resources.vector_index.rows import MAX_REQUEST_BYTES, MAX_REQUEST_ROWS, slices
from resources.vector_index.types import KeyRange, both, id_filter, key_ranges, partition_filter

HEX_ID = st.text("0123456789abcdef", min_size=32, max_size=32)


def entities(rows: int = 3, dim: int = 4, **columns: Any) -> pa.RecordBatch:
    data = {
        "entity_id": [f"{row:032x}" for row in range(rows)],
        "vector": pa.array([[float(row)] * dim for row in range(rows)], pa.list_(pa.float32())),
        "partition": ["p.0"] * rows,
        "cohort": ["p"] * rows,
        "record_id": [f"r{row}" for row in range(rows)],
        "members": [1] * rows,
        "license": ["CC BY 4.0"] * rows,
        "modality": ["CT"] * rows,
        "part_kind": ["whole"] * rows,
        "part_index": [0] * rows,
        "row_fingerprint": [f"{row:032x}" for row in range(rows)],
        "delta_version": [1] * rows,
        "attributes": ['{"body_part":"LIVER"}'] * rows,
    }
    return pa.RecordBatch.from_pydict(data | columns)


def test_importing_the_package_imports_no_pymilvus() -> None:
    code = "import sys, resources.vector_index; sys.exit('pymilvus' in sys.modules or 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("partition", ['a" or 1==1', "a b", "", "a\n", "ä", "a" * 256])
def test_a_partition_name_that_could_change_a_filter_is_refused(partition: str) -> None:
    with pytest.raises(IndexInvalid, match="cannot name a partition"):
        partition_filter("fine", partition)


@pytest.mark.parametrize("entity_id", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, '0" or entity_id != "'])
def test_an_id_that_is_not_hex_is_refused(entity_id: str) -> None:
    with pytest.raises(IndexInvalid, match="no entity id"):
        id_filter([entity_id])


def test_filters_read_as_milvus_expects() -> None:
    assert partition_filter("ct_lung.01") == 'partition == "ct_lung.01"'
    assert partition_filter("a", "b") == 'partition in ["a", "b"]'
    assert both("", 'x == "1"', "") == 'x == "1"'
    assert KeyRange().filter == ""
    assert [part.filter for part in KeyRange().split(2)] == [
        f'entity_id < "8{"0" * 31}"',
        f'entity_id >= "8{"0" * 31}"',
    ]


@given(HEX_ID | st.text(max_size=40), st.integers(0, 2_000_000), st.integers(1, 8))
def test_every_id_is_in_exactly_one_range_also_one_that_is_not_hex(entity_id: str, count: int, parts: int) -> None:
    first, *ranges = key_ranges(count, 16_384)
    matches = 0
    for part in [*ranges, *first.split(parts)]:
        bounds = dict(re.findall(r'entity_id (>=|<) "([0-9a-f]{32})"', part.filter))
        matches += (">=" not in bounds or entity_id >= bounds[">="]) and ("<" not in bounds or entity_id < bounds["<"])
    assert matches == 1


def test_ranges_are_as_many_as_keep_answers_under_the_limit() -> None:
    for count in (0, 8_000, 50_000, 1_000_000):
        ranges = len(key_ranges(count, 16_384))
        assert count / ranges <= 0.75 * 16_384
        assert ranges <= count / (0.7 * 16_384) + 1


def test_a_single_id_cannot_be_split() -> None:
    assert len(KeyRange(5, 7).split(16)) == 2
    with pytest.raises(IndexInvalid, match="drop the collection"):
        KeyRange(5, 6).split(2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a-b"}, "cannot name"),
        ({"metric": "L2"}, "similarity"),
        ({"properties": {"medvec.uuid": "x"}}, "itself"),
        ({"properties": {"medvec.ef_search": "1"}}, "itself"),
        ({"layout": planned(0, 4, index_type="DISKANN")}, "one of FLAT, HNSW"),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused(change: dict[str, Any], said: str) -> None:
    fine: dict[str, Any] = {
        "name": "d__text__open__g1",
        "dim": 4,
        "metric": "COSINE",
        "layout": planned(0, 4),
    }
    with pytest.raises(IndexInvalid, match=said):
        CollectionSpec(**(fine | change))


def test_rows_keep_every_field_and_the_vector() -> None:
    [rows] = slices(entities(), "p.0", 4)
    assert [set(row) for row in rows] == [set(ENTITY_FIELDS)] * 3
    assert rows[2]["record_id"] == "r2"
    assert rows[2]["vector"].dtype == np.float32
    assert rows[2]["vector"].tolist() == [2.0] * 4


def test_a_sliced_batch_keeps_its_own_vectors() -> None:
    [rows] = slices(entities().slice(1), "p.0", 4)
    assert [row["vector"][0] for row in rows] == [1.0, 2.0]


def test_slices_are_bounded_by_rows_and_by_bytes() -> None:
    assert [len(part) for part in slices(entities(MAX_REQUEST_ROWS + 1), "p.0", 4)] == [MAX_REQUEST_ROWS, 1]
    heavy = list(slices(entities(64, dim=1 << 16), "p.0", 1 << 16))
    assert sum(map(len, heavy)) == 64
    assert max(map(len, heavy)) * (1 << 16) * 4 <= MAX_REQUEST_BYTES


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"partition": ["p.0", "q", "p.0"]}, "another partition"),
        ({"entity_id": ["x"] * 3}, "entity_id"),
        ({"members": ["ä"] * 3}, "types"),
        ({"cohort": ["p", None, "p"]}, "cohort has nulls"),
        ({"record_id": ["r", "ä" * 128, "r"]}, "record_id has 256 bytes"),
        ({"vector": pa.array([[1.0] * 4, [1.0] * 3, [1.0] * 5], pa.list_(pa.float32()))}, "4 dimensions"),
        ({"vector": pa.array([[1.0] * 4, None, [1.0] * 4], pa.list_(pa.float32()))}, "4 dimensions"),
        ({"vector": pa.array([[1.0] * 4, [float("nan")] * 4, [1.0] * 4], pa.list_(pa.float32()))}, "not finite"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused_whole(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(IndexInvalid, match=said) as error:
        next(slices(entities(**columns), "p.0", 4))
    assert "ä" not in str(error.value)


def test_the_schema_names_the_fields() -> None:
    assert tuple(ENTITY_SCHEMA.names) == ENTITY_FIELDS


def test_columns_as_polars_hands_them_over_are_taken() -> None:
    batch = entities(cohort=pa.array(["p"] * 3, pa.large_string()), part_index=pa.array([0] * 3, pa.int32()))
    [rows] = slices(batch, "p.0", 4)
    assert rows[0]["cohort"] == "p"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(IndexInvalid, match="lack license"):
        next(slices(entities().drop_columns(["license"]), "p.0", 4))
