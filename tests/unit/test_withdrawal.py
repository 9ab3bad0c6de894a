"""What a source takes back: noted before it is gone, gone from every layer, erased where the rule says so, never late unseen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets import governance
from medvec_assets.catalog.spec import Residency, Withdrawal
from medvec_assets.stages import withdrawal
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import PolicyRefused, SourceError
from resources.settings import Agreement

LAKE = MemoryLake
STAYS, GOES, OTHER = series("1", patient="P1"), series("2", patient="P2", what="coronal"), series("3", cohort="liver")
ERASE: dict[str, Any] = {"withdrawal": Withdrawal.ERASE, "withdrawal_grace": timedelta(days=90)}
NOW = datetime.now(UTC)


def withdrawn(pipeline: Pipeline) -> pl.DataFrame:
    return pipeline.read(tables.withdrawals())


def subject(pipeline: Pipeline, patient: str) -> str:
    return pipeline.context().pseudonyms(pipeline.spec).subject(patient)


def finding(pipeline: Pipeline, days: int = 0) -> governance.Finding:
    return governance.withdrawals(pipeline.context(), pipeline.spec, NOW + timedelta(days=days, hours=1))


@pytest.fixture
def after(pipeline: Pipeline) -> Pipeline:
    """The listing no longer has GOES; nothing but the manifest knows it yet."""
    pipeline.spec = small_spec(withdrawal_grace=timedelta(days=90))
    pipeline.list_source(STAYS, GOES, OTHER)
    pipeline.run()
    pipeline.list_source(STAYS, OTHER)
    pipeline.refresh()
    return pipeline


def test_a_first_listing_withdraws_nothing(pipeline: Pipeline) -> None:
    pipeline.list_source(STAYS)
    pipeline.run()
    assert withdrawn(pipeline).is_empty()


def test_a_removal_is_dated_and_keyed_by_pseudonym(after: Pipeline) -> None:
    (row,) = withdrawn(after).to_dicts()
    assert (row["object_id"], row["cohort"], row["subject_key"]) == ("2", "lung", subject(after, "P2"))
    assert row["due_at"] - row["seen_at"] == timedelta(days=90)
    assert "P2" not in str(row)


def test_a_kill_before_the_manifest_loses_no_removal(pipeline: Pipeline) -> None:
    pipeline.list_source(STAYS, GOES)
    pipeline.run()
    pipeline.list_source(STAYS)
    with pipeline.killed_before_commit_of(tables.manifest(pipeline.spec.id)):
        pipeline.refresh()
    pipeline.refresh()
    assert set(withdrawn(pipeline)["object_id"]) == {"2"}


def test_what_is_still_here_after_its_deadline_is_named_by_layer(after: Pipeline) -> None:
    assert finding(after).passed, "its grace has just begun"
    late = finding(after, days=91)
    assert not late.passed and late.numbers["subjects_past_deadline"] == [subject(after, "P2")]
    layers = {one.layer for one in withdrawal.overdue(after.context(), after.spec, NOW + timedelta(days=91))}
    assert layers == {"records", "index"}
    after.records("lung")
    layers = {one.layer for one in withdrawal.overdue(after.context(), after.spec, NOW + timedelta(days=91))}
    assert layers == {f"{SPACE}_embeddings", "index"}
    after.embeddings("lung")
    layers = {one.layer for one in withdrawal.overdue(after.context(), after.spec, NOW + timedelta(days=91))}
    assert layers == {"index"}
    after.vectors("lung")
    assert finding(after, days=1000).passed


def test_what_the_source_publishes_again_is_not_late(after: Pipeline) -> None:
    after.list_source(STAYS, GOES, OTHER)
    after.run()
    assert finding(after, days=91).passed
    assert set(after.silver["record_id"]) == {"1", "2", "3"}


def test_where_withdrawal_erases_bronze_forgets_and_nothing_brings_it_back(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(**ERASE)
    pipeline.list_source(STAYS, GOES)
    pipeline.run()
    pipeline.list_source(STAYS)
    pipeline.run()
    assert set(pipeline.manifest["object_id"]) == {"1"}
    pipeline.list_source(STAYS, GOES)  # by mistake, or in an older copy
    pipeline.run()
    assert set(pipeline.silver["record_id"]) == {"1"}
    assert [entity["record_id"] for entity in pipeline.entities.values()] == ["1"]


def test_a_subject_who_keeps_some_objects_is_not_suppressed(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(**ERASE)
    pipeline.list_source(STAYS, GOES | {"PatientID": "P1"})
    pipeline.run()
    pipeline.list_source(STAYS)
    pipeline.run()
    assert pipeline.read(tables.suppression()).is_empty()
    assert set(pipeline.silver["record_id"]) == {"1"}


@pytest.mark.parametrize(("source", "due"), [("tcia", "records"), ("mimic", "current")])
def test_a_suppression_makes_only_the_datasets_of_its_source_due(pipeline: Pipeline, source: str, due: str) -> None:
    pipeline.list_source(STAYS, GOES)
    pipeline.run()
    pipeline.suppress("P2", source)
    assert pipeline.due() == {"lung": due}
    pipeline.list_source(STAYS, GOES | {"SeriesDescription": "axial"})  # whatever its row says, he never comes back
    pipeline.run()
    assert set(pipeline.silver["record_id"]) == {"1"}
    assert [entity["record_id"] for entity in pipeline.entities.values()] == ["1"]


def test_what_is_erased_names_its_source(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(**ERASE)
    pipeline.list_source(STAYS, GOES)
    pipeline.run()
    pipeline.list_source(STAYS)
    pipeline.run()
    assert pipeline.read(tables.suppression()).select("subject_key", "source").rows() == [
        (subject(pipeline, "P2"), "tcia")
    ]


def test_a_listing_that_takes_half_away_for_ever_must_be_confirmed(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(**ERASE)
    many = [series(str(n), patient=f"P{n}") for n in range(60)]
    pipeline.list_source(*many)
    pipeline.run()
    before = pipeline.versions()
    pipeline.list_source(*many[:30])
    with pytest.raises(SourceError, match="30 of 60") as refusal:
        pipeline.refresh()
    assert refusal.value.code == "mass_removal" and pipeline.versions() == before
    version = pipeline.context().connector(pipeline.spec).version()
    pipeline.site(confirmed_removals=frozenset({f"{pipeline.spec.id}@{version}"}))
    pipeline.run()
    assert pipeline.silver.height == 30


# -- agreements


DUA = Agreement(id="dua-1", holder="H", datasets={"tcia_catalog"}, expires=NOW.date() + timedelta(days=10))


def judged(pipeline: Pipeline, now: datetime = NOW) -> governance.Finding:
    return governance.agreement(pipeline.context(), pipeline.spec, now)


def test_an_agreement_that_ends_soon_is_a_warning(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(residency=Residency(where="holders", agreement="dua-1"))
    pipeline.site(agreements=(DUA.model_copy(update={"expires": NOW.date() + timedelta(days=400)}),))
    assert judged(pipeline).passed
    pipeline.site(agreements=(DUA,))
    found = judged(pipeline)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.numbers["holder"] == "H"


def test_an_agreement_that_ended_stops_work_and_fails_the_check(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(residency=Residency(where="holders", agreement="dua-1"))
    pipeline.site(agreements=(DUA,))
    pipeline.list_source(STAYS)
    pipeline.run()
    pipeline.site(agreements=(DUA.model_copy(update={"expires": NOW.date() - timedelta(days=1)}),))
    found = judged(pipeline)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.ERROR and found.numbers["rule"] == "expiry"
    pipeline.list_source(STAYS, GOES)
    with pytest.raises(PolicyRefused, match="ended on"):
        pipeline.refresh()
    for stage in (pipeline.records, pipeline.embeddings, pipeline.vectors):
        with pytest.raises(PolicyRefused, match="ended on"):
            stage("lung")


def test_what_may_not_be_here_and_is_not_is_fine(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(residency=Residency(where="enclave:rap"))
    assert judged(pipeline).passed


def test_every_refusal_is_written_down(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(residency=Residency(where="enclave:rap"))
    with pytest.raises(PolicyRefused):
        pipeline.refresh()
    with pytest.raises(PolicyRefused):
        pipeline.records("lung")
    rows = pipeline.read(tables.refusals()).select("dataset", "asset", "partition", "rule", "site").rows()
    assert rows == [
        ("tcia_catalog", "manifest", "-", "residency", "anywhere"),
        ("tcia_catalog", "records", "lung", "residency", "anywhere"),
    ]


def test_made_up_data_may_be_anywhere_and_say_so_in_every_row(pipeline: Pipeline) -> None:
    """A synthetic sample stands where the source's own data may not; the moment a source is named the rules hold."""
    pipeline.spec = small_spec(residency=Residency(where="enclave:rap"), sample="synthetic")
    pipeline.list_source(STAYS)
    with pytest.raises(PolicyRefused):
        pipeline.refresh()
    connector = pipeline.context().connector(pipeline.spec)
    pipeline.site(sources={})
    ctx = pipeline.context()
    ctx._connectors[pipeline.spec.id] = connector
    pipeline.context = lambda: ctx  # type: ignore[method-assign]
    pipeline.run()
    for rows in (pipeline.manifest, pipeline.silver, pipeline.gold):
        assert rows["attributes"].str.contains('"synthetic":true').all() and rows.height == 1
    assert all('"synthetic":true' in entity["attributes"] for entity in pipeline.entities.values())


@pytest.fixture
def sample(pipeline: Pipeline) -> Pipeline:
    """Thirty made-up series, run to the end; what a source would be is in `sources`."""
    pipeline.spec = small_spec(sample="synthetic", **ERASE)
    pipeline.list_source(*(series(str(n), patient=f"P{n}") for n in range(30)))
    of_sample = pipeline.context().connector(pipeline.spec)
    context = pipeline.context

    def with_sample() -> Context:
        ctx = context()
        if not pipeline.settings.sources:
            ctx._connectors[pipeline.spec.id] = of_sample
        return ctx

    pipeline.context = with_sample  # type: ignore[method-assign]
    pipeline.site(sources={})
    pipeline.run()
    return pipeline


def test_the_sample_gives_way_to_the_source_and_nobody_was_withdrawn(sample: Pipeline) -> None:
    path = sample.home / "source" / "idc_index.parquet"
    sample.list_source(STAYS, OTHER)
    sample.site(sources={sample.spec.id: str(path)})
    sample.run()
    assert set(sample.silver["record_id"]) == set(sample.manifest["object_id"]) == {"1", "3"}
    assert withdrawn(sample).is_empty() and sample.read(tables.suppression()).is_empty()
    assert not sample.silver["attributes"].str.contains("synthetic").any()


def test_the_sample_never_takes_the_place_of_real_data(sample: Pipeline) -> None:
    sample.list_source(STAYS)
    sample.site(sources={sample.spec.id: str(sample.home / "source" / "idc_index.parquet")})
    sample.run()
    before = sample.versions()
    sample.site(sources={})
    with pytest.raises(SourceError) as refusal:
        sample.refresh()
    assert refusal.value.code == "sample_over_data" and sample.versions() == before
