"""What is broken or stale, asked with Dagster's runs known: the daily check, `medvec status`, killed runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from helpers.dagster_world import CHAIN, RECORDS, DagsterWorld
from helpers.pipeline import Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets import automation, checks, pictures, processes, status
from medvec_assets.processes import PROCESS_TAG, end_dead_runs, tags_of_this_process
from medvec_assets.runtime import Runtime
from medvec_assets.stages import records
from resources.errors import IndexUnavailable, SourceError
from resources.settings import Settings

LUNG, LIVER = series("1", "lung"), series("2", "liver")


@pytest.fixture
def world(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterWorld]:
    monkeypatch.setattr(pictures, "of_partition", lambda *_: {})
    pipeline.list_source(LUNG, LIVER)
    with dg.DagsterInstance.ephemeral() as instance:
        yield DagsterWorld(pipeline, instance)


def run_check(world: DagsterWorld) -> dg.AssetCheckEvaluation:
    job = world.defs.resolve_job_def(f"{world.pipeline.spec.id}_standing")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(run_config=quiet, instance=world.instance, raise_on_error=False)
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert found.keys() == set(automation.DAILY_CHECKS)
    return found[checks.STANDING_CHECK]


def test_a_first_run_that_failed_for_good_is_named_by_the_daily_check(
    world: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refresh()
    assert world.run(*CHAIN, partition="lung").success
    whole = run_check(world)
    assert whole.passed
    assert whole.metadata["partitions_never_asked_for"].value == 1
    with monkeypatch.context() as patch:
        patch.setattr(records, "build", lambda *_: (_ for _ in ()).throw(SourceError("no", remedy="look")))
        assert not world.run(*CHAIN, partition="liver").success
    found = run_check(world)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.metadata["partitions_broken"].value == 1
    assert "liver: its run failed before anything was made" in str(found.metadata["problems"].value)
    assert found.metadata["what to do"].value == "medvec run --dataset tcia_catalog"
    assert world.run(*CHAIN, partition="liver").success
    assert run_check(world).passed


def test_a_listing_that_failed_is_named_until_one_succeeds(world: DagsterWorld) -> None:
    world.pipeline.list_source(LUNG, LUNG)  # one id twice: the source as a whole is not what it says
    assert not world.refresh().success
    found = status.of_dataset(world.runtime, world.pipeline.spec, world.instance, "status")
    assert [(one.name, one.broken) for one in found.problems] == [("listing_failed", True)]
    world.pipeline.list_source(LUNG)
    assert world.refresh().success
    assert status.of_dataset(world.runtime, world.pipeline.spec, world.instance, "status").ok


def test_an_index_that_does_not_answer_is_a_problem_beside_the_others(
    world: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refresh()
    world.run(RECORDS, partition="lung")
    open_context = world.runtime.context

    @contextmanager
    def without_index(run_id: str, *, with_index: bool = False) -> Iterator[Any]:
        if with_index:
            raise IndexUnavailable("the index is down", remedy="medvec doctor")
        with open_context(run_id) as ctx:
            yield ctx

    monkeypatch.setattr(world.runtime, "context", without_index)
    found = run_check(world)
    assert found.metadata["index_unavailable"].value == found.metadata["partitions_broken"].value == 1
    assert "medvec doctor" in str(found.metadata["what to do"].value)


def test_the_index_is_opened_once_for_all_datasets_and_asked_for_by_each_when_it_is_down(
    world: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refresh()
    specs, opened = [world.pipeline.spec, small_spec(id="another")], []

    @contextmanager
    def open_index(_: Settings) -> Iterator[Any]:
        opened.append(None)
        if down:
            raise IndexUnavailable("the index is down", remedy="medvec doctor")
        yield world.pipeline.index

    monkeypatch.setattr("resources.vector_index.open_index", open_index)
    for down, times in ((False, 1), (True, 3)):
        opened.clear()
        found = status.of_datasets(Runtime(world.pipeline.settings), specs, world.instance, "status")
        assert (len(found), len(opened)) == (2, times)
        assert all(("index_unavailable" in {one.name for one in each.problems}) == down for each in found)


def started(world: DagsterWorld, tags: dict[str, str]) -> str:
    """A run of lung's chain that is at it."""
    job = world.defs.resolve_implicit_global_asset_job_def()
    run = world.instance.create_run_for_job(
        job,
        asset_selection=frozenset(world.key(asset) for asset in CHAIN),
        tags={"dagster/partition": "lung"} | tags,
        status=dg.DagsterRunStatus.STARTED,
    )
    return run.run_id


def test_a_partition_in_a_living_run_is_running_and_in_a_killed_one_broken(
    world: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refresh()
    world.run(RECORDS, partition="lung")
    started(world, tags_of_this_process())
    spec, instance = world.pipeline.spec, world.instance
    found = status.of_dataset(world.runtime, spec, instance, "status")
    assert (found.ok, found.running) == (True, 1)
    monkeypatch.setattr(processes, "_started", lambda _: 1)  # the pid is another's now
    found = status.of_dataset(world.runtime, spec, instance, "status")
    assert ([one.name for one in found.problems], found.running) == (["partitions_broken"], 0)


def test_a_run_of_another_machine_or_launcher_is_taken_for_living(world: DagsterWorld) -> None:
    world.refresh()
    started(world, {PROCESS_TAG: "elsewhere:1:1"})
    started(world, {})
    assert status.runs_of(world.instance, world.pipeline.spec).running == {"lung"}


def test_runs_of_killed_processes_are_ended_and_not_launched_again(world: DagsterWorld, tmp_path: Path) -> None:
    """At the start of `medvec serve`: they would hold places in queue and pools for six hours."""
    world.refresh()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    of_child = f"{socket.gethostname()}:{child.pid}:{int(psutil.Process(child.pid).create_time() * 1000)}"
    path = str(tmp_path / "code.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        served = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": path})}
        runs = [started(world, tags) for tags in ({PROCESS_TAG: of_child}, served, tags_of_this_process(), {})]
        assert end_dead_runs(world.instance) == []
        child.kill()
        child.wait()
        assert end_dead_runs(world.instance) == [runs[0]]
    assert end_dead_runs(world.instance) == [runs[1]]
    states = [world.instance.get_run_by_id(run_id).status.value for run_id in runs]  # type: ignore[union-attr]
    assert states == ["FAILURE", "FAILURE", "STARTED", "STARTED"]
