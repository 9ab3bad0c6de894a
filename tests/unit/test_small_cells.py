"""Small counts are neither shown nor to be worked out; what need not be hidden is shown."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import linprog

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.query.small_cells import ALL, counts, suppressed
from resources import tables
from resources.errors import QueryInvalid
from resources.lakehouse import Lakehouse

SPEC = TCIA_CATALOG.model_copy(update={"smallest_count": 21})


def with_totals(inner: np.ndarray) -> np.ndarray:
    cells = inner
    for axis in range(inner.ndim):
        cells = np.concatenate([cells, cells.sum(axis=axis, keepdims=True)], axis=axis)
    return cells


def unknown_of_lines(cells: np.ndarray, hidden: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    lines = []
    for axis in range(cells.ndim):
        flat, mask = (np.moveaxis(one, axis, -1).reshape(-1, one.shape[axis]) for one in (cells, hidden))
        lines += list(zip(flat, mask, strict=True))
    return lines


tables_of_counts = array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 60))
)


@settings(max_examples=150, deadline=None)
@given(tables_of_counts, st.integers(2, 30))
def test_no_line_tells_a_small_count(inner: np.ndarray, smallest: int) -> None:
    cells = with_totals(inner)
    hidden = suppressed(cells, smallest)
    assert not (~hidden & (cells > 0) & (cells < smallest)).any()
    for values, unknown in unknown_of_lines(cells, hidden):
        if not unknown.any() or (unknown | (values == 0)).all():
            continue  # nothing is hidden, or nothing is shown
        assert unknown.sum() >= 2, "one unknown of a line is the total less the others"
        if not unknown[-1]:
            assert values[unknown].sum() >= smallest


@settings(max_examples=40, deadline=None)
@given(arrays(np.int64, (2, 3, 3), elements=st.integers(0, 60) | st.just(0)))
def test_all_lines_together_do_not_tell_that_a_count_is_small(inner: np.ndarray) -> None:
    """What somebody would work out by linear programming from everything that is shown."""
    cells = with_totals(inner)
    hidden = suppressed(cells, 21)
    number = np.cumsum(hidden.ravel()).reshape(hidden.shape) - 1
    equations, values = [], []
    for axis in range(cells.ndim):
        sign = np.append(np.ones(cells.shape[axis] - 1), -1)
        rows = (np.moveaxis(one, axis, -1).reshape(-1, len(sign)) for one in (cells, hidden, number))
        for line, unknown, at in zip(*rows, strict=True):
            if unknown.any():
                equation = np.zeros(hidden.sum())
                equation[at[unknown]] = sign[unknown]
                equations.append(equation)
                values.append(-(sign * line)[~unknown].sum())
    for place in np.argwhere(hidden & (cells > 0) & (cells < 21)):
        aim = np.zeros(hidden.sum())
        aim[number[tuple(place)]] = -1
        found = linprog(aim, A_eq=equations, b_eq=values, bounds=(0, None))
        assert found.status == 3 or -found.fun >= 21 - 1e-6 or hidden[cells > 0].all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, (3, 3), elements=st.integers(21, 500)))
def test_what_is_large_is_shown(inner: np.ndarray) -> None:
    assert not suppressed(with_totals(inner), 21).any()


def test_the_smallest_other_cell_is_hidden_with_a_lone_small_one() -> None:
    hidden = suppressed(with_totals(np.array([5, 40, 30, 100])), 21)
    assert hidden.tolist() == [True, False, True, False, False]


def test_two_small_ones_whose_sum_is_small_take_a_third_with_them() -> None:
    hidden = suppressed(with_totals(np.array([5, 4, 30, 100])), 21)
    assert hidden.tolist() == [True, True, True, False, False]


def test_a_table_of_few_persons_shows_nothing() -> None:
    assert suppressed(with_totals(np.array([[1, 2], [0, 3]])), 21)[with_totals(np.array([[1, 2], [0, 3]])) > 0].all()


def test_nothing_is_hidden_where_every_count_may_be_shown() -> None:
    assert not suppressed(with_totals(np.array([1, 2, 3])), 1).any()


# -- from the lake


def lake_of(home: Path, persons: dict[tuple[str, str], int]) -> Lakehouse:
    """(cohort, sex) -> number of persons, each with two records."""
    lake = Lakehouse(str(home))
    rows = [
        {
            "record_id": f"{cohort}-{sex}-{person}-{record}",
            "subject_key": f"{cohort}-{sex}-{person}",
            "cohort": cohort,
            "partition": cohort,
            "object_ids": [],
            "modality": "EHR",
            "license": "CC0",
            "access_tier": "controlled",
            "attributes": json.dumps({"body_part": sex} if sex else {}),
            "payload_uri": "",
            "deid_profile": "p",
            "deid_actions": "{}",
            "content_digests": "{}",
            "text": None,
        }
        for (cohort, sex), number in persons.items()
        for person, record in product(range(number), range(2))
    ]
    table = tables.records(SPEC.id)
    lake.replace(lake.ensure(table), {}, pa.Table.from_pylist(rows, schema=table.schema).to_batches(), {})
    return lake


def shown(lake: Lakehouse, spec: DatasetSpec = SPEC, *by: str) -> dict[tuple[str, ...], int | None]:
    return {tuple(row[:-1]): row[-1] for row in counts(lake, spec, by or ("cohort", "body_part")).iter_rows()}


def test_persons_are_counted_once_and_small_cells_hidden_with_what_would_tell_them(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, {("a", "F"): 40, ("a", "M"): 3, ("b", "F"): 50, ("b", "M"): 60})
    found = shown(lake)
    assert found["a", "M"] is None
    assert found["a", "F"] is None and found["b", "M"] is None, "the totals would tell it"
    assert found[ALL, ALL] == 153 and found["b", ALL] == 110
    assert shown(lake, TCIA_CATALOG)["a", "M"] == 3


def test_suppressed_persons_are_not_counted(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, {("a", "F"): 30})
    assert shown(lake, SPEC, "cohort")[("a",)] == 30
    gone = pl.DataFrame({"subject_key": ["a-F-0"], "reason": ["withdrawn"]}).with_columns(
        since=pl.lit("2026-01-01").str.to_datetime(time_zone="UTC"), source=pl.lit("tcia")
    )
    lake.append(tables.suppression(), gone.to_arrow().cast(tables.SUPPRESSION), {})
    assert shown(lake, SPEC, "cohort")[("a",)] == 29


@pytest.mark.parametrize("by", [(), ("subject_key",), ("cohort", "cohort"), ("text",), ("uid",)])
def test_what_an_answer_may_not_show_is_not_counted_by(tmp_path: Path, by: tuple[str, ...]) -> None:
    with pytest.raises(QueryInvalid, match="can be counted by"):
        counts(lake_of(tmp_path, {("a", "F"): 30}), SPEC, by)
