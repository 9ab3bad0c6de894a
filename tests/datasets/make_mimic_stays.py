"""Makes the sample of mimic_stays: a small release in MIMIC-IV's own layout, all of it invented.

    python tests/datasets/make_mimic_stays.py

Forty stays of four plain kinds (KINDS, which no table names), so that a neighbour of the same kind is expected, and beside
them one stay for each way in which a table can be wrong. Equal runs write equal tables.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import random
from datetime import datetime, timedelta
from pathlib import Path

RELEASE = Path(__file__).parent / "mimic_stays" / "in" / "physionet.org" / "files" / "mimiciv" / "3.1"
LICENSE = """The PhysioNet Credentialed Health Data License
Version 1.5.0

This file stands in the place of the real release's licence. The tables beside it are SYNTHETIC: they were made by
tests/datasets/make_mimic_stays.py and hold nothing of MIMIC-IV but its layout and the titles of public code lists.
"""
COLUMNS = {
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
    "admission_location discharge_location insurance language marital_status race edregtime edouttime hospital_expire_flag",
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
    "hosp/d_icd_procedures": "icd_code icd_version long_title",
    "hosp/prescriptions": "subject_id hadm_id pharmacy_id poe_id poe_seq order_provider_id starttime stoptime drug_type "
    "drug formulary_drug_cd gsn ndc prod_strength form_rx dose_val_rx dose_unit_rx form_val_disp form_unit_disp "
    "doses_per_24_hrs route",
    "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value "
    "valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
    "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
}
DIAGNOSES = {
    ("I5023", "10"): "Acute on chronic systolic (congestive) heart failure",
    ("I2510", "10"): "Atherosclerotic heart disease of native coronary artery without angina pectoris",
    ("I4891", "10"): "Unspecified atrial fibrillation",
    ("I130", "10"): "Hypertensive heart and chronic kidney disease with heart failure",
    ("42823", "9"): "Acute on chronic systolic heart failure",
    ("E1010", "10"): "Type 1 diabetes mellitus with ketoacidosis without coma",
    ("E1065", "10"): "Type 1 diabetes mellitus with hyperglycemia",
    ("E860", "10"): "Dehydration",
    ("Z794", "10"): "Long term (current) use of insulin",
    ("25013", "9"): "Diabetes with ketoacidosis, type I [juvenile type], uncontrolled",
    ("A419", "10"): "Sepsis, unspecified organism",
    ("J189", "10"): "Pneumonia, unspecified organism",
    ("R6521", "10"): "Severe sepsis with septic shock",
    ("J9601", "10"): "Acute respiratory failure with hypoxia",
    ("N179", "10"): "Acute kidney failure, unspecified",
    ("S72001A", "10"): "Fracture of unspecified part of neck of right femur, initial encounter for closed fracture",
    ("W19XXXA", "10"): "Unspecified fall, initial encounter",
    ("M810", "10"): "Age-related osteoporosis without current pathological fracture",
    ("D62", "10"): "Acute posthemorrhagic anemia",
    ("E8859", "9"): "Fall from other slipping, tripping, or stumbling",
    ("I10", "10"): "Essential (primary) hypertension",
    ("E785", "10"): "Hyperlipidemia, unspecified",
    ("Z87891", "10"): "Personal history of nicotine dependence",
    ("K219", "10"): "Gastro-esophageal reflux disease without esophagitis",
}
PROCEDURES = {
    ("4A023N7", "10"): "Measurement of Cardiac Sampling and Pressure, Left Heart, Percutaneous Approach",
    ("B2111ZZ", "10"): "Fluoroscopy of Multiple Coronary Arteries using Low Osmolar Contrast",
    ("0BH17EZ", "10"): "Insertion of Endotracheal Airway into Trachea, Via Natural or Artificial Opening",
    ("5A1945Z", "10"): "Respiratory Ventilation, 24-96 Consecutive Hours",
    (
        "0SRR0J9",
        "10",
    ): "Replacement of Right Hip Joint, Femoral Surface with Synthetic Substitute, Cemented, Open Approach",
    ("9904", "9"): "Transfusion of packed cells",
}
# itemid -> unit, reference range
LABS = {
    50912: ("mg/dL", 0.5, 1.2),  # creatinine
    50931: ("mg/dL", 70, 105),  # glucose
    50971: ("mEq/L", 3.3, 5.1),  # potassium
    50983: ("mEq/L", 133, 145),  # sodium
    51301: ("K/uL", 4, 11),  # white blood cells
    51222: ("g/dL", 12, 16),  # hemoglobin
    50963: ("pg/mL", 0, 449),  # NTproBNP
    50813: ("mmol/L", 0.5, 2),  # lactate
    50868: ("mEq/L", 8, 20),  # anion gap
}
COMMON = [("I10", "10"), ("E785", "10"), ("Z87891", "10"), ("K219", "10")]
# diagnoses, procedures, drugs with route, laboratory results (item, mean), ward, unit of intensive care
KINDS = (
    (
        list(DIAGNOSES)[0:5],
        list(PROCEDURES)[0:2],
        [("Furosemide", "IV"), ("Metoprolol Tartrate", "PO"), ("Lisinopril", "PO")],
        [(50963, 4_000), (50912, 1.6)],
        "Medicine/Cardiology",
        "Coronary Care Unit (CCU)",
    ),
    (
        list(DIAGNOSES)[5:10],
        [],
        [("Insulin", "IV DRIP"), ("Insulin", "SC"), ("Potassium Chloride", "IV")],
        [(50931, 420), (50868, 27)],
        "Medicine",
        "Medical Intensive Care Unit (MICU)",
    ),
    (
        list(DIAGNOSES)[10:15],
        list(PROCEDURES)[2:4],
        [("Vancomycin", "IV"), ("Piperacillin-Tazobactam", "IV"), ("NORepinephrine", "IV DRIP")],
        [(50813, 4.5), (51301, 19)],
        "Medical Intensive Care Unit (MICU)",
        "Medical Intensive Care Unit (MICU)",
    ),
    (
        list(DIAGNOSES)[15:20],
        list(PROCEDURES)[4:6],
        [("Enoxaparin Sodium", "SC"), ("OxyCODONE (Immediate Release)", "PO"), ("Acetaminophen", "PO")],
        [(51222, 8.5), (50983, 138)],
        "Surgery/Trauma",
        None,
    ),
)
TYPES = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "EU OBSERVATION")
BROKEN = (
    "no_patient", "duplicate_subject", "duplicate_stay", "ends_before_it_begins", "not_shifted", "negative_age",
    "latin_1", "text_for_number", "no_stay_id",
)  # fmt: skip


def main() -> None:
    made = Release()
    for number in range(40):
        made.add_stay(subject=10_000_000 + 37 * (number - number % 9 // 8), kind=number % 4, number=number)
    for number, flaw in enumerate(BROKEN, start=40):
        made.add_stay(subject=10_000_000 + 37 * number, kind=number % 4, number=number, flaw=flaw)
    made.write()


class Release:
    """The rows of every table, as they are written."""

    def __init__(self) -> None:
        self.tables: dict[str, list[list[object]]] = {name: [] for name in COLUMNS}
        self.chance = random.Random(1)
        self.lab_rows = 0

    def add(self, table: str, **fields: object) -> None:
        names = COLUMNS[table].split()
        assert fields.keys() <= set(names), fields.keys() - set(names)
        self.tables[table].append([fields.get(name, "") for name in names])

    def add_stay(self, subject: int, kind: int, number: int, flaw: str = "") -> None:
        chance = self.chance
        stay: object = 20_000_000 + 101 * number if flaw != "no_stay_id" else ""
        begin = datetime(2150, 1, 1) + timedelta(days=97 * number, minutes=chance.randrange(1_440))
        begin = begin.replace(year=2019) if flaw == "not_shifted" else begin
        end = begin + timedelta(days=chance.choice((1, 2, 4, 6, 9, 16)), minutes=chance.randrange(600))
        end = begin - timedelta(days=2) if flaw == "ends_before_it_begins" else end
        ids = {"subject_id": subject, "hadm_id": stay}
        self.add_patient(subject, number, begin.year, flaw)
        for _ in range(2 if flaw == "duplicate_stay" else 1):
            self.add(
                "hosp/admissions", **ids, admittime=begin, dischtime=end, admission_type=chance.choice(TYPES),
                admission_location="EMERGENCY ROOM", discharge_location="HOME", insurance="Medicare", language="English",
                marital_status="MARRIED", race="UNKNOWN", hospital_expire_flag=0,
            )  # fmt: skip
        diagnoses, procedures, drugs, labs, ward, unit = KINDS[kind]
        coded = chance.sample(diagnoses, 4) + chance.sample(COMMON, 2)
        for place, (code, version) in enumerate(coded, 1):
            self.add("hosp/diagnoses_icd", **ids, seq_num=place, icd_code=code, icd_version=version)
        for place, (code, version) in enumerate(procedures, 1):
            self.add(
                "hosp/procedures_icd", **ids, seq_num=place, chartdate=begin.date(), icd_code=code, icd_version=version
            )
        for drug, route in [*drugs, ("Sodium Chloride 0.9%  Flush", "IV")]:
            name = "Propof\xf6l" if flaw == "latin_1" else drug
            start = begin + timedelta(hours=chance.randrange(24))
            self.add(
                "hosp/prescriptions", **ids, pharmacy_id=chance.randrange(10**7), starttime=start, stoptime=end,
                drug_type="MAIN", drug=name, prod_strength="1 dose", dose_val_rx=1, dose_unit_rx="dose", route=route,
            )  # fmt: skip
        for hour in range(0, 48, 12):
            for item, mean in [*labs, (50971, 4.2), (50983, 139), (50912, 0.9)]:
                self.add_lab(ids, begin + timedelta(hours=hour), item, mean, flaw)
        self.add(
            "hosp/transfers",
            **ids,
            transfer_id=30_000_000 + number,
            eventtype="admit",
            careunit=ward,
            intime=begin,
            outtime=end,
        )
        self.add("hosp/transfers", **ids, transfer_id=31_000_000 + number, eventtype="discharge", intime=end)
        if unit:
            self.add(
                "icu/icustays", **ids, stay_id=40_000_000 + number, first_careunit=unit, last_careunit=unit, intime=begin,
                outtime=end, los=1.0,
            )  # fmt: skip

    def add_patient(self, subject: int, number: int, year: int, flaw: str) -> None:
        known = [row[0] for row in self.tables["hosp/patients"]]
        if flaw == "no_patient" or subject in known:
            return
        age = -3 if flaw == "negative_age" else 91 if number % 10 == 7 else self.chance.randrange(20, 88)
        for _ in range(2 if flaw == "duplicate_subject" else 1):
            self.add(
                "hosp/patients", subject_id=subject, gender="FM"[number // 4 % 2], anchor_age=age, anchor_year=year,
                anchor_year_group="2014 - 2016",
            )  # fmt: skip

    def add_lab(self, ids: dict[str, object], when: datetime, item: int, mean: float, flaw: str) -> None:
        unit, low, high = LABS[item]
        value: object = round(mean * self.chance.uniform(0.85, 1.15), 1)
        self.lab_rows += 1
        self.add(
            "hosp/labevents", **ids, labevent_id=self.lab_rows, specimen_id=self.chance.randrange(10**8), itemid=item,
            charttime=when, storetime=when + timedelta(hours=1), value=value,
            valuenum="___" if flaw == "text_for_number" else value, valueuom=unit, ref_range_lower=low,
            ref_range_upper=high, priority="STAT", comments="two\nlines" if self.lab_rows % 50 == 0 else "",
        )  # fmt: skip

    def write(self) -> None:
        for name, titles in (("hosp/d_icd_diagnoses", DIAGNOSES), ("hosp/d_icd_procedures", PROCEDURES)):
            for (code, version), title in titles.items():
                self.add(name, icd_code=code, icd_version=version, long_title=title)
        # Of no admission: as most laboratory rows of MIMIC-IV are. And one row with a field too many.
        self.add("hosp/labevents", labevent_id=0, subject_id=10_000_000, itemid=50912, charttime=datetime(2150, 1, 1))
        self.tables["hosp/labevents"].append(["1"] * 17)
        files = {f"{name}.csv.gz": table_bytes(COLUMNS[name].split(), rows) for name, rows in self.tables.items()}
        files["LICENSE.txt"] = LICENSE.encode()
        sums = "".join(f"{hashlib.sha256(data).hexdigest()} {path}\n" for path, data in sorted(files.items()))
        for path, data in {**files, "SHA256SUMS.txt": sums.encode()}.items():
            (RELEASE / path).parent.mkdir(parents=True, exist_ok=True)
            (RELEASE / path).write_bytes(data)


def table_bytes(header: list[str], rows: list[list[object]]) -> bytes:
    """Latin-1 is UTF-8 for every character used here but one, which is there to be no UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as file:
        file.write(text.getvalue().encode("latin-1"))
    return packed.getvalue()


if __name__ == "__main__":
    main()
