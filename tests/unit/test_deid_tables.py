"""Rules for tables: deny by default, each rule's own type, and values that never pass as they are."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.deid.tables import (
    MAX_TITLE_CHARS,
    OLDEST_AGE,
    REFUSALS,
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

KNOWN = {"sodium", "chloride", "mg", "dl"}


def is_known(word: str) -> bool:
    return word in KNOWN


COLUMNS: dict[str, Rule] = {
    "sex": Codes({"F", "M"}),
    "item": Pattern(r"5\d{4}|[a-c]"),
    "drug": Words(is_known),
    "title": Title(),
    "result": Number(flaw="bad_number"),
    "year": Whole(2100, 2250),
    "age": Age(),
    "admitted": ShiftedDate(2100, 2250),
    "day": ShiftedDate(2100, 2250, is_day=True),
}
RULES = TableRules({"stays": COLUMNS})


def cleaned(**columns: list[str | None]) -> tuple[pl.DataFrame, list[str | None]]:
    """What passes, and the flaws of what does not."""
    rows = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String())).with_row_index("part")
    clean, refusals = RULES.apply("stays", rows)
    assert refusals.schema == pl.Schema(REFUSALS)
    return clean, refusals["flaw"].to_list()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*COLUMNS, "ssn", "name", "note"]), st.text(max_size=30), min_size=1))
def test_no_column_escapes_and_what_is_lost_is_told(row: dict[str, str]) -> None:
    clean, flaws = cleaned(**{name: [value] for name, value in row.items()})
    assert set(clean.columns) == {"part", *(row.keys() & COLUMNS.keys())}
    changed = [name for name in clean.columns[1:] if clean[name].dtype == pl.String and clean[name][0] != row[name]]
    lost = [name for name in clean.columns[1:] if clean[name].dtype != pl.String and clean[name][0] is None]
    assert len(flaws) == len(changed) + len(lost)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="sodiumchlre 0123456789/-.@", max_size=40) | st.text(max_size=40))
def test_no_word_passes_but_known_ones_and_no_number_that_may_be_a_persons(text: str) -> None:
    clean, _ = cleaned(drug=[text])
    kept = clean["drug"][0] or ""
    letters = "".join(char if char.isalnum() else " " for char in kept).split()
    assert all(word.lower() in KNOWN or word.isdecimal() or word.isnumeric() for word in letters)
    assert sum(char.isdecimal() for char in kept) <= 8


@pytest.mark.parametrize("table", ["patients", ""])
def test_a_table_without_rules_gives_nothing(table: str) -> None:
    clean, refusals = RULES.apply(
        table, pl.DataFrame({"part": [0], "sex": ["F"]}, schema_overrides={"part": pl.UInt32})
    )
    assert clean.columns == ["part"] and refusals.is_empty()


@pytest.mark.parametrize(
    ("column", "values", "expected", "flaws"),
    [
        ("sex", ["F", "Harold Vance", None], ["F", None, None], [None]),
        ("item", ["50912", "a", "509120", "7", "50912\n"], ["50912", "a", None, None, None], [None] * 3),
        ("title", ["Dehydration", "a\nb", "x" * (MAX_TITLE_CHARS + 1)], ["Dehydration", None, None], [None] * 2),
        ("result", ["4.1", "-1", "call 555-0142", "nan", "inf", None], [4.1, -1.0, *[None] * 4], ["bad_number"] * 3),
        ("year", ["2150", "1950", "2150.5", "Vance"], [2150, None, None, None], [None] * 3),
        (
            "age",
            ["0", "89", "90", "104", "-1", "600", "old"],
            [0, 89, OLDEST_AGE, OLDEST_AGE, None, None, None],
            ["impossible_age"] * 3,
        ),
        (
            "admitted",
            ["2150-03-01 10:00:00", "2150-02-30 10:00:00", "2019-03-01 10:00:00", "yesterday, Mr. Vance", "2150-03-01"],
            [datetime(2150, 3, 1, 10), None, None, None, None],
            ["impossible_date"] * 4,
        ),
        (
            "day",
            ["2150-03-01", "2150-03-01 10:00:00", "1950-03-01"],
            [datetime(2150, 3, 1)] * 2 + [None],
            ["impossible_date"],
        ),
    ],
)
def test_a_value_that_does_not_fit_its_rule_goes(
    column: str, values: list[str | None], expected: list[Any], flaws: list[str | None]
) -> None:
    clean, found = cleaned(**{column: values})
    assert clean[column].to_list() == expected
    assert found == flaws


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Sodium Chloride 0.9%  Flush", "Sodium Chloride 0.9"),
        ("Sodium Chloride (0.9%)", "Sodium Chloride (0.9%)"),
        ("sodium for Harold Vance, MRN 12345678", "sodium"),
        ("sodium 617-555-0142", "sodium"),
        ("sodium 02139", "sodium"),
        ("sodium 3/4/2150", "sodium"),
        ("G123456789", None),
        ("harold.vance@example.org", None),
        ("1.73 mg/dL", "1.73 mg/dL"),
        ("%", "%"),
    ],
)
def test_of_a_text_the_known_words_stay(text: str, kept: str | None) -> None:
    clean, flaws = cleaned(drug=[text])
    assert clean["drug"][0] == kept
    assert flaws == ([] if kept == text else [None])
