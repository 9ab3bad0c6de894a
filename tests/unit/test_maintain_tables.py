"""Merging, deleting and forgetting a table's files: no row changes, no reader and no run is harmed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources import tables
from resources.errors import CommitConflict, ConfigError, IntegrityError, StorageError
from resources.lakehouse import FILE_RETENTION_DAYS, Lakehouse, checkpoint, compact, small_files, upkeep, vacuum
from resources.lakehouse import lake as module
from resources.tables import TableSpec

NOTES = TableSpec(
    "test/notes",
    pa.schema([pa.field("partition", pa.string(), nullable=False), pa.field("note", pa.string(), nullable=False)]),
    ("partition",),
)
WHOLE = TableSpec("test/whole", NOTES.schema)
DAY = 86_400


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path / "lake"))


def notes(partition: str, *values: str) -> pa.Table:
    return pa.Table.from_pylist([{"partition": partition, "note": value} for value in values], schema=NOTES.schema)


def append(lake: Lakehouse, partition: str, *values: str, table: TableSpec = NOTES) -> None:
    """One file each."""
    for value in values:
        lake.append(table, notes(partition, value), {})


def replace(lake: Lakehouse, partition: str, *values: str, base: Any = None, **others: Any) -> None:
    base = base or lake.ensure(NOTES)
    lake.replace(base, {"partition": partition}, notes(partition, *values).to_batches(), {}, **others)


def stored(lake: Lakehouse, table: TableSpec = NOTES, version: int | None = None) -> list[tuple[str, str]]:
    snapshot = lake.snapshot(table, version)
    assert snapshot is not None
    return sorted(snapshot.read().rows())


def version(lake: Lakehouse, table: TableSpec = NOTES) -> int:
    snapshot = lake.snapshot(table)
    assert snapshot is not None
    return snapshot.version


def folder(lake: Lakehouse, table: TableSpec = NOTES) -> Path:
    return Path(lake.root) / table.path


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def forget_removals(lake: Lakehouse, table: TableSpec, days: float) -> None:
    """Let every file that a commit removed have been removed `days` ago."""
    for entry in (folder(lake, table) / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for removed in (action["remove"] for action in actions if "remove" in action):
            removed["deletionTimestamp"] = int((time.time() - days * DAY) * 1000)
        entry.write_text("".join(f"{json.dumps(action)}\n" for action in actions))


# ---------------------------------------------------------------- merging


def test_a_partitions_files_become_one_and_every_version_is_read_as_before(lake: Lakehouse) -> None:
    append(lake, "p", "a", "b", "c", "d", "e")
    append(lake, "q", "f")
    before, rows = version(lake), stored(lake)
    done = compact(lake, NOTES, {"partition": "p"}, {"run_id": "r1"})
    assert done is not None
    assert (done.files_before, done.files_after, done.rows, done.version) == (5, 1, 5, before + 1)
    assert stored(lake) == stored(lake, version=before) == rows
    sizes = lake.ensure(NOTES).file_sizes()
    assert {partition: len(found) for partition, found in sizes.items()} == {("p",): 1, ("q",): 1}
    assert compact(lake, NOTES, {"partition": "p"}, {}) is None, "there is nothing left to merge"
    assert version(lake) == before + 1
    newest = lake.ensure(NOTES).commits()[0]
    assert (newest["operation"], newest["medvec"]["run_id"]) == ("OPTIMIZE", "r1")


def test_only_what_is_worth_a_commit_is_chosen(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    append(lake, "few", "a", "b", "c")
    append(lake, "many", "a", "b", "c", "d")
    append(lake, "x", *"abcd", table=WHOLE)
    assert small_files(lake.ensure(NOTES)) == [{"partition": "many"}]
    assert small_files(lake.ensure(WHOLE)) == [{}]
    size = min(lake.ensure(NOTES).file_sizes()["many",])
    monkeypatch.setattr(upkeep, "TARGET_BYTES", size)
    assert small_files(lake.ensure(NOTES)) == [], "none of them is small"
    monkeypatch.setattr(upkeep, "TARGET_BYTES", 3 * size)
    assert small_files(lake.ensure(NOTES)) == [], "they do not fit together"


def test_of_a_table_in_two_levels_only_the_partition_meant_is_merged(lake: Lakehouse) -> None:
    two = TableSpec(
        "test/two", pa.schema([pa.field(n, pa.string(), nullable=False) for n in ("stage", "partition", "note")]),
        ("stage", "partition"),
    )  # fmt: skip
    for stage in ("records", "text"):
        for note in "abcd":
            row = {"stage": stage, "partition": "p", "note": note}
            lake.append(two, pa.Table.from_pylist([row], schema=two.schema), {})
    wanted = {"stage": "text", "partition": "p"}
    assert small_files(lake.ensure(two)) == [{"stage": "records", "partition": "p"}, wanted]
    assert compact(lake, two, wanted, {}) is not None
    assert small_files(lake.ensure(two)) == [{"stage": "records", "partition": "p"}]


def test_merged_files_tell_the_log_no_value_that_the_table_keeps_out_of_it(lake: Lakehouse) -> None:
    """The log outlives a deleted row: a subject's key in a minimum would stay there."""
    spec = tables.suppression()
    for key in ("SUBJECT-1", "SUBJECT-2", "SUBJECT-3", "SUBJECT-4"):
        row = {"subject_key": key, "reason": "withdrawn", "since": 0}
        lake.append(spec, pa.Table.from_pylist([row], schema=tables.SUPPRESSION), {})
    assert compact(lake, spec, {}, {}) is not None
    checkpoint(lake, spec)
    log = b"".join(path.read_bytes() for path in (folder(lake, spec) / "_delta_log").iterdir())
    assert b"since" in log and b"SUBJECT" not in log
    assert lake.ensure(spec).count() == 4


def test_merged_vectors_keep_their_small_row_groups(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 2)
    append(lake, "p", *"abcdefgh")
    assert compact(lake, NOTES, {"partition": "p"}, {}) is not None
    [path] = lake.ensure(NOTES).file_paths({})
    assert pq.ParquetFile(path).metadata.num_row_groups == 4


def test_a_merge_that_changed_rows_is_told_with_the_version_that_is_whole(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(lake, "p", *"abcd")
    before = version(lake)
    counts = iter([4, 3])
    monkeypatch.setattr(upkeep, "_count", lambda *_: next(counts))
    with pytest.raises(IntegrityError, match=f"4 rows in version {before}, 3 in {before + 1}") as caught:
        compact(lake, NOTES, {"partition": "p"}, {})
    assert caught.value.code == "maintenance_changed_rows" and f"restore version {before}" in caught.value.remedy


def test_appending_row_by_row_merges_by_itself_and_never_what_is_large(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MERGE_EVERY", 10)
    values = [f"{number:03}" for number in range(25)]
    append(lake, "p", *values)
    [sizes] = lake.ensure(NOTES).file_sizes().values()
    assert len(sizes) < 10
    assert stored(lake) == [("p", value) for value in values]
    monkeypatch.setattr(module, "MERGE_BYTES", min(sizes))
    append(lake, "p", *values)
    [larger] = lake.ensure(NOTES).file_sizes().values()
    assert len(larger) == len(sizes) + len(values), "no file is small enough"


@pytest.mark.parametrize("failure", [CommitConflict("theirs", remedy="-"), StorageError("full", remedy="-")])
def test_rows_are_in_even_if_the_merge_after_them_fails(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(module, "MERGE_EVERY", 2)
    monkeypatch.setattr(upkeep, "WORTH_FILES", 2)
    monkeypatch.setattr(upkeep, "compact", fail)
    append(lake, "p", "a", "b", "c", "d")
    assert len(stored(lake)) == 4 == version(lake)


# ---------------------------------------------------------------- beside runs


def test_appends_go_on_beside_merges_and_all_rows_are_there_once(lake: Lakehouse) -> None:
    append(lake, "p", "first")
    going = threading.Event()
    merged: list[int] = []

    def merge() -> None:
        mine = Lakehouse(lake.root)
        while not going.is_set():
            if compact(mine, NOTES, {"partition": "p"}, {}) is not None:
                merged.append(1)

    def write(writer: int) -> None:
        mine = Lakehouse(lake.root)
        for turn in range(15):
            mine.append(NOTES, notes("p", f"{writer}-{turn:02}"), {})

    beside = threading.Thread(target=merge)
    beside.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(2)))
    finally:
        going.set()
        beside.join()
    assert merged
    assert stored(lake) == sorted([("p", "first"), *(("p", f"{w}-{turn:02}") for w in range(2) for turn in range(15))])


def test_a_run_that_began_before_a_merge_and_a_clean_up_still_commits(lake: Lakehouse) -> None:
    append(lake, "p", *"abcd")
    base = lake.ensure(NOTES)
    append(lake, "q", *"abcd")
    assert compact(lake, NOTES, {"partition": "p"}, {}) is not None
    assert compact(lake, NOTES, {"partition": "q"}, {}) is not None
    orphan = folder(lake) / "partition=p" / "orphan.parquet"
    orphan.write_bytes(b"left by a killed writer")
    age(orphan, FILE_RETENTION_DAYS + 1)
    assert vacuum(lake, NOTES) == 1
    replace(lake, "p", "new", base=base)
    assert stored(lake) == [("p", "new"), *(("q", value) for value in "abcd")]


def test_a_run_that_replaces_everything_still_commits_after_a_clean_up(lake: Lakehouse) -> None:
    lake.replace(lake.ensure(WHOLE), {}, notes("p", "old").to_batches(), {})
    base = lake.ensure(WHOLE)
    orphan = folder(lake, WHOLE) / "orphan.parquet"
    orphan.write_bytes(b"left by a killed writer")
    age(orphan, FILE_RETENTION_DAYS + 1)
    assert vacuum(lake, WHOLE) == 1
    lake.replace(base, {}, notes("p", "new").to_batches(), {})
    assert stored(lake, WHOLE) == [("p", "new")]


Change = Callable[[Lakehouse], None]
CHANGES: dict[str, Change] = {
    "replaced": lambda lake: replace(lake, "p", "theirs"),
    "appended to": lambda lake: append(lake, "p", "theirs"),
    "emptied": lambda lake: replace(lake, "p"),
    # No file shows this one: only the number that its commit carried.
    "left as it was by another run": lambda lake: replace(lake, "none", transaction=("chain", 7)),
}


@pytest.mark.parametrize("order", ["change, merge", "merge, change"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_merge_hides_no_change_from_a_run_that_began_before_it(lake: Lakehouse, change: str, order: str) -> None:
    append(lake, "p", *"abcd")
    append(lake, "q", *"abcd")
    base = lake.ensure(NOTES)
    if order == "change, merge":
        CHANGES[change](lake)
    compact(lake, NOTES, {"partition": "p"}, {})
    compact(lake, NOTES, {"partition": "q"}, {})
    if order == "merge, change":
        CHANGES[change](lake)
    rows = stored(lake)
    with pytest.raises(CommitConflict):
        replace(lake, "p", "mine", base=base, transaction=("chain", 7))
    assert stored(lake) == rows


def test_a_merge_that_another_run_overtook_changes_nothing(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    append(lake, "p", *"abcd")
    stale = lake.handle(NOTES)
    replace(lake, "p", "theirs")
    before = version(lake)
    monkeypatch.setattr(lake, "handle", lambda *_: stale)
    with pytest.raises(CommitConflict):
        compact(lake, NOTES, {"partition": "p"}, {})
    monkeypatch.undo()
    assert version(lake) == before and stored(lake) == [("p", "theirs")]


# ---------------------------------------------------------------- deleting


def test_files_within_their_retention_stay_and_a_reader_of_an_old_version_goes_on(lake: Lakehouse) -> None:
    append(lake, "p", *"abcd")
    reader = lake.ensure(NOTES)
    assert compact(lake, NOTES, {"partition": "p"}, {}) is not None
    replace(lake, "p", "new")
    unfinished = folder(lake) / "partition=p" / "not-yet-committed.parquet"
    unfinished.write_bytes(b"of a writer that is at work")
    forget_removals(lake, NOTES, FILE_RETENTION_DAYS - 1)
    before = version(lake)
    assert vacuum(Lakehouse(lake.root), NOTES) == 0
    assert version(lake) == before, "nothing to delete, no commit"
    assert unfinished.exists()
    assert sorted(reader.read()["note"]) == list("abcd")
    assert stored(lake, version=reader.version) == [("p", value) for value in "abcd"]


def test_files_past_their_retention_go_and_the_newest_version_stays_whole(lake: Lakehouse) -> None:
    append(lake, "p", *"abcd")
    assert compact(lake, NOTES, {"partition": "p"}, {}) is not None
    old = version(lake) - 1
    forget_removals(lake, NOTES, FILE_RETENTION_DAYS + 1)
    fresh = Lakehouse(lake.root)
    assert vacuum(fresh, NOTES) == 4
    assert stored(fresh) == [("p", value) for value in "abcd"]
    assert len(list(folder(lake).rglob("*.parquet"))) == 1
    with pytest.raises(StorageError):
        stored(fresh, version=old)


def test_a_shorter_retention_than_promised_is_refused(lake: Lakehouse) -> None:
    append(lake, "p", "a")
    with pytest.raises(ConfigError, match="after 29 days") as caught:
        vacuum(lake, NOTES, keep_days=29)
    assert "30 days or more" in caught.value.remedy
    assert vacuum(lake, NOTES, keep_days=31) == 0


def test_a_clean_up_after_which_a_row_cannot_be_read_is_told(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    append(lake, "p", "a")
    orphan = folder(lake) / "orphan.parquet"
    orphan.write_bytes(b"")
    age(orphan, FILE_RETENTION_DAYS + 1)
    counts = iter([1, 0])
    monkeypatch.setattr(upkeep, "_count", lambda *_: next(counts))
    with pytest.raises(IntegrityError, match="deleting files changed table test/notes: 1 rows"):
        vacuum(lake, NOTES)


def test_two_clean_ups_at_once_both_end(lake: Lakehouse) -> None:
    append(lake, "p", "a")
    for number in range(50):
        orphan = folder(lake) / f"orphan-{number}.parquet"
        orphan.write_bytes(b"")
        age(orphan, FILE_RETENTION_DAYS + 1)
    together = threading.Barrier(2)

    def clean(_: int) -> int:
        mine = Lakehouse(lake.root)
        together.wait(10)
        return vacuum(mine, NOTES)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(clean, range(2))) >= 50
    assert stored(lake) == [("p", "a")]
    assert len(list(folder(lake).rglob("*.parquet"))) == 1


# ---------------------------------------------------------------- the log


def test_a_checkpoint_is_made_where_commits_follow_the_last_one_and_only_there(lake: Lakehouse) -> None:
    append(lake, "p", *"abc")
    log = folder(lake) / "_delta_log"
    assert not (log / "_last_checkpoint").exists()
    assert checkpoint(lake, NOTES)
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 3
    assert not checkpoint(lake, NOTES)
    replace(lake, "q", "d", transaction=("run", 7))
    assert checkpoint(lake, NOTES)
    fresh = Lakehouse(lake.root).ensure(NOTES)
    assert fresh.count() == 4 and fresh.transaction_version("run") == 7


def test_old_log_entries_go_and_every_version_within_retention_is_still_opened(lake: Lakehouse) -> None:
    append(lake, "p", *"abcdef")
    replace(lake, "q", "g", transaction=("run", 7))
    log = folder(lake) / "_delta_log"
    for number in range(5):
        age(log / f"{number:020d}.json", 91)
    checkpoint(lake, NOTES)
    fresh = Lakehouse(lake.root)
    for kept in (5, 6, 7):
        assert stored(fresh, version=kept) == stored(lake, version=kept)
    for entry in log.iterdir():
        age(entry, 91)
    append(lake, "p", "h")
    checkpoint(lake, NOTES)
    assert not (log / f"{3:020d}.json").exists()
    fresh = Lakehouse(lake.root)
    assert len(stored(fresh)) == 8 and fresh.ensure(NOTES).transaction_version("run") == 7
    with pytest.raises(StorageError, match="version 3 of table test/notes is not in its log") as caught:
        fresh.snapshot(NOTES, 3)
    assert caught.value.code == "version_gone" and not caught.value.retryable


def test_a_table_that_does_not_exist_has_nothing_to_keep_up(lake: Lakehouse) -> None:
    assert compact(lake, NOTES, {}, {}) is None
    assert vacuum(lake, NOTES) == 0
    assert not checkpoint(lake, NOTES)
    assert lake.snapshot(NOTES) is None
    assert lake.snapshot(NOTES, 3) is None
