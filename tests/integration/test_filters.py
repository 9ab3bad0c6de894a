"""Conditions on Milvus 2.3.5 and Milvus Lite: what a server finds is what they mean, whatever a value holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from helpers.query_world import fits

from resources.vector_index import ENTITY_SCHEMA, CollectionSpec, Condition, VectorIndex, planned

pytestmark = pytest.mark.integration

NAME, DIM = "filters__text__open__g1", 4
HOSTILE = [
    "CHEST",
    'a "quoted" one',
    "it's",
    "back\\slash",
    "\\",
    '"',
    '\\"',
    '" or true or "',
    '") or (attributes["secret"] == "',
    "'; drop",
    "a' or 'a' == 'a",
    "{json}",
    "%like_",
    "\\u0041",
    "\\x41\\101",
    "zażółć 脳 🧠",
    "\u2028\u202e",
    "true",
    "7",
    " ",
    "x" * 255,
]
NUMBERS = [7, -7, 0, 1.5, -0.25, 1e-07, 1e15, 2**53 + 1]


def _entities() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"body_part": value} for value in [*HOSTILE, *NUMBERS]]
    rows += [{"synthetic": True}, {"synthetic": False}]  # beside numbers in one attribute, Lite takes true for 1
    rows += [{"findings": ["edema", "it's"]}, {"findings": [7, "fracture"]}, {"findings": []}, {}]
    return [
        {
            "entity_id": f"{number:032x}",
            "vector": [1.0, float(number % 7), 0.0, 0.0],
            "partition": f"part.{number % 2}",
            "cohort": "c",
            "record_id": f"r{number}",
            "members": 1,
            "license": ["CC BY 4.0", 'a "licence"'][number % 2],
            "modality": ["CT", "MR", "it's"][number % 3],
            "part_kind": "whole",
            "part_index": 0,
            "row_fingerprint": "f",
            "delta_version": 1,
            "attributes": json.dumps(attributes),
        }
        for number, attributes in enumerate(rows)
    ]


CONDITIONS = [
    *(Condition("body_part", "==", (value,)) for value in [*HOSTILE, *NUMBERS, "absent"]),
    Condition("body_part", "==", ("CHEST", '"', 7)),
    *(Condition("body_part", op, (bound,)) for op in (">=", "<=", ">", "<") for bound in (0, 1.5, -7)),
    *(Condition("findings", "contains", (value,)) for value in ("edema", "it's", 7, "absent")),
    Condition("findings", "contains", ("edema", "fracture")),
    *(Condition("synthetic", "==", (value,)) for value in (True, False)),
    Condition("modality", "==", ("it's", "CT")),
    Condition("license", "==", ('a "licence"',)),
]


@pytest.fixture(scope="module")
def filled(index: VectorIndex) -> VectorIndex:
    index.drop(NAME)
    index.ensure(CollectionSpec(NAME, DIM, "COSINE", planned(100, DIM)))
    rows = _entities()
    for partition in ("part.0", "part.1"):
        batch = pa.RecordBatch.from_pylist([row for row in rows if row["partition"] == partition], ENTITY_SCHEMA)
        index.write(NAME, partition, [batch])
    index.settle(NAME)
    return index


def _found(index: VectorIndex, *conditions: Condition, partitions: list[str] | None = None) -> set[str]:
    query = np.asarray([[1.0, 0.0, 0.0, 0.0]], np.float32)
    [hits] = index.search(NAME, query, 100, params={}, partitions=partitions, conditions=conditions)
    return {hit.entity["record_id"] for hit in hits}


def _meant(*conditions: Condition, partitions: list[str] | None = None) -> set[str]:
    rows = [row | {"attributes": json.loads(str(row["attributes"]))} for row in _entities()]
    within = [row for row in rows if partitions is None or row["partition"] in partitions]
    return {str(row["record_id"]) for row in within if all(fits(one, row) for one in conditions)}


def test_a_server_finds_what_a_condition_means(filled: VectorIndex) -> None:
    wrong = {one.expression: (_found(filled, one), _meant(one)) for one in CONDITIONS}
    assert {text: pair for text, pair in wrong.items() if pair[0] != pair[1]} == {}


def test_conditions_and_partitions_hold_together(filled: VectorIndex) -> None:
    both = (Condition("body_part", ">=", (0,)), Condition("modality", "==", ("CT", "MR")))
    found = _found(filled, *both, partitions=["part.1"])
    assert found == _meant(*both, partitions=["part.1"]) and found
