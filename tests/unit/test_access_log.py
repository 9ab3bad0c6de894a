"""The access log: what was written is found whole, and every way of tampering with it is found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.access_world import EVENTS, KEYS, all_lines, chain, found, killed, settled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources import tables
from resources.access_log import Event, Keys, Writer, verifying
from resources.access_log.chains import Fault
from resources.access_log.places import HEAD, Place
from resources.access_log.sealing import seal
from resources.access_log.verifying import verify
from resources.lakehouse import Lakehouse


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(str(tmp_path / "lake"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "access")


Tamper = Callable[[list[bytes]], list[bytes]]
# What is done to the lines of segment 1, which begins with event 1: event 0 has a segment of its own.
TAMPERED: dict[str, tuple[Tamper, list[tuple[int, str]]]] = {
    "change one byte": (lambda all: [*all[:3], all[3].replace(b'"ann"', b'"anm"'), *all[4:]], [(4, "changed")]),
    "drop one": (lambda all: [*all[:3], *all[4:]], [(4, "missing")]),
    "drop the first": (lambda all: all[1:], [(1, "missing")]),
    "swap two": (
        lambda all: [*all[:2], all[5], *all[3:5], all[2], *all[6:]],
        [(3, "reordered"), (6, "reordered")],
    ),
    "say one twice": (lambda all: [*all[:4], all[3], *all[4:]], [(4, "repeated")]),
    "cut the tail": (lambda all: all[:-2], [(6, "truncated")]),
    "cut within a line": (lambda all: [*all[:-2], all[-2][:40]], [(6, "truncated")]),
}


def test_a_chain_stands_and_each_receipt_is_of_an_event_in_it(lake: Lakehouse, place: Place) -> None:
    writer = Writer(place, KEYS)
    receipts = [writer.submit(Event(who="ann", results=number)).result() for number in range(1, 4)]
    open_report = verify(lake, place, KEYS)
    assert open_report.ok and (open_report.events, open_report.open_segments) == (4, 2)
    writer.close()
    lines = {line.sequence: line for line in all_lines(lake, place)}
    assert [lines[one.sequence].hash for one in receipts] == [one.hash for one in receipts]
    assert [lines[one.sequence].facts["results"] for one in receipts] == [1, 2, 3]
    assert [lines[number].facts["kind"] for number in (0, 4)] == ["opened", "closed"]
    assert str(receipts[0]) == f"{writer.name}:1:{receipts[0].hash[:16]}"


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_with_a_segment_file_is_found_and_named(lake: Lakehouse, place: Place, name: str) -> None:
    tamper, expected = TAMPERED[name]
    writer = chain(place)
    path = place.segment(writer, 1)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    assert found(verify(lake, place, KEYS)) == [(writer, sequence, rule) for sequence, rule in expected]
    seal(lake, place, KEYS)  # does not make it good
    told = found(verify(lake, place, KEYS))
    assert told == [(writer, sequence, rule) for sequence, rule in expected]


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_with_a_sealed_row_is_found_and_named(lake: Lakehouse, place: Place, name: str) -> None:
    tamper, expected = TAMPERED[name]
    writer = chain(place)
    seal(lake, place, KEYS)
    assert verify(lake, place, KEYS).ok

    def rewritten(row: dict[str, Any]) -> dict[str, Any]:
        lines = row["lines"].splitlines(keepends=True)
        return row | {"lines": b"".join(tamper(lines))} if row["segment"] == 1 else row

    _rewrite(lake, lambda rows: [rewritten(row) for row in rows])
    assert found(verify(lake, place, KEYS)) == [(writer, sequence, rule) for sequence, rule in expected]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found_and_its_event_named(
    tmp_path_factory: pytest.TempPathFactory, kept: tuple[Place, str, bytes], data: st.DataObject
) -> None:
    place, writer, whole = kept
    position = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[position]))
    changed = whole[:position] + bytes([other]) + whole[position + 1 :]
    place.segment(writer, 1).write_bytes(changed)
    lake = Lakehouse(str(place.folder / "no-lake"))
    named = [sequence for _, sequence, _ in found(verify(lake, place, KEYS))]
    assert 1 + whole[:position].count(b"\n") in named


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str, bytes]:
    place = Place(tmp_path_factory.mktemp("kept"))
    writer = chain(place)
    return place, writer, place.segment(writer, 1).read_bytes()


# -- segments and chains


def test_a_missing_segment_file_is_named(lake: Lakehouse, place: Place) -> None:
    writer = chain(place, rotate_bytes=1)
    place.segment(writer, 3).unlink()
    assert found(verify(lake, place, KEYS)) == [(writer, 3, "missing_segment")]


def test_a_missing_last_segment_file_is_a_cut_tail(lake: Lakehouse, place: Place) -> None:
    writer = chain(place)
    place.segment(writer, 1).unlink()
    assert found(verify(lake, place, KEYS)) == [(writer, 1, "truncated")]


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_sealed_row_that_is_dropped_is_named(lake: Lakehouse, place: Place, gone: int) -> None:
    """The newest too: this place's head record knows of it."""
    writer = Writer(place, KEYS, rotate_bytes=1)
    writer.submit(Event()).result()
    settled(writer, 2)
    seal(lake, place, KEYS, own=(writer.name, 2))
    killed(writer)
    seal(lake, place, KEYS)
    assert verify(lake, place, KEYS).ok
    _rewrite(lake, lambda rows: [row for row in rows if row["segment"] != gone])
    named = verify(lake, place, KEYS).faults
    assert [fault.writer for fault in named] == [writer.name] and named[0].segment == gone


def test_a_dropped_row_of_another_place_is_known_to_the_seals_that_follow_it(
    lake: Lakehouse, place: Place, tmp_path: Path
) -> None:
    there = chain(Place(tmp_path / "elsewhere"))
    seal(lake, Place(tmp_path / "elsewhere"), KEYS)
    chain(place)
    seal(lake, place, KEYS)
    assert verify(lake, place, KEYS).ok
    _rewrite(lake, lambda rows: [row for row in rows if row["writer"] != there])
    [fault] = verify(lake, place, KEYS).faults
    assert (fault.writer, fault.segment, fault.rule) == (there, 1, "missing_segment")


def test_a_chain_whose_folder_is_gone_is_named(lake: Lakehouse, place: Place) -> None:
    writer = Writer(place, KEYS)
    settled(writer, 1)
    seal(lake, place, KEYS, own=(writer.name, 1))
    killed(writer)
    for file in (place.folder / writer.name).iterdir():
        file.unlink()
    (place.folder / writer.name).rmdir()
    assert found(verify(lake, place, KEYS)) == [(writer.name, 1, "missing_chain")]


def test_a_changed_seal_is_named_and_another_key_verifies_nothing(lake: Lakehouse, place: Place) -> None:
    writer = chain(place)
    seal(lake, place, KEYS)
    assert not verify(lake, place, Keys(b"x" * 32)).ok
    _rewrite(lake, lambda rows: [row | {"torn_bytes": 7} if row["segment"] == 1 else row for row in rows])
    assert found(verify(lake, place, KEYS)) == [(writer, 1, "seal_changed")]


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_head_record_that_is_gone_or_changed_is_named(lake: Lakehouse, place: Place, damage: str) -> None:
    writer = chain(place)
    head = place.folder / writer / HEAD
    if damage == "gone":
        head.unlink()
    else:
        head.write_bytes(head.read_bytes().replace(b'"sequence":7', b'"sequence":6'))
    assert found(verify(lake, place, KEYS)) == [(writer, EVENTS - 1, "head")]


def test_chains_cannot_be_made_anew_without_the_key(lake: Lakehouse, place: Place) -> None:
    """Somebody who may write files drops an event and computes all hashes again, with a key of their own."""
    forged = Keys(b"f" * 32)
    writer = Writer(place, forged)
    writer.submit(Event(who="forged")).result()
    writer.close()
    assert {rule for _, _, rule in found(verify(lake, place, KEYS))} == {"changed", "head"}


# -- kills


def test_a_torn_last_line_is_told_and_no_fault(lake: Lakehouse, place: Place) -> None:
    writer = Writer(place, KEYS)
    writer.submit(Event(who="ann")).result()
    name = killed(writer)
    with place.segment(name, 1).open("ab") as file:
        file.write(b'{"at":"2026-')
    for _ in range(2):
        report = verify(lake, place, KEYS)
        assert report.ok and len(report.torn) == 1 and f"{name} segment 1: event 2" in report.torn[0]
        seal(lake, place, KEYS)
    assert report.killed == [name] or verify(lake, place, KEYS).killed == [name]


def test_a_killed_writers_segments_are_sealed_by_the_next_and_a_living_ones_are_not(
    lake: Lakehouse, place: Place
) -> None:
    dead, living = Writer(place, KEYS), Writer(place, KEYS)
    dead.submit(Event(who="ann")).result()
    settled(dead, 1)
    killed(dead)
    assert [(one.writer, one.segments, one.events, one.ended) for one in seal(lake, place, KEYS)] == [
        (dead.name, 2, 2, "killed")
    ]
    assert seal(lake, place, KEYS) == []
    assert place.segments(dead.name) == {} and place.segments(living.name)
    living.close()
    assert [one.ended for one in seal(lake, place, KEYS)] == ["closed"]
    assert verify(lake, place, KEYS).ok


def test_a_kill_between_the_seal_and_the_end_of_the_file_seals_nothing_twice(lake: Lakehouse, place: Place) -> None:
    writer = chain(place)
    copies = {path: path.read_bytes() for path in place.segments(writer).values()}
    seal(lake, place, KEYS)
    for path, data in copies.items():
        path.write_bytes(data)
    assert verify(lake, place, KEYS).ok
    assert seal(lake, place, KEYS) == [] and place.segments(writer) == {}
    assert verify(lake, place, KEYS).ok


def test_a_segment_that_grows_and_is_sealed_while_it_is_verified_is_no_fault(
    lake: Lakehouse, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(place, KEYS)
    real = verifying.sealed_before

    def meanwhile(lake: Lakehouse) -> Any:
        monkeypatch.undo()
        writer.submit(Event()).result()
        writer.close()
        seal(lake, place, KEYS)
        return real(lake)

    monkeypatch.setattr(verifying, "sealed_before", meanwhile)
    assert verify(lake, place, KEYS).faults == []


# -- what the lake may hold


def test_no_statistics_of_lines_stand_in_the_log_of_the_table(lake: Lakehouse, place: Place) -> None:
    writer = Writer(place, KEYS)
    writer.submit(Event(subjects=("subject-of-ann",))).result()
    writer.close()
    seal(lake, place, KEYS)
    log = b"".join(path.read_bytes() for path in Path(lake.uri(tables.access()), "_delta_log").glob("*.json"))
    assert b"subject-of-ann" not in log and b"last_at" in log


# -- helpers


def _rewrite(lake: Lakehouse, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """What somebody with write access to the lake could do."""
    snapshot = lake.snapshot(tables.access())
    assert snapshot is not None
    rows = change(snapshot.read().sort("writer", "segment").to_dicts())
    lake.replace(snapshot, {}, pa.Table.from_pylist(rows, schema=tables.ACCESS).to_batches(), {})


def test_a_fault_reads_as_a_sentence() -> None:
    told = str(Fault("w", 3, 1, "changed", "the event was changed after it was written"))
    assert told == "w event 3 (segment 1): the event was changed after it was written [changed]"
