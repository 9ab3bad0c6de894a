"""What the layouts of EHR tables share: a part's rows as a frame, dates, numbers, ranges, bands.

Belongs here: reading lines, and expressions over text columns. Does not belong here: any source's table (mimic, omop).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Kind:
    """One kind of event: a row of `table` is one where `code` is not null, at `time`, with the number `value`. `value` and
    `bounds`, its reference range, are Float64 where `code` is made."""

    table: str
    code: pl.Expr
    time: str | None = None
    value: str | None = None
    bounds: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        return (self.value, *self.bounds) if self.value else self.bounds


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
    numbers = np.repeat(np.arange(len(parts), dtype=np.uint32), lengths)
    # In one piece, not the fifty it is read in: each table's rows are then found in a hundredth of the time.
    return frame.rechunk().with_columns(part=pl.Series(numbers))


def table_of(rows: pl.DataFrame, table: str, *columns: str) -> pl.DataFrame:
    """`part` and `columns` of a table's rows. In one piece: polars 2.1 panics where it formats texts that come in several
    pieces, one of which has no rows."""
    return rows.select("part", *columns).filter(rows["table"] == table).rechunk()


def codes_of(rows: pl.DataFrame, kinds: Sequence[Kind]) -> pl.DataFrame:
    """`part` and `code` of every event: all that features need."""
    return pl.concat(_with_code(rows, kind).select("part", "code") for kind in kinds)


def events_of(rows: pl.DataFrame, kinds: Sequence[Kind], years: tuple[int, int]) -> pl.DataFrame:
    """EVENTS of every row that is one; its flaw is a time that is there and none of these `years`, or a text where a number
    should be."""
    return pl.concat(_events(_with_code(rows, kind, kind.time), kind, years) for kind in kinds)


def _with_code(rows: pl.DataFrame, kind: Kind, *further: str | None) -> pl.DataFrame:
    """The rows of this kind: `part`, `code`, `valued` (is there a text for the value), what `code` is made of, `further`."""
    wanted = {*kind.code.meta.root_names(), *kind.numbers, *(name for name in further if name)}
    table = table_of(rows, kind.table, *sorted(wanted))
    valued = pl.col(kind.value).is_not_null() if kind.value else pl.lit(False)
    # Once, and not each time that an expression names them: a text takes longer to become a number than all else here.
    table = table.with_columns(*(number(name) for name in kind.numbers), valued=valued)
    return table.with_columns(code=kind.code).drop_nulls("code")


def _events(table: pl.DataFrame, kind: Kind, years: tuple[int, int]) -> pl.DataFrame:
    time = moment(kind.time) if kind.time else pl.lit(None, pl.Datetime("us"))
    value = pl.col(kind.value) if kind.value else pl.lit(None, pl.Float64)
    timed = pl.col(kind.time).is_not_null() if kind.time else pl.lit(False)
    found = table.select("part", "code", "valued", time=time, value=value, timed=timed)
    possible = pl.col("time").dt.year().is_between(*years).fill_null(False)
    flaw = (
        pl.when(pl.col("timed") & ~possible)
        .then(pl.lit("impossible_date"))
        .when(pl.col("valued") & pl.col("value").is_null())
        .then(pl.lit("bad_number"))
    )
    return found.select("part", "time", "code", numeric_value=pl.col("value").cast(pl.Float32), flaw=flaw)


def _drift() -> SourceError:
    remedy = "the spec pairs this modality with another connector, or the connector's lines have changed: compare both"
    return SourceError("an object is not made of lines of EHR rows", code="schema_drift", remedy=remedy)


def moment(column: str) -> pl.Expr:
    """A text as Datetime, null where it is none: a date where the column's name says so, else date and time."""
    text = pl.col(column)
    if column.endswith("date"):
        return text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)


def number(column: str) -> pl.Expr:
    """A text as a finite Float64, or null."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.abs() < float("inf")).then(value)


def range_class(value: str, low: str, high: str) -> pl.Expr:
    """`//low`, `//normal` and so on: where a result lies by the laboratory's own reference range; empty without one. Of
    columns of Float64.

    By the range and not by quantiles: nothing has to be fitted on a release, and a class means what a clinician reads.
    `very` is further outside than the range is wide.
    """
    x, lower, upper = pl.col(value), pl.col(low), pl.col(high)
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
