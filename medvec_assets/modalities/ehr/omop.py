"""A person of an OMOP CDM: its rows as events in the MEDS vocabulary, and what may be said of it.

Belongs here: what the columns of the CDM mean, which persons are unfit. Does not belong here: which columns are read
(connectors.omop), features (bag).

    Visit//IP   SNOMED//44054006   RxNorm//860975   LOINC//4548-4//%//high

A code is its vocabulary's own, not OMOP's number for it. Rows whose concept is 0, "no matching concept", are no events.
The age is that at the last event: the CDM tells no other day on which the record was true.
"""

from __future__ import annotations

import polars as pl

from medvec_assets.modalities.ehr.rows import EVENTS, impossible, moment, number, range_class, summary

_NAMED = ("gender", "sex", "visit", "condition", "drug_concept", "measured", "unit")
COLUMNS = (
    *(f"{name}_{part}" for name in _NAMED for part in ("vocabulary", "code", "name")),
    "year_of_birth",
    "visit_start_date",
    "condition_start_date",
    "drug_exposure_start_date",
    "measurement_date",
    "value_as_number",
    "range_low",
    "range_high",
)
YEARS = (1900, 2100)
MAX_AGE = 130
CONDITIONS_TOLD, DRUGS_TOLD = 12, 6  # MiniLM reads 256 tokens: about as many names
NO_CONCEPT = "No matching concept"
# table -> (its concept, column of the date)
_TABLES = {
    "visit_occurrence": ("visit", "visit_start_date"),
    "condition_occurrence": ("condition", "condition_start_date"),
    "drug_exposure": ("drug_concept", "drug_exposure_start_date"),
    "measurement": ("measured", "measurement_date"),
}


def events(rows: pl.DataFrame) -> pl.DataFrame:
    """EVENTS of every row that is one."""
    born = rows.filter(pl.col("table") == "person").group_by("part").agg(born=_year_of_birth().first())
    made = [pl.DataFrame(schema=EVENTS)]
    for name, (concept, date) in _TABLES.items():
        table = rows.filter(pl.col("table") == name).join(born, on="part", how="left")
        made.append(_made(table, name, concept, date))
    return pl.concat(made).drop_nulls("code")


def _made(table: pl.DataFrame, name: str, concept: str, date: str) -> pl.DataFrame:
    code = pl.format("{}//{}", f"{concept}_vocabulary", f"{concept}_code")
    value = pl.lit(None, pl.Float32)
    if name == "measurement":
        unit = pl.col("unit_code").fill_null("UNK")
        code = pl.format("{}//{}{}", code, unit, range_class("value_as_number", "range_low", "range_high"))
        value = number("value_as_number").cast(pl.Float32)
    before_birth = moment(date).dt.year() < pl.col("born")
    wrong = pl.col(date).is_null() | impossible(date, *YEARS) | before_birth.fill_null(False)
    return table.select(
        "part",
        time=moment(date),
        code=pl.when(pl.col(f"{concept}_name") != NO_CONCEPT).then(code),
        numeric_value=value,
        flaw=pl.when(wrong).then(pl.lit("impossible_date")),
    )


def facts(rows: pl.DataFrame, parts: int) -> pl.DataFrame:
    """A row for each part: its flaw or null, and what may be said of it: sex, age (years), kind, span (null), text."""
    found = pl.DataFrame({"part": pl.Series(range(parts), dtype=pl.UInt32())})
    person = rows.filter(pl.col("table") == "person")
    last = pl.max_horizontal(moment(date).dt.year() for _, date in _TABLES.values())
    for table, columns in (
        (person, {"persons": pl.len(), "sex": _sex(), "born": _year_of_birth().first()}),
        (rows, {"last": last.max()}),
    ):
        found = found.join(table.group_by("part").agg(**columns), on="part", how="left", maintain_order="left")
    age = pl.col("last") - pl.col("born")
    return found.join(_text(rows), on="part", how="left", maintain_order="left").select(
        "part",
        "sex",
        age.alias("age"),
        "text",
        kind=pl.lit(None, pl.String),
        span=pl.lit(None, pl.String),
        flaw=pl.when(pl.col("persons") != 1)
        .then(pl.lit("duplicate_subject"))
        .when(pl.col("born").is_null() | ~age.is_between(0, MAX_AGE).fill_null(True))
        .then(pl.lit("impossible_age")),
    )


def _year_of_birth() -> pl.Expr:
    return pl.col("year_of_birth").cast(pl.Int32, strict=False)


def _sex() -> pl.Expr:
    """Sex at birth where the source tells it, else the CDM's gender, which is meant to be the same."""
    name = pl.coalesce("sex_name", "gender_name").first().str.to_lowercase()
    return name.replace_strict({"female": "F", "male": "M"}, default=None, return_dtype=pl.String)


def _text(rows: pl.DataFrame) -> pl.DataFrame:
    """(part, text): the concepts' names of the latest conditions and drugs; no row where there are none."""
    told = {}
    for name, limit in (("condition_occurrence", CONDITIONS_TOLD), ("drug_exposure", DRUGS_TOLD)):
        concept, date = _TABLES[name]
        order = [pl.col("part"), moment(date), pl.col(f"{concept}_name")]
        table = rows.filter((pl.col("table") == name) & (pl.col(f"{concept}_name") != NO_CONCEPT))
        ordered = table.sort(order, descending=[False, True, False], nulls_last=True)
        told[name] = summary(ordered.select("part", title=f"{concept}_name"), limit)
    both = told["condition_occurrence"].join(
        told["drug_exposure"], on="part", how="full", coalesce=True, suffix="_drugs"
    )
    told_of = (pl.format("Conditions: {}.", "text"), pl.format("Drugs: {}.", "text_drugs"))
    return both.select("part", text=pl.concat_str(*told_of, separator=" ", ignore_nulls=True))
