"""EHR rows to events, records and inputs: the codes, what makes a stay unfit, what a record may tell, what is found near."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import meds
import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fit_bag_of_codes import fit
from medvec_assets.catalog.mimic_stays import MIMIC_STAYS
from medvec_assets.connectors import mimic_tables, open_connector
from medvec_assets.connectors import omop as cdm
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, Rejected
from medvec_assets.modalities.ehr import MODALITY, mimic, omop
from medvec_assets.modalities.ehr.bag import FEATURES, GRID, code_counts, features_of, packed, unpacked
from medvec_assets.modalities.ehr.rows import EVENTS, age_band, events_of, rows_of
from resources import encoders
from resources.encoders.cards import fitted, read_card
from resources.encoders.projection import Projection
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

PSEUDONYMS = Pseudonyms(b"k" * 32, "mimic")
STAY: dict[str, dict[str, str]] = {
    "admissions": {"admittime": "2150-03-01 10:00:00", "dischtime": "2150-03-04 09:00:00", "admission_type": "URGENT"},
    "patients": {"gender": "F", "anchor_age": "60", "anchor_year": "2148"},
    "diagnoses_icd": {
        "seq_num": "1",
        "icd_code": "E119",
        "icd_version": "10",
        "long_title": "Type 2 diabetes mellitus",
    },
}
LAB = {"itemid": "50912", "charttime": "2150-03-01 12:00:00", "valuenum": "1.0", "valueuom": "mg/dL"}


def part(*rows: tuple[str, dict[str, str]]) -> bytes:
    lines = sorted(
        json.dumps({"table": table} | fields, sort_keys=True, separators=(",", ":")) + "\n" for table, fields in rows
    )
    return "".join(lines).encode()


def stay(*further: tuple[str, dict[str, str]], **changed: dict[str, Any]) -> bytes:
    tables = {name: {k: v for k, v in (fields | changed.get(name, {})).items() if v} for name, fields in STAY.items()}
    return part(*tables.items(), *further)


def records(*parts: bytes) -> tuple[pl.DataFrame, list[Rejected]]:
    objects = pl.DataFrame(
        {
            "object_id": [f"o{i}" for i in range(len(parts))],
            "uri": [str(i) for i in range(len(parts))],
            "subject_ref": ["7"] * len(parts),
            "cohort": "hosp",
            "license": "L",
            "access_tier": "registered",
        }
    )
    return MODALITY.records(objects, lambda uri: parts[int(uri)], PSEUDONYMS)


def codes(*rows: tuple[str, dict[str, str]]) -> list[str]:
    tables, _ = rows_of([part(*rows)], mimic.RULES)
    return events_of(tables, mimic.kinds())["code"].to_list()


@pytest.mark.parametrize(
    ("table", "code", "version", "expected"),
    [
        ("diagnoses_icd", "E119", "10", "ICD10CM//E11.9"),
        ("diagnoses_icd", "I10", "10", "ICD10CM//I10"),
        ("diagnoses_icd", "25013", "9", "ICD9CM//250.13"),
        ("diagnoses_icd", "E8859", "9", "ICD9CM//E885.9"),
        ("diagnoses_icd", "V4581", "9", "ICD9CM//V45.81"),
        ("procedures_icd", "0DJD8ZZ", "10", "ICD10PCS//0DJD8ZZ"),
        ("procedures_icd", "4513", "9", "ICD9Proc//45.13"),
    ],
)
def test_a_code_is_spelled_as_its_vocabulary_spells_it(table: str, code: str, version: str, expected: str) -> None:
    assert codes((table, {"icd_code": code, "icd_version": version})) == [expected]


@pytest.mark.parametrize(
    ("value", "low", "high", "end"),
    [
        ("1.0", "0.5", "1.2", "//normal"),
        ("1.3", "0.5", "1.2", "//high"),
        ("2.0", "0.5", "1.2", "//very_high"),
        ("0.4", "0.5", "1.2", "//low"),
        ("-1", "0.5", "1.2", "//very_low"),
        ("9", "", "1.2", "//high"),
        ("9", "", "", ""),
        ("", "0.5", "1.2", ""),
        ("9", "1.2", "0.5", ""),
    ],
)
def test_a_result_is_classed_by_its_own_range(value: str, low: str, high: str, end: str) -> None:
    fields = {"valuenum": value, "ref_range_lower": low, "ref_range_upper": high}
    assert codes(
        ("labevents", LAB | fields if value else {k: v for k, v in (LAB | fields).items() if k != "valuenum"})
    ) == [f"LAB//50912//mg/dL{end}"]


def test_other_rows_become_the_events_they_are() -> None:
    rows = [
        ("admissions", STAY["admissions"] | {"deathtime": "2150-03-04 09:00:00"}),
        ("prescriptions", {"drug": " Insulin ", "route": "SC", "starttime": "2150-03-01 00:00:00"}),
        ("transfers", {"careunit": "Medicine", "eventtype": "admit", "intime": "2150-03-01 00:00:00"}),
        ("transfers", {"eventtype": "discharge", "intime": "2150-03-01 00:00:00"}),
        ("icustays", {"first_careunit": "MICU", "intime": "2150-03-01 00:00:00"}),
    ]
    assert sorted(codes(*rows)) == [
        "ADMISSION//URGENT",
        "DISCHARGE",
        "DRUG//insulin//SC",
        "ICU//MICU",
        "MEDS_DEATH",
        "TRANSFER//Medicine",
        "TRANSFER//discharge",
    ]


@pytest.mark.parametrize(
    ("dataset", "name", "layout"), [("mimic_stays", "mimic_tables", mimic), ("aou_persons", "omop", omop)]
)
def test_events_are_meds(tmp_path: Path, dataset: str, name: str, layout: Any) -> None:
    connector = open_connector(name, Settings(home=tmp_path, pseudonym_key="11" * 32), dataset)
    uris = next(iter(connector.listings(pl.DataFrame()))).objects["uri"]
    rows, _ = rows_of([connector.read(uri, max_bytes=1 << 20) for uri in uris], layout.RULES)
    found = events_of(rows, layout.kinds())
    assert found.schema == pl.Schema(EVENTS) and found.height > 500
    events = found.select(pl.col("part").cast(pl.Int64).alias("subject_id"), "time", "code", "numeric_value")
    table = events.sort("subject_id", "time").to_arrow()
    meds.DataSchema.align(table)


def test_a_rare_table_among_many_rows_is_read_too() -> None:
    """Text functions of polars 2.1 panic over pieces of which one has no row of this table."""
    lab = part(*[("labevents", LAB | {"itemid": str(50_000 + i)}) for i in range(5_000)])
    tables, _ = rows_of([lab] * 10 + [part(("diagnoses_icd", STAY["diagnoses_icd"]))], mimic.RULES)
    found = events_of(tables, mimic.kinds())
    assert found.filter(pl.col("part") == 10)["code"].to_list() == ["ICD10CM//E11.9"] and found.height == 50_001


def test_every_column_that_is_read_has_a_rule_and_no_rule_is_for_another() -> None:
    """Of a stay all that is landed is ruled; of a person's concepts also what no rule lets pass: their numbers and classes."""
    for table, columns in mimic.RULES.tables.items():
        layout = mimic_tables.TABLES[table]
        landed = set(layout.kept.split()) - {"subject_id", "hadm_id"} | ({"long_title"} if layout.titles else set())
        assert set(columns) == landed, table
    assert mimic.RULES.tables.keys() == mimic_tables.TABLES.keys()
    for table, columns in omop.RULES.tables.items():
        concepts = [f"{name}_{end}" for name in cdm.CONCEPTS[table].values() for end in ("vocabulary", "code", "name")]
        landed = {name for name in cdm.TABLES[table].kept if not name.endswith("_id")} | set(concepts)
        assert set(columns) <= landed, table
    assert omop.RULES.tables.keys() == cdm.TABLES.keys()


def test_a_further_column_passes_nowhere_and_a_table_without_rules_fails_the_source() -> None:
    plain, more = (
        records(stay(), stay(admissions={"ssn": "912-34-5678"}))[0]
        .drop("record_id", "object_ids")
        .partition_by("payload_uri", include_key=False)
    )
    assert plain.equals(more)
    with pytest.raises(SourceError) as refusal:
        records(stay(("omr", {"result_value": "1"})))
    assert refusal.value.code == "schema_drift"


def test_what_rules_refuse_is_counted_for_its_record_alone() -> None:
    typed = {"itemid": "50912", "valueuom": "mg Vance", "ref_range_lower": "low"}
    found, rejected = records(stay(), stay(("labevents", LAB | typed), patients={"gender": "Harold"}), stay())
    actions = [json.loads(one) for one in found["deid_actions"]]
    assert [one.get("values_refused") for one in actions] == [None, 3, None] and rejected == []


# ---------------------------------------------------------------- what makes a stay unfit


@pytest.mark.parametrize(
    ("unfit", "code"),
    [
        (stay(patients=dict.fromkeys(STAY["patients"])).replace(b'{"table":"patients"}\n', b""), "no_patient"),
        (stay(("patients", STAY["patients"] | {"gender": "M"})), "duplicate_subject"),
        (stay(("admissions", STAY["admissions"])), "duplicate_stay"),
        (stay(admissions={"dischtime": "2150-02-01 00:00:00"}), "impossible_date"),
        (stay(admissions={"admittime": "2019-03-01 10:00:00"}), "impossible_date"),
        (stay(admissions={"admittime": "2150-02-30 10:00:00"}), "impossible_date"),
        (stay(admissions={"admittime": None}), "impossible_date"),
        (stay(("labevents", LAB | {"charttime": "yesterday"})), "impossible_date"),
        (stay(patients={"anchor_age": "-3"}), "impossible_age"),
        (stay(patients={"anchor_age": None}), "impossible_age"),
        (stay(patients={"anchor_age": "sixty"}), "impossible_age"),
        (stay(patients={"anchor_year": "2230"}), "impossible_age"),
        (stay(("labevents", LAB | {"valuenum": "mg/dL"})), "bad_number"),
        (stay(("labevents", LAB | {"valuenum": "nan"})), "bad_number"),
        (stay(admissions={"admission_type": None}), "missing_field"),
        (stay().replace(b"Type 2", "Type \N{REPLACEMENT CHARACTER}".encode()), "wrong_encoding"),
    ],
)
def test_an_unfit_stay_goes_to_quarantine_alone(unfit: bytes, code: str) -> None:
    found, rejected = records(stay(), unfit, stay())
    assert found["record_id"].to_list() == ["o0", "o2"]
    assert [(one.object_id, one.code, one.disposition) for one in rejected] == [("o1", code, "quarantined")]
    assert rejected[0].remedy


PERSON: dict[str, dict[str, str]] = {
    "person": {"gender_name": "FEMALE", "year_of_birth": "1950"},
    "measurement": {
        "measured_vocabulary": "LOINC",
        "measured_code": "2160-0",
        "measured_name": "Creatinine",
        "measurement_date": "2020-01-02",
        "value_as_number": "1.1",
    },
}


@pytest.mark.parametrize(
    ("table", "fields", "code"),
    [
        ("measurement", {"measurement_date": "01/02/2020"}, "impossible_date"),
        ("measurement", {"measurement_date": "1820-01-02"}, "impossible_date"),
        ("measurement", {"measurement_date": "1949-12-31"}, "impossible_date"),
        ("measurement", {"value_as_number": "LOINC"}, "bad_number"),
        ("measurement", {"measured_name": "No matching concept"}, "no_events"),
        ("person", {"year_of_birth": "1850"}, "impossible_age"),
        ("person", {"year_of_birth": "FEMALE"}, "impossible_age"),
    ],
)
def test_an_unfit_person_goes_to_quarantine_alone(table: str, fields: dict[str, str], code: str) -> None:
    whole = part(*PERSON.items())
    found, rejected = records(whole, part(*(PERSON | {table: PERSON[table] | fields}).items()), whole)
    assert found["record_id"].to_list() == ["o0", "o2"]
    assert [(one.object_id, one.code) for one in rejected] == [("o1", code)] and rejected[0].remedy


def test_an_object_that_cannot_be_read_keeps_its_reason() -> None:
    def read(uri: str) -> bytes:
        raise ObjectRejected("gone", code="object_missing", remedy="refresh")

    objects = pl.DataFrame(
        {"object_id": ["a"], "uri": ["u"], "subject_ref": ["7"], "cohort": "h", "license": "L", "access_tier": "t"}
    )
    found, rejected = MODALITY.records(objects, read, PSEUDONYMS)
    assert found.is_empty() and found.schema == pl.Schema(RECORD_FRAME)
    assert rejected == [Rejected("a", "object_missing", "refresh")]


def test_what_is_no_ehr_row_fails_the_source() -> None:
    with pytest.raises(SourceError):
        records(b"\x89PNG\n")


# ---------------------------------------------------------------- what a record tells


def attributes(data: bytes) -> dict[str, Any]:
    found, _ = records(data)
    return dict(json.loads(found["attributes"][0]))


def test_a_record_tells_bands_and_descriptions_and_nothing_else() -> None:
    found, _ = records(stay(("labevents", LAB)))
    row = found.to_dicts()[0]
    assert json.loads(row["attributes"]) == {
        "admission_type": "URGENT",
        "age_band": "60-69",
        "events": 4,
        "los_days": "2-3",
        "sex": "F",
    }
    assert row["text"] == "Diagnoses: Type 2 diabetes mellitus."
    assert (row["payload_uri"], row["subject_key"]) == ("object:o0", PSEUDONYMS.subject("7"))
    assert not re.search(
        r"21\d\d|50912|:\d\d",
        json.dumps({k: v for k, v in row.items() if k not in ("subject_key", "content_digests", "payload")}),
    )


@pytest.mark.parametrize(
    ("age", "year", "band"),
    [
        ("60", "2148", "60-69"),
        ("87", "2148", "80-89"),
        ("88", "2148", "90+"),
        ("91", "2148", "90+"),
        ("91", "2152", "90+"),
        ("17", "2150", "0-17"),
    ],
)
def test_ages_of_ninety_and_over_are_one(age: str, year: str, band: str) -> None:
    assert attributes(stay(patients={"anchor_age": age, "anchor_year": year}))["age_band"] == band


@given(age=st.integers(0, 130))
def test_every_age_has_a_band_that_holds_it(age: int) -> None:
    band = pl.select(age_band(pl.lit(age))).item()
    low, _, high = band.partition("-")
    assert (age >= 90) if band == "90+" else (int(low) <= age <= int(high) < 90)


def test_what_is_unknown_is_left_out() -> None:
    told = attributes(stay(admissions={"dischtime": None}, patients={"gender": "X"}))
    assert "los_days" not in told and "sex" not in told
    found, _ = records(stay(diagnoses_icd={"long_title": None}))
    assert found["text"][0] is None and "text" not in json.loads(found["content_digests"][0])


# ---------------------------------------------------------------- inputs


def test_an_input_is_the_records_payload_and_needs_nothing_of_the_source() -> None:
    found, _ = records(stay(), stay(("labevents", LAB)))

    def read(uri: str) -> bytes:
        raise AssertionError(uri)

    features = MODALITY.model_inputs(found, "codes", read)
    assert all(isinstance(one, np.ndarray) and one.dtype == np.float32 and one.shape == (FEATURES,) for one in features)
    assert [array_digest(one) for one in features] == [json.loads(one)["codes"] for one in found["content_digests"]]
    assert MODALITY.model_inputs(found, "text", read) == found["text"].to_list()
    first_without = found.with_columns(payload=pl.when(pl.col("record_id") != "o0").then("payload"))
    refused, kept = MODALITY.model_inputs(first_without, "codes", read)
    assert isinstance(refused, Rejected) and (refused.object_id, refused.code) == ("o0", "payload_missing")
    assert np.array_equal(kept, features[1])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([f"LAB//{i}" for i in range(40)])), max_size=80), st.randoms()
)
def test_features_lie_on_the_grid_and_do_not_know_the_order(events: list[tuple[int, str]], chance: Any) -> None:
    schema = {"part": pl.UInt32(), "code": pl.String()}
    found = code_counts(pl.DataFrame(events, schema=schema, orient="row"), 4)
    features = features_of(found)
    assert features.shape == (4, FEATURES) and features.dtype == np.float32
    assert np.array_equal(features * GRID, found)
    assert np.array_equal(unpacked(packed(found)), features)
    chance.shuffle(events)
    assert np.array_equal(found, code_counts(pl.DataFrame(events, schema=schema, orient="row"), 4))


def test_the_encoder_shipped_is_what_its_script_writes(tmp_path: Path) -> None:
    again, shipped = fit(tmp_path), Path(fitted()["bag_of_codes@1"])
    found = [safetensors.numpy.load_file(path) for path in (again, shipped)]
    assert found[0].keys() == found[1].keys() and np.allclose(found[0]["scale"], found[1]["scale"])
    assert encoders.card("bag_of_codes@1", Settings(home=tmp_path)).dim == FEATURES


@pytest.mark.parametrize(
    ("dataset", "name", "first"), [("mimic_stays", "mimic_tables", 20_000_000), ("aou_persons", "omop", 1_000_000)]
)
def test_neighbours_are_of_the_kind_that_was_planted(tmp_path: Path, dataset: str, name: str, first: int) -> None:
    """p@5 of the four kinds that tests/datasets/make_<id>.py planted, and of sex, which nothing depends on."""
    connector = open_connector(name, Settings(home=tmp_path, pseudonym_key="11" * 32), dataset)
    objects = pl.concat([listing.objects for listing in connector.listings(pl.DataFrame())])
    found, _ = MODALITY.records(objects, lambda uri: connector.read(uri, max_bytes=1 << 20), PSEUDONYMS)
    numbers = objects.select("object_id", number=pl.col("uri").str.extract(r"(\d+)$").cast(pl.Int64) - first)
    step = 101 if dataset == "mimic_stays" else 13
    rows = found.join(numbers, left_on="record_id", right_on="object_id").join(
        objects.select("object_id", "uri"), left_on="record_id", right_on="object_id"
    )
    vectors = bag_of_codes().encode(
        MODALITY.model_inputs(rows, "codes", lambda uri: connector.read(uri, max_bytes=1 << 20))
    )
    near = vectors @ vectors.T - 2 * np.eye(len(vectors))
    five = np.argsort(-near, axis=1)[:, :5]
    kind = (rows["number"].to_numpy() // step) % 4
    sex = np.array([json.loads(one)["sex"] for one in rows["attributes"]])
    assert (kind[five] == kind[:, None]).mean() > 0.95
    assert 0.3 < (sex[five] == sex[:, None]).mean() < 0.7


def bag_of_codes() -> Projection:
    """As encoders.load gives it, without the seconds that torch takes to load."""
    ref = MIMIC_STAYS.spaces["codes"].encoder
    path = Path(fitted()[ref])
    return Projection(read_card(ref, str(path)).as_encoder_card(), path.read_bytes())
