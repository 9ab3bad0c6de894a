"""What is broken or stale right now, as `medvec status` and the daily check `nothing_broken_or_stale` both say it.

Belongs here: asking tables, index, source and Dagster's runs at once. Does not belong here: what counts as a problem
(stages.standing), how it is shown (checks, printing).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.storage.tags import PARTITION_NAME_TAG

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.processes import is_dead
from medvec_assets.runtime import Runtime
from medvec_assets.stages import manifest, records
from medvec_assets.stages.standing import Runs, Standing, examine, of_error
from resources.errors import IndexInvalid, IndexUnavailable


def of_datasets(
    runtime: Runtime, specs: Iterable[DatasetSpec], instance: dg.DagsterInstance, run_id: str
) -> list[Standing]:
    """How each of `specs` stands, with the index opened once for all of them."""
    with ExitStack() as stack:
        with suppress(IndexUnavailable, IndexInvalid):  # each of them will say so
            stack.enter_context(runtime.hold_index())
        return [of_dataset(runtime, spec, instance, run_id) for spec in specs]


def of_dataset(
    runtime: Runtime, spec: DatasetSpec, instance: dg.DagsterInstance, run_id: str, now: datetime | None = None
) -> Standing:
    """How `spec` stands. An index that does not answer is one of its problems."""
    now, runs = now or datetime.now(UTC), runs_of(instance, spec)
    try:
        with runtime.context(run_id, with_index=True) as ctx:
            return examine(ctx, spec, now, runs)
    except (IndexUnavailable, IndexInvalid) as error:
        with runtime.context(run_id) as ctx:
            without = examine(ctx, spec, now, runs)
        return replace(without, problems=(of_error(error.code, error), *without.problems))


def runs_of(instance: dg.DagsterInstance, spec: DatasetSpec) -> Runs:
    """Which partitions a living run is at, which the last run of the chain's first asset could not make, and
    whether the source could be listed."""
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    mine = [run for run in unfinished if {key.path[0] for key in run.asset_selection or ()} == {spec.id}]
    running = {run.tags.get(PARTITION_NAME_TAG, "") for run in mine if not is_dead(run)} - {""}
    plan = f"{spec.id}_partitions"
    states = instance.get_status_by_partition(
        dg.AssetKey([spec.id, records.ASSET]),
        instance.get_dynamic_partitions(plan),
        dg.DynamicPartitionsDefinition(name=plan),
    )
    failed = {name for name, state in (states or {}).items() if state == AssetPartitionStatus.FAILED}
    return Runs(frozenset(running), frozenset(failed), _listing_failed(instance, spec))


def _listing_failed(instance: dg.DagsterInstance, spec: DatasetSpec) -> bool:
    found = instance.get_asset_records([dg.AssetKey([spec.id, manifest.ASSET])])
    run = instance.get_run_by_id(found[0].asset_entry.last_run_id or "") if found else None
    return run is not None and run.status == dg.DagsterRunStatus.FAILURE


def as_json(standings: list[Standing]) -> dict[str, Any]:
    """`medvec status --json`."""
    return {
        "ok": all(one.ok for one in standings),
        "datasets": [{"ok": one.ok} | asdict(one) for one in standings],
    }
