"""A backfill as a cluster runs it: webserver, daemon and code server as processes on PostgreSQL, and each of them hurt.

The suite runs PARTITIONS = 8; by hand, as docs/benchmarks.md tells: MEDVEC_TEST_BACKFILL=300 python -m pytest --durations=9
--junit-xml=backfill.xml tests/integration/test_dagster_backfill.py
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.counting_encoder import CountingEncoders
from helpers.dagster_cluster import Cluster
from helpers.pipeline import small_spec
from helpers.tiny_source import series, write_index

from medvec_assets.runtime import Runtime
from medvec_assets.stages.due import partition_states
from medvec_assets.stages.verify import verify
from resources import tables
from resources.settings import Settings
from resources.vector_index import open_index
from tests.services import Postgres

pytestmark = pytest.mark.integration

PARTITIONS = int(os.environ.get("MEDVEC_TEST_BACKFILL", "8"))
SERIES = 3  # of each partition, with contents of their own
SPEC = small_spec()
CHAIN = ("records", "text_embeddings", "text_vectors")
COHORTS = [f"c{number:03}" for number in range(PARTITIONS)]
REFUSED = "refused"  # a cohort whose licence is none: a blocking check fails, whoever tries and however often
SENSOR = "default_automation_condition_sensor"
RUN_SECONDS = 300.0  # far above what it takes on two busy cores
BACKFILL_SECONDS = 600.0 + 30 * PARTITIONS  # 2 to 4 s a partition on two idle ones
MAX_GROWTH = 1.3
MAX_RUNS, POOL = 4, 2  # the queue would let 4 run at once, the pools only 2
BACKFILL, PARTITION, RETRY = "dagster/backfill", "dagster/partition", "dagster/retry_number"


def rows(cohorts: list[str], what: str = "series") -> list[dict[str, Any]]:
    return [
        series(f"{cohort}-{n}", cohort, patient=f"{cohort}-{n}", what=f"{what} {n} of {cohort}")
        for cohort in cohorts
        for n in range(SERIES)
    ]


@dataclass
class Backfilled:
    """What was seen while the backfill ran."""

    cluster: Cluster
    settings: Settings
    source: Path
    backfill: str = ""
    hurt: list[str] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=lambda: {"daemon": [], "webserver": []})
    killed_partition: str = ""

    def done(self) -> int:
        runs = self.cluster.runs({BACKFILL: self.backfill})
        return len({run["tags"][PARTITION] for run in runs if run["status"] == "SUCCESS"})

    def remember_memory(self) -> None:
        for part, seen in self.memory.items():
            seen.append(self.cluster.memory_bytes(part))


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Backfilled]:
    """The whole story once; the tests below look at what is left."""
    folder = tmp_path_factory.mktemp("cluster")
    source = write_index(folder / "idc_index.parquet", [*rows(COHORTS), _refused()])
    settings = Settings(home=folder / "home", sources={SPEC.id: str(source)}, pseudonym_key="11" * 32)
    environment = {
        "MEDVEC_HOME": str(settings.home),
        "MEDVEC_SOURCES": json.dumps(settings.sources),
        "MEDVEC_PSEUDONYM_KEY": "11" * 32,
    }
    with open_index(settings), Cluster(folder, postgres.database(), environment, MAX_RUNS) as cluster:
        # As deploy/README.md says to set them.
        cluster.dagster("instance", "concurrency", "set", "gpu", str(POOL))
        cluster.dagster("instance", "concurrency", "set", "milvus", str(POOL))
        story = Backfilled(cluster, settings, source)
        assert cluster.ended(cluster.launch(f"{SPEC.id}_refresh"), RUN_SECONDS) == "SUCCESS"
        story.backfill = cluster.backfill([[SPEC.id, asset] for asset in CHAIN], COHORTS)
        _hurt(story, postgres)
        cluster.until(lambda: _ended(story), BACKFILL_SECONDS, every=1)
        story.remember_memory()
        yield story


def _refused() -> dict[str, Any]:
    return series("refused", REFUSED, license_short_name="none given")


def _hurt(story: Backfilled, postgres: Postgres) -> None:
    """One accident after another, each while partitions are being made."""
    cluster = story.cluster

    def reached(share: float) -> None:
        cluster.until(lambda: story.done() >= share * PARTITIONS, BACKFILL_SECONDS, every=1)

    reached(0.15)
    before = cluster.workers()
    (worker, *_) = cluster.until(lambda: cluster.workers() - before, RUN_SECONDS, every=0.1)
    worker.kill()  # a new one, so that its run is not over already
    story.hurt.append("a run's process killed")
    reached(0.3)
    cluster.kill("daemon")
    cluster.start("daemon")
    story.hurt.append("the daemon killed and started")
    reached(0.5)
    postgres.stop()
    postgres.start()
    story.hurt.append("PostgreSQL restarted")
    reached(
        min(0.7, 0.5 + 50 / PARTITIONS)
    )  # warm again: the daemon is a new process, the webserver has new connections
    story.remember_memory()


def _ended(story: Backfilled) -> bool:
    status = story.cluster.backfill_status(story.backfill)
    assert not status.startswith(("CANCEL", "FAIL")), status
    return status.startswith("COMPLETED")


def test_every_partition_is_done_whatever_happened_meanwhile(backfilled: Backfilled) -> None:
    assert len(backfilled.hurt) == 3
    status = backfilled.cluster.backfill_status(backfilled.backfill)
    assert status == "COMPLETED_SUCCESS", backfilled.cluster.failures({BACKFILL: backfilled.backfill})
    assert backfilled.done() == PARTITIONS
    runs = backfilled.cluster.runs({BACKFILL: backfilled.backfill})
    again = [run for run in runs if RETRY in run["tags"]]
    assert again, "the run whose process was killed was launched again by the daemon"
    first = Counter(run["tags"][PARTITION] for run in runs if RETRY not in run["tags"])
    assert first == dict.fromkeys(COHORTS, 1), "the daemon that came back launched nothing a second time"


def test_no_more_runs_were_at_it_at_once_than_their_pools_let(backfilled: Backfilled) -> None:
    runs = backfilled.cluster.runs({BACKFILL: backfilled.backfill})
    began = [(run["startTime"], 1) for run in runs]
    ended = [(run["endTime"], -1) for run in runs]
    at_once = list(accumulate(step for _, step in sorted(began + ended)))  # who ends in the same moment goes first
    assert max(at_once) <= POOL


def test_nothing_is_doubled_or_missing_in_lake_and_index(backfilled: Backfilled) -> None:
    with pytest.MonkeyPatch.context() as patch:
        CountingEncoders().install(patch)
        with Runtime(backfilled.settings).context("look", with_index=True) as ctx:
            states = {one.partition: one.state for one in partition_states(ctx, SPEC)}
            assert {states.pop(REFUSED), *states.values()} == {"records", "current"}
            (report,) = verify(ctx, SPEC)
            gold = ctx.lake.ensure(tables.embeddings(SPEC.id, "text")).read(["vector_id", "partition"])
    assert (report.ok, report.indexed) == (True, PARTITIONS * SERIES)
    assert gold["vector_id"].n_unique() == gold.height == PARTITIONS * SERIES
    assert dict(gold["partition"].value_counts().rows()) == dict.fromkeys(COHORTS, SERIES)


def test_memory_of_daemon_and_webserver_is_flat(
    backfilled: Backfilled, record_testsuite_property: Callable[[str, object], None]
) -> None:
    for part, (early, late) in backfilled.memory.items():
        record_testsuite_property(f"{part}_bytes", (early, late))  # for --junit-xml
        assert late < MAX_GROWTH * early, (part, early, late)


def test_what_a_rule_refuses_is_not_run_again(backfilled: Backfilled) -> None:
    cluster = backfilled.cluster
    run_id = cluster.launch("__ASSET_JOB", [[SPEC.id, asset] for asset in CHAIN], REFUSED)
    assert cluster.ended(run_id, RUN_SECONDS) == "FAILURE"
    # Dagster writes the tag after the status, so that a run is seen to have failed before it.
    decided = {PARTITION: REFUSED, "dagster/will_retry": "false"}
    cluster.until(lambda: run_id in {run["runId"] for run in cluster.runs(decided)}, RUN_SECONDS)
    assert not any(RETRY in run["tags"] for run in cluster.runs({PARTITION: REFUSED}))


def test_the_automation_sensor_requests_the_partition_that_changed_and_no_other(backfilled: Backfilled) -> None:
    cluster, changed = backfilled.cluster, COHORTS[3]
    before = {run["runId"] for run in cluster.runs({})}
    cluster.start_sensor(SENSOR)
    cluster.until(lambda: cluster.ticks(SENSOR), RUN_SECONDS)
    others = [cohort for cohort in COHORTS if cohort != changed]
    write_index(backfilled.source, [*rows(others), *rows([changed], what="another"), _refused()])
    assert cluster.ended(cluster.launch(f"{SPEC.id}_refresh"), RUN_SECONDS) == "SUCCESS"

    def requested() -> list[dict[str, Any]]:
        new = [run for run in cluster.runs({}) if run["runId"] not in before and PARTITION in run["tags"]]
        return [run for run in new if run["status"] == "SUCCESS"]

    (run,) = cluster.until(requested, RUN_SECONDS, every=1)
    assert run["tags"][PARTITION] == changed
