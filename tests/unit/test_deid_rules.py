"""The standard's table and the values: what passes a rule, and what does not."""

from __future__ import annotations

import re
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from medvec_assets.deid.dicom import private, values
from medvec_assets.deid.dicom.rules import Options, rule_of
from medvec_assets.deid.dicom.table import CODES, rows
from medvec_assets.deid.dicom.terms import TERMS, WORDS
from medvec_assets.deid.pseudonyms import Pseudonyms

KEYS = Pseudonyms(b"k" * 32, "test")


def test_the_table_is_the_standards() -> None:
    assert Counter(row.action for row in rows().values()) == {"X": 387, "D": 130, "U": 57, "Z": 53}
    assert Counter(letter for row in rows().values() for letter in row.options) == {
        "T": 154,
        "C": 123,
        "I": 39,
        "P": 12,
    }
    assert {keyword for keyword in rows() if tag_for_keyword(keyword) is None} == set()
    assert {
        keyword: rows()[keyword].action
        for keyword in ("PatientName", "PatientID", "StudyDate", "SOPInstanceUID", "OtherPatientIDs")
    } == {"PatientName": "Z", "PatientID": "D", "StudyDate": "Z", "SOPInstanceUID": "U", "OtherPatientIDs": "X"}
    times = {keyword for keyword, row in rows().items() if "T" in row.options}
    assert {dictionary_VR(keyword) for keyword in times} == {"DA", "DT", "TM", "SH", "OB"}
    assert {"PatientBirthDate", "PatientBirthTime"} & times == set()
    assert len(CODES) == 7


def test_the_rules_of_the_whole_dictionary_by_kind() -> None:
    """A change here is a change of what leaves: read it before it is accepted."""
    found = Counter(rule_of(number, Options()).kind for number in DicomDictionary)
    assert found == {
        "value": 2_719,
        "sequence": 1_212,
        "drop": 871,
        "uid": 91,
        "time": 53,
        "date": 57,
        "datetime": 57,
        "bulk": 26,
        "pixels": 3,
        "subject": 2,
    }


def test_no_text_is_kept_without_a_pattern_or_a_vocabulary() -> None:
    for options in (Options(), Options(device=True)):
        for number, entry in DicomDictionary.items():
            rule = rule_of(number, options)
            if rule.kind != "value" or dictionary_or(entry[0]) not in (
                "AE",
                "LO",
                "LT",
                "PN",
                "SH",
                "ST",
                "UC",
                "UR",
                "UT",
            ):
                continue
            assert rule.keep is not None
            kept = rule.keep(b"Qzjane")
            assert kept is None or (options.device and "I" in rows()[rule.keyword].options), rule.keyword


def dictionary_or(vr: str) -> str:
    return vr[:2]


def test_vocabularies_hold_no_digits_that_are_a_number() -> None:
    assert [word for word in TERMS | WORDS if re.search(r"\d{4}", word)] == [
        word for word in TERMS | WORDS if word.startswith("ISO_1") and re.search(r"\d{4}", word)
    ]


def test_safe_private_rules_are_of_numbers() -> None:
    assert {rule.vr for rule in private.SAFE.values()} <= {"DS", "IS", "FL", "FD", "SS", "SL"}
    assert all(group & 1 for _, group, _ in private.SAFE)
    ge = private.SAFE["GEMS_PARM_01", 0x0043, 0x39].keep
    assert ge is not None and ge(rb"1000000800\8\0\0") == rb"1000000800\8\0\0" and ge(rb"4711081542\8") is None


# ---------------------------------------------------------------- values


@given(
    st.text(st.characters(codec="latin-1", exclude_characters="\\"), min_size=1, max_size=64).map(
        lambda t: t.strip(" \0")
    )
)
def test_any_uid_becomes_a_valid_one_and_always_the_same(uid: str) -> None:
    mapped = values.UidMap(KEYS).of(uid)
    if uid:
        assert UID(mapped).is_valid and mapped.startswith("2.25.") and len(mapped) <= 44
        assert mapped == values.UidMap(KEYS).of(uid)
        assert values.UidMap(KEYS).values(f"{uid}\0".encode("latin-1")) == mapped.encode()
        assert values.UidMap(KEYS, known=True).of(mapped) == mapped


def test_uids_of_the_standard_and_several_in_one_element() -> None:
    uids = values.UidMap(KEYS)
    assert uids.of("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"
    both = uids.values(b"1.2.3\\1.2.4\0").decode().split("\\")
    assert both == [uids.of("1.2.3"), uids.of("1.2.4")] and len(set(both)) == 2
    assert uids.values(b"") == b""


@pytest.mark.parametrize(
    ("keep", "value", "kept"),
    [
        (values.integers(5), b" 42 \\-7", b" 42 \\-7"),
        (values.integers(5), b"123456", None),
        (values.integers(5), b"12a", None),
        (values.integers(5), b"", b""),
        (values.decimals(5), b"-0.5\\1e-3\\+7. ", b"-0.5\\1e-3\\+7."),
        (values.decimals(5), b"123456.5", None),
        (values.decimals(5), b"0.12345678901234567", b"0.123456789"),
        (values.decimals(5), b"NaN", None),
        (values.within(0, 2.8), b"1.80", b"1.80"),
        (values.within(0, 2.8), b"180", None),
        (values.within(0, 2.8), b"1\\1", None),
        (values.binary(2, "1", False), b"\1\0", b"\1\0"),
        (values.binary(2, "1", False), b"\1\0\1\0", None),
        (values.binary(2, "1", False), b"", b""),
        (values.binary(4, "3-3n", True), struct.pack("<6f", *range(6)), struct.pack("<6f", *range(6))),
        (values.binary(4, "3-3n", True), struct.pack("<4f", *range(4)), None),
        (values.binary(8, "1", True), b"QZJANE..", None),
        (values.binary(8, "1", True), struct.pack("<d", float("nan")), None),
        (values.terms(TERMS), b"ORIGINAL\\PRIMARY\\QZ", b"ORIGINAL\\PRIMARY\\"),
        (values.terms(TERMS), b"QZ", None),
        (values.words(WORDS, 64), b"Chest/QZ abdomen 4711", b"Chest abdomen"),
        (values.words(WORDS, 9), b"CHEST ABDOMEN", b"CHEST"),
        (values.words(WORDS, 64), b"CHESTER", None),
        (values.times, b"235960\\101500.123", b"235960\\101500.123"),
        (values.times, b"10:15:00", None),
        (values.tags(lambda tag: tag == 0x00280010), struct.pack("<2H", 0x28, 0x10), struct.pack("<2H", 0x28, 0x10)),
        (values.tags(lambda tag: tag == 0x00280010), b"QZJA", None),
    ],
)
def test_what_a_rule_keeps(keep: values.Keep, value: bytes, kept: bytes | None) -> None:
    assert keep(value) == kept


def test_datetimes_keep_time_and_offset() -> None:
    assert values.shifted_datetimes(b"20200301", 1) == b"20200229"
    assert values.shifted_datetimes(b"20200301101500.123456-0500", 60) == b"20200101101500.123456-0500"
    assert values.shifted_datetimes(b"2020", 1) is None and values.shifted_datetimes(b"20200301 QZ", 1) is None
    days = {values.shift_days(KEYS, f"P{number}") for number in range(200)}
    assert min(days) >= 1 and max(days) <= values.MAX_SHIFT_DAYS and len(days) > 150
