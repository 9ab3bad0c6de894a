"""The lake on an S3 server whose network and load have a bad day: each fault on demand, by a proxy in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import TypeVar

import pyarrow as pa
import pytest

from resources.errors import CommitConflict, MedvecError, StorageError
from resources.lakehouse import Commit, Lakehouse, Snapshot
from resources.settings import Settings
from resources.tables import TableSpec
from tests.services import SeaweedFS
from tests.services import proxy as faults
from tests.services.proxy import Proxy

pytestmark = pytest.mark.integration

SCHEMA = pa.schema([pa.field("partition", pa.string(), nullable=False), pa.field("note", pa.string(), nullable=False)])
NOTES, AUDIT = TableSpec("test/notes", SCHEMA, ("partition",)), TableSpec("test/audit", SCHEMA)
_prefixes = count()
T = TypeVar("T")


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with Proxy(seaweedfs.port) as between:
        for name, value in (seaweedfs.environment() | {"AWS_ENDPOINT_URL": between.endpoint}).items():
            monkeypatch.setenv(name, value)
        yield between


@pytest.fixture
def lake(proxy: Proxy) -> Lakehouse:
    made = Lakehouse.open(Settings(lake_uri=f"s3://lake/bad-days-{os.getpid()}-{next(_prefixes)}"))
    made.ensure(NOTES)
    made.ensure(AUDIT)
    return made


def replace(lake: Lakehouse, base: Snapshot, partition: str, *values: str) -> Commit:
    rows = pa.Table.from_pylist([{"partition": partition, "note": value} for value in values], schema=SCHEMA)
    return lake.replace(base, {"partition": partition}, rows.to_batches(), {"run_id": "r"})


def append(lake: Lakehouse, note: str) -> Commit:
    return lake.append(AUDIT, pa.Table.from_pylist([{"partition": "p", "note": note}], schema=SCHEMA), {"run_id": "r"})


def again(attempt: Callable[[], T], times: int = 5) -> T:
    """As a step does that Dagster retries."""
    for _ in range(times - 1):
        try:
            return attempt()
        except MedvecError as error:
            assert error.retryable, error
    return attempt()


def stored(lake: Lakehouse, table: TableSpec) -> list[str]:
    snapshot = lake.snapshot(table)
    assert snapshot is not None
    return sorted(snapshot.read()["note"].to_list())


def test_a_replace_whose_answer_was_lost_stands_once_and_may_be_made_again(proxy: Proxy, lake: Lakehouse) -> None:
    """The client asks again by itself, and is told that somebody was faster: it was itself."""
    base = lake.ensure(NOTES)
    proxy.fault = faults.lose_answer(faults.committed_table)
    with pytest.raises(CommitConflict) as error:
        replace(lake, base, "a", "1", "2")
    assert error.value.retryable
    assert stored(lake, NOTES) == ["1", "2"]
    replace(lake, lake.ensure(NOTES), "a", "1", "2")
    replace(lake, lake.ensure(NOTES), "b", "3")
    assert stored(lake, NOTES) == ["1", "2", "3"]


def test_an_append_whose_answer_was_lost_stands_once(proxy: Proxy, lake: Lakehouse) -> None:
    proxy.fault = faults.lose_answer(faults.committed_table)
    for number in range(3):
        append(lake, str(number))
    assert stored(lake, AUDIT) == ["0", "1", "2"]


def test_through_connections_that_break_everything_stands_once_in_the_end(proxy: Proxy, lake: Lakehouse) -> None:
    proxy.fault = faults.reset_every(17)
    for number in range(6):
        # As the audit does: a row that stands is not written again.
        again(lambda note=str(number): note in stored(lake, AUDIT) or append(lake, note))
        again(lambda number=number: replace(lake, lake.ensure(NOTES), str(number % 2), str(number)))
    assert again(lambda: stored(lake, AUDIT)) == list("012345")
    assert again(lambda: stored(lake, NOTES)) == ["4", "5"]


def test_a_slow_store_is_waited_for(proxy: Proxy, lake: Lakehouse) -> None:
    proxy.fault = faults.slow(0.5)
    replace(lake, lake.ensure(NOTES), "a", "1")
    assert stored(lake, NOTES) == ["1"]


def test_a_busy_store_is_an_outage_and_expired_credentials_are_none(proxy: Proxy, lake: Lakehouse) -> None:
    def told(fault: faults.Fault) -> StorageError:
        proxy.fault, before = fault, proxy.counts.total()
        with pytest.raises(StorageError) as error:
            stored(lake, NOTES)
        assert proxy.counts.total() - before < 50  # it does not add to the load for long
        assert "-secret" not in str(error.value)
        return error.value

    busy = told(faults.refuse(503, "SlowDown"))
    assert (busy.code, busy.retryable) == ("storage", True) and "medvec doctor" in busy.remedy
    expired = told(faults.refuse(400, "ExpiredToken"))
    assert (expired.code, expired.retryable) == ("storage_denied", False) and "credentials" in expired.remedy
    proxy.fault = faults.none
    assert stored(lake, NOTES) == []
