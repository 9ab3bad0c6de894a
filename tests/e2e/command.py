"""Running the installed `medvec` command, and comparing what homes hold.

Belongs here: a home of its own for each test, the state of its lake and index, what must not be left behind.
Does not belong here: what should be true (the tests).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from resources import tables
from resources.audit import Audit
from resources.errors import SourceError
from resources.lakehouse import Lakehouse
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.vector_index import VectorIndex, lite_server, open_index
from resources.vector_index.types import SCALAR_FIELDS

MEDVEC = Path(sys.executable).with_name("medvec")
DATASET, SPACE = "tcia_catalog", "text"
COLLECTION = f"{DATASET}__{SPACE}__open__g1"
PSEUDONYM_KEY = "5c" * 32  # one for all homes, so that their subject keys can be compared
# The first rows of two cohorts of the spec's sample, and of one outside it that only --all takes.
COHORTS = {"lctsc": 120, "tcga_lihc": 60, "nsclc_radiomics": 20}
IN_SAMPLE = COHORTS["lctsc"] + COHORTS["tcga_lihc"]
DEADLINE_SECONDS = 300  # only a hang reaches it
# Who did it and when: what may differ between two ways to the same state.
_CIRCUMSTANCES = {"run_id", "created_at", "vector"}


@dataclass(frozen=True)
class Result:
    """What a command answered."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout is; an error if it is anything else."""
        answer = json.loads(self.stdout)
        assert isinstance(answer, dict) and self.stdout.count("\n") == 1
        return answer


@dataclass(frozen=True)
class Home:
    """One MEDVEC_HOME and the variables its commands get besides it."""

    path: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(MEDVEC), *arguments],
            env=self.environment() | variables,
            cwd=self.path.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def medvec(self, *arguments: str, **variables: str) -> Result:
        return finished(self.start(*arguments, **variables))

    def fine(self, *arguments: str, **variables: str) -> dict[str, Any]:
        """A command with --json that must end well: its answer."""
        result = self.medvec(*arguments, "--json", **variables)
        assert result.code == 0, f"medvec {' '.join(arguments)}: exit {result.code}\n{result.stdout}\n{result.stderr}"
        return result.json

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")}
        own = {"MEDVEC_HOME": str(self.path), "MEDVEC_PSEUDONYM_KEY": PSEUDONYM_KEY}
        return inherited | own | dict(self.variables)

    def settings(self, **changes: Any) -> Settings:
        """The commands' settings, for what a test does in its own process."""
        own: dict[str, Any] = {"home": self.path, "pseudonym_key": PSEUDONYM_KEY} | changes
        if "MEDVEC_SOURCES" in self.variables:
            own = {"sources": json.loads(self.variables["MEDVEC_SOURCES"])} | own
        for name in ("lake_uri", "index_uri", "index_token", "index_ca"):
            if (variable := f"MEDVEC_{name.upper()}") in self.variables:
                own = {name: self.variables[variable]} | own
        return Settings(**own)

    @property
    def lake(self) -> Path:
        return Path(self.settings().lake)

    def copy(self, path: Path) -> Home:
        """A home that went the same way: all files, with Dagster's history pointing to its own folder."""
        shutil.copytree(self.path, path)
        config = path / "dagster" / "dagster.yaml"
        config.write_text(config.read_text().replace(str(self.path), str(path)))
        return Home(path, self.variables)

    @contextmanager
    def server_up(self) -> Iterator[str]:
        """Milvus Lite's URI; commands run meanwhile share the server and need not start one each."""
        with lite_server(self.path / "index") as server:
            yield server.uri

    @contextmanager
    def index(self) -> Iterator[VectorIndex]:
        with open_index(self.settings()) as index:
            yield index


@dataclass(frozen=True)
class Undisturbed:
    """A home, what its first `medvec run` said and the state that this left. Copy the home; do not work in it."""

    home: Home
    run: Result
    lake: dict[str, list[Any]]
    index: dict[str, dict[str, Any]]


def finished(process: subprocess.Popen[str], seconds: float = DEADLINE_SECONDS) -> Result:
    stdout, stderr = process.communicate(timeout=seconds)
    return Result(process.returncode, stdout, stderr)


def sources(index: Path) -> dict[str, str]:
    return {"MEDVEC_SOURCES": json.dumps({DATASET: str(index)})}


def commits(home: Home) -> dict[str, int]:
    """How many commits every table of the lake has: each _delta_log below it, whatever and wherever it is."""
    found: Counter[str] = Counter()
    with suppress(SourceError):  # there is no lake yet
        for entry in ObjectStore(home.settings().lake).list():
            table, _, name = entry.key.partition("/_delta_log/")
            found[table] += name.endswith(".json")
    return +found


def lake_state(home: Home) -> dict[str, list[Any]]:
    """Every row of every table that two ways to the same state must agree on, sorted."""
    lake = Lakehouse.open(home.settings())
    rows = {
        table.path: _rows(lake, table)
        for table in (
            tables.manifest(DATASET),
            tables.partitions(DATASET),
            tables.quarantine(DATASET),
            tables.records(DATASET),
            tables.embeddings(DATASET, SPACE),
            tables.generations(),
        )
    }
    told = ("table_path", "rows_in", "rows_out", "rows_quarantined", "input_digest", "output_digest")
    heads = Audit(lake).latest(DATASET)
    rows["audit heads"] = sorted([*chain, *(head[name] for name in told)] for chain, head in heads.items())
    return rows


def index_state(home: Home, collection: str = COLLECTION) -> dict[str, dict[str, Any]]:
    """entity_id -> every scalar field but the Delta version; empty if there is no such collection."""
    state: dict[str, dict[str, Any]] = {}
    with home.index() as index:
        if index.describe(collection) is None:
            return {}
        for partition in sorted(lake_partitions(home)):
            ids = [entity for piece in index.fingerprints(collection, partition) for entity in piece]
            for entity in index.get(collection, ids):
                state[entity["entity_id"]] = {name: entity[name] for name in SCALAR_FIELDS if name != "delta_version"}
        assert index.count(collection) == len(state), "entities in a partition that gold does not know, or twice"
    return state


def lake_partitions(home: Home) -> set[str]:
    snapshot = Lakehouse.open(home.settings()).snapshot(tables.embeddings(DATASET, SPACE))
    return snapshot.partition_values("partition") if snapshot else set()


def embeddings(home: Home) -> pl.DataFrame:
    snapshot = Lakehouse.open(home.settings()).snapshot(tables.embeddings(DATASET, SPACE))
    assert snapshot is not None
    return snapshot.read()


def assert_nothing_left_over(home: Home) -> None:
    """No staged vectors, no spools, no Milvus Lite server, and an audit whose chains hold."""
    staged = home.lake / "staging"
    assert [path for path in staged.rglob("*") if path.is_file()] == []
    assert list((home.path / "scratch").glob("*")) == []
    assert servers(home) == []
    assert Audit(Lakehouse.open(home.settings())).broken_chains(DATASET) == []


def servers(home: Home) -> list[int]:
    """Pids of the Milvus Lite servers of this home."""
    folder = str(home.path / "index")
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if folder in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["pid"])
    return found


def wait_until(condition: Any, process: subprocess.Popen[str]) -> None:
    """Returns when `condition()` holds or `process` has ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "the command neither got there nor ended"
        time.sleep(0.05)


def _rows(lake: Lakehouse, table: tables.TableSpec) -> list[Any]:
    snapshot = lake.snapshot(table)
    if snapshot is None:
        return []
    names = [name for name in table.schema.names if name not in _CIRCUMSTANCES]
    return sorted(snapshot.read(names).rows(), key=repr)
