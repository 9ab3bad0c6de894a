"""De-identification of tables: one rule per column, as data, and deny by default.

Belongs here: the rules a column may have, applying them to whole columns. Does not belong here: which columns a source has
(its connector or modality holds the rule table), free text (notes), keys (pseudonyms).

    RULES = TableRules("ehr-tables-1", {"subject_id": Pseudonym("subject"), "zip": Zip3(), "admittime": ShiftedDate(), ...})
    clean, actions = RULES.apply(frame, pseudonyms, subject_column="subject_id")

A column without a rule is dropped and counted. A value that does not fit its rule (a date that is none, a code off its list)
becomes null and is counted: it never passes as it is. Columns come as String, as CSV files and catalogues give them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache

import polars as pl

from medvec_assets.deid.clinical_terms import terms
from medvec_assets.deid.pseudonyms import Pseudonyms

# Three-digit ZIP areas of 20,000 people or fewer in the 2000 census, which Safe Harbor wants as 000.
SPARSE_ZIP3 = terms("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893")
OLDEST_AGE = 90  # what ages of 90 and over become
MAX_AGE = 130
SHIFT_WEEKS = 260  # dates move back by 1 to so many weeks: intervals and the day of the week stay
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")


@dataclass(frozen=True)
class Drop:
    """The column goes; the same as no rule, said on purpose."""


@dataclass(frozen=True)
class Keep:
    """Values stay as they are: a column that can hold no identifier, whoever types into it (a number, a unit)."""


@dataclass(frozen=True)
class Codes:
    """Values of `allowed` stay; others become null."""

    allowed: frozenset[str]


@dataclass(frozen=True)
class Number:
    """Finite numbers stay, as text; what is no number becomes null: people type remarks into columns of results."""


@dataclass(frozen=True)
class Pseudonym:
    """Each value becomes its keyed pseudonym; equal values of one `kind` become equal ones, in every column and table."""

    kind: str


@dataclass(frozen=True)
class Zip3:
    """The first three digits of a US ZIP code, 000 for sparse areas."""


@dataclass(frozen=True)
class ShiftedDate:
    """A date or time moved by its subject's own offset: intervals within a subject stay to the second.

    `by_source`: the source has shifted already (MIMIC-IV); values that are dates stay, others become null.
    """

    by_source: bool = False


@dataclass(frozen=True)
class Age:
    """Whole years; 90 and over become 90."""


@dataclass(frozen=True)
class FreeText:
    """The rules for notes (deid.notes); a text they refuse becomes null."""


Rule = Drop | Keep | Codes | Number | Pseudonym | Zip3 | ShiftedDate | Age | FreeText


@dataclass(frozen=True)
class TableRules:
    """`name` is the profile under which records are filed, with its version: raise it when a rule changes."""

    name: str
    columns: Mapping[str, Rule] = field(default_factory=dict)

    def apply(
        self, frame: pl.DataFrame, pseudonyms: Pseudonyms, *, subject_column: str | None = None
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """The columns that have a rule, in the frame's order, all String, and how many values (for dropped columns: columns)
        each action touched. `subject_column` is whose offset a ShiftedDate moves by. Raises ValueError where it is missing.
        """
        actions: Counter[str] = Counter()
        kept: list[pl.Series] = []
        offsets = self._offsets(frame, pseudonyms, subject_column)
        for column in frame.iter_columns():
            rule = self.columns.get(column.name, None)
            if rule is None or isinstance(rule, Drop):
                actions["column_dropped" if rule else "column_without_rule"] += 1
                continue
            text = column.cast(pl.String)
            applied = _applied(rule, text, pseudonyms, offsets, actions)
            kept.append(applied.alias(column.name))
            if lost := applied.null_count() - text.null_count():
                actions["value_refused"] += lost
        return pl.DataFrame(kept), dict(sorted(actions.items()))

    def _offsets(self, frame: pl.DataFrame, pseudonyms: Pseudonyms, subject_column: str | None) -> pl.Series | None:
        """Int64 days per row (null without a subject), or None where no rule of these columns needs them."""
        shifting = [name for name in frame.columns if self.columns.get(name) == ShiftedDate()]
        if not shifting:
            return None
        if subject_column is None or subject_column not in frame.columns:
            raise ValueError(f"{self.name}: {', '.join(shifting)} cannot be shifted without the column of the subjects")
        return _mapped(frame[subject_column].cast(pl.String), lambda one: shift_days(pseudonyms, one), pl.Int64())


def shift_days(pseudonyms: Pseudonyms, subject_ref: str) -> int:
    """The days by which a subject's dates move: a negative whole number of weeks, the same under one key for ever."""
    weeks = int(pseudonyms.of("date-shift", subject_ref).rpartition("-")[2], 16) % SHIFT_WEEKS + 1
    return -7 * weeks


def _applied(
    rule: Rule, text: pl.Series, pseudonyms: Pseudonyms, offsets: pl.Series | None, actions: Counter[str]
) -> pl.Series:
    match rule:
        case Keep():
            return text
        case Codes(allowed):
            return _where(text, text.is_in(sorted(allowed)))
        case Number():
            number = text.cast(pl.Float64, strict=False)
            return _where(text, number.is_finite())
        case Pseudonym(kind):
            actions["pseudonym"] += text.len() - text.null_count()
            return _mapped(text, lambda one: pseudonyms.of(kind, one), pl.String())
        case Zip3():
            return _zip3(text, actions)
        case ShiftedDate(by_source):
            return _dates(text, None if by_source else offsets, actions)
        case Age():
            return _ages(text, actions)
        case FreeText():
            return _texts(text, actions)
        case _:  # Drop never gets here
            raise ValueError(f"{type(rule).__name__} is no rule for values")


def _zip3(text: pl.Series, actions: Counter[str]) -> pl.Series:
    prefix = text.str.strip_chars().str.extract(r"^(\d{3})(?:\d{2}(?:-?\d{4})?)?$", 1)
    sparse = prefix.is_in(sorted(SPARSE_ZIP3)).fill_null(False)
    actions["zip3"] += prefix.len() - prefix.null_count()
    actions["zip3_sparse"] += int(sparse.sum())
    return pl.select(pl.when(sparse).then(pl.lit("000")).otherwise(prefix)).to_series()


def _dates(text: pl.Series, offsets: pl.Series | None, actions: Counter[str]) -> pl.Series:
    """Each value in the format that it came in; null where it is no date, or there is no subject to move it by."""
    found = pl.Series([None] * text.len(), dtype=pl.String)
    for form in DATE_FORMATS:
        dates = text.str.strptime(pl.Datetime("us"), form, strict=False, exact=True)
        if offsets is not None:
            dates = dates + offsets * timedelta(days=1)
        found = pl.select(pl.coalesce(found, dates.dt.strftime(form))).to_series()
    if offsets is not None:
        actions["date_shifted"] += found.len() - found.null_count()
    return found


def _ages(text: pl.Series, actions: Counter[str]) -> pl.Series:
    years = text.cast(pl.Int64, strict=False)
    years = pl.select(pl.when(years.is_between(0, MAX_AGE)).then(years)).to_series()
    actions["age_capped"] += int((years >= OLDEST_AGE).sum())
    return years.clip(upper_bound=OLDEST_AGE).cast(pl.String)


def _texts(text: pl.Series, actions: Counter[str]) -> pl.Series:
    from medvec_assets.deid.notes import deidentify
    from resources.errors import ObjectRejected

    @cache  # a column repeats its texts
    def cleaned(one: str) -> tuple[str | None, dict[str, int]]:
        try:
            return deidentify(one)
        except ObjectRejected:
            return None, {}

    clean: list[str | None] = []
    for one in text:
        changed, found = cleaned(one) if one is not None else (None, {})
        clean.append(changed)
        actions.update({f"text_{kind}": count for kind, count in found.items()})
    return pl.Series(clean, dtype=pl.String)


def _where(text: pl.Series, fits: pl.Series) -> pl.Series:
    return pl.select(pl.when(fits.fill_null(False)).then(text)).to_series()


def _mapped(text: pl.Series, function: Callable[[str], object], dtype: pl.DataType) -> pl.Series:
    """`function` of each value, called once for each distinct one."""
    distinct = text.drop_nulls().unique()
    return text.replace_strict(
        distinct, pl.Series([function(one) for one in distinct], dtype=dtype), default=None, return_dtype=dtype
    )
