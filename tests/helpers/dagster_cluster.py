"""Dagster as a cluster has it, on one machine: code server, webserver and daemon as processes on PostgreSQL.

The instance is deploy/dagster.yaml's storage, pools, run monitoring and run retries; what Kubernetes and S3 do there
(launching a run, keeping its output) is done by local processes and folders here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

DEPLOYED = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
TESTS = Path(__file__).parents[1]
LOCATION, REPOSITORY = "tiny", "__repository__"
START_SECONDS = 120.0  # far above what an idle machine takes
PROGRAMS = Path(sys.executable).parent
RunsOf = list[dict[str, Any]]


class DatabaseAway(Exception):
    """The webserver's connection to PostgreSQL was cut. Each that it kept fails once, then it has a new one."""


class Cluster:
    """`start` each of PARTS; `kill` one; `ask` the webserver. `close` ends everything that was started."""

    PARTS = ("code", "daemon", "webserver")

    def __init__(self, folder: Path, postgres_url: str, environment: Mapping[str, str], max_runs: int) -> None:
        self._folder = folder
        self._ports = {"code": _free_port(), "webserver": _free_port()}
        home = folder / "dagster"
        home.mkdir()
        deployed = yaml.safe_load(DEPLOYED.read_text())
        kept = ("telemetry", "nux", "storage", "concurrency", "run_monitoring", "run_retries")
        instance = {name: deployed[name] for name in kept if name in deployed}
        instance["concurrency"]["runs"]["max_concurrent_runs"] = max_runs
        (home / "dagster.yaml").write_text(yaml.safe_dump(instance))
        server = {"host": "127.0.0.1", "port": self._ports["code"], "location_name": LOCATION}
        (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEDVEC_", "DAGSTER_"))}
        self._environment = inherited | {
            **environment,
            "DAGSTER_HOME": str(home),
            "MEDVEC_DAGSTER_POSTGRES_URL": postgres_url,
            "PYTHONPATH": str(TESTS.parent),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Each request has its own connection: one that is kept may be closed by the webserver (after 5 s) as it is used.
        fresh = httpx.Limits(max_keepalive_connections=0)
        url = f"http://127.0.0.1:{self._ports['webserver']}"
        self.client = httpx.Client(base_url=url, timeout=60, limits=fresh)

    def __enter__(self) -> Cluster:
        try:
            self.start("code")
            self.until(lambda: _answers("127.0.0.1", self._ports["code"]), START_SECONDS)
            self.start("webserver")
            self.start("daemon")
            self.until(self._loaded, START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, part: str) -> None:
        """Start a part, with its log going on where the one before it ended."""
        workspace = ["-w", str(self._folder / "workspace.yaml")]
        port = str(self._ports.get(part))
        command = {
            "code": ["dagster", "api", "grpc", "-f", str(Path(__file__).with_name("tiny_location.py")), "-p", port],
            "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", port, *workspace],
            "daemon": ["dagster-daemon", "run", *workspace],
        }[part]
        with self.log(part).open("ab") as out:
            self.processes[part] = subprocess.Popen(
                [str(PROGRAMS / command[0]), *command[1:]],
                env=self._environment,
                cwd=self._folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self, part: str) -> None:
        """kill -9 of the part itself; what it started goes on."""
        self.processes[part].kill()
        self.processes[part].wait()

    def dagster(self, *arguments: str) -> None:
        """A `dagster ...` command on this instance."""
        command = [str(PROGRAMS / "dagster"), *arguments]
        subprocess.run(command, env=self._environment, cwd=self._folder, check=True, capture_output=True, timeout=120)

    def workers(self) -> set[psutil.Process]:
        """The processes of the runs that go on. Not their children: one that is being started looks like its parent."""
        children = psutil.Process(self.processes["code"].pid).children()
        return {child for child in children if "spawn_main" in " ".join(_command(child))}

    def memory_bytes(self, part: str) -> int:
        return int(psutil.Process(self.processes[part].pid).memory_info().rss)

    def close(self) -> None:
        for process in self.processes.values():
            family = [psutil.Process(process.pid)] if process.poll() is None else []
            family += [child for parent in family for child in parent.children(recursive=True)]
            for one in family:
                try:
                    one.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
            process.wait()
        self.client.close()

    def log(self, part: str) -> Path:
        return self._folder / f"{part}.log"

    def until(self, done: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
        """What `done` returns once that is true and the database there; else the test fails with every part's last lines."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(DatabaseAway):
                if found := done():
                    return found
            if any(process.poll() is not None for process in self.processes.values()):
                break
            time.sleep(every)
        ends = "\n".join(f"--- {part}\n{self.log(part).read_text()[-2000:]}" for part in self.processes)
        pytest.fail(f"one of them ended, or it was not within {seconds} s\n{ends}")

    # -- the webserver's GraphQL

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of one GraphQL request."""
        answer = self.client.post("/graphql", json={"query": query, "variables": variables}).json()
        messages = [error["message"][:500] for error in answer.get("errors", ())]
        for field in (answer.get("data") or {}).values():
            if isinstance(field, dict) and field.get("__typename") == "PythonError":
                messages.append(field["message"][:500])
        if any("OperationalError" in message for message in messages):
            raise DatabaseAway(messages[0])
        assert not messages, messages
        return answer["data"]

    def launch(self, job: str, assets: list[list[str]] | None = None, partition: str | None = None) -> str:
        """Launch a job, or the run of some of its assets; the run's id."""
        selector = self._selector() | {
            "jobName": job,
            "assetSelection": [{"path": path} for path in assets] if assets else None,
        }
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        parameters = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}

        def launched() -> str:
            answer = self.ask(
                """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
                     __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
                p=parameters,
            )["launchRun"]
            assert answer["__typename"] == "LaunchRunSuccess", answer
            return str(answer["run"]["runId"])

        return str(self.until(launched, START_SECONDS))

    def backfill(self, assets: list[list[str]], partitions: list[str]) -> str:
        """Launch a backfill; its id."""
        launched = self.ask(
            """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            p={"assetSelection": [{"path": path} for path in assets], "partitionNames": partitions},
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        return str(
            self.ask(
                """query($b: String!) { partitionBackfillOrError(backfillId: $b) {
                     ... on PartitionBackfill { status } } }""",
                b=backfill,
            )["partitionBackfillOrError"]["status"]
        )

    def runs(self, tags: Mapping[str, str]) -> RunsOf:
        """runId, status, startTime, endTime (epoch seconds) and tags (a dict) of every run with these tags."""
        wanted = [{"key": key, "value": value} for key, value in tags.items()]
        found = self.ask(
            """query($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results {
                 runId status startTime endTime tags { key value } } } } }""",
            f={"tags": wanted},
        )["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def failures(self, tags: Mapping[str, str]) -> str:
        """Every run with these tags that did not succeed, and what was said of its errors, as lines of JSON."""
        query = """query($r: ID!) { logsForRun(runId: $r, limit: 1000) { __typename ... on PythonError { message }
                     ... on EventConnection { events { ... on MessageEvent { timestamp level message }
                     ... on ErrorEvent { error { message stack causes { message } } } } } } }"""
        lines = []
        for run in self.runs(tags):
            if run["status"] != "SUCCESS":
                told = self.until(partial(self.ask, query, r=run["runId"]), START_SECONDS)["logsForRun"]
                events = [one for one in told.pop("events", ()) if one.get("error") or one.get("level") != "DEBUG"]
                lines += [json.dumps(one) for one in (run, told, *events)]
        return "\n".join(lines)

    def ended(self, run_id: str, seconds: float) -> str:
        """The run's status, once it has ended."""

        def status() -> str | None:
            run = self.ask("query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }", r=run_id)["runOrError"]
            return run["status"] if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

        return str(self.until(status, seconds))

    def start_sensor(self, name: str) -> None:
        def started() -> bool:
            answer = self.ask(
                """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) {
                     __typename ... on PythonError { message } } }""",
                s=self._selector() | {"sensorName": name},
            )["startSensor"]
            assert answer["__typename"] == "Sensor", answer
            return True

        self.until(started, START_SECONDS)

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """status, and how many assets' partitions were requested, of the sensor's ticks, newest first."""
        found = self.ask(
            """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { __typename
                 ... on PythonError { message } ... on Sensor { sensorState {
                 ticks(limit: 50) { status requestedAssetMaterializationCount } } } } }""",
            s=self._selector() | {"sensorName": sensor},
        )["sensorOrError"]["sensorState"]["ticks"]
        return list(found)

    def _selector(self) -> dict[str, Any]:
        return {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}

    def _loaded(self) -> bool:
        try:
            asked = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
            return bool(self.client.post("/graphql", json=asked).json()["data"]["repositoriesOrError"].get("nodes"))
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
