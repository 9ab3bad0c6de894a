"""Dagster's instance on a real PostgreSQL: what a run did is stored, read by others, and outlives both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.services import Postgres

pytestmark = pytest.mark.integration

CLUSTER = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
Open = Callable[[str], dg.DagsterInstance]


@dg.op
def one() -> int:
    return 1


@dg.op
def two(number: int) -> int:
    return number + 1


@dg.job
def small() -> None:
    two(one())


@pytest.fixture
def open_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """An instance with the cluster's own storage section, on a given database; each call is as another process."""
    with ExitStack() as opened:

        def open_one(url: str) -> dg.DagsterInstance:
            monkeypatch.setenv("MEDVEC_DAGSTER_POSTGRES_URL", url)
            storage = yaml.safe_load(CLUSTER.read_text())["storage"]
            (tmp_path / "dagster.yaml").write_text(
                yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}})
            )
            return opened.enter_context(dg.DagsterInstance.from_config(str(tmp_path)))

        yield open_one


def run_small(instance: dg.DagsterInstance) -> str:
    result = small.execute_in_process(
        instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
    assert result.success
    return result.run_id


def test_a_run_is_stored_with_its_events_and_read_by_another_process(postgres: Postgres, open_instance: Open) -> None:
    url = postgres.database()
    first, second = open_instance(url), open_instance(url)
    run_id = run_small(first)
    [run] = second.get_runs()
    assert (run.run_id, run.status, run.job_name) == (run_id, dg.DagsterRunStatus.SUCCESS, "small")
    events = [record.event_log_entry for record in second.get_records_for_run(run_id).records]
    finished = [event.step_key for event in events if event.dagster_event_type == dg.DagsterEventType.STEP_SUCCESS]
    assert finished == ["one", "two"]


def test_databases_are_apart(postgres: Postgres, open_instance: Open) -> None:
    run_small(open_instance(postgres.database()))
    assert open_instance(postgres.database()).get_runs() == []


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
def test_an_open_instance_goes_on_after_postgres_was_restarted(
    postgres: Postgres, open_instance: Open, end: Callable[[Postgres], None]
) -> None:
    instance = open_instance(postgres.database())
    before = run_small(instance)
    end(postgres)
    postgres.start()
    after = run_small(instance)
    assert {run.run_id for run in instance.get_runs()} == {before, after}
