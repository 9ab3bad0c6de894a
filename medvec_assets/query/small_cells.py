"""Counts of persons that may leave: small cells, and those from which a small one could be worked out, are not shown.

Belongs here: counting subjects by attributes, and suppression. Does not belong here: who may ask (policy, api), or what an
export is written to.

A table has one axis per attribute and, along each, a total. Of every line of cells with its total
    total = cell + cell + ...
one unknown cell could be worked out from the others, and the sum of all unknown ones always can. So in each line either no
cell is unknown, or at least two are and their sum is not small either. Cells are hidden, smallest first, until that holds
of every line; totals are lines' cells too. Lines together may still tell: of 1,500 random tables of up to three axes 41 did.
So what all lines say of each small cell is then worked out, by linear programming, as somebody who wants to know would, and
more is hidden until the cell could as well be large (Hundepool et al., Statistical Disclosure Control, 2012, chapter 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query.rows import read
from medvec_assets.scorer.verdicts import Verdicts
from resources import tables
from resources.errors import PolicyRefused, QueryInvalid

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

MAX_AXES = 4
MAX_CELLS = 2_000  # a linear program for each small one of so many takes seconds
ALL = "all"  # the label of a total
_COLUMNS = ("cohort", "modality", "license")  # of a record, which may be counted by like its attributes


def counts(lake: Lakehouse, spec: DatasetSpec, by: Sequence[str]) -> pl.DataFrame:
    """Columns `by` and `subjects` (Int64): distinct subjects of every combination that occurs and of every total, null
    where the number may not be shown. Zero cells are left out, as no row of theirs exists.

    `by`: cohort, modality, license or attributes that answers of this dataset may show. Raises QueryInvalid.
    """
    allowed = sorted({*_COLUMNS, *spec.index_attributes})
    if not 1 <= len(by) <= MAX_AXES or len(set(by)) != len(by) or not set(by) <= set(allowed):
        raise QueryInvalid(
            f"subjects of {spec.id} can be counted by one to {MAX_AXES} different ones of its attributes",
            remedy=f"use some of: {', '.join(allowed)}",
        )
    rows = _subjects(lake, spec, by)
    labels = [rows[name].unique().sort().to_list() for name in by]
    if np.prod([len(one) + 1 for one in labels]) > MAX_CELLS:
        raise QueryInvalid("the table would have too many cells", remedy="count by fewer attributes, or coarser ones")
    cells = _cells(rows, by, labels)
    hidden = suppressed(cells, spec.smallest_count)
    named = [[*one, ALL] for one in labels]
    kept = [
        (*(named[axis][at] for axis, at in enumerate(place)), None if hidden[place] else int(cells[place]))
        for place in product(*(range(size) for size in cells.shape))
        if cells[place]
    ]
    schema = {**dict.fromkeys(by, pl.String()), "subjects": pl.Int64()}
    return pl.DataFrame(kept, schema=schema, orient="row")


def suppressed(cells: NDArray[np.int64], smallest: int) -> NDArray[np.bool_]:
    """Which of `cells` (totals last along each axis) must not be shown, so that no count from 1 to smallest - 1 is, nor
    can be told from the others to be one."""
    hidden: NDArray[np.bool_] = (cells > 0) & (cells < smallest)
    if not hidden.any():
        return hidden
    small = [tuple(place) for place in np.argwhere(hidden)]
    while True:
        while any(_protect(cells, hidden, line, smallest) for line in _lines(cells.shape)):
            pass
        told = next((place for place in small if _highest(cells, hidden, place) < smallest), None)
        if told is None or not _hide_beside(cells, hidden, told):
            return hidden


def _highest(cells: NDArray[np.int64], hidden: NDArray[np.bool_], place: tuple[int, ...]) -> float:
    """The highest value that an unknown cell can have for all that the known ones tell; infinite if they tell nothing."""
    from scipy.optimize import linprog

    number = np.full(cells.shape, -1)
    number[hidden] = np.arange(hidden.sum())
    sums, known = [], []
    for line in _lines(cells.shape):
        unknown, sign = hidden[line], np.append(np.ones(len(line[0]) - 1), -1)
        if unknown.any():
            row = np.zeros(hidden.sum())
            row[number[line][unknown]] = sign[unknown]
            sums.append(row)
            known.append(-(sign * cells[line])[~unknown].sum())
    aim = np.zeros(hidden.sum())
    aim[number[place]] = -1
    found = linprog(aim, A_eq=np.array(sums), b_eq=np.array(known), bounds=(0, None))
    return float(-found.fun) if found.status == 0 else np.inf


def _hide_beside(cells: NDArray[np.int64], hidden: NDArray[np.bool_], place: tuple[int, ...]) -> bool:
    """Hide the smallest known cell in a line of `place`, or anywhere if there is none; False if all is hidden."""
    known = ~hidden & (cells > 0)
    beside = known & (sum(np.indices(cells.shape)[axis] == at for axis, at in enumerate(place)) == cells.ndim - 1)
    candidates = beside if beside.any() else known
    if not candidates.any():
        return False
    hidden[np.unravel_index(np.where(candidates, cells, cells.max() + 1).argmin(), cells.shape)] = True
    return True


def _protect(
    cells: NDArray[np.int64], hidden: NDArray[np.bool_], line: tuple[NDArray[np.intp], ...], smallest: int
) -> bool:
    """Hide further cells of `line`, its total last, until what is hidden protects itself; whether there were any."""
    values, unknown = cells[line], hidden[line]
    changed = False
    while unknown.any() and not _is_safe(values, unknown, smallest):
        candidates = np.flatnonzero(~unknown & (values > 0))
        if not len(candidates):
            break  # all is hidden, the total too: nothing is left to work it out from
        # The smallest other cell tells least; the total goes last, for it is what people want to know.
        inner = candidates[candidates < len(values) - 1]
        chosen = inner[values[inner].argmin()] if len(inner) else candidates[-1]
        unknown[chosen] = changed = True
    hidden[line] = unknown
    return changed


def _is_safe(values: NDArray[np.int64], unknown: NDArray[np.bool_], smallest: int) -> bool:
    """Whether the unknown cells of a line can neither be worked out nor sum up to a small count."""
    if unknown[-1]:  # the total is unknown: what is known of the line is a lower bound of it, and of no cell
        return bool(unknown.sum() >= 2)
    return bool(unknown.sum() >= 2 and values[unknown].sum() >= smallest)


def _lines(shape: tuple[int, ...]) -> Iterator[tuple[NDArray[np.intp], ...]]:
    """The indices of every line of cells along every axis."""
    for axis, size in enumerate(shape):
        others = [range(1) if other == axis else range(length) for other, length in enumerate(shape)]
        for place in product(*others):
            fixed = [np.full(size, at, np.intp) for at in place]
            fixed[axis] = np.arange(size)
            yield tuple(fixed)


def _subjects(lake: Lakehouse, spec: DatasetSpec, by: Sequence[str]) -> pl.DataFrame:
    """subject_key and `by` as text, once each, of records whose subject is not suppressed. PolicyRefused where some leak:
    what came through may be a label, and a count without them would be another."""
    attributes = [name for name in by if name not in _COLUMNS]
    columns = ["subject_key", "partition", "attributes", *(name for name in by if name in _COLUMNS)]
    frame, verdicts = read(lake, tables.records(spec.id), columns), Verdicts(lake, spec.id)
    if any(verdicts.leaks(partition) for partition in frame["partition"].unique()):
        raise PolicyRefused(
            f"subjects of {spec.id} are not counted: rule 'deid_leak': identifiers came through its de-identification",
            remedy=f"mend the rule that `medvec status --dataset {spec.id}` names, then medvec run: it scores again",
            rule="deid_leak",
        )
    gone = read(lake, tables.suppression(), ["subject_key"], pc.field("subject_key").is_valid())
    frame = frame.join(gone, on="subject_key", how="anti")
    named = frame.with_columns(
        pl.col("attributes").str.json_path_match(f"$.{name}").fill_null("not known").alias(name) for name in attributes
    )
    return named.select("subject_key", *by).unique()


def _cells(rows: pl.DataFrame, by: Sequence[str], labels: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Distinct subjects of every combination of `labels`, and along each axis last of all of them."""
    cells = np.zeros([len(one) + 1 for one in labels], np.int64)
    at = [{label: place for place, label in enumerate(one)} for one in labels]
    for kept in product((True, False), repeat=len(by)):
        axes = [name for name, is_kept in zip(by, kept, strict=True) if is_kept]
        subjects = pl.col("subject_key").n_unique()
        found = rows.group_by(axes).agg(subjects) if axes else rows.select(subjects)
        for *place, number in found.iter_rows():
            names = iter(place)
            index = tuple(at[axis][next(names)] if kept[axis] else -1 for axis in range(len(by)))
            cells[index] = number
    return cells
