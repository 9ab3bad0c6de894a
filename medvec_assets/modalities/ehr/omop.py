"""A person of an OMOP CDM: its rows as events in the MEDS vocabulary, and what may be said of it.

Belongs here: what the columns of the CDM mean, which persons are unfit. Does not belong here: which columns are read
(connectors.omop), features (bag).

    Visit//IP   SNOMED//44054006   RxNorm//860975   LOINC//4548-4//%//high

A code is its vocabulary's own, not OMOP's number for it. Rows whose concept is 0, "no matching concept", are no events.
The age is that at the last event: the CDM tells no other day on which the record was true.
"""

from __future__ import annotations

import polars as pl

from medvec_assets.deid.tables import MAX_AGE, Codes, Number, Rule, ShiftedDate, TableRules, Title, Whole
from medvec_assets.modalities.ehr.rows import Kind, Tables, range_class, summary
from medvec_assets.modalities.ehr.vocabulary import SEXES, VOCABULARIES

_SEX = Codes({spelled for name in SEXES for spelled in (name, name.upper(), name.title())})
_DAY = ShiftedDate(1900, 2100, is_day=True)


def _concept(name: str) -> dict[str, Rule]:
    return {f"{name}_vocabulary": Codes(VOCABULARIES), f"{name}_code": Title(), f"{name}_name": Title()}


# The largest table first: it is then looked for among all lines, and the others among what is left.
RULES = TableRules(
    {
        "measurement": {
            **_concept("measured"),
            "measurement_date": _DAY,
            "value_as_number": Number(flaw="bad_number"),
            "unit_code": Title(),
            "range_low": Number(),
            "range_high": Number(),
        },
        "drug_exposure": {**_concept("drug_concept"), "drug_exposure_start_date": _DAY},
        "condition_occurrence": {**_concept("condition"), "condition_start_date": _DAY},
        "visit_occurrence": {**_concept("visit"), "visit_start_date": _DAY},
        "person": {"gender_name": _SEX, "sex_name": _SEX, "year_of_birth": Whole(1800, 2100)},
    }
)
"""All that is read of a person's rows. Codes and names come from the CDM's own table of concepts, dates are shifted by the
source."""
CONDITIONS_TOLD, DRUGS_TOLD = 12, 6  # MiniLM reads 256 tokens: about as many names
NO_CONCEPT = "No matching concept"
# table -> (its concept, column of the date)
_TABLES = {
    "visit_occurrence": ("visit", "visit_start_date"),
    "condition_occurrence": ("condition", "condition_start_date"),
    "drug_exposure": ("drug_concept", "drug_exposure_start_date"),
    "measurement": ("measured", "measurement_date"),
}


def kinds() -> list[Kind]:
    """Every kind of event that a person's rows are."""
    unit = pl.col("unit_code").fill_null("UNK")
    result = pl.format("//{}{}", unit, range_class("value_as_number", "range_low", "range_high"))
    concept, date = _TABLES["measurement"]
    plain = [Kind(name, _code(one), day) for name, (one, day) in _TABLES.items() if name != "measurement"]
    return [*plain, Kind("measurement", _code(concept, result), date, "value_as_number")]


def _code(concept: str, end: pl.Expr | None = None) -> pl.Expr:
    code = pl.format("{}//{}{}", f"{concept}_vocabulary", f"{concept}_code", pl.lit("") if end is None else end)
    return pl.when(pl.col(f"{concept}_name") != NO_CONCEPT).then(code)


def facts(tables: Tables, parts: int) -> pl.DataFrame:
    """A row for each part: its flaw or null, and what may be said of it: sex, age (years), kind, span (null), text."""
    found = pl.DataFrame({"part": pl.Series(range(parts), dtype=pl.UInt32())})
    born = pl.col("year_of_birth").first().cast(pl.Int32)
    years = pl.concat(tables[name].select("part", year=pl.col(date).dt.year()) for name, (_, date) in _TABLES.items())
    year = pl.col("year")
    for table, columns in (
        (tables["person"], {"persons": pl.len(), "sex": _sex(), "born": born}),
        (years, {"first": year.min(), "last": year.max(), "undated": year.is_null().any()}),
    ):
        found = found.join(table.group_by("part").agg(**columns), on="part", how="left", maintain_order="left")
    misplaced = pl.col("undated") | (pl.col("first") < pl.col("born"))
    age = pl.col("last") - pl.col("born")
    return found.join(_text(tables), on="part", how="left", maintain_order="left").select(
        "part",
        "sex",
        age.alias("age"),
        "text",
        kind=pl.lit(None, pl.String),
        span=pl.lit(None, pl.String),
        flaw=pl.when(pl.col("persons") != 1)
        .then(pl.lit("duplicate_subject"))
        .when(misplaced)
        .then(pl.lit("impossible_date"))
        .when(pl.col("born").is_null() | ~age.is_between(0, MAX_AGE).fill_null(True))
        .then(pl.lit("impossible_age")),
    )


def _sex() -> pl.Expr:
    """Sex at birth where the source tells it, else the CDM's gender, which is meant to be the same."""
    name = pl.coalesce("sex_name", "gender_name").first().str.to_lowercase()
    return name.replace_strict(SEXES, default=None, return_dtype=pl.String)


def _text(tables: Tables) -> pl.DataFrame:
    """(part, text): the concepts' names of the latest conditions and drugs; no row where there are none."""
    told = {}
    for name, limit in (("condition_occurrence", CONDITIONS_TOLD), ("drug_exposure", DRUGS_TOLD)):
        concept, date = _TABLES[name]
        table = tables[name].filter(pl.col(f"{concept}_name") != NO_CONCEPT)
        ordered = table.sort("part", date, f"{concept}_name", descending=[False, True, False], nulls_last=True)
        told[name] = summary(ordered.select("part", title=f"{concept}_name"), limit)
    both = told["condition_occurrence"].join(
        told["drug_exposure"], on="part", how="full", coalesce=True, suffix="_drugs"
    )
    told_of = (pl.format("Conditions: {}.", "text"), pl.format("Drugs: {}.", "text_drugs"))
    return both.select("part", text=pl.concat_str(*told_of, separator=" ", ignore_nulls=True))
