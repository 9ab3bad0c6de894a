"""A hospital stay of MIMIC-IV: its rows as events in the MEDS vocabulary, and what may be said of it.

Belongs here: what the columns of MIMIC-IV mean, which stays are unfit. Does not belong here: which columns are read
(connectors.mimic_tables), features (bag).

    ADMISSION//EW EMER.  DISCHARGE  MEDS_DEATH  TRANSFER//Medicine  ICU//Neuro Stepdown  DRUG//insulin//SC
    ICD10CM//E11.9  ICD9CM//250.00  ICD10PCS//0DJD8ZZ  ICD9Proc//45.13  LAB//50912//mg/dL//high

Dates are shifted per subject by the source, into the years 2100 to 2250, and intervals are kept: they are not shifted
again, and only lengths of stay leave this module. An age of 90 or more is published as the anchor age 91.
"""

from __future__ import annotations

import polars as pl

from medvec_assets.modalities.ehr.rows import OLDEST_SHOWN, Kind, moment, range_class, summary, table_of

CODE_COLUMNS = (
    "admission_type",
    "dischtime",
    "deathtime",
    "icd_code",
    "icd_version",
    "drug",
    "route",
    "itemid",
    "valuenum",
    "valueuom",
    "ref_range_lower",
    "ref_range_upper",
    "eventtype",
    "careunit",
    "first_careunit",
)
"""All that codes are made of."""
COLUMNS = (
    *CODE_COLUMNS,
    "admittime",
    "gender",
    "anchor_age",
    "anchor_year",
    "seq_num",
    "long_title",
    "chartdate",
    "starttime",
    "charttime",
    "intime",
)
YEARS = (2100, 2250)  # of shifted dates; one before them was not shifted, and must not be kept
MAX_AGE = 130  # of a subject with the anchor age 91, some years on
DIAGNOSES_TOLD, PROCEDURES_TOLD = 12, 6  # MiniLM reads 256 tokens: about as many titles
_LOS_DAYS = (1, 3, 7, 14, 30)
_LOS_NAMES = ("0-1", "2-3", "4-7", "8-14", "15-30", "31+")


def kinds() -> list[Kind]:
    """Every kind of event that a stay's rows are."""
    unit = pl.col("valueuom").str.strip_chars().fill_null("UNK")
    bounds = ("ref_range_lower", "ref_range_upper")
    lab = pl.format("LAB//{}//{}{}", "itemid", unit, range_class("valuenum", *bounds))
    drug = pl.col("drug").str.strip_chars().str.to_lowercase()
    return [
        Kind("admissions", pl.format("ADMISSION//{}", "admission_type"), "admittime"),
        Kind("admissions", _where("dischtime", "DISCHARGE"), "dischtime"),
        Kind("admissions", _where("deathtime", "MEDS_DEATH"), "deathtime"),
        Kind("diagnoses_icd", pl.format("{}//{}", _by_version("ICD9CM", "ICD10CM"), _diagnosis())),
        Kind("procedures_icd", pl.format("{}//{}", _by_version("ICD9Proc", "ICD10PCS"), _procedure()), "chartdate"),
        Kind("prescriptions", pl.format("DRUG//{}//{}", drug, pl.col("route").fill_null("UNK")), "starttime"),
        Kind("labevents", lab, "charttime", "valuenum", bounds),
        Kind("transfers", pl.format("TRANSFER//{}", pl.coalesce("careunit", "eventtype")), "intime"),
        Kind("icustays", pl.format("ICU//{}", "first_careunit"), "intime"),
    ]


def _where(column: str, code: str) -> pl.Expr:
    return pl.when(pl.col(column).is_not_null()).then(pl.lit(code))


_IS_NINE = pl.col("icd_version") == "9"
_ICD = pl.col("icd_code").str.strip_chars().str.to_uppercase()


def _by_version(nine: str, ten: str) -> pl.Expr:
    return pl.when(_IS_NINE).then(pl.lit(nine)).otherwise(pl.lit(ten))


def _diagnosis() -> pl.Expr:
    """The point after three characters, after four of an external cause of ICD-9 (E885.9)."""
    return pl.when(_IS_NINE & _ICD.str.starts_with("E")).then(_pointed(4)).otherwise(_pointed(3))


def _procedure() -> pl.Expr:
    """The point after two digits in ICD-9; none in ICD-10-PCS."""
    return pl.when(_IS_NINE).then(_pointed(2)).otherwise(_ICD)


def _pointed(places: int) -> pl.Expr:
    """With a point after so many characters, if any follow."""
    return _ICD.str.replace(f"^(.{{{places}}})(.+)$", "${1}.${2}")


def facts(rows: pl.DataFrame, parts: int) -> pl.DataFrame:
    """A row for each part: its flaw or null, and what may be said of it: sex, age (years), kind, span, text."""
    found = pl.DataFrame({"part": pl.Series(range(parts), dtype=pl.UInt32())})
    for name, told in (("admissions", _stay()), ("patients", _patient())):
        columns = {column for one in told.values() for column in one.meta.root_names()}
        table = table_of(rows, name, *sorted(columns))
        found = found.join(table.group_by("part").agg(**told), on="part", how="left", maintain_order="left")
    year_apart = pl.col("admitted").dt.year() - pl.col("anchor_year")
    # Who was over 89 once stays so: the anchor age says no more than that.
    age = (
        pl.when(pl.col("anchor_age") > OLDEST_SHOWN)
        .then(pl.col("anchor_age").clip(91))
        .otherwise(pl.col("anchor_age") + year_apart)
    )
    found = found.with_columns(age=age, days=(pl.col("discharged") - pl.col("admitted")).dt.total_days())
    return found.join(_text(rows), on="part", how="left", maintain_order="left").select(
        "part",
        "sex",
        "age",
        "text",
        kind="admission_type",
        span=pl.col("days").cut(_LOS_DAYS, labels=_LOS_NAMES).cast(pl.String),
        flaw=_flaw(),
    )


def _stay() -> dict[str, pl.Expr]:
    return {
        "stays": pl.len(),
        "admitted": moment("admittime").first(),
        "discharged": moment("dischtime").first(),
        "admission_type": pl.col("admission_type").first(),
    }


def _patient() -> dict[str, pl.Expr]:
    sex = pl.col("gender").first().replace_strict({"F": "F", "M": "M"}, default=None, return_dtype=pl.String)
    return {
        "patients": pl.len(),
        "sex": sex,
        "anchor_age": pl.col("anchor_age").first().cast(pl.Int64, strict=False),
        "anchor_year": pl.col("anchor_year").first().cast(pl.Int64, strict=False),
    }


def _flaw() -> pl.Expr:
    """The first rule that a stay breaks."""
    return (
        pl.when(pl.col("patients").is_null())
        .then(pl.lit("no_patient"))
        .when(pl.col("patients") > 1)
        .then(pl.lit("duplicate_subject"))
        .when(pl.col("stays") > 1)
        .then(pl.lit("duplicate_stay"))
        .when(pl.col("admitted").is_null() | (pl.col("discharged") < pl.col("admitted")))
        .then(pl.lit("impossible_date"))
        .when(~pl.col("age").is_between(0, MAX_AGE).fill_null(False))
        .then(pl.lit("impossible_age"))
        .when(pl.col("admission_type").is_null())
        .then(pl.lit("missing_field"))
    )


def _text(rows: pl.DataFrame) -> pl.DataFrame:
    """(part, text): the dictionary's titles of the first diagnoses and procedures; no row where there are none."""
    told = {}
    for name, limit in (("diagnoses_icd", DIAGNOSES_TOLD), ("procedures_icd", PROCEDURES_TOLD)):
        order = pl.col("seq_num").cast(pl.Int64, strict=False)
        table = table_of(rows, name, "seq_num", "icd_code", "long_title").sort("part", order, "icd_code")
        told[name] = summary(table.select("part", title="long_title"), limit)
    both = told["diagnoses_icd"].join(told["procedures_icd"], on="part", how="full", coalesce=True, suffix="_done")
    told_of = (pl.format("Diagnoses: {}.", "text"), pl.format("Procedures: {}.", "text_done"))
    return both.select("part", text=pl.concat_str(*told_of, separator=" ", ignore_nulls=True))
