"""Our scalar queries inside Milvus Lite against the engine's own answers, in process, over a random history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milvus_lite.db import MilvusLite
from milvus_lite.engine.collection import Collection
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema

from resources.vector_index import lite_queries

pytestmark = pytest.mark.integration

FILTERS = (
    'partition == "p1"',
    'partition in ["p0", "p2"]',
    'partition == "p1" and entity_id >= "1" and entity_id < "5"',
    'entity_id in ["10", "20", "absent"]',
    'partition == "nowhere"',
)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    fields = [
        FieldSchema("entity_id", DataType.VARCHAR, is_primary=True, max_length=64),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=4),
        FieldSchema("partition", DataType.VARCHAR, is_partition_key=True, max_length=64),
        FieldSchema("members", DataType.INT64),
        FieldSchema("attributes", DataType.JSON),
    ]
    with MilvusLite(str(tmp_path)) as database:
        yield database.create_collection("c", CollectionSchema(fields))


def agree(collection: Collection) -> int:
    """Compares all filters and projections; answers how many rows were compared."""
    compared = 0
    for expression in FILTERS:
        for fields, limit in ((["entity_id"], None), (["members", "partition"], 7), (["vector", "attributes"], None)):
            ours = lite_queries.query(collection, expression, output_fields=fields, limit=limit)
            theirs = Collection.query(collection, expression, output_fields=fields, limit=limit)
            assert ours == theirs
            compared += len(ours)
        assert lite_queries.count(collection, expression) == len(Collection.query(collection, expression))
    return compared


def test_the_answers_are_the_engines_own_at_every_point_of_a_history(collection: Collection) -> None:
    random = np.random.default_rng(3)

    def row(key: int) -> dict[str, Any]:
        # A key may come back in another partition: then the older one is dead, whatever segment holds it.
        partition = f"p{random.integers(0, 4)}"
        vector = random.normal(size=4).tolist()
        return {
            "entity_id": str(key),
            "vector": vector,
            "partition": partition,
            "members": key,
            "attributes": {"a": key},
        }

    compared = 0
    for step in range(12):
        keys = random.choice(60, size=12, replace=False).tolist()
        if step % 4 == 3:
            collection.delete([str(key) for key in keys])
        else:
            collection.upsert([row(key) for key in keys])
        compared += agree(collection)  # with rows in memory
        collection.flush()
        collection._wait_for_bg()  # a compaction between the two answers could change their order
        compared += agree(collection)
    assert compared > 500


def test_an_engine_query_without_filter_or_fields_is_left_to_the_engine(collection: Collection) -> None:
    rows = [
        {"entity_id": "1", "vector": [1.0, 0, 0, 0], "partition": "p1", "members": 1, "attributes": {}},
        {"entity_id": "2", "vector": [0, 1.0, 0, 0], "partition": "p2", "members": 2, "attributes": {}},
    ]
    collection.insert(rows)
    collection.flush()
    assert len(lite_queries.query(collection)) == 2
    ordered = lite_queries.query(collection, 'entity_id > "0"', ["members"], limit=1, order_by_pk=True)
    assert [entity["members"] for entity in ordered] == [1]
