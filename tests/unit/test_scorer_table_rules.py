"""Every rule for columns of tables holds back something that the scorer plants: switched off, it is a leak with a name.

What a rule lets pass as a number, a date or an age can hold no text, whoever types into the column (test_deid_tables); of these
the scorer shows that a value which does not fit never becomes a record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medvec_assets.catalog.aou_persons import AOU_PERSONS
from medvec_assets.catalog.mimic_stays import MIMIC_STAYS
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid.tables import Codes, Pattern, Rule, ShiftedDate, TableRules, Title, Words
from medvec_assets.modalities import ehr
from medvec_assets.modalities.ehr import mimic, omop
from medvec_assets.scorer.score import Score, score
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Settings

SEED = b"the rules for tables"
Patch = pytest.MonkeyPatch
Leaks = set[tuple[str, str]]


def made(spec: DatasetSpec, home: Path) -> tuple[Context, str]:
    """The dataset's sample as records, and a partition that has some."""
    settings = Settings(home=home, pseudonym_key="11" * 32, device="cpu")
    ctx = Context(settings, Lakehouse.open(settings), "scored")
    counts = {one: records.build(ctx, spec, one).rows_out for one in manifest.refresh(ctx, spec).plan["partition"]}
    return ctx, max(counts, key=lambda one: counts[one])


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, str]:
    return made(MIMIC_STAYS, tmp_path_factory.mktemp("stays"))


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, str]:
    return made(AOU_PERSONS, tmp_path_factory.mktemp("persons"))


def leaks(found: Score, spec: DatasetSpec) -> Leaks:
    """(planted in, column of the records)"""
    assert not found.passed and not found.failure
    return {(leak.planted, leak.found.rpartition(": column ")[2]) for leak in found.leaks}


def test_nothing_comes_through_while_every_rule_is_at_work(
    stays: tuple[Context, str], persons: tuple[Context, str]
) -> None:
    for (ctx, partition), spec, rules in ((stays, MIMIC_STAYS, mimic.RULES), (persons, AOU_PERSONS, omop.RULES)):
        found = score(ctx, spec, partition, SEED)
        assert found.leaks == () and found.passed
        assert found.records >= 6 and found.quarantined >= 3
        assert found.places >= sum(map(len, rules.tables.values())), "every column that has a rule"
        assert found.kinds >= 15 and not found.not_plantable


@dataclass(frozen=True)
class Passes:
    """No rule: whatever stands in a column of text passes."""

    flaw: str | None = None

    def clean(self, value: pl.Expr) -> pl.Expr:
        return value


def without(rules: TableRules, kind: type, instead: Rule) -> TableRules:
    def weaker(columns: Mapping[str, Rule]) -> dict[str, Rule]:
        return {name: instead if isinstance(rule, kind) else rule for name, rule in columns.items()}

    return TableRules({table: weaker(columns) for table, columns in rules.tables.items()})


STAYS: dict[type, Leaks] = {
    Codes: {
        ("cell admissions.admission_type", "attributes"),
        ("cell admissions.admission_type", "content_digests"),
        ("cell patients.gender", "attributes"),
    },
    Pattern: {("cell labevents.itemid", "content_digests"), ("cell diagnoses_icd.icd_code", "payload")},
    Words: {
        (f"cell {cell}", "content_digests")
        for cell in ("prescriptions.drug", "prescriptions.route", "labevents.valueuom", "transfers.careunit")
    },
    Title: {("cell diagnoses_icd.long_title", "text")},
}


@pytest.mark.parametrize("kind", STAYS)
def test_a_rule_that_is_switched_off_is_a_leak_that_is_named(
    stays: tuple[Context, str], monkeypatch: Patch, kind: type
) -> None:
    ctx, partition = stays
    monkeypatch.setattr(mimic, "RULES", without(mimic.RULES, kind, Passes()))
    found = score(ctx, MIMIC_STAYS, partition, SEED)
    assert STAYS[kind] <= leaks(found, MIMIC_STAYS), sorted(leaks(found, MIMIC_STAYS))


def test_a_concept_that_is_a_remark_is_a_leak(persons: tuple[Context, str], monkeypatch: Patch) -> None:
    ctx, partition = persons
    monkeypatch.setattr(omop, "RULES", without(omop.RULES, Title, Passes()))
    found = leaks(score(ctx, AOU_PERSONS, partition, SEED), AOU_PERSONS)
    assert ("cell condition_occurrence.condition_name", "text") in found
    assert ("cell measurement.measured_code", "content_digests") in found
    monkeypatch.setattr(omop, "RULES", without(omop.RULES, Codes, Passes()))
    found = leaks(score(ctx, AOU_PERSONS, partition, SEED), AOU_PERSONS)
    assert ("cell visit_occurrence.visit_vocabulary", "content_digests") in found


def test_a_date_that_nobody_shifted_becomes_a_record_without_its_rule(
    stays: tuple[Context, str], monkeypatch: Patch
) -> None:
    ctx, partition = stays
    before = score(ctx, MIMIC_STAYS, partition, SEED)
    monkeypatch.setattr(mimic, "RULES", without(mimic.RULES, ShiftedDate, ShiftedDate(1900, 2250)))
    after = score(ctx, MIMIC_STAYS, partition, SEED)
    assert after.records > before.records and after.quarantined < before.quarantined


def test_a_column_that_has_no_rule_is_a_leak_where_it_is_told(stays: tuple[Context, str], monkeypatch: Patch) -> None:
    ctx, partition = stays
    told = ehr.MODALITY.records

    def talkative(objects: pl.DataFrame, read: Any, pseudonyms: Pseudonyms) -> Any:
        frame, refused = told(objects, read, pseudonyms)
        lines = {name: read(uri).decode() for name, uri in objects.select("object_id", "uri").iter_rows()}
        rows = [json.dumps({"rows": lines[names[0]]}) for names in frame["object_ids"]]
        return frame.with_columns(attributes=pl.Series(rows, dtype=pl.String)), refused

    monkeypatch.setattr(ehr.MODALITY, "records", talkative)
    shown = leaks(score(ctx, MIMIC_STAYS, partition, SEED), MIMIC_STAYS)
    assert {("extra key patient_name", "attributes"), ("extra key ssn", "attributes")} <= shown


def test_a_subject_without_a_pseudonym_is_a_leak(stays: tuple[Context, str], monkeypatch: Patch) -> None:
    ctx, partition = stays
    monkeypatch.setattr(Pseudonyms, "subject", lambda self, subject: subject)
    assert ("the subject's id", "subject_key") in leaks(score(ctx, MIMIC_STAYS, partition, SEED), MIMIC_STAYS)
