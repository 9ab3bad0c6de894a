"""`medvec serve` as people use it: runs and a backfill launched through the UI's own API, and everything ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.tiny_source import series, write_index

pytestmark = pytest.mark.integration

COHORTS = ("brain", "breast", "liver", "lung", "prostate")
ROWS = [
    series(f"{cohort}-{n}", cohort, patient=f"{cohort}{n // 4}", what=f"{cohort} series {n % 13}")
    for cohort in COHORTS
    for n in range(40)
]
DATASET, LOCATION, REPOSITORY = "tcia_catalog", "medvec_assets.definitions", "__repository__"
CHAIN = ("records", "text_embeddings", "text_vectors")
START_SECONDS, RUN_SECONDS, END_SECONDS = 180.0, 240.0, 60.0  # far above what an idle machine takes


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    home: Path
    log: Path
    client: httpx.Client

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of one GraphQL request."""
        answer = self.client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def until(self, done: Callable[[], Any], seconds: float) -> Any:
        """What `done` returns once that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if found := done():
                return found
            time.sleep(0.5)
        pytest.fail(f"not within {seconds} s; the log ends:\n{self.log.read_text()[-3000:]}")

    def launch(self, job: str, *assets: str, partition: str | None = None) -> str:
        """Launch a job, or the run of some of its assets; the run's id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "jobName": job,
            "assetSelection": [{"path": [DATASET, asset]} for asset in assets] or None,
        }
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        parameters = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = self.ask(
            """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            p=parameters,
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def ended(self, run_id: str) -> str:
        """The run's status, once it has ended."""

        def status() -> str | None:
            run = self.ask("query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }", r=run_id)["runOrError"]
            return run["status"] if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

        return str(self.until(status, RUN_SECONDS))

    def metadata(self, asset: str, partition: str) -> dict[str, Any]:
        """The newest materialization's metadata, numbers and text."""
        node = self.ask(
            """query($k: AssetKeyInput!, $p: [String!]) { assetNodeOrError(assetKey: $k) { ... on AssetNode {
                 assetMaterializations(partitions: $p, limit: 1) { metadataEntries { label
                   ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
                   ... on MarkdownMetadataEntry { mdStr } } } } } }""",
            k={"path": [DATASET, asset]},
            p=[partition],
        )["assetNodeOrError"]
        (event,) = node["assetMaterializations"]
        return {e["label"]: e.get("intValue", e.get("text", e.get("mdStr"))) for e in event["metadataEntries"]}

    def check(self, asset: str, name: str, partition: str) -> list[str]:
        found = self.ask(
            """query($k: AssetKeyInput!, $n: String!) { assetCheckExecutions(assetKey: $k, checkName: $n, limit: 50) {
                 status partition } }""",
            k={"path": [DATASET, asset]},
            n=name,
        )["assetCheckExecutions"]
        return [one["status"] for one in found if one["partition"] == partition]


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _environment(home: Path, source: Path, dagster_port: int, api_port: int) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MEDVEC_", "DAGSTER_"))}
    return inherited | {
        "MEDVEC_HOME": str(home),
        "MEDVEC_SOURCES": json.dumps({DATASET: str(source)}),
        "MEDVEC_DAGSTER_PORT": str(dagster_port),
        "MEDVEC_API_PORT": str(api_port),
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    home, log = folder / "home", folder / "serve.log"
    source = write_index(folder / "source" / "idc_index.parquet", ROWS)
    port, api_port = _free_ports()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("medvec")), "serve"],
            env=_environment(home, source, port, api_port),
            stdout=out,
            stderr=out,
            cwd=folder,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        served = Served(process, home, log, client)
        try:
            served.until(lambda: _answers(client), START_SECONDS)
            yield served
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(END_SECONDS)


def _answers(client: httpx.Client) -> bool:
    try:
        asked = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}
        found = client.post("/graphql", json=asked).json()["data"]["repositoriesOrError"]
        return bool(found.get("nodes"))
    except httpx.TransportError:
        return False


def test_a_partition_and_a_backfill_of_three_run_and_show_checks_and_metadata(served: Served) -> None:
    assert served.ended(served.launch(f"{DATASET}_refresh")) == "SUCCESS"
    assert served.ended(served.launch("__ASSET_JOB", *CHAIN, partition="lung")) == "SUCCESS"
    _assert_shown(served, "lung", version=1)

    backfill = served.ask(
        """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
             __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        p={
            "assetSelection": [{"path": [DATASET, asset]} for asset in CHAIN],
            "partitionNames": ["brain", "breast", "liver"],
        },
    )["launchPartitionBackfill"]
    assert backfill["__typename"] == "LaunchBackfillSuccess", backfill
    runs = served.until(lambda: _finished_backfill(served, backfill["backfillId"]), RUN_SECONDS)
    assert sorted(runs) == [("brain", "SUCCESS"), ("breast", "SUCCESS"), ("liver", "SUCCESS")], "one partition, one run"
    for partition in ("brain", "breast", "liver"):
        _assert_shown(served, partition)


def _finished_backfill(served: Served, backfill_id: str) -> list[tuple[str, str]] | None:
    """(partition, status) of each of its runs, once it has ended."""
    found = served.ask(
        """query($b: String!) { partitionBackfillOrError(backfillId: $b) { ... on PartitionBackfill {
             status runs(limit: 10) { status tags { key value } } } } }""",
        b=backfill_id,
    )["partitionBackfillOrError"]
    if not found["status"].startswith("COMPLETED"):
        assert found["status"] == "REQUESTED", found
        return None
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in found["runs"]]
    return [(one["dagster/partition"], run["status"]) for one, run in zip(tags, found["runs"], strict=True)]


def _assert_shown(served: Served, partition: str, version: int | None = None) -> None:
    embedded = served.metadata("text_embeddings", partition)
    assert embedded["dagster/partition_row_count"] == 40
    assert embedded["pictures"].count("](data:image/png;base64,") == 2
    assert embedded["encoder"] == "minilm@1"
    assert embedded["delta_version"] == version or version is None
    assert served.metadata("text_vectors", partition)["vectors_upserted"] == 13
    for asset, check in (("records", "counts_add_up"), ("text_embeddings", "vectors_valid")):
        assert served.check(asset, check, partition) == ["SUCCEEDED"]
    assert served.check("text_vectors", "index_reconciled", partition) == ["SUCCEEDED"]


def test_the_daemon_evaluates_every_schedule_with_the_pipelines_own_resource(served: Served) -> None:
    for job in ("refresh", "standing", "full_sync"):
        name = f"{DATASET}_{job}_schedule"
        answer = served.ask(
            """mutation($s: ScheduleSelector!, $t: Float) { scheduleDryRun(selectorData: $s, timestamp: $t) {
                 __typename ... on PythonError { message } ... on DryRunInstigationTick { evaluationResult {
                   skipReason error { message } runRequests { jobName } } } } }""",
            s={"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "scheduleName": name},
            t=1_700_000_000.0,
        )["scheduleDryRun"]
        result = answer["evaluationResult"]
        assert (result["error"], result["skipReason"], len(result["runRequests"])) == (None, None, 1)


def test_a_second_serve_says_which_port_is_taken(served: Served, tmp_path: Path) -> None:
    port, other = served.client.base_url.port, _free_ports()[0]
    assert port is not None
    again = subprocess.run(
        [str(Path(sys.executable).with_name("medvec")), "serve"],
        env=_environment(tmp_path / "home", tmp_path / "none.parquet", port, other),
        capture_output=True,
        text=True,
        timeout=END_SECONDS,
    )
    assert again.returncode == 2
    assert f"port {port} " in again.stderr and "MEDVEC_DAGSTER_PORT" in again.stderr


def test_ctrl_c_ends_the_children_and_the_index_server(served: Served) -> None:
    """Last, because it ends what the others use."""
    index = json.loads((served.home / "index" / "server.json").read_text())["pid"]
    started = psutil.Process(served.process.pid).children(recursive=True)
    names = " ".join(" ".join(child.cmdline()) for child in started)
    assert "dagster._daemon" in names and "dagster_webserver" in names and "-m api" in names
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(END_SECONDS) == 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert [child.cmdline() for child in alive] == []
    assert not psutil.pid_exists(index)
