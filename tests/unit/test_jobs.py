"""The jobs that move readers: what a run of them says, what is refused for good, what is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import tenacity
from helpers.dagster_world import PipelineRuntime
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets import jobs
from medvec_assets.catalog.spec import Space
from medvec_assets.definitions import build_defs
from medvec_assets.stages.generations import of_space
from medvec_assets.stages.promote import promote
from resources.errors import CommitConflict

LAKE = MemoryLake
OLD, NEW = "tcia_catalog__text__open__g1", "tcia_catalog__text__open__g2"
RETRY, FAILURE = dg.DagsterEventType.STEP_UP_FOR_RETRY, dg.DagsterEventType.STEP_FAILURE


@pytest.fixture
def risen(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Readers see tiny@1; tiny@2 is whole beside it."""
    monkeypatch.setattr(promote.retry, "wait", tenacity.wait_none())
    monkeypatch.setattr(jobs, "RETRIES", dg.RetryPolicy(max_retries=2))  # as it is, but without the waiting
    pipeline.list_source(*[series(str(n), what=f"series {n}") for n in range(3)])
    pipeline.run()
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    pipeline.run()
    return pipeline


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(pipeline: Pipeline, instance: dg.DagsterInstance, job: str) -> dg.ExecuteInProcessResult:
    defs = build_defs([pipeline.spec], PipelineRuntime(pipeline))
    return defs.resolve_job_def(f"tcia_catalog_{job}").execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def said(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.event_type == kind]


def refusal(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (failure,) = said(result, FAILURE)
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    return {"why": str(told.description)} | {name: entry.value for name, entry in told.metadata.items()}


def live(pipeline: Pipeline) -> list[str]:
    return [g["collection"] for g in of_space(pipeline.context(), pipeline.spec, SPACE) if g["state"] == "live"]


def test_promote_moves_readers_and_its_facts_stand_on_the_run_and_on_the_asset(
    risen: Pipeline, instance: dg.DagsterInstance
) -> None:
    result = run(risen, instance, "promote")
    assert result.success and live(risen) == [NEW]
    (output,) = said(result, dg.DagsterEventType.STEP_OUTPUT)
    told = {name: entry.value for name, entry in output.step_output_data.metadata.items()}
    assert (told["readers_see"], told["readers_saw"], told["changed"]) == ([NEW], [OLD], True)
    assert (told["space_version"], told["recall@10 everything"]) == ("tiny@2", 1.0)
    observed = instance.fetch_observations(dg.AssetKey(["tcia_catalog", "text_vectors"]), limit=1).records[0]
    assert observed.asset_observation is not None
    assert {name: entry.value for name, entry in observed.asset_observation.metadata.items()} == told

    again = run(risen, instance, "promote")
    (output,) = said(again, dg.DagsterEventType.STEP_OUTPUT)
    assert output.step_output_data.metadata["changed"].value is False


def test_rollback_takes_it_back_and_says_when_there_is_nothing_to_go_back_to(
    risen: Pipeline, instance: dg.DagsterInstance
) -> None:
    nothing = run(risen, instance, "rollback")
    assert refusal(nothing)["code"] == "not_found" and not said(nothing, RETRY)
    run(risen, instance, "promote")
    assert run(risen, instance, "rollback").success
    assert live(risen) == [OLD]


def test_a_refusal_names_every_reason_and_is_not_tried_again(risen: Pipeline, instance: dg.DagsterInstance) -> None:
    risen.index.held[NEW].entities.popitem()
    risen.list_source(series("9", what="new"))
    risen.refresh()
    result = run(risen, instance, "promote")
    told = refusal(result)
    assert told["code"] == "promote_refused"
    assert "1 partitions are behind, such as lung" in told["why"] and "1 missing" in told["why"]
    assert "medvec run" in told["what to do"]
    assert not said(result, RETRY) and live(risen) == [OLD]


def test_partitions_that_change_meanwhile_are_a_reason_to_try_again(
    risen: Pipeline, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [CommitConflict("changed meanwhile", remedy="again")] * 2

    def at_last(*args: Any) -> Any:
        if left:
            raise left.pop()
        return promote(*args)

    monkeypatch.setattr(jobs, "promote", at_last)
    result = run(risen, instance, "promote")
    assert len(said(result, RETRY)) == 2 and result.success and live(risen) == [NEW]
