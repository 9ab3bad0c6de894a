"""A process of its own that lists a source and reads what it lists as the records stage does, and may be killed in it.

Belongs here: what runs in that process, how it is started, how it tells what it opens. Does not belong here: sources, what
is expected (test_killed_listings).

Processes are forked from one that has imported this module and nothing has run in (multiprocessing's forkserver): starting
one costs 20 ms, not the second that the imports take.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pydicom
from google.cloud import bigquery

from medvec_assets.catalog import CATALOG, dataset
from medvec_assets.connectors import LISTING
from medvec_assets.stages import records
from medvec_assets.stages.context import Context
from resources.errors import ObjectRejected
from resources.settings import Settings

PRELOADED = (pydicom, bigquery, *(import_module(f"medvec_assets.connectors.{spec.connector}") for spec in CATALOG))
"""Before the fork."""
PIECE, TABLE = "medvec.piece", "medvec.table"  # audit events of this module, beside CPython's "open"


@dataclass(frozen=True)
class Job:
    """What is listed. `watched`: (audit event, pattern of its first argument) of what is an object of the source."""

    dataset: str
    source: str
    credentials: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    """module.NAME -> value during the job: pace, pieces, number of workers"""
    watched: tuple[str, str] | None = None


def listed(job: Job, home: Path) -> pl.DataFrame:
    """Everything that is listed, by id; objects that lie on the web are read too, each once."""
    settings = Settings(
        home=home,
        sources={job.dataset: job.source},
        credentials=job.credentials,
        pseudonym_key="33" * 32,
        decode_workers=1,  # or what the others do when one is killed would be left to chance
    )
    spec = dataset(job.dataset)
    context = Context(settings, lake=None, run_id="killed")  # type: ignore[arg-type]  # reading objects needs none
    pieces = []
    with _constants(job.constants):
        connector = context.connector(spec)
        for number, listing in enumerate(connector.listings(pl.DataFrame(schema=LISTING))):
            sys.audit(PIECE, str(number))
            pieces.append(listing.objects)
        objects = pl.concat(pieces).sort("object_id")
        if connector.is_remote:
            read = records.verified_reader(context, spec, objects)
            for uri in objects.filter(pl.col("checksum_kind").is_in(records.CHECKED_ON_READ))["uri"]:
                with suppress(ObjectRejected):  # GDC's sample has a file that is not what its checksum says
                    read(uri)
    return objects


def started(job: Job, home: Path, opened: Path, kill_at: int, result: Path) -> BaseProcess:
    """A process in which `listed` runs and writes `result`. What it opens of `job.watched` is noted in `opened`, a line the
    first time; with `kill_at` it is killed at that line, before it reads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(job, home, opened, kill_at, result))
    # The server of forks is not told this process' path (until Python 3.13), and what it cannot import it leaves out.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        process.start()
    return process


def _run(job: Job, home: Path, opened: Path, kill_at: int, result: Path) -> None:
    if job.watched is not None:
        sys.addaudithook(_noting(*job.watched, opened, kill_at))
    with _audited_tables():
        listed(job, home).write_ipc(result)


def _noting(wanted: str, pattern: str, opened: Path, kill_at: int) -> Callable[[str, tuple[Any, ...]], None]:
    seen: set[str] = set()
    log = os.open(opened, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event != wanted:
            return
        name = str(arguments[0])
        if name not in seen and re.search(pattern, name):
            seen.add(name)
            os.write(log, f"{name}\n".encode())
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    return note


@contextmanager
def _audited_tables() -> Iterator[None]:
    """Parquet files are opened outside of Python, and BigQuery's queries open nothing: both are told as TABLE."""
    original = pa.parquet.ParquetFile

    def opened(path: object, **options: Any) -> pa.parquet.ParquetFile:
        sys.audit(TABLE, str(path))
        return original(path, **options)

    with mock.patch.object(pa.parquet, "ParquetFile", opened):
        yield


@contextmanager
def _constants(values: Mapping[str, object]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, value in values.items():
            module, _, constant = name.rpartition(".")
            stack.enter_context(mock.patch.object(import_module(module), constant, value))
        yield
