"""Rules for tables: deny by default, consistent pseudonyms, intervals that stay, values that never pass as they are."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid.tables import (
    OLDEST_AGE,
    SPARSE_ZIP3,
    Age,
    Codes,
    Drop,
    FreeText,
    Keep,
    Number,
    Pseudonym,
    ShiftedDate,
    TableRules,
    Zip3,
    shift_days,
)

PSEUDONYMS = Pseudonyms(b"k" * 32, "mimic")
RULES = TableRules(
    "test-tables-1",
    {
        "subject_id": Pseudonym("subject"),
        "mother_id": Pseudonym("subject"),
        "admitted": ShiftedDate(),
        "left": ShiftedDate(),
        "sex": Codes(frozenset({"F", "M"})),
        "age": Age(),
        "zip": Zip3(),
        "result": Number(),
        "remark": Drop(),
        "unit": Keep(),
    },
)
DATES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda when: when.replace(microsecond=0))


def cleaned(**columns: list[str | None]) -> tuple[pl.DataFrame, dict[str, int]]:
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String()))
    return RULES.apply(frame, PSEUDONYMS, subject_column="subject_id")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), DATES, DATES), min_size=1, max_size=8))
def test_intervals_of_a_subject_stay_and_no_date_does(rows: list[tuple[str, datetime, datetime]]) -> None:
    form = "%Y-%m-%d %H:%M:%S"
    found, actions = cleaned(
        subject_id=[row[0] for row in rows],
        admitted=[row[1].strftime(form) for row in rows],
        left=[row[2].strftime(form) for row in rows],
    )
    moved = [[datetime.strptime(text, form) for text in found[name]] for name in ("admitted", "left")]
    for (subject, came, went), now_came, now_went in zip(rows, *moved, strict=True):
        assert now_went - now_came == went - came
        assert now_came - came == timedelta(days=shift_days(PSEUDONYMS, subject)) < timedelta(0)
        assert now_came.weekday() == came.weekday()
    assert actions["date_shifted"] == 2 * len(rows)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from([*RULES.columns, "ssn", "name", "note"]), st.text(max_size=12), min_size=1))
def test_no_column_escapes(row: dict[str, str]) -> None:
    row = {"subject_id": "7"} | row
    found, actions = cleaned(**{name: [value] for name, value in row.items()})
    allowed = {name for name, rule in RULES.columns.items() if not isinstance(rule, Drop)}
    assert set(found.columns) == set(row) & allowed
    unknown = len(set(row) - set(RULES.columns))
    assert actions.get("column_without_rule", 0) == unknown
    assert found["subject_id"][0] != row["subject_id"]


def test_equal_people_get_equal_pseudonyms_in_every_column() -> None:
    found, _ = cleaned(subject_id=["7", "8", None], mother_id=["8", "7", "7"])
    assert found["subject_id"].to_list() == [PSEUDONYMS.subject("7"), PSEUDONYMS.subject("8"), None]
    assert found["mother_id"].to_list() == [PSEUDONYMS.subject("8"), PSEUDONYMS.subject("7"), PSEUDONYMS.subject("7")]


def test_a_date_of_nobody_and_what_is_no_date_go() -> None:
    found, actions = cleaned(
        subject_id=["7", "7", "7", None], admitted=["2150-02-30", "2150-03-01", "yesterday, Mr. Vance", "2150-03-01"]
    )
    assert found["admitted"].is_null().to_list() == [True, False, True, True]
    assert (actions["value_refused"], actions["date_shifted"]) == (3, 1)


def test_dates_that_the_source_has_shifted_stay() -> None:
    rules = TableRules("source", {"charttime": ShiftedDate(by_source=True)})
    frame = pl.DataFrame({"charttime": ["2150-03-01 10:00:00", "Mr. Vance"]})
    found, _ = rules.apply(frame, PSEUDONYMS)
    assert found["charttime"].to_list() == ["2150-03-01 10:00:00", None]


def test_a_shift_without_subjects_is_refused() -> None:
    with pytest.raises(ValueError, match="admitted"):
        RULES.apply(pl.DataFrame({"admitted": ["2150-03-01"]}), PSEUDONYMS)


def test_zip_codes_keep_three_digits_and_sparse_areas_none() -> None:
    found, actions = cleaned(subject_id=["7"] * 5, zip=["02139", "02139-4307", "05901", "Boston", "0213"])
    assert found["zip"].to_list() == ["021", "021", "000", None, None]
    assert (actions["zip3"], actions["zip3_sparse"], actions["value_refused"]) == (3, 1, 2)
    assert len(SPARSE_ZIP3) == 17


def test_ages_end_at_ninety_and_impossible_ones_go() -> None:
    found, actions = cleaned(subject_id=["7"] * 6, age=["89", "90", "104", "-1", "600", "old"])
    assert found["age"].to_list() == ["89", str(OLDEST_AGE), "90", None, None, None]
    assert (actions["age_capped"], actions["value_refused"]) == (2, 3)


def test_a_value_off_its_list_goes() -> None:
    found, actions = cleaned(
        subject_id=["7"] * 3, sex=["F", "Harold Vance", None], result=["4.1", "call 555-0142", "nan"]
    )
    assert found["sex"].to_list() == ["F", None, None]
    assert found["result"].to_list() == ["4.1", None, None]
    assert actions["value_refused"] == 3


def test_free_text_goes_through_the_rules_for_notes() -> None:
    rules = TableRules("text", {"comment": FreeText()})
    frame = pl.DataFrame({"comment": ["Seen by Dr. Vance on 3/4/2150", "Seen by Dr. Vance on 3/4/2150", "a\0b", None]})
    found, actions = rules.apply(frame, PSEUDONYMS)
    assert found["comment"].to_list() == ["Seen by Dr. [NAME] on [DATE]"] * 2 + [None, None]
    assert actions == {"text_date": 2, "text_name": 2, "value_refused": 1}
