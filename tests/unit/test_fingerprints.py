"""Identity by content, as properties: what moves a digest, what must not, and what ids never contain."""

from __future__ import annotations

import inspect

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvec_assets import fingerprints

FIELD = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=12)
HASHES = [
    (fingerprints.embedding_fingerprint, 5),
    (fingerprints.vector_id, 3),
    (fingerprints.entity_id, 5),
    (fingerprints.row_fingerprint, 4),
    (fingerprints.input_digest, 4),
]


@pytest.mark.parametrize(("function", "arity"), HASHES, ids=lambda value: getattr(value, "__name__", value))
@given(data=st.data())
def test_any_field_moves_a_hash_and_equal_fields_do_not(function, arity: int, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    one = data.draw(st.lists(FIELD, min_size=arity, max_size=arity))
    other = data.draw(st.lists(FIELD, min_size=arity, max_size=arity))
    assert (function(*one) == function(*other)) == (one == other)
    position = data.draw(st.integers(0, arity - 1))
    changed = [*one]
    changed[position] += "x"
    assert function(*changed) != function(*one)


@pytest.mark.parametrize(("function", "arity"), HASHES, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_does_not_flow_into_its_neighbour(function, arity: int) -> None:  # type: ignore[no-untyped-def]
    rest = ["z"] * (arity - 2)
    assert function("ab", "c", *rest) != function("a", "bc", *rest)


def test_kinds_of_hashes_of_equal_fields_differ() -> None:
    fields = ["a"] * 5
    found = {function(*fields[:arity]) for function, arity in HASHES}
    assert len(found) == len(HASHES)
    assert fingerprints.text_digest("a") != fingerprints.input_digest("a")


def test_part_kind_and_index_move_a_vector_id() -> None:
    whole = fingerprints.vector_id("d", "s", "r")
    assert (
        len({whole, fingerprints.vector_id("d", "s", "r", "tile"), fingerprints.vector_id("d", "s", "r", "tile", 1)})
        == 3
    )


@given(st.sets(FIELD), st.sets(FIELD))
def test_a_set_digest_moved_is_the_digest_of_the_moved_set(one: set[str], other: set[str]) -> None:
    moved = fingerprints.moved_digest(fingerprints.set_digest(one), added=other - one, removed=one - other)
    assert moved == fingerprints.set_digest(other)


def test_a_vector_id_never_contains_the_partition() -> None:
    assert list(inspect.signature(fingerprints.vector_id).parameters) == [
        "dataset",
        "space",
        "record_id",
        "part_kind",
        "part_index",
    ]


def test_an_entity_id_contains_no_member() -> None:
    assert list(inspect.signature(fingerprints.entity_id).parameters) == [
        "partition",
        "license",
        "access_tier",
        "content_digest",
        "part_kind",
        "part_index",
    ]


@given(st.lists(FIELD), st.randoms())
def test_a_set_digest_does_not_depend_on_order(rows: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(rows, len(rows))
    assert fingerprints.set_digest(iter(shuffled)) == fingerprints.set_digest(rows)


@given(st.lists(FIELD, min_size=1), FIELD, st.data())
def test_a_row_more_less_or_changed_moves_a_set_digest(rows: list[str], row: str, data: st.DataObject) -> None:
    digest = fingerprints.set_digest(rows)
    assert fingerprints.set_digest([*rows, row]) != digest
    position = data.draw(st.integers(0, len(rows) - 1))
    assert fingerprints.set_digest(rows[:position] + rows[position + 1 :]) != digest
    assert fingerprints.set_digest([*rows[:position], rows[position] + "x", *rows[position + 1 :]]) != digest


@given(FIELD, FIELD)
def test_a_text_digest_tells_texts_apart(text: str, other: str) -> None:
    assert (fingerprints.text_digest(text) == fingerprints.text_digest(other)) == (text == other)


def test_an_array_digest_covers_values_shape_and_type_and_not_the_layout() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same = [array.copy(), np.asfortranarray(array), np.repeat(array, 2, axis=0)[::2]]
    assert {fingerprints.array_digest(one) for one in same} == {fingerprints.array_digest(array)}
    others = [array + 1, array.reshape(4, 3), array.astype(np.int8), array.T]
    assert len({fingerprints.array_digest(one) for one in [array, *others]}) == 5


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.uint8]),
    reverse=st.booleans(),
)
def test_digests_of_rows_are_those_of_each(shape: list[int], dtype: type[np.generic], reverse: bool) -> None:
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    rows = rows[::-1] if reverse else rows
    assert fingerprints.array_digests(rows) == [fingerprints.array_digest(np.asarray(row)) for row in rows]


def test_stored_hashes_stay_what_they_are() -> None:
    """Changing one of these re-embeds or re-keys every lake there is."""
    assert fingerprints.text_digest("CT") == "bac34cc38f1c1256b4f2d550cb32cc4c7a339701471c11094511b68a8f20cebf"
    assert fingerprints.embedding_fingerprint("c", "i", "e", "w", "fp32") == "839674f57918f0f65cce5a5d9ed5bd34"
    assert fingerprints.vector_id("d", "s", "r") == "3fb533593b66fc78454a90ea2431e025"
    assert fingerprints.entity_id("p", "l", "t", "c", "whole", 0) == "1597867b8dd7a552382bba22943510ad"
    assert fingerprints.row_fingerprint("a", "b") == "5d53fc660f84b0395d2477bc9980cee9"
    assert fingerprints.set_digest(["a", "b"]) == "08bb6928ca5517152e4b8118ff058d82334469f89d507abd84f46634858a4958"
    assert fingerprints.input_digest("a", "b") == "a7452e9c60badc41b94cbbf15d04409ddb62b69eccbe097c88b1e15bc8273676"
    assert (
        fingerprints.array_digest(np.zeros((2, 2), np.uint8))
        == "0440628f3f5e99f6941c88cf0b4303aa3e150e91bcb5ba50f914352d7574604d"
    )


def test_rows_hashed_by_columns_are_the_ids_hashed_one_by_one() -> None:
    rows = pl.DataFrame(
        {"p": ["a", "b"], "l": ["CC", "CC"], "t": ["open", "open"], "c": ["1", "2"], "k": ["whole-0"] * 2}
    )
    assert fingerprints.hashed_rows("entity", rows) == [
        fingerprints.entity_id(p, licence, tier, content) for p, licence, tier, content, _ in rows.rows()
    ]
    assert fingerprints.hashed_rows("row", rows) == [fingerprints.row_fingerprint(*row) for row in rows.rows()]
