"""De-identification of tables: one rule per column, as data, and deny by default.

Belongs here: the rules that a column may have, applying them to whole columns. Does not belong here: which columns a source
has (its modality holds the rule table), free text (notes), keys (pseudonyms).

    RULES = TableRules({"patients": {"gender": Codes(frozenset("FM")), "anchor_age": Age()}, ...})
    clean, refusals = RULES.apply("patients", rows)

What has no rule does not pass: not a column, not a table. A value passes as the type of its rule, so that no text can stand
where a number, a date or an age is meant; what does not fit its rule becomes null and is told, with the code under which
its record is set aside, where one is given. Columns come as String, as CSV files and catalogues give them.

There is no rule for a name, an address, a ZIP code or an id: no source here has a column of them that is of use, and the
subject's own id becomes a key elsewhere (Pseudonyms).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import polars as pl

OLDEST_AGE = 90  # what ages of 90 and over become
MAX_AGE = 130
MAX_TITLE_CHARS = 255  # of OMOP's concept_name, and more than any of MIMIC-IV's titles
MAX_NUMBERS, MAX_DIGITS = 2, 4  # of a text of words: more may be a telephone number, a date, a ZIP code
CACHED_TEXTS = 1 << 16  # whose words have been looked up: a column repeats its texts
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_][^\W_]*")  # "5mg" is a number and a word, "G123" a word
REFUSALS: dict[str, pl.DataType] = {"part": pl.UInt32(), "flaw": pl.String()}
"""A row for each value that did not pass: whose it was, and why its record must not be kept, null where it may be."""


class Rule(Protocol):
    @property
    def flaw(self) -> str | None:
        """The code under which a record is set aside if a value of this column does not fit."""
        ...

    def clean(self, value: pl.Expr) -> pl.Expr:
        """A column of String as what may pass of it, null where nothing may."""
        ...


@dataclass(frozen=True)
class Codes:
    """Values of `allowed` stay."""

    allowed: Collection[str]
    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        return pl.when(value.is_in(sorted(self.allowed))).then(value)


@dataclass(frozen=True)
class Pattern:
    """Values that are wholly of this form stay: one that no name and no number of a person has."""

    form: str
    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        return pl.when(value.str.contains(f"^(?:{self.form})$")).then(value)


@dataclass(frozen=True)
class Words:
    """Known words stay, and at most MAX_NUMBERS numbers of MAX_DIGITS digits: a column of names of things, into which
    people type. A text of nothing else stays as it is; of any other what is known stays, parted by blanks."""

    is_known: Callable[[str], bool]
    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        return value.map_batches(self._mapped, return_dtype=pl.String())

    def _mapped(self, texts: pl.Series) -> pl.Series:
        distinct = texts.drop_nulls().unique()
        known = pl.Series([_known_words(text, self.is_known) for text in distinct], dtype=pl.String())
        return texts.replace_strict(distinct, known, default=None, return_dtype=pl.String())


@dataclass(frozen=True)
class Title:
    """A code list's own text or code, which the connector has joined by the row's code: nobody types into it. It stays if
    it is one line of at most MAX_TITLE_CHARS."""

    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        fits = (value.str.len_chars() <= MAX_TITLE_CHARS) & ~value.str.contains(r"[\x00-\x1f\x7f]")
        return pl.when(fits).then(value)


@dataclass(frozen=True)
class Number:
    """Float64, finite: people type remarks into columns of results."""

    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        number = value.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)


@dataclass(frozen=True)
class Whole:
    """Int64 from `least` to `most`: a place in an order, a year."""

    least: int
    most: int
    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        number = value.cast(pl.Int64, strict=False)
        return pl.when(number.is_between(self.least, self.most)).then(number)


@dataclass(frozen=True)
class Age:
    """Int64, whole years; 90 and over become 90."""

    flaw: str | None = "impossible_age"

    def clean(self, value: pl.Expr) -> pl.Expr:
        years = value.cast(pl.Int64, strict=False)
        return pl.when(years.is_between(0, MAX_AGE)).then(years.clip(upper_bound=OLDEST_AGE))


@dataclass(frozen=True)
class ShiftedDate:
    """Datetime of a date or (not `is_day`) a time that the source has shifted, per subject, into these years. One outside
    of them was not shifted: its record must not be kept."""

    first_year: int
    last_year: int
    is_day: bool = False
    flaw: str | None = "impossible_date"

    def clean(self, value: pl.Expr) -> pl.Expr:
        if self.is_day:
            time = value.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        else:
            time = value.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
        return pl.when(time.dt.year().is_between(self.first_year, self.last_year)).then(time)


@dataclass(frozen=True)
class TableRules:
    """table -> column -> its rule."""

    tables: Mapping[str, Mapping[str, Rule]]

    def apply(self, table: str, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(UInt32 `part` and the columns that have a rule, each of its rule's type; REFUSALS)."""
        rules = {name: rule for name, rule in self.tables.get(table, {}).items() if name in rows.columns}
        clean = rows.select("part", *(rule.clean(pl.col(name)).alias(name) for name, rule in rules.items()))
        refusals = [pl.DataFrame(schema=REFUSALS)]
        for name, rule in rules.items():
            # One number tells of a column of another type that all has passed: few columns have anything refused.
            if clean.schema[name] != pl.String and clean[name].null_count() == rows[name].null_count():
                continue
            changed = clean[name].is_null() if clean.schema[name] != pl.String else clean[name].ne_missing(rows[name])
            gone = clean.filter(changed & rows[name].is_not_null())
            refusals.append(gone.select("part", flaw=pl.lit(rule.flaw, pl.String)))
        return clean, pl.concat(refusals)


@lru_cache(maxsize=CACHED_TEXTS)
def _known_words(text: str, is_known: Callable[[str], bool]) -> str | None:
    found = _WORD.findall(text)
    numbers = [one for one in found if one[0].isdecimal()]
    shown = len(numbers) <= MAX_NUMBERS and all(sum(map(str.isdecimal, one)) <= MAX_DIGITS for one in numbers)
    kept = [one for one in found if (shown if one[0].isdecimal() else is_known(one.lower()))]
    return text if kept == found else " ".join(kept) or None
