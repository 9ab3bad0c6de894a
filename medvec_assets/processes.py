"""Which process a Dagster run is in, so that a killed one is not taken for one that goes on.

Belongs here: the tag of a run of `medvec run`, what tells that a run is dead, and ending such runs. Does not belong here:
runs of a cluster, whose launcher watches over its pods (run monitoring).

On one machine nobody watches: Dagster leaves a run whose process got kill -9 "started" for six hours
(`max_runtime_seconds`), and each is counted. After two kills `medvec serve` launched nothing until they had passed.
"""

from __future__ import annotations

import json
import socket
from functools import cache

import dagster as dg
import psutil
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import GRPC_INFO_TAG, MAX_RETRIES_TAG

PROCESS_TAG = "medvec/process"


def tags_of_this_process() -> dict[str, str]:
    """For a run in this process. The daemon never launches it again: no code location knows its job."""
    return {PROCESS_TAG: _this_process(), MAX_RETRIES_TAG: "0"}


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether what the run lives in, on this machine, is gone: its process, or the code server of its `medvec serve`,
    which ends together with its runs. False where that cannot be told."""
    if PROCESS_TAG in run.tags:
        host, pid, started = run.tags[PROCESS_TAG].rsplit(":", 2)
        return host == socket.gethostname() and _started(int(pid)) != int(started)
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("socket")
    return server is not None and not _listens(server)


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report every dead run as failed, which gives its place in queue and pools back; their ids."""
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    dead = [run for run in unfinished if is_dead(run)]
    for run in dead:
        instance.report_run_failed(run, "The process of this run was killed. What it committed stays; run it again.")
    return [run.run_id for run in dead]


@cache
def _this_process() -> str:
    """host:pid:start. A pid is given out again; together with its start in milliseconds it is not."""
    pid = psutil.Process().pid
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def _started(pid: int) -> int | None:
    """Milliseconds since the epoch; None where there is no such process, or only its exit code is left."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 1000)
    except psutil.NoSuchProcess:
        return None


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
