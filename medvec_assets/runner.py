"""`medvec run`: the main job in this process, as Dagster runs that the UI shows afterwards.

Belongs here: which partitions to run, one Dagster run each, the summary. Does not belong here: what a stage does,
how progress looks (progress), scheduling (automation does that under `medvec serve` and in a cluster).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from medvec_assets import checks
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.definitions import build_defs
from medvec_assets.factory import partition_chain
from medvec_assets.processes import end_dead_runs, tags_of_this_process
from medvec_assets.runtime import Runtime
from medvec_assets.stages import embeddings, manifest, records, retire, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import PartitionState, partition_states
from resources import tables
from resources.errors import ConfigError, IndexUnavailable, MedvecError, NotFound, StorageError
from resources.settings import Settings

Totals = dict[str, int]
# Captured, a step's output goes through a file and two `tail` processes back to the terminal it came from: 0.1 s a run.
_NOT_CAPTURED = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
FULL_BYTES = 1 << 20  # less free than this is a full disk to SQLite: a page of its log does not fit any more
_CONFIG_CODES = frozenset({ConfigError.code, "partition_name"})
_SPACE_TOTALS = (
    "embeddings_computed",
    "embeddings_skipped",
    "vectors_upserted",
    "vectors_deleted",
    "vectors_unchanged",
)


@dataclass(frozen=True)
class Selection:
    """What `medvec run` was asked for; empty tuples mean no restriction beyond the spec's sample cohorts."""

    partitions: tuple[str, ...] = ()
    everything: bool = False
    split: tuple[str, ...] = ()


@dataclass
class Report:
    """What the run did. `failures` are sentences that name the partition, the rule and the remedy."""

    seconds: float = 0.0
    datasets: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    misconfigured: int = 0  # how many of the failures are of the command line or the settings

    @property
    def exit_code(self) -> int:
        """0 fine, 2 if all that failed is bad usage or configuration, otherwise 1."""
        if not self.failures:
            return 0
        return 2 if self.misconfigured == len(self.failures) else 1

    def add(self, sentence: str, code: str) -> None:
        """A failure, told in `sentence`, of an error with this `code`."""
        self.failures.append(sentence)
        self.misconfigured += code in _CONFIG_CODES

    def as_json(self) -> dict[str, Any]:
        failed = {"failures": self.failures} if self.failures else {}
        return {"seconds": round(self.seconds, 2), "datasets": self.datasets, **failed}


def dagster_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance of this home for runs in this process: SQLite below HOME/dagster, telemetry off, engines kept open.

    What a step prints stays on the terminal of `medvec run`, unless dagster.yaml says where to keep it; under
    `medvec serve` it is kept and shown by the UI.
    """
    home = dagster_home(settings)
    configured, _ = dagster_instance_config(str(home))
    overrides = {} if configured.get("compute_logs") else {"compute_logs": _NOT_CAPTURED}
    # Opening makes the tables where there are none, and of two processes that do it at once SQLite fails one.
    with FileLock(home / "opening.lock"):
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))


def settle_runs(settings: Settings) -> None:
    """End the runs of this home whose process was killed, before a queue counts them."""
    with _named_failures(settings.home), dagster_instance(settings) as instance:
        end_dead_runs(instance)


def operators_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance whose runs an operator asks about: DAGSTER_HOME's, as in a cluster, or else this home's."""
    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dagster_instance(settings)


def dagster_home(settings: Settings) -> Path:
    """HOME/dagster with its dagster.yaml, which is written once and then the operator's to change."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(
            (Path(__file__).parent / "dagster.yaml").read_text().replace("$HISTORY", str(home / "history"))
        )
    return home


def run(
    settings: Settings,
    specs: Sequence[DatasetSpec],
    selection: Selection,
    runtime: Runtime,
    on_partition: Callable[..., None],
) -> Report:
    """Bring the selected partitions of `specs` up to date; write HOME/last_run.json.

    `on_partition(dataset, done, total)` is called as partitions finish. One dataset's failure leaves the others to run.
    """
    # Dagster writes a step's events with few commits (ADR 0004).
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "50")
    started = time.monotonic()
    report = Report()
    with _named_failures(settings.home):
        with dagster_instance(settings) as instance, runtime.hold_index():
            for spec in specs:
                try:
                    report.datasets[spec.id] = _Dataset(spec, runtime, instance, report).run(selection, on_partition)
                except _NoAnswer as gone:
                    report.add(f"{spec.id}: the run stopped, what is left would wait in vain: {gone}", gone.code)
                    break
                except MedvecError as error:
                    report.add(f"{spec.id}: {error}", error.code)
        report.seconds = time.monotonic() - started
        draft = settings.home / f"last_run.json.{os.getpid()}"
        draft.write_text(json.dumps(report.as_json(), indent=2) + "\n")
        draft.replace(settings.home / "last_run.json")
    return report


@contextmanager
def _named_failures(home: Path) -> Iterator[None]:
    """Failures of what is in HOME beside lake and index (Dagster's databases, the report) as errors with a remedy."""
    try:
        yield
    except _storage_failures() as error:
        # SQLite calls a full disk "disk I/O error" or "unable to open database file" as often as by its name.
        full = home.exists() and shutil.disk_usage(home).free < FULL_BYTES
        if full or getattr(error, "errno", None) == errno.ENOSPC:
            raise StorageError(
                f"the disk is full: Dagster's storage or the report in {home} could not be written",
                remedy="free space on the volume of MEDVEC_HOME and run again: what was committed stays",
                code="disk_full",
            ) from error
        raise StorageError(
            f"Dagster's storage or the report in {home} could not be read or written ({type(error).__name__})",
            remedy="check that the database of HOME/dagster/dagster.yaml answers and who owns MEDVEC_HOME (medvec doctor); if "
            "HOME/dagster/history is damaged, move it away: the record of lineage is in the lake",
        ) from error


def _storage_failures() -> tuple[type[Exception], ...]:
    from dagster_postgres.utils import DagsterPostgresException  # its own words for a server that is gone

    return OSError, SQLAlchemyError, DagsterPostgresException


class _NoAnswer(Exception):
    """The lake or the index answers nobody: no partition and no dataset that is left could be brought up to date."""

    def __init__(self, error: MedvecError) -> None:
        super().__init__(str(error))
        self.code = error.code


class _Dataset:
    """One dataset's part of a run."""

    def __init__(self, spec: DatasetSpec, runtime: Runtime, instance: dg.DagsterInstance, report: Report) -> None:
        self._spec, self._runtime, self._instance, self._report = spec, runtime, instance, report
        self._job = build_defs([spec], runtime).resolve_implicit_global_asset_job_def()
        self._computed: dict[str, Totals] = {space: dict.fromkeys(_SPACE_TOTALS, 0) for space in spec.spaces}

    def run(self, selection: Selection, on_partition: Callable[..., None]) -> dict[str, Any]:
        spec = self._spec
        if selection.split:
            self._split(selection.split)
        if not self._execute([dg.AssetKey([spec.id, manifest.ASSET])], "manifest"):
            return {"partitions": 0, "records": 0, "quarantined": 0, "spaces": self._computed}
        with self._context() as ctx:
            states = self._selected(ctx, selection)
        due = [state for state in states if state.state != "current"]
        on_partition(spec.id, len(states) - len(due), len(states))
        with self._context() as ctx, ctx.index.settled_once():
            for number, state in enumerate(due, len(states) - len(due) + 1):
                # The whole chain, whatever of it is due: what is current costs 0.1 s, and its checks are asked again. Begun
                # at the first asset that is due, a second run would go past the blocking check that stopped the first.
                if not self._execute(partition_chain(spec), f"partition {state.partition}", state.partition):
                    self._stop_if_nothing_answers()
                on_partition(spec.id, number, len(states))
            retire.retire(ctx, spec)
            vectors.settle(ctx, spec)
            totals = self._totals(ctx, [state.partition for state in states])
        self._check_freshness()
        return totals

    def _stop_if_nothing_answers(self) -> None:
        """Each partition would be tried for two minutes (failures.RETRIES); one table that is damaged stops nobody."""
        try:
            with self._context() as ctx:
                ctx.lake.snapshot(tables.materializations())
                assert ctx.index is not None, "a run has an index"
                ctx.index.describe(self._spec.id)
        except (StorageError, IndexUnavailable) as error:
            raise _NoAnswer(error) from error

    def _split(self, partitions: tuple[str, ...]) -> None:
        try:
            with self._context() as ctx:
                manifest.refresh(ctx, self._spec, partitions)
        except NotFound as error:  # here the command line names what there is not
            raise ConfigError(error.message, remedy=error.remedy) from error

    def _selected(self, ctx: Context, selection: Selection) -> list[PartitionState]:
        sample = None if selection.everything or selection.partitions else self._spec.sample_cohorts
        states = partition_states(ctx, self._spec, sample)
        if not selection.partitions:
            return states
        known = {state.partition for state in states}
        unknown = [name for name in selection.partitions if name not in known]
        if unknown:
            raise ConfigError(
                f"dataset {self._spec.id} has no partition {unknown[0]!r}",
                remedy=f"`medvec partitions {self._spec.id}` lists them",
            )
        return [state for state in states if state.partition in selection.partitions]

    def _execute(self, keys: list[dg.AssetKey], what: str, partition: str | None = None) -> bool:
        # A selection, not a subset of the job: automation and the UI know a run's targets by its selection.
        result = self._launch(self._job, partition, asset_selection=keys)
        self._count(result)
        for sentence, code in _failures(result):
            self._report.add(f"{self._spec.id} {what}: {sentence}", code)
        return bool(result.success)

    def _check_freshness(self) -> None:
        key = checks.plan_check_key(self._spec, checks.FRESHNESS_CHECK)
        self._launch(self._job.get_subset(asset_selection=set(), asset_check_selection={key}), None)

    def _launch(self, job: dg.JobDefinition, partition: str | None, **selection: Any) -> dg.ExecuteInProcessResult:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # failures are told in our own words
        return job.execute_in_process(
            run_config=quiet,
            instance=self._instance,
            tags=tags_of_this_process(),
            partition_key=partition,
            raise_on_error=False,
            **selection,
        )

    def _count(self, result: dg.ExecuteInProcessResult) -> None:
        for event in result.get_asset_materialization_events():
            materialization = event.step_materialization_data.materialization
            for space, totals in self._computed.items():
                if materialization.asset_key.path[-1] not in (embeddings.asset_name(space), vectors.asset_name(space)):
                    continue
                for name in totals.keys() & materialization.metadata.keys():
                    totals[name] += int(str(materialization.metadata[name].value))

    def _totals(self, ctx: Context, partitions: list[str]) -> dict[str, Any]:
        spec, heads = self._spec, ctx.audit.latest(self._spec.id)

        def total(asset: str, column: str, version: str = "-") -> int:
            found = (heads.get((asset, version, partition)) for partition in partitions)
            return sum(int(head[column]) for head in found if head is not None)

        listed = heads.get((manifest.ASSET, "-", "-"))
        quarantined = total(records.ASSET, "rows_quarantined") + (int(listed["rows_quarantined"]) if listed else 0)
        for space, totals in self._computed.items():
            version = spec.spaces[space].version
            quarantined += total(embeddings.asset_name(space), "rows_quarantined", version)
            rows = total(embeddings.asset_name(space), "rows_out", version)
            totals["embeddings_skipped"] = rows - totals["embeddings_computed"]
            entities = total(vectors.asset_name(space), "rows_out", version)
            totals["vectors_unchanged"] = entities - totals["vectors_upserted"]
        return {
            "partitions": len(partitions),
            "records": total(records.ASSET, "rows_out"),
            "quarantined": quarantined,
            "spaces": self._computed,
            **({"for_this_site_only": True} if ctx.counts_stay(spec) else {}),
        }

    def _context(self) -> Any:
        return self._runtime.context("medvec-run", with_index=True)


def _failures(result: dg.ExecuteInProcessResult) -> list[tuple[str, str]]:
    """Failed steps and failed checks of one Dagster run: a sentence with the remedy, and the error's code."""
    failures = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            failure = data.user_failure_data
            if failure is not None and failure.description:
                code = failure.metadata.get("code")
                failures.append((failure.description, str(code.value) if code is not None else ""))
            elif data.error is not None and "AssetCheckFailed" not in str(data.error.cls_name):
                failures.append((str(data.error.message).strip(), ""))
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            remedy = "see the check's metadata in the Dagster UI"
            with suppress(KeyError):
                remedy = str(check.metadata["what to do"].value)
            name = f"check {check.check_name} of {check.asset_key.to_user_string()}"
            failures.append((f"{name} failed. What to do: {remedy}", ""))
    return failures
