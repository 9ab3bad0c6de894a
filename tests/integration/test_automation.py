"""The automation condition, with real ticks on an instance in memory and real runs of the real stages."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from helpers.dagster_world import CHAIN, EMBEDDINGS, RECORDS, VECTORS, DagsterWorld, steps_that
from helpers.pipeline import Pipeline
from helpers.tiny_source import series

from medvec_assets import pictures
from medvec_assets.catalog.spec import Residency

pytestmark = pytest.mark.integration

COHORTS = [f"c{number:02}" for number in range(60)]


@pytest.fixture
def world(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterWorld]:
    monkeypatch.setattr(pictures, "of_partition", lambda *_: {})  # seconds of drawing that nobody looks at here
    with dg.DagsterInstance.ephemeral() as instance:
        yield DagsterWorld(pipeline, instance)


def chain_of(*partitions: str) -> dict[str, list[str]]:
    return {asset: list(partitions) for asset in CHAIN}


def test_of_60_partitions_exactly_the_one_that_changed_is_requested_and_only_once(world: DagsterWorld) -> None:
    rows = {cohort: series(f"uid-{cohort}", cohort) for cohort in COHORTS}
    world.pipeline.list_source(*rows.values())
    assert world.refresh().success
    assert world.partitions == COHORTS
    world.pretend_materialized(CHAIN, COHORTS)
    assert world.tick() == {}, "what changed before the sensor was switched on is not requested"

    assert world.refresh().success
    assert world.tick() == {}, "nothing changed"

    rows["c17"] = series("uid-c17", "c17", what="thick sagittal")
    world.pipeline.list_source(*rows.values())
    assert world.refresh().success
    assert world.tick() == chain_of("c17")
    assert world.tick() == {}, "it was requested already"


def test_a_new_partition_is_requested_once_and_not_again_after_its_run(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung"))
    world.refresh()
    world.tick()
    world.pipeline.list_source(series("1", "lung"), series("2", "liver"))
    world.refresh()
    assert world.tick() == chain_of("liver")
    assert world.run(*CHAIN, partition="liver").success
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]
    assert [entity["cohort"] for entity in world.pipeline.entities.values()] == ["liver"]


def test_many_that_were_requested_together_are_not_requested_again_after_their_runs(world: DagsterWorld) -> None:
    """Dagster's `any_deps_updated` forgets all but one of them: each would be run twice more for nothing."""
    world.pipeline.list_source(series("1", "lung"))
    world.refresh()
    world.tick()
    world.pipeline.list_source(
        *[series(cohort, cohort) for cohort in ("brain", "breast", "liver")], series("1", "lung")
    )
    world.refresh()
    assert world.tick() == chain_of("brain", "breast", "liver")
    for cohort in ("brain", "breast", "liver"):
        assert world.run(*CHAIN, partition=cohort, requested=True).success
    assert [world.tick() for _ in range(3)] == [{}, {}, {}]


def test_records_that_somebody_made_by_hand_still_ask_for_what_is_below(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung"), series("2", "liver"))
    world.refresh()
    world.tick()
    for cohort in ("lung", "liver"):
        assert world.run(RECORDS, partition=cohort).success
    assert world.tick() == {EMBEDDINGS: ["liver", "lung"], VECTORS: ["liver", "lung"]}


def test_a_failed_blocking_check_stops_its_own_partition_only(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung"), series("2", "liver"))
    world.refresh()
    world.tick()
    # The licence check of the records passes (such an object is no record), the quarantine's share is above 1 %.
    world.pipeline.list_source(series("1", "lung", license_short_name="none given"), series("2", "liver", what="new"))
    world.refresh()
    assert world.tick() == chain_of("liver", "lung")
    world.tick()
    # Records alone, so that only the checks stand between them and what is below them.
    assert not world.run(RECORDS, partition="lung").success
    assert world.run(RECORDS, partition="liver").success
    assert world.tick() == {EMBEDDINGS: ["liver"], VECTORS: ["liver"]}

    world.pipeline.list_source(series("1", "lung", what="allowed"), series("2", "liver", what="new"))
    world.refresh()
    assert world.tick() == chain_of("lung"), "mended upstream, it goes on"


def test_a_failed_blocking_check_stops_the_rest_of_its_run_without_a_retry(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung", license_short_name="none given"))
    world.refresh()
    result = world.run(*CHAIN, partition="lung")
    assert steps_that(result, dg.DagsterEventType.STEP_START) == [RECORDS]
    assert steps_that(result, dg.DagsterEventType.STEP_FAILURE) == [RECORDS]
    assert steps_that(result, dg.DagsterEventType.STEP_UP_FOR_RETRY) == []
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    assert failed == ["quarantine_share"]
    assert not world.pipeline.entities


def test_what_is_requested_becomes_one_run_of_the_whole_chain_per_partition(world: DagsterWorld) -> None:
    """Range runs, which any backfill policy makes, would store check results without their partition."""
    world.pipeline.list_source(series("1", "lung"), series("2", "liver"))
    world.refresh()
    graph = world.defs.resolve_asset_graph()
    wanted = [AssetKeyPartitionKey(world.key(asset), name) for asset in CHAIN for name in ("lung", "liver")]
    runs = build_run_requests_with_backfill_policies(wanted, graph, world.instance)
    assert sorted(run.partition_key or "" for run in runs) == ["liver", "lung"]
    assert all({key.path[-1] for key in run.asset_selection or ()} == set(CHAIN) for run in runs)


def test_check_results_are_kept_per_partition(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung", license_short_name="none given"), series("2", "liver"))
    world.refresh()
    for partition in ("lung", "liver"):
        world.run(RECORDS, partition=partition)
    share = dg.AssetCheckKey(world.key(RECORDS), "quarantine_share")
    history = world.instance.event_log_storage.get_asset_check_execution_history(share, limit=10)
    assert {(one.partition, one.status.value) for one in history} == {("lung", "FAILED"), ("liver", "SUCCEEDED")}


def test_a_manifest_that_fails_a_blocking_check_publishes_nothing_until_it_passes(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung"))
    world.refresh()
    world.tick()
    world.pipeline.list_source(series("1", "lung", what="new"), series("2", "liver"), series("", "liver"))
    result = world.refresh()
    assert [one.check_name for one in result.get_asset_check_evaluations() if not one.passed] == ["quarantine_share"]
    assert world.partitions == ["lung"]
    assert world.tick() == {}

    world.pipeline.list_source(series("1", "lung", what="new"), series("2", "liver"))
    assert world.refresh().success
    assert world.tick() == chain_of("liver", "lung")


def test_a_dataset_that_the_site_may_not_have_is_never_requested(world: DagsterWorld) -> None:
    pipeline, instance = world.pipeline, world.instance
    pipeline.list_source(series("1", "lung"), series("2", "liver"))
    world.refresh()
    world.tick()

    pipeline.spec = pipeline.spec.model_copy(update={"residency": Residency(where="enclave:rap")})
    refused = DagsterWorld(pipeline, instance, world.cursor)
    pipeline.list_source(series("1", "lung", what="new"), series("2", "liver"), series("3", "brain"))
    result = refused.refresh()
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told is not None and "rule 'residency' allows it only at 'enclave:rap'" in str(told.description)
    assert steps_that(result, dg.DagsterEventType.STEP_UP_FOR_RETRY) == [], "a rule does not change by waiting"
    assert refused.partitions == ["liver", "lung"]
    assert [refused.tick() for _ in range(2)] == [{}, {}]


def test_a_change_that_comes_while_the_partition_is_being_made_is_not_forgotten(world: DagsterWorld) -> None:
    world.pipeline.list_source(series("1", "lung"))
    world.refresh()
    world.tick()
    world.pipeline.list_source(series("1", "lung", what="second"))
    world.refresh()
    assert world.tick() == chain_of("lung")
    world.pipeline.list_source(series("1", "lung", what="third"))
    world.refresh()
    # The run of the request ends after the third was published; as far as Dagster knows it may have read the second.
    world.run(*CHAIN, partition="lung")
    assert world.tick() == chain_of("lung")
    assert world.tick() == {}


@pytest.mark.parametrize("where", ["anywhere", "enclave:rap"])
def test_schedules_skip_a_dataset_that_the_site_may_not_have_and_name_the_rule(pipeline: Pipeline, where: str) -> None:
    pipeline.spec = pipeline.spec.model_copy(update={"residency": Residency(where=where)})
    with dg.DagsterInstance.ephemeral() as instance:
        world = DagsterWorld(pipeline, instance)
        repository = world.defs.get_repository_def()
        of_dataset = [one for one in repository.schedule_defs if one.name.startswith(pipeline.spec.id)]
        assert len(of_dataset) == 3
        for schedule in of_dataset:
            resources = {"runtime": world.runtime}
            with dg.build_schedule_context(instance, repository_def=repository, resources=resources) as context:
                answer = schedule.evaluate_tick(context)
            # The daily look is taken everywhere: it is what finds that something is here against the policy.
            asked = where == "anywhere" or schedule.job_name.endswith("_standing")
            assert bool(answer.run_requests) == asked
            assert ("rule 'residency'" in (answer.skip_message or "")) == (not asked)
