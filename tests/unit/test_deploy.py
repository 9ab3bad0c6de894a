"""The cluster's files are what the pinned releases accept, and hold no secret."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.instance.config import PoolGranularity, dagster_instance_config

import medvec_assets
from medvec_assets.runner import dagster_instance
from resources.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
LOCAL = Path(medvec_assets.__file__).with_name("dagster.yaml")
VARIABLES = ("MEDVEC_DAGSTER_POSTGRES_URL", "MEDVEC_IMAGE", "MEDVEC_NAMESPACE", "MEDVEC_COMPUTE_LOG_BUCKET")


def test_the_instance_and_its_components_are_as_dagster_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "given")
    config, _ = dagster_instance_config(str(DEPLOY))
    assert not config["telemetry"]["enabled"]
    for part in (config["run_launcher"], config["compute_logs"]):
        component = getattr(importlib.import_module(part["module"]), part["class"])
        outcome = process_config(resolve_to_config_type(component.config_type()), part["config"])
        assert outcome.success, outcome.errors


def test_the_database_password_comes_by_environment_only() -> None:
    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert instance["storage"] == {"postgres": {"postgres_url": {"env": "MEDVEC_DAGSTER_POSTGRES_URL"}}}


@pytest.fixture(params=[DEPLOY / "dagster.yaml", LOCAL], ids=["cluster", "one machine"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """An instance in memory with the run retries of a shipped one."""
    settings = {"run_retries": yaml.safe_load(request.param.read_text())["run_retries"]}
    with dg.DagsterInstance.ephemeral(settings=settings) as made:
        yield made


@dg.op
def fails() -> None:
    raise dg.Failure("a rule says no", allow_retries=False)


@dg.job
def failing() -> None:
    fails()


def test_a_run_whose_step_failed_is_never_run_again(instance: dg.DagsterInstance) -> None:
    """Run retries know no permanent failures; transient ones were retried in the step already."""
    run_id = failing.execute_in_process(instance=instance, raise_on_error=False).run_id
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.tags["dagster/will_retry"] == "false"


def test_a_run_whose_process_died_is_run_again_twice_and_no_more(instance: dg.DagsterInstance) -> None:
    answers: list[str] = []
    runs: list[str] = []
    for _ in range(3):
        family = {"root_run_id": runs[0], "parent_run_id": runs[-1]} if runs else {}
        tags = {f"dagster/{name}": run_id for name, run_id in family.items()}
        run = instance.create_run_for_job(failing, status=dg.DagsterRunStatus.STARTED, tags=tags, **family)
        instance.report_run_failed(run, "the process ended")
        runs.append(run.run_id)
        failed = instance.get_run_by_id(run.run_id)
        assert failed is not None
        answers.append(failed.tags["dagster/will_retry"])
    assert answers == ["true", "true", "false"]


@pytest.mark.parametrize("path", [DEPLOY / "dagster.yaml", LOCAL], ids=["cluster", "one machine"])
def test_pools_are_counted_by_run(path: Path) -> None:
    """By step, a killed run keeps its slot for ever and `medvec run`, which has no queue, would wait for it."""
    pools = yaml.safe_load(path.read_text())["concurrency"]["pools"]
    assert pools["granularity"] == "run" and pools["default_limit"] >= 1


def test_a_killed_run_never_makes_medvec_run_wait(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with dagster_instance(settings) as found:
        storage = found.event_log_storage
        assert storage.get_pool_config().pool_granularity == PoolGranularity.RUN
        storage.set_concurrency_slots("gpu", 1)
        killed = found.create_run_for_job(failing, status=dg.DagsterRunStatus.STARTED)
        with InstanceConcurrencyContext(found, killed) as one:
            assert one.claim("gpu", "a step")
        other = found.create_run_for_job(failing, status=dg.DagsterRunStatus.STARTED)
        with InstanceConcurrencyContext(found, other) as two:
            assert two.claim("gpu", "a step")
