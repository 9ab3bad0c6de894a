"""Makes the sample of aou_persons: a small OMOP release as Parquet, all of it invented.

    python tests/datasets/make_aou_persons.py

Forty persons of four plain kinds (KINDS, which no table names), so that a neighbour of the same kind is expected, and
beside them one for each way in which a table can be wrong. Columns are those of CDM 5.3.1 and what All of Us adds.
"""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medvec_assets.connectors.omop import CDM_SOURCE, CONCEPT, TABLES

RELEASE = Path(__file__).parent / "aou_persons" / "in" / "SYNTHETIC_C2022Q4R0"
# concept_id -> vocabulary, code, name, domain: of the public vocabularies
CONCEPTS = {
    0: ("None", "No matching concept", "No matching concept", "Metadata"),
    8507: ("Gender", "M", "MALE", "Gender"),
    8532: ("Gender", "F", "FEMALE", "Gender"),
    9201: ("Visit", "IP", "Inpatient Visit", "Visit"),
    9202: ("Visit", "OP", "Outpatient Visit", "Visit"),
    9203: ("Visit", "ER", "Emergency Room Visit", "Visit"),
    8554: ("UCUM", "%", "percent", "Unit"),
    8840: ("UCUM", "mg/dL", "milligram per deciliter", "Unit"),
    8845: ("UCUM", "pg/mL", "picogram per milliliter", "Unit"),
    316139: ("SNOMED", "84114007", "Heart failure", "Condition"),
    313217: ("SNOMED", "49436004", "Atrial fibrillation", "Condition"),
    46271022: ("SNOMED", "709044004", "Chronic kidney disease", "Condition"),
    201826: ("SNOMED", "44054006", "Type 2 diabetes mellitus", "Condition"),
    433736: ("SNOMED", "414916001", "Obesity", "Condition"),
    4174977: ("SNOMED", "4855003", "Retinopathy due to diabetes mellitus", "Condition"),
    317009: ("SNOMED", "195967001", "Asthma", "Condition"),
    257007: ("SNOMED", "61582004", "Allergic rhinitis", "Condition"),
    133834: ("SNOMED", "24079001", "Atopic dermatitis", "Condition"),
    440383: ("SNOMED", "35489007", "Depressive disorder", "Condition"),
    441542: ("SNOMED", "48694002", "Anxiety", "Condition"),
    436962: ("SNOMED", "193462001", "Insomnia", "Condition"),
    320128: ("SNOMED", "59621000", "Essential hypertension", "Condition"),
    432867: ("SNOMED", "55822004", "Hyperlipidemia", "Condition"),
    956874: ("RxNorm", "4603", "furosemide", "Drug"),
    1307046: ("RxNorm", "6918", "metoprolol", "Drug"),
    1503297: ("RxNorm", "6809", "metformin", "Drug"),
    1502905: ("RxNorm", "274783", "insulin glargine", "Drug"),
    1154343: ("RxNorm", "435", "albuterol", "Drug"),
    1149380: ("RxNorm", "41126", "fluticasone", "Drug"),
    739138: ("RxNorm", "36437", "sertraline", "Drug"),
    744740: ("RxNorm", "39993", "zolpidem", "Drug"),
    3004410: ("LOINC", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "Measurement"),
    3016723: ("LOINC", "2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "Measurement"),
    3027114: ("LOINC", "2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "Measurement"),
    3029187: (
        "LOINC",
        "33762-6",
        "Natriuretic peptide.B prohormone N-Terminal [Mass/volume] in Serum or Plasma",
        "Measurement",
    ),
    3000001: ("LOINC", "never-used", "A concept that no row names", "Measurement"),
}
# conditions, drugs, measurement (concept, mean, unit, range), visit
KINDS = (
    ([316139, 313217, 46271022], [956874, 1307046], (3029187, 2_500.0, 8845, (0.0, 449.0)), 9201),
    ([201826, 433736, 4174977], [1503297, 1502905], (3004410, 9.5, 8554, (4.0, 5.6)), 9202),
    ([317009, 257007, 133834], [1154343, 1149380], (3016723, 0.9, 8840, (0.5, 1.2)), 9203),
    ([440383, 441542, 436962], [739138, 744740], (3016723, 0.8, 8840, (0.5, 1.2)), 9202),
)
COMMON = [320128, 432867, 0]
BROKEN = ("duplicate", "no_birth_year", "too_old", "before_birth", "far_future", "no_events")
INTEGERS = ("_id", "year_of_birth", "month_of_birth", "day_of_birth", "refills", "days_supply")
FLOATS = ("value_as_number", "range_low", "range_high", "quantity")


def main() -> None:
    made = Release()
    for number in range(40):
        made.add_person(1_000_000 + 13 * number, number)
    for number, flaw in enumerate(BROKEN, start=40):
        made.add_person(1_000_000 + 13 * number, number, flaw)
    made.add("condition_occurrence", condition_concept_id=320128, condition_start_date=date(2020, 1, 1))
    made.write()


class Release:
    """The rows of every table, as they are written."""

    def __init__(self) -> None:
        self.columns = {
            name: layout.documented for name, layout in {**TABLES, "concept": CONCEPT, "cdm_source": CDM_SOURCE}.items()
        }
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in self.columns}
        self.chance = random.Random(2)

    def add(self, table: str, **fields: object) -> None:
        assert fields.keys() <= set(self.columns[table]), fields.keys() - set(self.columns[table])
        self.tables[table].append({f"{table}_id": len(self.tables[table]) + 1} | fields)

    def add_person(self, person: int, number: int, flaw: str = "") -> None:
        chance, born = self.chance, 1926 if number % 10 == 7 else self.chance.randrange(1940, 2000)
        born_told = {"no_birth_year": None, "too_old": 1820, "before_birth": 2021}.get(flaw, born)
        gender = (8507, 8532)[number // 4 % 2]
        for _ in range(2 if flaw == "duplicate" else 1):
            fields = {"person_id": person, "gender_concept_id": gender, "sex_at_birth_concept_id": gender}
            self.tables["person"].append(fields | {"year_of_birth": born_told, "race_concept_id": 0})
        if flaw == "no_events":
            return
        conditions, drugs, (measured, mean, unit, (low, high)), visit = KINDS[number % 4]
        for _ in range(3):
            day = date(2018, 1, 1) + timedelta(days=chance.randrange(1_000))
            day = date(2190, 1, 1) if flaw == "far_future" else day
            self.add(
                "visit_occurrence", person_id=person, visit_concept_id=visit, visit_start_date=day, visit_end_date=day
            )
            for concept in [*chance.sample(conditions, 2), chance.choice(COMMON)]:
                when = datetime(day.year, day.month, day.day, 9, 30)
                self.add(
                    "condition_occurrence",
                    person_id=person,
                    condition_concept_id=concept,
                    condition_start_date=day,
                    condition_start_datetime=when,
                )
            for drug in drugs:
                self.add(
                    "drug_exposure", person_id=person, drug_concept_id=drug, drug_exposure_start_date=day, quantity=30.0
                )
            for concept, about, of, lower, upper in (
                (measured, mean, unit, low, high),
                (3027114, 190.0, 8840, 125.0, 200.0),
            ):
                value = round(about * chance.uniform(0.9, 1.1), 1)
                self.add(
                    "measurement", person_id=person, measurement_concept_id=concept, measurement_date=day,
                    value_as_number=value, unit_concept_id=of, range_low=lower, range_high=upper,
                )  # fmt: skip

    def write(self) -> None:
        for concept, (vocabulary, code, name, domain) in CONCEPTS.items():
            self.tables["concept"].append(
                {
                    "concept_id": concept,
                    "concept_name": name,
                    "domain_id": domain,
                    "vocabulary_id": vocabulary,
                    "concept_code": code,
                    "standard_concept": "S",
                }
            )
        self.tables["cdm_source"].append(
            {
                "cdm_source_name": "SYNTHETIC, made by tests/datasets/make_aou_persons.py",
                "cdm_source_abbreviation": "SYNTHETIC",
                "cdm_release_date": date(2023, 1, 1),
                "cdm_version": "5.3.1",
                "vocabulary_version": "v5.0 30-AUG-22",
            }
        )
        for name, rows in self.tables.items():
            table = pa.Table.from_pylist(rows, pa.schema([(column, _type(column)) for column in self.columns[name]]))
            RELEASE.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table.replace_schema_metadata({"synthetic": "true"}), RELEASE / f"{name}.parquet", compression="zstd"
            )


def _type(column: str) -> pa.DataType:
    if column.endswith("_datetime"):
        return pa.timestamp("us")
    if column.endswith("_date"):
        return pa.date32()
    if column in FLOATS:
        return pa.float64()
    text = ("domain_id", "vocabulary_id", "concept_class_id")
    return pa.int64() if column.endswith(INTEGERS) and column not in text else pa.string()


if __name__ == "__main__":
    main()
