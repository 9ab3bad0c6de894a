"""What the layouts of EHR tables share: a part's rows as a frame, dates, numbers, ranges, bands.

Belongs here: reading lines, and expressions over text columns. Does not belong here: any source's table (mimic, omop).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import polars as pl

from resources.errors import SourceError

OLDEST_SHOWN = 89  # HIPAA: ages of 90 and over are one class
EVENTS: dict[str, pl.DataType] = {
    "part": pl.UInt32(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
    "flaw": pl.String(),  # why this event makes its part unfit, null where it is fine
}
"""MEDS' columns (subject_id is the caller's: `part` is the row's place in what was read), and a flaw."""


def rows_of(parts: Sequence[bytes], columns: Sequence[str]) -> pl.DataFrame:
    """The lines of several parts as one frame: UInt32 `part` (position in `parts`), String `table` and `columns`.

    SourceError `schema_drift` if they are not what a connector of EHR tables writes: bytes are verified before."""
    schema = dict.fromkeys(("table", *columns), pl.String())
    try:
        frame = pl.read_ndjson(io.BytesIO(b"".join(parts)), schema=schema)
    except pl.exceptions.PolarsError:
        raise _drift() from None
    lengths = [part.count(b"\n") for part in parts]
    if frame.height != sum(lengths):
        raise _drift()
    return frame.with_columns(part=pl.Series(np.repeat(np.arange(len(parts), dtype=np.uint32), lengths)))


def _drift() -> SourceError:
    remedy = "the spec pairs this modality with another connector, or the connector's lines have changed: compare both"
    return SourceError("an object is not made of lines of EHR rows", code="schema_drift", remedy=remedy)


def moment(column: str) -> pl.Expr:
    """A text of date, or date and time, as Datetime; null where it is neither."""
    text = pl.col(column)
    return pl.coalesce(
        text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False),
        text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
    )


def impossible(column: str, first_year: int, last_year: int) -> pl.Expr:
    """Whether a text is there and is no moment of these years."""
    there = pl.col(column).is_not_null()
    return there & ~moment(column).dt.year().is_between(first_year, last_year).fill_null(False)


def number(column: str) -> pl.Expr:
    """A text as a finite Float64, or null."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def range_class(value: str, low: str, high: str) -> pl.Expr:
    """`//low`, `//normal` and so on: where a result lies by the laboratory's own reference range; empty without one.

    By the range and not by quantiles: nothing has to be fitted on a release, and a class means what a clinician reads.
    `very` is further outside than the range is wide.
    """
    x, lower, upper = number(value), number(low), number(high)
    width = upper - lower
    return (
        pl.when(x.is_null() | (lower.is_null() & upper.is_null()) | (width < 0))
        .then(pl.lit(""))
        .when(x < lower - width)
        .then(pl.lit("//very_low"))
        .when(x < lower)
        .then(pl.lit("//low"))
        .when(x > upper + width)
        .then(pl.lit("//very_high"))
        .when(x > upper)
        .then(pl.lit("//high"))
        .otherwise(pl.lit("//normal"))
    )


def age_band(age: pl.Expr) -> pl.Expr:
    """`0-17`, `18-29`, then decades to `80-89`, and `90+`."""
    decade = age // 10 * 10
    return (
        pl.when(age > OLDEST_SHOWN)
        .then(pl.lit("90+"))
        .when(age < 18)
        .then(pl.lit("0-17"))
        .when(age < 30)
        .then(pl.lit("18-29"))
        .otherwise(pl.format("{}-{}", decade, decade + 9))
    )


def summary(titles: pl.DataFrame, limit: int) -> pl.DataFrame:
    """(part, text): a part's first `limit` distinct titles, in the order given, joined with semicolons.

    `titles`: UInt32 part, String title. Only a vocabulary's own descriptions belong in it, never a source's free text.
    """
    distinct = titles.drop_nulls().unique(["part", "title"], keep="first", maintain_order=True)
    return distinct.group_by("part", maintain_order=True).agg(text=pl.col("title").head(limit).str.join("; "))
