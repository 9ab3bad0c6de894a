"""Any history converges: changes, crashes, splits, withdrawals and damage in any order, then one undisturbed run.

What stands afterwards is what a fresh lake makes of the final source: rows, fingerprints, counts, index.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.counting_encoder import CountingEncoders, Killed
from helpers.memory_lake import MemoryLake
from helpers.pipeline import Pipeline
from helpers.tiny_source import series
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medvec_assets.stages import encoding, retire
from medvec_assets.stages.verify import as_json, verify
from resources.audit import Audit
from resources.errors import CommitConflict, NotFound
from resources.lakehouse import Lakehouse

# Series of four patients in two cohorts; 0 and 1 can have the same content, and two series are of one patient.
PATIENTS = {"0": "P0", "1": "P1", "2": "P2", "3": "P2", "4": "P3"}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "other text": {"what": "another description"},
    "other maker": {"Manufacturer": "Other"},  # attributes change, the model input does not
    "forbidden": {"license_short_name": "all rights reserved"},
    "control": {"SeriesDescription": "a\x00b"},  # refused by the modality
    "broken": {"series_aws_url": None},  # refused by the manifest
}
Operation = tuple[str, Any, int | None]
KILL = st.one_of(st.none(), st.integers(0, 24))
WHICH = st.integers(0, 7)
CHANGE = st.tuples(st.sampled_from(sorted(PATIENTS)), st.sampled_from(["absent", *VARIANTS]))
OPERATIONS = st.one_of(
    st.tuples(st.just("source"), CHANGE, st.none()),
    st.tuples(st.just("run"), st.none(), KILL),
    st.tuples(st.sampled_from(["refresh", "retire"]), st.none(), KILL),
    st.tuples(st.sampled_from(["records", "embeddings", "vectors", "full sync"]), WHICH, KILL),
    st.tuples(st.just("split"), WHICH, KILL),
    st.tuples(st.sampled_from(["lose an entity", "drop the index"]), WHICH, st.none()),
    st.tuples(st.just("withdraw"), st.sampled_from(sorted(set(PATIENTS.values()))), st.none()),
)


class World:
    """A pipeline, its source as it is now, and the subjects that withdrew."""

    def __init__(self, home: Path, encoders: CountingEncoders, lake: Callable[[str], Lakehouse]) -> None:
        self.pipeline = Pipeline(home, encoders, open_lake=lake)
        self.source: dict[str, str] = dict.fromkeys(PATIENTS, "plain")
        self.withdrawn: list[str] = []
        self.publish()

    def publish(self) -> None:
        rows = [series(uid, patient=PATIENTS[uid], **VARIANTS[v]) for uid, v in self.source.items() if v in VARIANTS]
        self.pipeline.list_source(*rows, *(series(f"liver-{n}", "liver", "P9") for n in range(6)))

    def apply(self, name: str, what: Any, kill: int | None) -> None:
        if name == "source":
            self.source[what[0]] = what[1]
            self.publish()
        elif name == "withdraw":
            self.withdrawn.append(what)
            self.pipeline.suppress(what)
        elif name in ("lose an entity", "drop the index"):
            self._damage(name, what)
        elif kill is None:
            self._step(name, what)
        else:
            with suppress(Killed), self.pipeline.killed_at_write(kill):
                self._step(name, what)

    def _step(self, name: str, which: int) -> None:
        pipeline, names = self.pipeline, self.pipeline.plan["partition"].sort().to_list()
        if name == "run":
            pipeline.run()
        elif name == "refresh":
            pipeline.refresh()
        elif name == "retire":
            retire.retire(pipeline.context(), pipeline.spec)
        elif names:
            partition = names[which % len(names)]
            step: dict[str, Callable[[], Any]] = {
                "records": lambda: pipeline.records(partition),
                "embeddings": lambda: pipeline.embeddings(partition),
                "vectors": lambda: pipeline.vectors(partition),
                "full sync": lambda: pipeline.vectors(partition, full=True),
                "split": lambda: pipeline.refresh(partition),
            }
            with suppress(NotFound, CommitConflict):  # not its turn: refused, with what to do
                step[name]()

    def _damage(self, name: str, which: int) -> None:
        index = self.pipeline.index
        for collection in sorted(index.held):
            entities = index.held[collection].entities
            if name == "drop the index":
                index.drop(collection)
            elif entities:
                del entities[sorted(entities)[which % len(entities)]]

    def fresh(self, home: Path, encoders: CountingEncoders, lake: Callable[[str], Lakehouse]) -> World:
        """Another lake that never saw anything but the final source, cut into the same partitions."""
        other = World(home, encoders, lake)
        other.source = dict(self.source)
        other.publish()
        for subject in self.withdrawn:
            other.pipeline.suppress(subject)
        wanted = set(self.pipeline.plan["partition"])
        other.pipeline.refresh()
        while to_split := sorted(set(other.pipeline.plan["partition"]) - wanted):
            other.pipeline.refresh(*to_split)
        other.pipeline.run()
        return other


def standing(pipeline: Pipeline) -> dict[str, Any]:
    """Everything that must be equal, whatever the way there: no versions, no run ids, no times, no tombstones."""
    alive = pipeline.manifest.filter(pl.col("removed_in_version").is_null()).sort("object_id")
    gold = pipeline.gold.drop("run_id", "created_at").sort("space_version", "vector_id", "partition")
    return {
        "manifest": alive.rows(),
        "plan": pipeline.plan.select("partition", "cohort", "prefix", "objects", "size_bytes").sort("partition").rows(),
        "quarantine": sorted(pipeline.quarantine.rows()),
        "records": pipeline.silver.sort("record_id", "partition").rows(),
        "embeddings": gold.rows(),
        "entities": {i: (e["row_fingerprint"], e["members"], e["record_id"]) for i, e in pipeline.entities.items()},
        "staged": pipeline.staged(),
        "due": pipeline.due(),
    }


def check(history: list[Operation], home: Path, lake: Callable[[str], Lakehouse]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        encoders = CountingEncoders()
        encoders.install(patch)
        patch.setitem(encoding.WINDOW, "text", 2)  # several windows, so that a crash finds some of them staged
        world = World(home / "history", encoders, lake)
        for operation in history:
            world.apply(*operation)
        pipeline = world.pipeline
        pipeline.run()
        found = standing(pipeline)
        assert set(found["due"].values()) == {"current"}
        assert found["staged"] == []
        assert as_json(verify(pipeline.context(), pipeline.spec))["ok"]
        assert Audit(pipeline.lake).broken_chains(pipeline.spec.id) == []
        assert not list((pipeline.settings.home / "scratch").glob("*"))
        before = pipeline.versions()
        pipeline.run()
        assert pipeline.versions() == before, "once it stands, nothing is committed"
        expected = standing(world.fresh(home / "fresh", encoders, lake).pipeline)
    # A partition that no object is left of stays in the plan of a history.
    found["plan"] = [row for row in found["plan"] if row[3]]
    expected["plan"] = [row for row in expected["plan"] if row[3]]
    found["due"] = expected["due"] = {}
    assert found == expected


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(OPERATIONS, max_size=10))
@example([("run", None, None), ("split", 1, 1), ("run", None, 9)])
def test_any_history_then_one_run_ends_where_a_fresh_lake_does(history: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as home:
        check(history, Path(home), MemoryLake)


@pytest.mark.parametrize("kill", [5, 13])
def test_a_history_with_a_crash_converges_on_delta_itself(tmp_path: Path, kill: int) -> None:
    changes: list[Operation] = [
        ("source", ("0", "other text"), None),
        ("source", ("2", "absent"), None),
        ("source", ("4", "broken"), None),
    ]
    back: list[Operation] = [("source", ("0", "plain"), None), ("split", 1, None)]
    check([("run", None, None), *changes, ("run", None, kill), *back], tmp_path, Lakehouse)
