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

from medvec_assets.modalities.ehr.rows import EVENTS, OLDEST_SHOWN, impossible, moment, number, range_class, summary

COLUMNS = (
    "admittime",
    "dischtime",
    "deathtime",
    "admission_type",
    "gender",
    "anchor_age",
    "anchor_year",
    "seq_num",
    "icd_code",
    "icd_version",
    "long_title",
    "chartdate",
    "starttime",
    "drug_type",
    "drug",
    "route",
    "itemid",
    "charttime",
    "valuenum",
    "valueuom",
    "ref_range_lower",
    "ref_range_upper",
    "eventtype",
    "careunit",
    "intime",
    "first_careunit",
)
YEARS = (2100, 2250)  # of shifted dates; one before them was not shifted, and must not be kept
MAX_AGE = 130  # of a subject with the anchor age 91, some years on
DIAGNOSES_TOLD, PROCEDURES_TOLD = 12, 6  # MiniLM reads 256 tokens: about as many titles
_LOS_DAYS = (1, 3, 7, 14, 30)
_LOS_NAMES = ("0-1", "2-3", "4-7", "8-14", "15-30", "31+")


def events(rows: pl.DataFrame) -> pl.DataFrame:
    """EVENTS of every row that is one."""
    tables = {str(name): frame for (name,), frame in rows.partition_by("table", as_dict=True).items()}
    made = [_made(tables[name], *kind) for name, kinds in _kinds().items() if name in tables for kind in kinds]
    found = pl.concat(made) if made else pl.DataFrame(schema=EVENTS)
    return found.drop_nulls("code")


def _kinds() -> dict[str, list[tuple[pl.Expr, str | None, str | None]]]:
    """table -> (code, column of the time, column of the number) of the events that a row of it is."""
    icd = pl.col("icd_code").str.strip_chars().str.to_uppercase()
    first3, rest = icd.str.head(3), icd.str.slice(3)
    external = icd.str.starts_with("E") & (pl.col("icd_version") == "9")
    dotted = pl.concat_str(
        pl.when(external).then(icd.str.head(4)).otherwise(first3),
        pl.lit("."),
        icd.str.slice(pl.when(external).then(4).otherwise(3)),
    )
    diagnosis = pl.when(pl.when(external).then(icd.str.slice(4)).otherwise(rest) == "").then(icd).otherwise(dotted)
    procedure = (
        pl.when(pl.col("icd_version") == "9")
        .then(pl.concat_str(icd.str.head(2), pl.lit("."), icd.str.slice(2)))
        .otherwise(icd)
    )
    is_nine = pl.col("icd_version") == "9"
    drug = pl.col("drug").str.strip_chars().str.to_lowercase()
    unit = pl.col("valueuom").str.strip_chars().fill_null("UNK")
    lab = pl.format("LAB//{}//{}{}", "itemid", unit, range_class("valuenum", "ref_range_lower", "ref_range_upper"))
    return {
        "admissions": [
            (pl.format("ADMISSION//{}", "admission_type"), "admittime", None),
            (pl.when(pl.col("dischtime").is_not_null()).then(pl.lit("DISCHARGE")), "dischtime", None),
            (pl.when(pl.col("deathtime").is_not_null()).then(pl.lit("MEDS_DEATH")), "deathtime", None),
        ],
        "diagnoses_icd": [
            (
                pl.format("{}//{}", pl.when(is_nine).then(pl.lit("ICD9CM")).otherwise(pl.lit("ICD10CM")), diagnosis),
                None,
                None,
            )
        ],
        "procedures_icd": [
            (
                pl.format("{}//{}", pl.when(is_nine).then(pl.lit("ICD9Proc")).otherwise(pl.lit("ICD10PCS")), procedure),
                "chartdate",
                None,
            )
        ],
        "prescriptions": [(pl.format("DRUG//{}//{}", drug, pl.col("route").fill_null("UNK")), "starttime", None)],
        "labevents": [(lab, "charttime", "valuenum")],
        "transfers": [(pl.format("TRANSFER//{}", pl.coalesce("careunit", "eventtype")), "intime", None)],
        "icustays": [(pl.format("ICU//{}", "first_careunit"), "intime", None)],
    }


def _made(table: pl.DataFrame, code: pl.Expr, time: str | None, value: str | None) -> pl.DataFrame:
    nothing = pl.lit(None, pl.String)
    flaw = nothing
    if time is not None:
        flaw = pl.when(impossible(time, *YEARS)).then(pl.lit("impossible_date"))
    if value is not None:
        bad = pl.col(value).is_not_null() & number(value).is_null()
        flaw = pl.when(bad).then(pl.lit("bad_number")).otherwise(flaw)
    return table.select(
        "part",
        time=moment(time) if time is not None else pl.lit(None, pl.Datetime("us")),
        code=code,
        numeric_value=(number(value) if value is not None else pl.lit(None)).cast(pl.Float32),
        flaw=flaw,
    )


def facts(rows: pl.DataFrame, parts: int) -> pl.DataFrame:
    """A row for each part: its flaw or null, and what may be said of it: sex, age (years), kind, span, text."""
    found = pl.DataFrame({"part": pl.Series(range(parts), dtype=pl.UInt32())})
    for name, columns in (("admissions", _stay()), ("patients", _patient())):
        table = rows.filter(pl.col("table") == name)
        found = found.join(table.group_by("part").agg(**columns), on="part", how="left", maintain_order="left")
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
        table = rows.filter(pl.col("table") == name).sort("part", order, "icd_code")
        told[name] = summary(table.select("part", title="long_title"), limit)
    both = told["diagnoses_icd"].join(told["procedures_icd"], on="part", how="full", coalesce=True, suffix="_done")
    told_of = (pl.format("Diagnoses: {}.", "text"), pl.format("Procedures: {}.", "text_done"))
    return both.select("part", text=pl.concat_str(*told_of, separator=" ", ignore_nulls=True))
