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

from medvec_assets.deid.tables import (
    MAX_AGE,
    OLDEST_AGE,
    Age,
    Codes,
    Number,
    Pattern,
    Rule,
    ShiftedDate,
    TableRules,
    Title,
    Whole,
    Words,
)
from medvec_assets.modalities.ehr import vocabulary
from medvec_assets.modalities.ehr.rows import OLDEST_SHOWN, Kind, Tables, range_class, summary

_YEARS = (2100, 2250)  # of shifted dates; one before them was not shifted, and must not be kept
_TIME, _DAY = ShiftedDate(*_YEARS), ShiftedDate(*_YEARS, is_day=True)
_PCS = "[0-9A-HJ-NP-Z]"  # of ICD-10-PCS, whose seven characters are digits and letters but no name
_ICD = "|".join(
    (
        r"\d{2,5}|V\d{2,4}|E\d{3,4}",  # ICD-9
        "[A-Z][0-9][0-9A-Z]{1,5}",  # ICD-10-CM
        f"[0-9]{_PCS}{{6}}",
        *(f"[BCDFGHX]{_PCS}{{{before}}}[0-9]{_PCS}{{{5 - before}}}" for before in range(6)),
        "GZ[FGHJ]Z{4}",
    )
)
_CODED: dict[str, Rule] = {
    "seq_num": Whole(0, 10_000),
    "icd_code": Pattern(f"(?i: *(?:{_ICD}) *)"),
    "icd_version": Codes({"9", "10"}),
    "long_title": Title(),
}
_CARE_UNIT = Words(vocabulary.is_care_unit_word)
# The largest table first: it is then looked for among all lines, and the others among what is left.
RULES = TableRules(
    {
        "labevents": {
            "itemid": Pattern(r"5\d{4}"),
            "charttime": _TIME,
            "valuenum": Number(flaw="bad_number"),
            "valueuom": Words(vocabulary.is_unit_word),
            "ref_range_lower": Number(),
            "ref_range_upper": Number(),
        },
        "prescriptions": {
            "starttime": _TIME,
            "drug": Words(vocabulary.is_drug_word),
            "route": Words(vocabulary.is_route_word),
        },
        "diagnoses_icd": _CODED,
        "procedures_icd": {**_CODED, "chartdate": _DAY},
        "transfers": {"eventtype": Codes(vocabulary.TRANSFERS), "careunit": _CARE_UNIT, "intime": _TIME},
        "icustays": {"first_careunit": _CARE_UNIT, "intime": _TIME},
        "admissions": {
            "admittime": _TIME,
            "dischtime": _TIME,
            "deathtime": _TIME,
            "admission_type": Codes(vocabulary.ADMISSION_TYPES),
        },
        "patients": {"gender": Codes({"F", "M"}), "anchor_age": Age(), "anchor_year": Whole(*_YEARS)},
    }
)
"""All that is read of a stay's rows. Dates are shifted by the source."""
DIAGNOSES_TOLD, PROCEDURES_TOLD = 12, 6  # MiniLM reads 256 tokens: about as many titles
_LOS_DAYS = (1, 3, 7, 14, 30)
_LOS_NAMES = ("0-1", "2-3", "4-7", "8-14", "15-30", "31+")


def kinds() -> list[Kind]:
    """Every kind of event that a stay's rows are."""
    unit = pl.col("valueuom").str.strip_chars().fill_null("UNK")
    side = range_class("valuenum", "ref_range_lower", "ref_range_upper")
    lab = pl.format("LAB//{}//{}{}", "itemid", unit, side)
    drug = pl.col("drug").str.strip_chars().str.to_lowercase()
    return [
        Kind("admissions", pl.format("ADMISSION//{}", "admission_type"), "admittime"),
        Kind("admissions", _where("dischtime", "DISCHARGE"), "dischtime"),
        Kind("admissions", _where("deathtime", "MEDS_DEATH"), "deathtime"),
        Kind("diagnoses_icd", pl.format("{}//{}", _by_version("ICD9CM", "ICD10CM"), _diagnosis())),
        Kind("procedures_icd", pl.format("{}//{}", _by_version("ICD9Proc", "ICD10PCS"), _procedure()), "chartdate"),
        Kind("prescriptions", pl.format("DRUG//{}//{}", drug, pl.col("route").fill_null("UNK")), "starttime"),
        Kind("labevents", lab, "charttime", "valuenum"),
        Kind("transfers", pl.format("TRANSFER//{}", pl.coalesce("careunit", "eventtype")), "intime"),
        Kind("icustays", pl.format("ICU//{}", "first_careunit"), "intime"),
    ]


def _where(column: str, code: str) -> pl.Expr:
    return pl.when(pl.col(column).is_not_null()).then(pl.lit(code))


_IS_NINE = pl.col("icd_version") == "9"
_CODE = pl.col("icd_code").str.strip_chars().str.to_uppercase()


def _by_version(nine: str, ten: str) -> pl.Expr:
    return pl.when(_IS_NINE).then(pl.lit(nine)).otherwise(pl.lit(ten))


def _diagnosis() -> pl.Expr:
    """The point after three characters, after four of an external cause of ICD-9 (E885.9)."""
    return pl.when(_IS_NINE & _CODE.str.starts_with("E")).then(_pointed(4)).otherwise(_pointed(3))


def _procedure() -> pl.Expr:
    """The point after two digits in ICD-9; none in ICD-10-PCS."""
    return pl.when(_IS_NINE).then(_pointed(2)).otherwise(_CODE)


def _pointed(places: int) -> pl.Expr:
    """With a point after so many characters, if any follow."""
    return _CODE.str.replace(f"^(.{{{places}}})(.+)$", "${1}.${2}")


def facts(tables: Tables, parts: int) -> pl.DataFrame:
    """A row for each part: its flaw or null, and what may be said of it: sex, age (years), kind, span, text."""
    found = pl.DataFrame({"part": pl.Series(range(parts), dtype=pl.UInt32())})
    for name, told in (("admissions", _STAY), ("patients", _PATIENT)):
        found = found.join(tables[name].group_by("part").agg(**told), on="part", how="left", maintain_order="left")
    year_apart = pl.col("admitted").dt.year() - pl.col("anchor_year")
    # Who was over 89 once stays so: the anchor age says no more than that.
    age = (
        pl.when(pl.col("anchor_age") > OLDEST_SHOWN)
        .then(pl.lit(OLDEST_AGE))
        .otherwise(pl.col("anchor_age") + year_apart)
    )
    found = found.with_columns(age=age, days=(pl.col("discharged") - pl.col("admitted")).dt.total_days())
    return found.join(_text(tables), on="part", how="left", maintain_order="left").select(
        "part",
        "sex",
        "age",
        "text",
        kind="admission_type",
        span=pl.col("days").cut(_LOS_DAYS, labels=_LOS_NAMES).cast(pl.String),
        flaw=_flaw(),
    )


_STAY = {
    "stays": pl.len(),
    "admitted": pl.col("admittime").first(),
    "discharged": pl.col("dischtime").first(),
    "admission_type": pl.col("admission_type").first(),
}
_PATIENT = {
    "patients": pl.len(),
    "sex": pl.col("gender").first(),
    "anchor_age": pl.col("anchor_age").first(),
    "anchor_year": pl.col("anchor_year").first(),
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


def _text(tables: Tables) -> pl.DataFrame:
    """(part, text): the dictionary's titles of the first diagnoses and procedures; no row where there are none."""
    told = {}
    for name, limit in (("diagnoses_icd", DIAGNOSES_TOLD), ("procedures_icd", PROCEDURES_TOLD)):
        ordered = tables[name].sort("part", "seq_num", "icd_code")
        told[name] = summary(ordered.select("part", title="long_title"), limit)
    both = told["diagnoses_icd"].join(told["procedures_icd"], on="part", how="full", coalesce=True, suffix="_done")
    told_of = (pl.format("Diagnoses: {}.", "text"), pl.format("Procedures: {}.", "text_done"))
    return both.select("part", text=pl.concat_str(*told_of, separator=" ", ignore_nulls=True))
