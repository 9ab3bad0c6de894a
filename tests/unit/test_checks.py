"""Every check passes on what the real stages wrote, and fails on exactly the damage that it is there for."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.counting_encoder import DIM, CountingEncoders
from helpers.pipeline import SPACE, Pipeline
from helpers.tiny_source import series

from medvec_assets import checks
from medvec_assets.checks import Finding
from medvec_assets.scorer import scores
from resources import tables
from resources.tables import TableSpec

LUNG, LIVER = "lung", "liver"
ROWS = [
    series(f"{cohort}-{n}", cohort, patient=f"P{n}", what=f"what {n}") for cohort in (LUNG, LIVER) for n in range(4)
]
Frame = pl.DataFrame
Change = Callable[[Frame], Frame]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        encoders = CountingEncoders()
        encoders.install(patch)
        pipeline = Pipeline(tmp_path_factory.mktemp("template"), encoders)
        pipeline.list_source(*ROWS)
        pipeline.run()
        for partition in (LUNG, LIVER):
            scores.bring_up(pipeline.context(), pipeline.spec, partition)
        yield pipeline


@pytest.fixture
def filled(template: Pipeline, pipeline: Pipeline) -> Pipeline:
    """A pipeline that has run over ROWS; a copy, because running it takes a second."""
    shutil.copytree(template.home, pipeline.home, dirs_exist_ok=True)
    pipeline.index = copy.deepcopy(template.index)
    return pipeline


def findings(pipeline: Pipeline, asset: str, partition: str = LUNG) -> dict[str, Finding]:
    ctx, spec = pipeline.context(), pipeline.spec
    found: dict[str, Iterator[Finding]] = {
        "manifest": checks.of_manifest(ctx, spec),
        "records": checks.of_records(ctx, spec, partition),
        "embeddings": checks.of_embeddings(ctx, spec, SPACE, partition),
        "vectors": checks.of_vectors(ctx, spec, SPACE, partition),
    }
    return {one.name: one for one in found[asset]}


def failed(pipeline: Pipeline, asset: str, partition: str = LUNG) -> set[str]:
    return {name for name, one in findings(pipeline, asset, partition).items() if not one.passed}


def table_of(pipeline: Pipeline, asset: str) -> TableSpec:
    spec = pipeline.spec
    return {
        "manifest": tables.manifest(spec.id),
        "records": tables.records(spec.id),
        "embeddings": tables.embeddings(spec.id, SPACE),
    }[asset]


def rewrite(pipeline: Pipeline, table: TableSpec, change: Change, schema: pa.Schema | None = None) -> None:
    """Write the table anew with changed rows, and with another schema if given."""
    rows = change(pipeline.read(table))
    shutil.rmtree(Path(pipeline.lake.root) / table.path)
    written = TableSpec(table.path, schema or table.schema, table.partition_by)
    batches = rows.select(written.schema.names).to_arrow().cast(written.schema).to_batches()
    pipeline.lake.replace(pipeline.lake.ensure(written), {}, batches, {})


def first_of_lung(column: str, value: Any) -> Change:
    """Set `column` in the first row of the partition `lung`."""

    def change(rows: Frame) -> Frame:
        rows = rows.sort((pl.col("partition") != LUNG), maintain_order=True)
        values = rows[column].to_list()
        values[0] = value
        return rows.with_columns(pl.Series(column, values, rows.schema[column]))

    return change


def without_first_of_lung(rows: Frame) -> Frame:
    return rows.sort((pl.col("partition") != LUNG), maintain_order=True).slice(1)


def with_first_of_lung_twice(rows: Frame) -> Frame:
    rows = rows.sort((pl.col("partition") != LUNG), maintain_order=True)
    return pl.concat([rows, rows.head(1)])


def vector(**changes: float) -> list[float]:
    values = np.zeros(DIM, np.float32)
    values[0] = 1
    for index, value in changes.items():
        values[int(index[1:])] = value
    return [float(value) for value in values]


@pytest.mark.parametrize("asset", ["manifest", "records", "embeddings", "vectors"])
def test_what_the_stages_wrote_passes_every_declared_check(filled: Pipeline, asset: str) -> None:
    declared = {
        "manifest": checks.MANIFEST_CHECKS,
        "records": checks.RECORDS_CHECKS,
        "embeddings": checks.EMBEDDINGS_CHECKS,
        "vectors": checks.VECTORS_CHECKS,
    }[asset]
    assert findings(filled, asset).keys() == declared.keys()
    assert failed(filled, asset) == set()


@dataclass(frozen=True)
class Damage:
    asset: str
    change: Change
    checks: set[str]


DAMAGES = {
    "an object stands twice": Damage("manifest", with_first_of_lung_twice, {"unique_keys", "plan_adds_up"}),
    "an object is in no partition": Damage("manifest", without_first_of_lung, {"plan_adds_up"}),
    "a record stands twice": Damage("records", with_first_of_lung_twice, {"unique_keys", "counts_add_up"}),
    "a record is lost": Damage("records", without_first_of_lung, {"counts_add_up"}),
    "a licence is not allowed": Damage("records", first_of_lung("license", "all rights reserved"), {"license_allowed"}),
    "a vector stands twice": Damage("embeddings", with_first_of_lung_twice, {"unique_keys", "counts_add_up"}),
    "a vector is lost": Damage("embeddings", without_first_of_lung, {"counts_add_up"}),
    "a vector is not of unit norm": Damage("embeddings", first_of_lung("vector", vector(_1=1.0)), {"vectors_valid"}),
    "a vector holds NaN": Damage("embeddings", first_of_lung("vector", vector(_1=float("nan"))), {"vectors_valid"}),
    "a vector is too short": Damage("embeddings", first_of_lung("vector", vector()[:-1]), {"vectors_valid"}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_fails_its_checks_and_no_others_and_not_in_other_partitions(filled: Pipeline, damage: Damage) -> None:
    rewrite(filled, table_of(filled, damage.asset), damage.change)
    assert failed(filled, damage.asset) == damage.checks
    assert all(one.remedy for one in findings(filled, damage.asset).values() if not one.passed)
    if damage.asset != "manifest":
        assert failed(filled, damage.asset, LIVER) == set()


@pytest.mark.parametrize("asset", ["manifest", "records", "embeddings"])
def test_a_null_where_none_may_be_fails_the_schema(filled: Pipeline, asset: str) -> None:
    table = table_of(filled, asset)
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    rewrite(filled, table, first_of_lung("cohort", None), nullable)
    found = findings(filled, asset)["schema"]
    assert not found.passed
    assert found.numbers["rows_with_nulls"] == 1
    assert "column cohort allows nulls" in found.numbers["drift"]


def test_a_column_of_another_type_fails_the_schema(filled: Pipeline) -> None:
    table = table_of(filled, "embeddings")
    place = table.schema.get_field_index("dim")
    other = table.schema.set(place, pa.field("dim", pa.int64(), nullable=False))
    rewrite(filled, table, lambda rows: rows, other)
    assert findings(filled, "embeddings")["schema"].numbers["drift"] == ["column dim is int64, declared int32"]


@pytest.mark.parametrize(
    ("threshold", "known_bad", "passed"), [(0.5, {}, True), (0.1, {}, False), (0.1, {LUNG: 0.2}, True)]
)
def test_the_quarantines_share_is_held_against_the_threshold_of_the_spec_or_of_the_cohort(
    pipeline: Pipeline, threshold: float, known_bad: dict[str, float], passed: bool
) -> None:
    pipeline.spec = pipeline.spec.model_copy(update={"quarantine_threshold": threshold, "known_bad": known_bad})
    bad = [series("no-licence", LUNG, license_short_name="none given"), series("", LUNG)]
    pipeline.list_source(*ROWS, *bad)
    pipeline.run()
    # 1 of 10 rows has no id: not above a threshold of 0.1. 1 of 5 objects of the partition has no licence.
    assert failed(pipeline, "manifest") == set()
    assert findings(pipeline, "records")["quarantine_share"].passed == passed
    assert findings(pipeline, "records")["counts_add_up"].passed, "what is in quarantine is accounted for"
    assert findings(pipeline, "records", LIVER)["quarantine_share"].passed


def test_a_lost_entity_a_lost_collection_and_gold_that_moved_on_fail_index_reconciled(filled: Pipeline) -> None:
    (collection,) = filled.index.held.values()
    kept = dict(collection.entities)
    gone = next(entity_id for entity_id, entity in kept.items() if entity["partition"] == LUNG)
    del collection.entities[gone]
    assert failed(filled, "vectors") == {"index_reconciled"}
    assert failed(filled, "vectors", LIVER) == set()
    collection.entities = kept
    assert failed(filled, "vectors") == set()

    rewrite(filled, table_of(filled, "embeddings"), without_first_of_lung)
    assert failed(filled, "vectors") == {"index_reconciled"}
    assert failed(filled, "vectors", LIVER) == set()

    filled.index.drop(collection.info.name)
    assert failed(filled, "vectors", LIVER) == {"index_reconciled"}


NOW = datetime.now(UTC)


def fresh(pipeline: Pipeline, days: int = 0) -> Finding:
    return checks.freshness(pipeline.context(), pipeline.spec, NOW + timedelta(days=days))


def test_partitions_that_the_source_did_not_change_stay_fresh_however_old(filled: Pipeline) -> None:
    assert fresh(filled).passed
    assert fresh(filled, days=10_000).passed


def test_a_new_release_is_a_warning_and_an_error_once_it_is_older_than_the_spec_allows(filled: Pipeline) -> None:
    filled.list_source(*ROWS[1:], series("lung-0", LUNG, patient="P0", what="revised"))
    max_days = filled.spec.freshness.max_age.days
    for days, severity, old in ((0, "WARN", 0), (max_days - 1, "WARN", 0), (max_days + 1, "ERROR", 2)):
        found = fresh(filled, days)
        assert (found.passed, found.severity.value, found.numbers["partitions_too_old"]) == (False, severity, old)
    assert fresh(filled).numbers["partitions_behind"] == 2, "nobody has looked which of them changed"

    filled.refresh()
    assert fresh(filled).numbers["for_example"] == [LUNG]
    filled.run()
    assert fresh(filled).passed


def test_records_that_moved_on_without_their_vectors_are_not_fresh(filled: Pipeline) -> None:
    filled.list_source(*ROWS[1:], series("lung-0", LUNG, patient="P0", what="revised"))
    filled.refresh()
    filled.records(LUNG)
    assert fresh(filled).numbers["for_example"] == [LUNG]


def test_a_partition_that_nobody_asked_for_is_not_stale(pipeline: Pipeline) -> None:
    pipeline.list_source(*ROWS)
    pipeline.refresh()
    assert fresh(pipeline).passed


def test_a_failed_finding_shows_its_remedy_and_a_passed_one_does_not() -> None:
    passed, warned = checks.results(
        dg.AssetKey("it"),
        [Finding("a", True, "do this", {"n": 1}), Finding("b", False, "do this", {}, dg.AssetCheckSeverity.WARN)],
    )
    assert set(passed.metadata) == {"n"}
    assert warned.metadata["what to do"].value == "do this"
    assert warned.severity is dg.AssetCheckSeverity.WARN
