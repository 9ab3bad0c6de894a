"""Rows and vectors between records and the commit: kept in files, found again by fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from medvec_assets.stages import staging
from medvec_assets.stages.staging import Origin, RowSpool, VectorScratch

NAMES = [f"{number:032x}" for number in range(9)]
ORIGIN = Origin("run-1", datetime(2024, 1, 1, tzinfo=UTC))
LATER = Origin("run-2", datetime(2024, 1, 2, tzinfo=UTC))


def vectors(*values: float) -> NDArray[np.float32]:
    return np.array([[value, -value, value / 3] for value in values], np.float32)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[VectorScratch]:
    made = VectorScratch(tmp_path, 3, NAMES[6:2:-1])
    yield made
    made.close()


def test_vectors_come_back_in_the_order_asked_for_with_their_origins(scratch: VectorScratch) -> None:
    scratch.add([NAMES[5], NAMES[3]], vectors(5, 3), [ORIGIN, LATER])
    scratch.add([NAMES[4]], vectors(4), [ORIGIN])
    found, origins = scratch.get([NAMES[3], NAMES[4], NAMES[5], NAMES[3]])
    np.testing.assert_array_equal(found, vectors(3, 4, 5, 3))
    assert origins == [LATER, ORIGIN, ORIGIN, LATER]
    assert found.dtype == np.float32


def test_only_what_is_wanted_is_lacking_until_it_is_added(scratch: VectorScratch) -> None:
    assert scratch.lacks(NAMES).tolist() == [False] * 3 + [True] * 4 + [False] * 2
    scratch.add(NAMES[:5], vectors(0, 1, 2, 3, 4), [ORIGIN] * 5)
    assert scratch.lacks(NAMES).tolist() == [False] * 5 + [True] * 2 + [False] * 2
    assert not scratch.complete()
    scratch.add(NAMES[5:], vectors(5, 6, 7, 8), [ORIGIN] * 4)
    assert scratch.complete()


def test_the_first_vector_of_a_fingerprint_stays(scratch: VectorScratch) -> None:
    scratch.add([NAMES[3], NAMES[3]], vectors(1, 2), [ORIGIN, LATER])
    scratch.add([NAMES[3]], vectors(3), [LATER])
    found, origins = scratch.get([NAMES[3]])
    np.testing.assert_array_equal(found, vectors(1))
    assert origins == [ORIGIN]


@pytest.mark.parametrize("name", [NAMES[0], NAMES[3], NAMES[8]])
def test_a_fingerprint_without_a_vector_is_never_answered(scratch: VectorScratch, name: str) -> None:
    scratch.add([NAMES[4]], vectors(4), [ORIGIN])
    with pytest.raises(KeyError):
        scratch.get([NAMES[4], name])


def test_nothing_wanted_is_complete(tmp_path: Path) -> None:
    scratch = VectorScratch(tmp_path, 3, [])
    scratch.add(NAMES, vectors(*range(9)), [ORIGIN] * 9)
    assert scratch.complete()
    assert not scratch.lacks(NAMES).any()
    scratch.close()


def test_a_spool_is_read_again_in_bounded_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BATCH_ROWS", 2)
    frames = [pl.DataFrame({"a": list("xyz"), "dropped": [1, 2, 3], "b": ["1", "", "ü"]}) for _ in range(2)]
    spool = RowSpool(tmp_path, ("b", "a"), frames)
    assert spool.rows == 6
    for _ in range(2):
        batches = list(spool)
        assert max(batch.height for batch in batches) == 2
        assert pl.concat(batches).equals(pl.concat(frames).select("b", "a"))


def test_an_empty_spool_has_no_rows(tmp_path: Path) -> None:
    spool = RowSpool(tmp_path, ("a",), [])
    assert (spool.rows, list(spool)) == (0, [])
