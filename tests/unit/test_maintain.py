"""A round of maintenance after real runs: what it must not change, what it must not wait for, and what it tells."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import polars as pl
import pytest
from helpers.counting_encoder import CountingEncoders
from helpers.dagster_world import DagsterWorld
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series
from typer.testing import CliRunner

from medvec_assets import cli
from medvec_assets.catalog.spec import Withdrawal
from medvec_assets.cli import pipeline as pipeline_commands
from medvec_assets.connectors.landing import Landing
from medvec_assets.definitions import build_defs
from medvec_assets.stages import embeddings, maintain, manifest, records, vectors
from medvec_assets.stages.maintain import Maintained, TableUpkeep
from medvec_assets.stages.payloads import Payloads
from resources import lakehouse, tables
from resources.errors import CommitConflict, ConfigError, IntegrityError
from resources.tables import TableSpec

COHORTS = ("bone", "brain", "liver", "lung", "skin")
RECEIPTS, CHAINS = tables.index_receipts(), tables.materializations()


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Five partitions, each run on its own: one file for each row of the audit."""
    with pytest.MonkeyPatch.context() as patch:
        encoders = CountingEncoders()
        encoders.install(patch)
        made = Pipeline(tmp_path_factory.mktemp("filled"), encoders)
        made.list_source(*(series(cohort, cohort) for cohort in COHORTS))
        made.run()
    return made


@pytest.fixture
def filled(filled_once: Pipeline, pipeline: Pipeline) -> Pipeline:
    """A copy of it, to do with as one likes."""
    shutil.copytree(filled_once.home, pipeline.home, dirs_exist_ok=True)
    pipeline.index, pipeline.runs = deepcopy(filled_once.index), filled_once.runs
    pipeline.encoders.encoded += filled_once.encoders.encoded
    return pipeline


def keep_up(pipeline: Pipeline, **options: Any) -> Maintained:
    return maintain.maintain(pipeline.context(), [pipeline.spec], **options)


def of(done: Maintained, table: TableSpec) -> TableUpkeep:
    [found] = [one for one in done.tables if one.table == table.path]
    return found


def answers(pipeline: Pipeline) -> dict[str, Any]:
    """Everything that the stages read of the audit, and every table's rows."""
    ctx, spec = pipeline.context(), pipeline.spec
    every = [*maintain.tables_of(spec), *maintain.AUDIT]
    rows = {table.path: sorted(map(repr, pipeline.read(table).rows())) for table in every}
    return {
        "latest": ctx.audit.latest(spec.id),
        "receipts": vectors.receipts(ctx, spec),
        "chains": ctx.audit.broken_chains(spec.id),
        "due": pipeline.due(),
        **rows,
    }


def test_a_round_changes_no_answer_and_leaves_few_files(filled: Pipeline) -> None:
    before = answers(filled)
    assert set(before["due"].values()) == {"current"} and before["chains"] == []
    done = keep_up(filled)
    receipts, chains = of(done, RECEIPTS), of(done, CHAINS)
    assert (receipts.files_before, receipts.files_after, receipts.merged_partitions) == (len(COHORTS), 1, 1)
    assert chains.files_before > 3 * len(COHORTS) and chains.files_after == 1
    assert answers(filled) == before
    assert all(one.skipped == () and one.files_deleted == 0 for one in done.tables)
    assert done.compacted == tuple(filled.index.held), "every collection that is kept up"
    assert done.staged_removed == 0


def test_a_second_round_commits_nothing(filled: Pipeline) -> None:
    keep_up(filled)
    versions = filled.versions()
    again = keep_up(filled)
    assert filled.versions() == versions
    assert not any(one.merged_partitions or one.files_deleted or one.checkpoint for one in again.tables)


def test_partitions_go_on_where_they_were_and_their_chains_stand(filled: Pipeline) -> None:
    keep_up(filled)
    filled.list_source(*(series(cohort, cohort, what="new") for cohort in COHORTS))
    filled.run()
    assert set(filled.due().values()) == {"current"}
    ctx = filled.context()
    assert ctx.audit.broken_chains(filled.spec.id) == []
    assert {
        head["sequence"] for (asset, _, _), head in ctx.audit.latest(filled.spec.id).items() if asset != "manifest"
    } == {1}
    assert vectors.build(ctx, filled.spec, SPACE, "lung")[0].skipped


def scatter(pipeline: Pipeline) -> None:
    """Every row of the dataset's tables in a file of its own, as rows are in the audit's."""
    for table in maintain.tables_of(pipeline.spec):
        rows = pipeline.read(table).to_arrow()
        pipeline.lake.replace(pipeline.lake.ensure(table), {}, [], {})
        for number in range(rows.num_rows):
            pipeline.lake.append(table, rows.slice(number, 1), {})


@pytest.mark.parametrize(
    ("stage", "step"),
    [(manifest, "_planned"), (records, "_spool_records"), (embeddings, "_encode")],
    ids=["manifest", "records", "embeddings"],
)
def test_a_run_in_the_middle_of_its_work_is_not_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, stage: ModuleType, step: str
) -> None:
    """The files that the run began with are all merged before it commits."""
    patients = [f"P{number}" for number in range(5)]
    pipeline.list_source(*(series(patient, "lung", patient, patient) for patient in patients))
    pipeline.run()
    scatter(pipeline)
    work, merged = getattr(stage, step), {}

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        merged.update({one.table: one.merged_partitions for one in keep_up(pipeline).tables})
        return work(*args, **kwargs)

    monkeypatch.setattr(stage, step, meanwhile)
    pipeline.list_source(*(series(patient, "lung", patient, f"{patient} anew") for patient in patients))
    pipeline.run()
    spec = pipeline.spec
    own = {
        manifest: tables.manifest(spec.id),
        records: tables.records(spec.id),
        embeddings: tables.embeddings(spec.id, SPACE),
    }
    assert merged[own[stage].path] == 1
    assert pipeline.due() == {"lung": "current"}
    assert len(pipeline.gold) == len(pipeline.entities) == 5
    assert pipeline.context().audit.broken_chains(spec.id) == []


def test_what_runs_keep_committing_to_is_tried_three_times_then_left_and_told(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def overtaken(lake: Any, spec: TableSpec, where: Any, facts: Any) -> Any:
        tries.append(spec.path)
        raise CommitConflict("another run", remedy="run again")

    before = answers(filled)
    monkeypatch.setattr(maintain, "wait_random_exponential", lambda *_: lambda state: 0)
    monkeypatch.setattr(lakehouse, "compact", overtaken)
    done = keep_up(filled)
    assert of(done, RECEIPTS).skipped == (filled.spec.id,)
    assert of(done, RECEIPTS).files_after == len(COHORTS)
    assert tries.count(RECEIPTS.path) == 3
    assert of(done, RECEIPTS).checkpoint, "the rest of the round is done"
    assert answers(filled) == before


def test_a_merge_that_changed_the_audit_stops_the_round_before_a_file_is_deleted(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = filled.context()
    answers = iter([[], ["records/-/lung row 0: the row was changed after it was written"]])
    monkeypatch.setattr(ctx.audit, "broken_chains", lambda *_: next(answers))
    monkeypatch.setattr(lakehouse, "vacuum", lambda *_: pytest.fail("files were deleted"))
    with pytest.raises(IntegrityError, match="changed the audit of tcia_catalog: 0 faults in version") as caught:
        maintain.maintain(ctx, [filled.spec])
    assert "restore version" in caught.value.remedy


def test_another_datasets_rows_in_the_shared_tables_are_left_alone(filled: Pipeline) -> None:
    rows = filled.read(RECEIPTS).with_columns(dataset=pl.lit("other"))
    for row in rows.iter_slices(1):
        filled.lake.append(RECEIPTS, row.select(RECEIPTS.schema.names).to_arrow(), {})
    keep_up(filled)
    sizes = filled.lake.ensure(RECEIPTS).file_sizes()
    assert {name: len(found) for (name,), found in sizes.items()} == {filled.spec.id: 1, "other": len(COHORTS)}


def test_where_nothing_ever_ran_there_is_nothing_to_do(pipeline: Pipeline) -> None:
    assert keep_up(pipeline) == Maintained((), (), 0, 0, 0)


def test_a_shorter_retention_is_refused_before_anything_is_done(filled: Pipeline) -> None:
    versions = filled.versions()
    with pytest.raises(ConfigError, match="29 days"):
        keep_up(filled, keep_days=29)
    assert filled.versions() == versions


# ---------------------------------------------------------------- staging


@pytest.fixture
def staged(filled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """Vectors of `lung` are staged by a run that was killed before its commit."""
    filled.list_source(
        *(series(cohort, cohort, what="new" if cohort == "lung" else "thin axial") for cohort in COHORTS)
    )
    filled.refresh()
    filled.records("lung")
    with filled.killed_before_commit_of(tables.embeddings(filled.spec.id, SPACE)):
        filled.embeddings("lung")
    assert filled.staged()
    yield filled


def grow_old(pipeline: Pipeline, hours: float) -> None:
    for path in (Path(pipeline.lake.root) / "staging").rglob("*.arrow"):
        os.utime(path, (time.time() - hours * 3600,) * 2)


def test_what_an_unfinished_partition_will_adopt_stays_however_old(staged: Pipeline) -> None:
    grow_old(staged, 24 * 365)
    assert keep_up(staged).staged_removed == 0
    computed = list(staged.encoders.encoded)
    staged.embeddings("lung")
    assert staged.encoders.encoded == computed, "what was staged is adopted, not computed again"


def test_what_nobody_will_adopt_goes_after_a_day(staged: Pipeline) -> None:
    segments = {path: path.read_bytes() for path in (Path(staged.lake.root) / "staging").rglob("*.arrow")}
    staged.run()
    assert staged.staged() == []
    for path, content in segments.items():  # as if the run had been killed between its commit and its clean-up
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    grow_old(staged, 23)
    assert keep_up(staged).staged_removed == 0 and staged.staged()
    grow_old(staged, 25)
    assert keep_up(staged).staged_removed == len(segments)
    assert staged.staged() == []


def test_a_payload_that_no_record_names_goes_and_is_told(filled: Pipeline) -> None:
    store = Payloads(filled.lake.root, filled.spec.id)
    orphan = Path(filled.lake.root) / store.land(b"of a run that was killed")
    assert keep_up(filled).payloads_removed == 0
    os.utime(orphan, (time.time() - 25 * 3600,) * 2)
    assert keep_up(filled).payloads_removed == 1 and not orphan.exists()


@pytest.mark.parametrize(
    ("withdrawal", "goes"), [(Withdrawal.ARCHIVE, False), (Withdrawal.ERASE, True)], ids=["archive", "erase"]
)
def test_what_was_landed_for_an_earlier_release_goes_at_once_where_withdrawal_erases(
    pipeline: Pipeline, withdrawal: Withdrawal, goes: bool
) -> None:
    """Elsewhere after a month: nothing in it is anybody's who has withdrawn."""
    pipeline.spec = small_spec(withdrawal=withdrawal)
    pipeline.list_source(series("1"))
    landed = Landing(pipeline.settings, pipeline.spec.id).made("table of before", lambda path: path.mkdir())
    (landed / "rows").write_bytes(b"x" * 1000)
    assert keep_up(pipeline).landed_bytes_removed == 0, "nothing was listed since"
    pipeline.refresh()
    assert keep_up(pipeline).landed_bytes_removed == (1000 if goes else 0) and landed.exists() != goes


# ---------------------------------------------------------------- how it is started


def test_the_command_tells_what_it_did_and_refuses_what_it_must(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stages() -> Iterator[Any]:
        yield filled.context()

    monkeypatch.setattr(pipeline_commands, "stages", stages)
    monkeypatch.setattr(pipeline_commands, "specs_of", lambda _: [filled.spec])
    done = CliRunner().invoke(cli.app, ["maintain", "--json"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (
        set(report) == {"tables", "compacted", "staged_removed", "landed_bytes_removed", "payloads_removed"}
        and done.exit_code == 0
    )
    [receipts] = [one for one in report["tables"] if one["table"] == RECEIPTS.path]
    assert (receipts["files_before"], receipts["files_after"], receipts["skipped"]) == (len(COHORTS), 1, [])
    told = CliRunner().invoke(cli.app, ["maintain"], catch_exceptions=False).stdout
    assert "audit/index_receipts: 1 files, now 1; 0 old ones deleted" in told
    with pytest.raises(ConfigError, match="after 0 days"):
        CliRunner().invoke(cli.app, ["maintain", "--keep-days", "0"], catch_exceptions=False)


def test_the_job_runs_on_dagster_and_its_schedule_is_off(filled: Pipeline) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        world = DagsterWorld(filled, instance)
        found = build_defs([filled.spec], world.runtime)
        result = found.get_job_def("maintenance").execute_in_process(instance=instance)
        assert result.success
        [schedule] = [one for one in found.schedules or () if one.name == "maintenance_schedule"]
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert len(filled.lake.ensure(RECEIPTS).file_paths({})) == 1
