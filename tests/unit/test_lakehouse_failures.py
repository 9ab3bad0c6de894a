"""What a Delta table does when a write, a disk or a file fails: failures with a name, and nothing committed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.lake_notes import NOTES, notes, replace, stored

from resources.errors import MedvecError, ObjectRejected, StorageError
from resources.lakehouse import Lakehouse
from resources.lakehouse import lake as lakehouse
from resources.tables import TableSpec


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path / "lake"))


def test_a_producers_own_error_comes_out_as_it_is_and_nothing_is_committed(lake: Lakehouse) -> None:
    replace(lake, "p", "kept")
    refusal = ObjectRejected("bad", code="bad", remedy="none")

    def rows() -> Iterator[pa.RecordBatch]:
        yield from notes("p", "lost")
        raise refusal

    with pytest.raises(ObjectRejected) as caught:
        lake.replace(lake.ensure(NOTES), {"partition": "p"}, rows(), {})
    assert caught.value is refusal
    assert stored(lake) == [("p", "kept")]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        lakehouse.DeltaError("Generic LocalFileSystem error: No space left on device (os error 28)"),
        pa.ArrowInvalid("write failed: No space left on device"),
    ],
    ids=["os", "delta", "arrow"],
)
@pytest.mark.parametrize("write", ["replace", "append"])
def test_a_full_disk_is_named_and_nothing_is_committed(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, failure: Exception, write: str
) -> None:
    replace(lake, "p", "kept")

    def full(*args: Any, **kwargs: Any) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(lakehouse, "write_deltalake", full)
        with pytest.raises(StorageError) as caught:
            if write == "replace":
                replace(lake, "p", "lost")
            else:
                lake.append(NOTES, pa.Table.from_batches(notes("p", "lost")), {})
    assert (caught.value.code, caught.value.retryable) == ("disk_full", False)
    assert NOTES.path in str(caught.value)
    assert "free space" in caught.value.remedy
    assert stored(lake) == [("p", "kept")]
    replace(lake, "p", "lost")
    assert stored(lake) == [("p", "lost")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_lake_that_may_not_be_written_says_so(lake: Lakehouse) -> None:
    replace(lake, "p", "kept")
    log = Path(lake.root) / NOTES.path / "_delta_log"
    log.chmod(0o500)
    try:
        with pytest.raises(StorageError) as caught:
            replace(lake, "p", "lost")
    finally:
        log.chmod(0o700)
    assert caught.value.code == "storage_denied"


def test_a_damaged_data_file_is_a_storage_error_that_names_the_table(lake: Lakehouse) -> None:
    replace(lake, "p", "a")
    [file] = (Path(lake.root) / NOTES.path).rglob("*.parquet")
    file.write_bytes(b"not parquet")
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    for read in (snapshot.read, lambda: list(snapshot.scan())):
        with pytest.raises(MedvecError, match=NOTES.path):
            read()


def test_a_table_of_another_layout_is_described(lake: Lakehouse) -> None:
    lake.ensure(NOTES)
    other = pa.schema([pa.field("partition", pa.int64()), pa.field("extra", pa.string(), nullable=False)])
    snapshot = lake.snapshot(TableSpec(NOTES.path, other))
    assert snapshot is not None
    assert snapshot.schema_drift() == [
        "column extra is missing",
        "column note is not declared",
        "column partition is string, declared int64",
    ]


def test_a_column_that_came_later_reads_as_null_until_rows_are_written_with_it(lake: Lakehouse) -> None:
    replace(lake, "p", "a")
    replace(lake, "q", "b")
    later = TableSpec(NOTES.path, NOTES.schema.append(pa.field("payload", pa.binary())), NOTES.partition_by)
    base = lake.ensure(later)
    assert base.schema_drift() == [] and base.read()["payload"].to_list() == [None, None]
    rows = pa.Table.from_pylist([{"partition": "p", "note": "c", "payload": b"1"}], schema=later.schema)
    lake.replace(base, {"partition": "p"}, rows.to_batches(), {})
    found = lake.snapshot(later)
    assert found is not None
    assert found.read(["note", "payload"]).sort("note").rows() == [("b", None), ("c", b"1")]
