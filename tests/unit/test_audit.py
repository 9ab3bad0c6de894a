"""The record of lineage: chains that stand, and what a changed, dropped or forked row looks like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from resources import tables
from resources.audit import GENESIS, Audit, Materialization, row_hash
from resources.lakehouse import Lakehouse

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
CHAIN = ("records", "-", "lung")


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path))


def done(number: int, **changes: Any) -> Materialization:
    facts: dict[str, Any] = {
        "dataset": "tcia_catalog",
        "asset": "records",
        "partition": "lung",
        "table_path": "silver/tcia_catalog/records",
        "table_version": number,
        "run_id": f"run-{number}",
        "input_digest": f"in-{number}",
        "output_digest": f"out-{number}",
        "finished_at": NOON + timedelta(minutes=number),
    }
    return Materialization(**(facts | changes))


def rows(lake: Lakehouse) -> list[dict[str, Any]]:
    snapshot = lake.snapshot(tables.materializations())
    assert snapshot is not None
    return snapshot.read().sort("partition", "sequence").to_dicts()


def rewrite(lake: Lakehouse, changed: list[dict[str, Any]]) -> None:
    """What somebody with write access to the lake could do."""
    table = pa.Table.from_pylist(changed, schema=tables.MATERIALIZATIONS)
    lake.replace(lake.ensure(tables.materializations()), {}, table.to_batches(), {})


@pytest.fixture
def four(lake: Lakehouse) -> Lakehouse:
    """Four rows of one chain and one of another."""
    audit = Audit(lake)
    for number in range(4):
        audit.record(done(number))
    audit.record(done(9, partition="liver"))
    return lake


def test_an_empty_lake_has_no_heads_and_no_faults(lake: Lakehouse) -> None:
    assert Audit(lake).latest("tcia_catalog") == {}
    assert Audit(lake).broken_chains("tcia_catalog") == []


def test_a_chain_verifies_and_its_head_is_its_newest_row(four: Lakehouse) -> None:
    assert Audit(four).broken_chains("tcia_catalog") == []
    heads = Audit(four).latest("tcia_catalog")
    assert {chain: head["run_id"] for chain, head in heads.items()} == {
        CHAIN: "run-3",
        ("records", "-", "liver"): "run-9",
    }
    chain = [row for row in rows(four) if row["partition"] == "lung"]
    assert [row["sequence"] for row in chain] == [0, 1, 2, 3]
    assert [row["previous_hash"] for row in chain] == [GENESIS, *(row["row_hash"] for row in chain[:-1])]


def test_what_was_recorded_is_what_is_read(lake: Lakehouse) -> None:
    fact = done(0, encoder="tiny@1", rows_in=5, rows_out=4, rows_quarantined=1, space_version="tiny@1")
    Audit(lake).record(fact)
    [row] = rows(lake)
    assert {name: row[name] for name in vars(fact)} == vars(fact)


def test_a_reader_sees_what_another_process_records(lake: Lakehouse) -> None:
    mine, theirs = Audit(lake), Audit(lake)
    mine.record(done(0))
    theirs.record(done(1))
    assert mine.latest("tcia_catalog")[CHAIN]["run_id"] == "run-1"
    mine.record(done(2))
    theirs.record(done(3, partition="liver"))
    assert theirs.latest("tcia_catalog")[CHAIN]["run_id"] == "run-2"
    assert mine.broken_chains("tcia_catalog") == []


def test_datasets_and_space_versions_have_chains_of_their_own(lake: Lakehouse) -> None:
    audit = Audit(lake)
    audit.record(done(0))
    audit.record(done(1, space_version="tiny@2"))
    audit.record(done(2, dataset="tcia_radiology"))
    assert {row["sequence"] for row in rows(lake)} == {0}
    assert set(audit.latest("tcia_catalog")) == {CHAIN, ("records", "tiny@2", "lung")}
    assert set(audit.latest("tcia_radiology")) == {CHAIN}


def test_a_hash_does_not_depend_on_the_writers_time_zone(lake: Lakehouse) -> None:
    Audit(lake).record(done(0, finished_at=NOON.astimezone(timezone(timedelta(hours=9)))))
    assert Audit(lake).broken_chains("tcia_catalog") == []


@pytest.mark.parametrize("column", [name for name in tables.MATERIALIZATIONS.names if name not in ("row_hash",)])
def test_a_change_of_any_column_moves_the_hash(column: str) -> None:
    row = dict.fromkeys(tables.MATERIALIZATIONS.names, "x") | {"finished_at": NOON}
    assert row_hash(row | {column: NOON + timedelta(microseconds=1)}) != row_hash(row)


@pytest.mark.parametrize("position", range(4))
def test_a_row_changed_after_it_was_written_is_named(four: Lakehouse, position: int) -> None:
    found = rows(four)
    lung = [row for row in found if row["partition"] == "lung"]
    lung[position]["output_digest"] = lung[position]["output_digest"][:-1] + "X"
    rewrite(four, found)
    assert Audit(four).broken_chains("tcia_catalog") == [
        f"records/-/lung row {position}: the row was changed after it was written"
    ]


def test_a_row_changed_and_hashed_again_breaks_the_chain_behind_it(four: Lakehouse) -> None:
    found = rows(four)
    row = next(row for row in found if row["partition"] == "lung" and row["sequence"] == 1)
    row["output_digest"] = "forged"
    row["row_hash"] = row_hash(row)
    rewrite(four, found)
    assert Audit(four).broken_chains("tcia_catalog") == ["records/-/lung row 2: its predecessor is missing"]


@pytest.mark.parametrize("position", range(3))
def test_a_dropped_row_is_missed_by_its_successor(four: Lakehouse, position: int) -> None:
    kept = [row for row in rows(four) if (row["partition"], row["sequence"]) != ("lung", position)]
    rewrite(four, kept)
    faults = Audit(four).broken_chains("tcia_catalog")
    assert faults == [f"records/-/lung row {position + 1}: its predecessor is missing"]


def test_two_runs_of_one_partition_at_once_show_as_a_fork(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(lake)
    audit.record(done(0))
    heads = {chain: dict(head) for chain, head in audit.latest("tcia_catalog").items()}
    for number in (1, 2):
        run = Audit(lake)
        monkeypatch.setattr(run, "latest", lambda dataset: heads)
        run.record(done(number))
    [fault] = audit.broken_chains("tcia_catalog")
    assert fault == "records/-/lung row 1: forked (two runs of this partition at once)"


def test_a_fault_in_one_chain_says_nothing_of_another(four: Lakehouse) -> None:
    found = rows(four)
    for row in found:
        if row["partition"] == "liver":
            row["rows_out"] = 1_000
    rewrite(four, found)
    [fault] = Audit(four).broken_chains("tcia_catalog")
    assert fault.startswith("records/-/liver row 0")


def test_rows_are_only_ever_appended(four: Lakehouse) -> None:
    snapshot = four.snapshot(tables.materializations())
    assert snapshot is not None
    operations = {str(commit["operation"]) for commit in snapshot.commits() if commit["version"]}
    assert operations == {"WRITE"}
    heights = []
    for version in range(snapshot.version + 1):
        at = four.snapshot(tables.materializations(), version)
        assert at is not None
        heights.append(at.count())
    assert heights == [0, 1, 2, 3, 4, 5]


def test_a_head_is_a_row_like_the_stored_one(four: Lakehouse) -> None:
    audit = Audit(four)
    audit.record(done(4))
    cached = audit.latest("tcia_catalog")[CHAIN]
    fresh = Audit(four).latest("tcia_catalog")[CHAIN]
    assert pl.DataFrame([cached]).select(sorted(cached)).equals(pl.DataFrame([fresh]).select(sorted(fresh)))
