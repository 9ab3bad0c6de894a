"""Delta tables: atomic replaces, refused conflicts, snapshots that do not move."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.lake_notes import NOTES, WHOLE, notes, replace, stored

from resources import tables
from resources.errors import CommitConflict, StorageError
from resources.lakehouse import Lakehouse, log
from resources.lakehouse import lake as lakehouse
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.tables import TableSpec


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path / "lake"))


def test_a_table_that_does_not_exist_is_none_and_ensure_makes_it_once(lake: Lakehouse) -> None:
    assert lake.snapshot(NOTES) is None
    assert lake.ensure(NOTES).version == lake.ensure(NOTES).version == 0
    assert stored(lake) == []


@pytest.mark.parametrize(
    "table",
    [
        tables.manifest("d"),
        tables.partitions("d"),
        tables.quarantine("d"),
        tables.records("d"),
        tables.embeddings("d", "s"),
        tables.materializations(),
        tables.index_receipts(),
        tables.generations(),
        tables.suppression(),
    ],
    ids=lambda table: table.path,
)
def test_every_table_is_made_as_declared_with_retention_and_no_statistics_of_people(
    lake: Lakehouse, table: TableSpec
) -> None:
    assert lake.ensure(table).schema_drift() == []
    log = (Path(lake.root) / table.path / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    [configuration] = [json.loads(line)["metaData"]["configuration"] for line in log if "metaData" in line]
    assert configuration["delta.logRetentionDuration"] == "interval 90 days"
    assert configuration["delta.deletedFileRetentionDuration"] == "interval 30 days"
    assert configuration["delta.checkpointInterval"] == "20"
    allowed = {"size_bytes", "objects", "created_at", "finished_at", "sequence", "reconciled_at", "generation", "since"}
    assert set(configuration.get("delta.dataSkippingStatsColumns", "size_bytes").split(",")) <= allowed
    assert "delta.dataSkippingStatsColumns" in configuration or configuration["delta.dataSkippingNumIndexedCols"] == "0"


def test_a_snapshot_is_handed_out_again_until_a_commit_of_anybody_follows_it(lake: Lakehouse) -> None:
    elsewhere = Lakehouse(lake.root)  # as another process has it
    lake.ensure(NOTES)
    first = lake.snapshot(NOTES)
    assert first is lake.snapshot(NOTES) is lake.ensure(NOTES)
    replace(elsewhere, "p", "a")
    assert stored(lake) == [("p", "a")]
    elsewhere.append(NOTES, pa.Table.from_batches(notes("p", "b")), {})
    assert stored(lake) == [("p", "a"), ("p", "b")]
    assert first is not None
    assert (first.version, first.count()) == (0, 0), "a snapshot does not move"
    old = lake.snapshot(NOTES, 1)
    assert old is not None
    assert old.count() == 1 and stored(lake) == [("p", "a"), ("p", "b")]


def test_a_table_that_did_not_exist_is_seen_as_soon_as_anybody_makes_it(lake: Lakehouse) -> None:
    elsewhere = Lakehouse(lake.root)
    assert lake.snapshot(NOTES) is None is lake.snapshot(NOTES)
    elsewhere.append(NOTES, pa.Table.from_batches(notes("p", "a")), {})
    assert stored(lake) == [("p", "a")]


def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_an_absent_table(lake: Lakehouse) -> None:
    """A suppression that is not seen would show a person who withdrew."""
    store, table = ObjectStore(lake.root), Path(lake.root) / NOTES.path
    table.parent.mkdir(parents=True)
    assert log.is_absent(store, NOTES.path)
    table.symlink_to(table)  # round in circles, for whoever may read everything
    assert not log.is_absent(store, NOTES.path)
    assert not log.is_absent(ObjectStore("s3://lake"), NOTES.path), "only a request tells"


def test_a_snapshot_of_a_table_that_was_deleted_is_not_handed_out(lake: Lakehouse) -> None:
    replace(lake, "p", "a")
    folder = Path(lake.root) / NOTES.path
    shutil.rmtree(folder)
    assert lake.snapshot(NOTES) is None
    replace(Lakehouse(lake.root), "p", "b")  # the same version again
    assert stored(lake) == [("p", "b")]


def test_what_a_write_has_in_hand_is_what_another_process_reads(lake: Lakehouse) -> None:
    """Over checkpoints, and with others' commits between a write's base and its commit."""
    elsewhere = Lakehouse(lake.root)
    lake.ensure(NOTES)
    for turn in range(24):
        base = lake.snapshot(NOTES)
        assert base is not None
        replace(elsewhere, "q", *"xyz"[: turn % 4])
        lake.replace(base, {"partition": "p"}, notes("p", f"turn {turn}"), {}, ("chain", turn))
        for one in (lake, elsewhere):
            here, fresh = one.snapshot(NOTES), Lakehouse(lake.root).snapshot(NOTES)
            assert here is not None and fresh is not None
            assert here.version == fresh.version == 2 * (turn + 1)
            assert here.transaction_version("chain") == fresh.transaction_version("chain") == turn
            assert sorted(here.read().rows()) == sorted(fresh.read().rows())


def test_what_was_written_leaves_no_value_in_the_log(lake: Lakehouse) -> None:
    replace(lake, "p", "NAME-OF-A-PERSON")
    log = "".join(path.read_text() for path in (Path(lake.root) / NOTES.path / "_delta_log").glob("*.json"))
    assert "NAME-OF-A-PERSON" not in log


@pytest.mark.parametrize("letter", ["x", "\u00ff", "\U0010ffff", "\x7f"])
def test_a_long_value_stays_out_of_the_files_footer_and_is_found_by_all_of_it(lake: Lakehouse, letter: str) -> None:
    """A footer is read by whoever opens the table: a segment of the access log had one of 17 MB. A maximum that begins with 64
    bytes of the last of all letters has no shorter bound, and stands whole."""
    long = letter * 100_000
    replace(lake, "p", "short", long + "a", long + "c")
    [path] = Path(lake.uri(NOTES)).rglob("*.parquet")
    assert letter in "\x7f\U0010ffff" or pq.read_metadata(path).serialized_size < 4_096
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    for note, count in ((long + "a", 1), (long + "b", 0), (long + "c", 1), ("short", 1)):
        assert snapshot.read(where=pc.field("note") == note).height == count
    assert snapshot.read(where=pc.field("note") > long + "b").height == 1 + (long < "short")


def test_replace_replaces_its_partition_and_no_other(lake: Lakehouse) -> None:
    replace(lake, "p", "a", "b")
    replace(lake, "q", "c")
    done = replace(lake, "p", "d")
    assert (done.rows, done.version, done.table_path, done.changed) == (1, 3, NOTES.path, True)
    assert stored(lake) == [("p", "d"), ("q", "c")]
    replace(lake, "q")
    assert stored(lake) == [("p", "d")]
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    assert snapshot.partition_values("partition") == {"p"}


def test_replace_without_a_partition_replaces_all(lake: Lakehouse) -> None:
    replace(lake, "p", "a", "b", table=WHOLE)
    replace(lake, "q", "c", table=WHOLE)
    assert stored(lake, WHOLE) == [("q", "c")]


def test_a_quote_in_a_partition_name_is_no_way_into_the_predicate(lake: Lakehouse) -> None:
    replace(lake, "q", "kept")
    replace(lake, "p' OR 'a' = 'a", "odd")
    replace(lake, "p' OR 'a' = 'a", "odd again")
    assert stored(lake) == [("p' OR 'a' = 'a", "odd again"), ("q", "kept")]


def test_rows_of_another_partition_are_refused(lake: Lakehouse) -> None:
    base = lake.ensure(NOTES)
    with pytest.raises(StorageError):
        lake.replace(base, {"partition": "p"}, notes("q", "x"), {})
    assert stored(lake) == []


def test_rows_that_delta_previews_in_an_error_are_not_repeated(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise lakehouse.DeltaError("Invalid data found\nPreview of invalid data:\n| NAME-OF-A-PERSON |")

    monkeypatch.setattr(lakehouse, "write_deltalake", refuse)
    with pytest.raises(StorageError, match="Invalid data found") as caught:
        replace(lake, "p", "x")
    assert "NAME-OF-A-PERSON" not in str(caught.value)


def test_a_snapshot_never_sees_a_later_commit(lake: Lakehouse) -> None:
    replace(lake, "p", "a")
    before = lake.snapshot(NOTES)
    assert before is not None
    replace(lake, "p", "b", "c")
    assert before.read().rows() == [("p", "a")]
    assert [batch.num_rows for batch in before.scan()] == [1]
    assert before.count() == 1
    again = lake.snapshot(NOTES, version=before.version)
    assert again is not None
    assert again.read().rows() == [("p", "a")]


def test_reading_takes_columns_and_rows_that_match(lake: Lakehouse) -> None:
    replace(lake, "p", *(str(n) for n in range(10)))
    replace(lake, "q", "x")
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    where = pc.field("partition") == "p"
    assert snapshot.count(where) == snapshot.read(["note"], where).height == 10
    assert snapshot.read(["note"], pc.field("partition") == "nowhere").columns == ["note"]
    batches = list(snapshot.scan(["note"], where, batch_rows=4))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]


@pytest.mark.parametrize("table", [NOTES, WHOLE], ids=["partitioned", "whole"])
@pytest.mark.parametrize("first", [(), ("a",)], ids=["empty", "filled"])
def test_a_run_that_began_before_another_ones_commit_is_refused(
    lake: Lakehouse, table: TableSpec, first: tuple[str, ...]
) -> None:
    if first:
        replace(lake, "p", *first, table=table)
    stale = lake.ensure(table)
    replace(lake, "p", "winner", table=table)
    where = {"partition": "p"} if table.partition_by else {}
    with pytest.raises(CommitConflict) as caught:
        lake.replace(stale, where, notes("p", "loser"), {})
    assert caught.value.retryable
    assert stored(lake, table) == [("p", "winner")]


def test_an_erasure_in_the_partition_refuses_a_run_that_began_before_it(lake: Lakehouse) -> None:
    replace(lake, "p", "erased")
    stale = lake.ensure(NOTES)
    replace(lake, "p")
    with pytest.raises(CommitConflict):
        lake.replace(stale, {"partition": "p"}, notes("p", "erased", "more"), {})
    assert stored(lake) == []


def test_a_commit_to_another_partition_refuses_nothing(lake: Lakehouse) -> None:
    stale = lake.ensure(NOTES)
    replace(lake, "q", "other")
    lake.replace(stale, {"partition": "p"}, notes("p", "mine"), {})
    assert stored(lake) == [("p", "mine"), ("q", "other")]


def _replace_at_once(root: str, partition: str, note: str, barrier: Any, outcomes: Any) -> None:
    lake = Lakehouse(root)
    base = lake.ensure(NOTES)
    barrier.wait()
    try:
        lake.replace(base, {"partition": partition}, notes(partition, note), {})
        outcomes.put((note, "committed"))
    except CommitConflict as error:
        outcomes.put((note, error.code))


def test_of_processes_at_once_one_wins_a_partition_and_other_partitions_are_left_alone(lake: Lakehouse) -> None:
    lake.ensure(NOTES)
    spawn = multiprocessing.get_context("spawn")  # delta-rs' threads do not survive a fork
    jobs = [("p", "first"), ("p", "second"), ("q", "third")]
    barrier, outcomes = spawn.Barrier(len(jobs)), spawn.Queue()
    processes = [spawn.Process(target=_replace_at_once, args=(lake.root, *job, barrier, outcomes)) for job in jobs]
    for process in processes:
        process.start()
    found = dict(outcomes.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(120)
    assert found["third"] == "committed"
    assert sorted([found["first"], found["second"]]) == ["commit_conflict", "committed"]
    assert stored(lake) == [(partition, note) for partition, note in jobs if found[note] == "committed"]


def test_appends_add_up_and_tell_their_run(lake: Lakehouse) -> None:
    for number in range(3):
        rows = pa.Table.from_batches(notes("p", str(number)))
        done = lake.append(NOTES, rows, {"run_id": f"r{number}"})
        assert (done.version, done.rows) == (number + 1, 1)
    assert len(stored(lake)) == 3
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    commits = snapshot.commits()
    assert [commit["version"] for commit in commits] == [3, 2, 1, 0]
    assert commits[0]["medvec"] == {"run_id": "r2"}
    assert commits[-1]["medvec"] is None


def test_an_append_adds_an_optional_column_that_the_table_has_not_yet(lake: Lakehouse) -> None:
    lake.append(NOTES, pa.Table.from_batches(notes("a", "old")), {})
    grown = TableSpec(NOTES.path, NOTES.schema.append(pa.field("author", pa.string())), NOTES.partition_by)
    row = {"partition": "a", "note": "new", "author": "who"}
    lake.append(grown, pa.Table.from_pylist([row], schema=grown.schema), {})
    assert stored(lake, grown) == [("a", "new", "who"), ("a", "old", None)]


def test_a_transaction_stands_with_its_commit_or_not_at_all(lake: Lakehouse) -> None:
    base = lake.ensure(NOTES)
    assert base.transaction_version("records/-/p") == -1
    lake.replace(base, {"partition": "p"}, notes("p", "a"), {}, ("records/-/p", 4))
    after = lake.ensure(NOTES)
    assert after.transaction_version("records/-/p") == 4
    assert after.transaction_version("records/-/q") == -1
    assert base.transaction_version("records/-/p") == -1
    with pytest.raises(CommitConflict):
        lake.replace(base, {"partition": "p"}, notes("p", "b"), {}, ("records/-/p", 5))
    assert lake.ensure(NOTES).transaction_version("records/-/p") == 4


def test_the_lake_is_where_the_settings_say(tmp_path: Path) -> None:
    assert Lakehouse.open(Settings(home=tmp_path)).root == str(tmp_path / "lake")
    bucket = Lakehouse.open(Settings(home=tmp_path, lake_uri="s3://bucket/lake/"))
    assert bucket.uri(NOTES) == "s3://bucket/lake/test/notes"
    assert bucket._options["aws_conditional_put"] == "etag", "without it two writers lose commits"
