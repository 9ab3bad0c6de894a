"""What a run tells Dagster: metadata, retries, failures that quote nothing, the plan's events; and where that is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from helpers.dagster_world import CHAIN, EMBEDDINGS, MANIFEST, RECORDS, VECTORS, DagsterWorld, steps_that
from helpers.pipeline import Pipeline
from helpers.tiny_source import series

from medvec_assets import factory
from medvec_assets.dagster_storage import KeptEventLogStorage, KeptRunStorage
from medvec_assets.factory import plan_key, publish_plan
from medvec_assets.failures import permanent_or_retry
from medvec_assets.lineage_report import CHECK, KEY
from medvec_assets.runner import dagster_home, dagster_instance
from medvec_assets.runtime import Runtime
from medvec_assets.stages import records
from resources.errors import SourceError, SourceUnavailable
from resources.settings import Settings

RETRY, FAILURE = dg.DagsterEventType.STEP_UP_FOR_RETRY, dg.DagsterEventType.STEP_FAILURE
NAME = "Doe^Jane"  # stands for what a library's message may quote


@pytest.fixture
def world(pipeline: Pipeline) -> Iterator[DagsterWorld]:
    pipeline.list_source(*[series(str(n), "lung", what=f"what {n}") for n in range(5)])
    with dg.DagsterInstance.ephemeral() as instance:
        yield DagsterWorld(pipeline, instance)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    found = [e.step_materialization_data.materialization for e in result.get_asset_materialization_events()]
    return {one.asset_key.path[-1]: {name: entry.value for name, entry in one.metadata.items()} for one in found}


def test_each_materialization_says_where_how_many_which_version_and_shows_pictures(world: DagsterWorld) -> None:
    listed = metadata_of(world.refresh())[MANIFEST]
    assert (listed["dagster/row_count"], listed["partitions"], listed["partitions_changed"]) == (5, 1, 1)

    found = metadata_of(world.run(*CHAIN, partition="lung"))
    lake = world.pipeline.settings.lake
    for asset, folder in ((RECORDS, f"silver/tcia_catalog/{RECORDS}"), (EMBEDDINGS, f"gold/tcia_catalog/{EMBEDDINGS}")):
        assert found[asset]["dagster/uri"] == f"{lake}/{folder}"
        assert found[asset]["dagster/partition_row_count"] == 5
        assert (found[asset]["delta_version"], found[asset]["committed"]) == (1, True)
        columns = found[asset]["dagster/column_lineage"].deps_by_column
        assert columns["subject_key"][0].column_name == ("subject_ref" if asset == RECORDS else "subject_key")
    embedded = found[EMBEDDINGS]
    assert (embedded["encoder"], embedded["embeddings_computed"], embedded["rows_skipped"]) == ("tiny@1", 5, 0)
    assert embedded["pictures"].count("](data:image/png;base64,") == 2
    assert (found[VECTORS]["vectors_upserted"], found[VECTORS]["delta_version"]) == (5, 1)

    again = metadata_of(world.run(*CHAIN, partition="lung"))
    assert [again[asset]["committed"] for asset in (RECORDS, EMBEDDINGS)] == [False, False]
    assert "pictures" not in again[EMBEDDINGS], "nothing was computed: the pictures of the last time stand"
    assert again[VECTORS]["vectors_unchanged"] == 5


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (SourceUnavailable("the source does not answer", remedy="wait"), 3),
        (SourceError("the source is not what it says", remedy="look"), 1),
        (ValueError(f"could not read {NAME}"), 1),
    ],
    ids=["transient", "permanent", "defect"],
)
def test_only_a_transient_failure_is_tried_again(
    world: DagsterWorld, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(factory, "RETRIES", dg.RetryPolicy(max_retries=2))  # as it is, but without the waiting
    world = DagsterWorld(world.pipeline, world.instance)
    world.refresh()
    monkeypatch.setattr(records, "build", fail)
    result = world.run(*CHAIN, partition="lung")
    assert steps_that(result, RETRY) == [RECORDS] * (attempts - 1)
    assert steps_that(result, FAILURE) == [RECORDS]
    assert NAME not in "".join(repr(event) for event in result.all_events)


def test_a_failure_names_code_remedy_and_place_and_never_the_message_of_its_cause() -> None:
    def parse() -> None:
        raise ValueError(NAME)

    with pytest.raises(dg.Failure) as refused, permanent_or_retry():
        try:
            parse()
        except ValueError as error:
            raise SourceError("the manifest of the source is not JSON", remedy="ask the source") from error
    with pytest.raises(dg.Failure) as defect, permanent_or_retry():
        parse()
    for failure in (refused.value, defect.value):
        assert failure.__cause__ is None and failure.__suppress_context__
        told = f"{failure.description} {failure.metadata}"
        assert NAME not in told and "in parse" in str(defect.value.metadata["where"].value)
    assert refused.value.metadata["code"].value == "source_invalid"
    assert refused.value.metadata["what to do"].value == "ask the source"
    assert "ValueError" in str(defect.value.description)


def test_the_steps_of_a_process_share_the_audit_and_see_what_others_write(world: DagsterWorld) -> None:
    pipeline, spec = world.pipeline, world.pipeline.spec
    runtime = Runtime(pipeline.settings)
    with runtime.context("a") as first, runtime.context("b") as second:
        assert first.audit is second.audit
        assert first.audit.latest(spec.id) == {}
        world.refresh()
        assert [asset for asset, _, _ in second.audit.latest(spec.id)] == [MANIFEST]


def test_what_dagster_itself_raises_passes_through() -> None:
    with pytest.raises(dg.RetryRequested), permanent_or_retry():
        raise dg.RetryRequested
    with pytest.raises(KeyboardInterrupt), permanent_or_retry():
        raise KeyboardInterrupt


def plan(**digests: str) -> pl.DataFrame:
    return pl.DataFrame({"partition": list(digests), "content_digest": list(digests.values())})


def test_the_plan_is_published_as_a_difference_to_what_was_published_last(world: DagsterWorld) -> None:
    instance, spec = world.instance, world.pipeline.spec
    assert publish_plan(instance, spec, plan(a="1", b="1")) == ["a", "b"]
    assert publish_plan(instance, spec, plan(a="1", b="1")) == []
    assert publish_plan(instance, spec, plan(a="1", b="2")) == ["b"]
    assert publish_plan(instance, spec, plan(**{"a.0": "1", "a.1": "1", "b": "2"})) == ["a.0", "a.1"]
    assert world.partitions == ["a.0", "a.1", "b"]


def test_a_publication_that_was_killed_is_completed_by_the_next(world: DagsterWorld) -> None:
    instance, spec = world.instance, world.pipeline.spec
    instance.add_dynamic_partitions(f"{spec.id}_partitions", ["a", "b"])
    event = dg.AssetMaterialization(plan_key(spec), partition="a", tags={"dagster/data_version": "1"})
    instance.report_runless_asset_event(event)
    assert publish_plan(instance, spec, plan(a="1", b="1")) == ["b"]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterInstance]]:
    """Two instances of one home, as two processes have them."""
    settings = Settings(home=tmp_path)
    with dagster_instance(settings) as one, dagster_instance(settings) as other:
        yield one, other


@dg.op
def speak() -> None:
    return None


@dg.job
def speaking() -> None:
    speak()


def test_the_storages_are_the_ones_that_keep_their_connections(
    kept: tuple[dg.DagsterInstance, dg.DagsterInstance],
) -> None:
    here, _ = kept
    assert type(here.run_storage) is KeptRunStorage
    assert type(here.event_log_storage) is KeptEventLogStorage


def test_a_run_of_this_process_prints_to_its_terminal_unless_the_operator_keeps_it_elsewhere(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with dagster_instance(settings) as instance:
        assert isinstance(instance.compute_log_manager, NoOpComputeLogManager)
        assert speaking.execute_in_process(instance=instance).success
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as serving:
        assert isinstance(serving.compute_log_manager, LocalComputeLogManager)
        (run,) = serving.get_runs()
        assert serving.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    with (dagster_home(settings) / "dagster.yaml").open("a") as config:
        config.write(
            "compute_logs:\n  module: dagster._core.storage.local_compute_log_manager\n"
            f"  class: LocalComputeLogManager\n  config:\n    base_dir: {tmp_path}\n"
        )
    with dagster_instance(settings) as instance:
        assert isinstance(instance.compute_log_manager, LocalComputeLogManager)


def test_an_event_is_stored_with_its_index_rows_or_not_at_all(
    kept: tuple[dg.DagsterInstance, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = kept
    key = dg.AssetKey("it")

    def no_tags(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(here.event_log_storage, "_store_asset_event_tags", no_tags)
        here.report_runless_asset_event(dg.AssetMaterialization(key))
    assert there.fetch_materializations(key, limit=1).records == []
    here.report_runless_asset_event(dg.AssetMaterialization(key))
    assert len(there.fetch_materializations(key, limit=2).records) == 1
    assert there.has_asset_key(key)


def test_a_run_of_one_process_is_followed_in_another(kept: tuple[dg.DagsterInstance, dg.DagsterInstance]) -> None:
    here, there = kept
    run = here.create_run_for_job(speaking)
    heard = threading.Event()
    there.watch_event_logs(run.run_id, None, lambda entry, cursor: heard.set())
    here.report_engine_event("spoken", run)
    assert heard.wait(30), "the page of a run would stand still"


def test_a_batch_of_events_is_stored_whole_or_not_at_all(
    kept: tuple[dg.DagsterInstance, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = kept
    assert speaking.execute_in_process(instance=here).success
    (first,) = here.get_runs()
    entries = here.all_logs(first.run_id)
    storage = here.event_log_storage
    single, stored = storage.store_event, []

    def third_fails(event: dg.EventLogEntry) -> None:
        if len(stored) == 2:
            raise OSError
        stored.append(event)
        single(event)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(storage, "store_event", third_fails)
        storage.store_event_batch(entries)
    assert len(there.all_logs(first.run_id)) == len(entries)
    storage.store_event_batch(entries)
    assert len(there.all_logs(first.run_id)) == 2 * len(entries)


def test_the_lineage_report_is_an_asset_whose_check_names_what_is_broken(world: DagsterWorld) -> None:
    world.pipeline.run()

    def materialized() -> tuple[bool, dict[str, Any]]:
        job = world.defs.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=world.instance, asset_selection=[KEY], raise_on_error=False)
        [check] = done.get_asset_check_evaluations()
        assert check.check_name == CHECK
        return check.passed, {name: value.value for name, value in check.metadata.items()}

    assert materialized() == (True, {"broken_links": 0, "for_example": []})
    entity = next(iter(world.pipeline.entities.values()))
    entity["row_fingerprint"] = "0" * 32
    passed, told = materialized()
    assert (passed, told["broken_links"], told["what to do"]) == (False, 1, "medvec sync --full")
    assert told["for_example"][0].startswith("tcia_catalog entity_fields: ")
    reports = sorted(path.suffix for path in (Path(world.pipeline.lake.root) / "reports").iterdir())
    assert reports == [".html", ".html", ".json", ".json", ".pem", *[".sig"] * 4]
