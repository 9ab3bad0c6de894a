"""The series descriptor: its text, its refusals, and that nothing is lost or left over."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import text_digest
from medvec_assets.json_columns import json_objects
from medvec_assets.modalities import RECORD_FRAME, modality
from medvec_assets.modalities.series_descriptor import MAX_FIELD_CHARS, MODALITY
from resources.errors import SourceError

PSEUDONYMS = Pseudonyms(b"k" * 32, "tcia")
LIVER = {
    "body_part": "LIVER",
    "instances": 91,
    "manufacturer": "SIEMENS",
    "modality": "CT",
    "series_description": "Arterial phase  3.0 B30f",
    "study_description": "CT abdomen with contrast",
}


def objects(*attributes: dict[str, Any] | str, cohort: str = "tcga_lihc") -> pl.DataFrame:
    n = len(attributes)
    return pl.DataFrame(
        {
            "object_id": [f"1.2.{i}" for i in range(n)],
            "cohort": [cohort] * n,
            "partition": [cohort] * n,
            "uri": [f"s3://bucket/{i}/*" for i in range(n)],
            "license": ["CC BY 4.0"] * n,
            "access_tier": ["open"] * n,
            "subject_ref": [f"P{i // 2}" for i in range(n)],
            "attributes": [a if isinstance(a, str) else json.dumps(a) for a in attributes],
        }
    )


def read(uri: str) -> bytes:
    raise AssertionError(f"a descriptor reads no bytes, not even of {uri}")


def records(*attributes: dict[str, Any] | str, cohort: str = "tcga_lihc") -> pl.DataFrame:
    frame, rejected = MODALITY.records(objects(*attributes, cohort=cohort), read, PSEUDONYMS)
    assert rejected == []
    return frame


def text(cohort: str = "tcga_lihc", **fields: Any) -> str:
    found: str = records(fields, cohort=cohort)["text"].item()
    return found


def test_a_series_becomes_a_record() -> None:
    assert modality("series_descriptor") is MODALITY
    frame = records(LIVER)
    assert dict(frame.schema) == RECORD_FRAME
    told = "CT computed tomography liver. Arterial phase 3.0 B30f. CT abdomen with contrast. tcga lihc"
    assert frame.row(0, named=True) == {
        "record_id": "1.2.0",
        "subject_key": PSEUDONYMS.subject("P0"),
        "object_ids": ["1.2.0"],
        "cohort": "tcga_lihc",
        "modality": "CT",
        "license": "CC BY 4.0",
        "access_tier": "open",
        "text": told,
        "attributes": json.dumps(
            LIVER | {"series_description": "Arterial phase 3.0 B30f"}, sort_keys=True, separators=(",", ":")
        ),
        "payload_uri": "s3://bucket/0/*",
        "deid_profile": "open-catalogue-1",
        "deid_actions": "{}",
        "content_digests": json.dumps({"text": text_digest(told)}, separators=(",", ":")),
        "payload": None,
    }
    assert MODALITY.model_inputs(frame, "text", read) == [told]


def test_missing_parts_are_left_out() -> None:
    assert text(modality="MR") == "MR magnetic resonance imaging MRI. tcga lihc"
    assert text(modality="CT", series_description=" \u3000 ") == "CT computed tomography. tcga lihc"
    assert (
        text(modality="CT", study_description="Thorax", cohort="4d-lung") == "CT computed tomography. Thorax. 4d lung"
    )


def test_codes_are_spelled_out_and_unknown_ones_kept() -> None:
    assert text(modality="SM") == "SM slide microscopy pathology. tcga lihc"
    assert text(modality="ZZ", body_part="Left Breast") == "ZZ left breast. tcga lihc"
    assert (
        text(modality="CT", body_part="CHESTABDPELVIS") == "CT computed tomography chest, abdomen and pelvis. tcga lihc"
    )


def test_two_spellings_of_one_text_are_one_content() -> None:
    frame = records(
        {"modality": "MR", "series_description": "Sch\u00e4del  T1 "},
        {"modality": "MR", "series_description": "Scha\u0308del T1", "instances": 3},
    )
    assert frame["text"].n_unique() == frame["content_digests"].n_unique() == 1
    assert frame["attributes"].n_unique() == 2  # the number of instances is told, and is no part of the model input


def test_source_fields_that_are_not_allowed_stay_behind() -> None:
    frame = records(LIVER | {"patient_name": "SECRET", "doi": "10.1/x", "sop_class_name": "CT Image Storage"})
    assert set(json.loads(frame["attributes"].item())) == set(LIVER)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"series_description": "LIVER"}, "missing_field"),
        ({"modality": " "}, "missing_field"),
        ({}, "missing_field"),
        ({"modality": "CT", "series_description": "a\x00b"}, "control_characters"),
        ({"modality": "CT", "series_description": "tab\t"}, "control_characters"),
        ({"modality": "C\x1fT"}, "control_characters"),
        ({"modality": "CT", "manufacturer": "\x85"}, "control_characters"),
        ({"modality": "CT", "study_description": "x" * (MAX_FIELD_CHARS + 1)}, "field_too_long"),
    ],
)
def test_bad_descriptors_are_refused_and_their_neighbours_are_not(bad: dict[str, str], code: str) -> None:
    frame, rejected = MODALITY.records(objects(LIVER, bad, LIVER), read, PSEUDONYMS)
    assert frame["record_id"].to_list() == ["1.2.0", "1.2.2"]
    assert [(r.object_id, r.code, r.disposition) for r in rejected] == [("1.2.1", code, "quarantined")]
    assert not any(value and value in rejected[0].remedy for value in bad.values() if len(value) > 2)


def test_a_field_of_exactly_the_limit_passes() -> None:
    assert "x" * MAX_FIELD_CHARS in text(modality="CT", study_description="x" * MAX_FIELD_CHARS)


def test_attributes_that_are_not_json_fail_the_source_without_quoting_them() -> None:
    with pytest.raises(SourceError) as caught:
        MODALITY.records(objects('{"modality": "SECRET'), read, PSEUDONYMS)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_objects_make_no_records() -> None:
    frame, rejected = MODALITY.records(objects(LIVER).clear(), read, PSEUDONYMS)
    assert dict(frame.schema) == RECORD_FRAME and frame.is_empty() and rejected == []


fields = st.fixed_dictionaries(
    {},
    optional={
        "modality": st.sampled_from(["CT", "MR", ""]),
        "series_description": st.text(max_size=12),
        "study_description": st.none() | st.text(alphabet='",:{}\\ nul\u00e9', max_size=12),
        "instances": st.integers(0, 10**9),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(fields, min_size=1, max_size=20))
def test_every_object_is_a_record_or_refused_and_order_is_kept(attributes: list[dict[str, Any]]) -> None:
    source = objects(*attributes)
    frame, rejected = MODALITY.records(source, read, PSEUDONYMS)
    assert sorted(frame["object_ids"].explode().to_list() + [r.object_id for r in rejected]) == sorted(
        source["object_id"]
    )
    assert frame["record_id"].to_list() == [i for i in source["object_id"] if i not in {r.object_id for r in rejected}]
    assert all(json.loads(a) for a in frame["attributes"])
    assert frame.drop("payload").null_count().sum_horizontal().sum() == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(*[st.none() | st.text(alphabet='",:{}[]\\nulab\t\u00e9', max_size=10)] * 3), min_size=1))
def test_json_objects_keep_every_value_and_drop_every_null(rows: list[tuple[str | None, ...]]) -> None:
    frame = pl.DataFrame(rows, schema=dict.fromkeys("bca", pl.String), orient="row")
    encoded = frame.select(json_objects(b=pl.col("b"), c=pl.col("c"), a=pl.col("a"))).to_series()
    for text_, row in zip(encoded, frame.to_dicts(), strict=True):
        expected = {key: row[key] for key in sorted(row) if row[key] is not None}
        assert list(json.loads(text_).items()) == list(expected.items())
