"""What the layouts of EHR tables share: a part's rows as frames of what may pass of them, events, ranges, bands.

Belongs here: reading lines, and expressions over cleaned columns. Does not belong here: any source's table (mimic, omop), the
rules of columns (deid.tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from medvec_assets.deid.tables import TableRules
from resources.errors import SourceError

OLDEST_SHOWN = 89  # HIPAA: ages of 90 and over are one class
EVENTS: dict[str, pl.DataType] = {
    "part": pl.UInt32(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
}
"""MEDS' columns (subject_id is the caller's: `part` is the row's place in what was read)."""
Tables = dict[str, pl.DataFrame]
"""table -> its rows: UInt32 `part`, and columns of the types that their rules give."""


@dataclass(frozen=True)
class Kind:
    """One kind of event: a row of `table` is one where `code` is not null, at `time`, with the number `value`."""

    table: str
    code: pl.Expr
    time: str | None = None
    value: str | None = None


def rows_of(parts: Sequence[bytes], rules: TableRules) -> tuple[Tables, pl.DataFrame]:
    """What `rules` let pass of several parts' rows (`part` is the position in `parts`), and what they refused (REFUSALS).

    SourceError `schema_drift` if the lines are not what a connector of EHR tables writes: bytes are verified before."""
    lines = _lines(parts)
    tables: Tables = {}
    refusals = []
    for table, columns in rules.tables.items():
        # A quote inside a value is escaped: only a key of the line itself is spelled so.
        of_table = lines["line"].str.contains(f'"table":"{table}"', literal=True)
        read = _parsed(lines.filter(of_table), list(columns))
        lines = lines.filter(~of_table)
        tables[table], refused = rules.apply(table, read)
        refusals.append(refused)
    if not lines.is_empty():
        raise _drift()
    return tables, pl.concat(refusals)


def _lines(parts: Sequence[bytes]) -> pl.DataFrame:
    """Every line: UInt32 `part`, String `line`."""
    try:
        split = pl.Series(parts, dtype=pl.Binary).cast(pl.String).str.strip_suffix("\n").str.split("\n")
    except pl.exceptions.PolarsError:
        raise _drift() from None
    numbers = np.repeat(np.arange(len(parts), dtype=np.uint32), split.list.len().to_numpy())
    return pl.DataFrame({"part": numbers, "line": split.explode()}, schema={"part": pl.UInt32(), "line": pl.String()})


def _parsed(lines: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """`part` and `columns` as String of the lines of one table. Only its own columns are looked for: a line read for those of
    all tables takes three times as long."""
    schema = dict.fromkeys(columns, pl.String())
    if lines.is_empty():
        return pl.DataFrame(schema={"part": pl.UInt32(), **schema})
    try:
        frame = pl.read_ndjson(lines["line"].str.join("\n").cast(pl.Binary)[0], schema=schema)
    except pl.exceptions.PolarsError:
        raise _drift() from None
    if frame.height != lines.height:
        raise _drift()
    # In one piece: polars 2.1 panics where it formats texts that come in several, one of which has no rows.
    return frame.rechunk().insert_column(0, lines["part"].rechunk())


def events_of(tables: Tables, kinds: Sequence[Kind]) -> pl.DataFrame:
    """EVENTS of every row that is one."""
    return pl.concat(_events(tables[kind.table], kind) for kind in kinds)


def _events(table: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    time = pl.col(kind.time) if kind.time else pl.lit(None, pl.Datetime("us"))
    value = pl.col(kind.value) if kind.value else pl.lit(None, pl.Float64)
    found = table.select("part", time=time, code=kind.code, numeric_value=value.cast(pl.Float32))
    return found.drop_nulls("code")


def _drift() -> SourceError:
    remedy = "the spec pairs this modality with another connector, or the connector's lines have changed: compare both"
    return SourceError("an object is not made of lines of EHR rows", code="schema_drift", remedy=remedy)


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
