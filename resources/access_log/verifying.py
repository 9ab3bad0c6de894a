"""`medvec audit verify`: does the log stand, in the lake and at this place?

Belongs here: seals, gaps between segments, chains that are gone, heads. Does not belong here: judging the lines of one
segment (chains), healing: a log that does not stand is kept as it is.

What it cannot see: a chain that was never sealed and whose folder is gone as a whole, and a tail that was cut off before it
was sealed together with its head record set back to an older one of the same writer. A caller's receipt
(X-Medvec-Event) shows both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from resources import tables
from resources.access_log import chains
from resources.access_log.chains import Fault, Reach, Segment
from resources.access_log.events import GENESIS
from resources.access_log.keys import Keys
from resources.access_log.places import Head, Place
from resources.access_log.sealing import KILLED, name_of, sealed_before, statement
from resources.lakehouse import Lakehouse

Row = Mapping[str, Any]


@dataclass
class Report:
    """What was looked at, and what is wrong with it. `elsewhere` are chains whose end lies at another place."""

    faults: list[Fault] = field(default_factory=list)
    writers: int = 0
    events: int = 0
    sealed_segments: int = 0
    open_segments: int = 0
    torn: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class _Here:
    """One writer's files at this place, read before the lake is: what is sealed meanwhile is found there."""

    head: Head
    segments: dict[int, bytes]

    def see_sealed(self, place: Place, row: Row) -> None:
        """Read a sealed segment's file again, or forget it: it may have grown, been sealed and gone since it was read."""
        if self.segments.pop(row["segment"], None) is not None:
            with suppress(FileNotFoundError):
                self.segments[row["segment"]] = place.segment(row["writer"], row["segment"]).read_bytes()


def verify(lake: Lakehouse, place: Place, keys: Keys) -> Report:
    here = {writer: _read_here(place, writer, keys) for writer in place.writers()}
    rows: list[Row] = list(sealed_before(lake).iter_rows(named=True))
    report = Report(sealed_segments=len(rows))
    report.faults += _of_seals(rows, keys)
    report.faults += _of_lines(lake, rows, keys, report)
    by_writer: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_writer.setdefault(row["writer"], {})[row["segment"]] = row
        if row["writer"] in here:
            here[row["writer"]].see_sealed(place, row)
    for writer in sorted(by_writer.keys() | here.keys()):
        report.writers += 1
        report.faults += _of_writer(writer, by_writer.get(writer, {}), here.get(writer), place, keys, report)
    report.faults += _of_followed(rows, report.faults)
    return report


def _read_here(place: Place, writer: str, keys: Keys) -> _Here:
    lives = place.lives(writer)
    head = place.head(writer, keys)
    for _ in range(3):  # a live writer may be at it
        if not (lives and head.fault):
            break
        head = place.head(writer, keys)
    return _Here(head, place.data(writer))


def _of_seals(rows: list[Row], keys: Keys) -> Iterator[Fault]:
    seen: set[tuple[str, int]] = set()
    for row in rows:
        named = (row["writer"], row["segment"])
        said = statement(row)
        if row["seal_hash"] != hashlib.sha256(said).hexdigest() or not keys.signed(said, row["signature"]):
            yield Fault(row["writer"], row["first_sequence"], row["segment"], "seal_changed", "the seal was changed")
        if named in seen:
            yield Fault(row["writer"], row["first_sequence"], row["segment"], "repeated", "the segment is sealed twice")
        seen.add(named)


def _of_lines(lake: Lakehouse, rows: list[Row], keys: Keys, report: Report) -> Iterator[Fault]:
    facts = {(row["writer"], row["segment"]): row for row in rows}
    snapshot = lake.snapshot(tables.access())
    batches = snapshot.scan(["writer", "segment", "lines"], batch_rows=8) if snapshot else iter(())
    for one in (one for batch in batches for one in batch.to_pylist()):
        row = facts.get((one["writer"], one["segment"]))
        if row is None:
            continue  # sealed while we read
        segment = Segment.read(one["lines"], keys)
        report.events += len(segment.lines)
        _tell_torn(report, row["writer"], row["segment"], segment)
        reach = Reach(row["first_sequence"], row["previous_hash"], row["last_sequence"])
        found = list(chains.faults(segment, row["writer"], row["segment"], reach))
        if not found and row["lines_digest"] != hashlib.sha256(one["lines"]).hexdigest():
            found = [Fault(row["writer"], -1, row["segment"], "changed", "the sealed bytes were changed")]
        yield from found


def _of_writer(
    writer: str, rows: Mapping[int, Row], here: _Here | None, place: Place, keys: Keys, report: Report
) -> Iterator[Fault]:
    at_hand = here.segments if here else {}
    yield from _gaps(writer, rows, at_hand, keys)
    newest = rows[max(rows)] if rows else None
    last, link = (newest["last_sequence"], newest["last_hash"]) if newest else (-1, GENESIS)
    if newest and newest["ended"] == KILLED:
        report.killed.append(writer)
    unsealed = sorted(number for number in at_hand if number not in rows)
    for number in unsealed:
        segment = Segment.read(at_hand[number], keys)
        report.open_segments += 1
        report.events += len(segment.lines)
        _tell_torn(report, writer, number, segment)
        is_next = number == 0 or number - 1 in rows or number - 1 in at_hand
        first = last + 1 if is_next else min([line.sequence for line in segment.intact], default=last + 1)
        end = here.head.sequence if here and number == max(unsealed) else None
        yield from chains.faults(segment, writer, number, Reach(first, link if is_next else "", end))
        intact = segment.intact
        last, link = (intact[-1].sequence, intact[-1].hash) if intact else (last, link)
    if not unsealed:
        yield from _of_end(writer, newest, here, place, report)
    if here and here.head.fault and (rows or at_hand):
        yield Fault(writer, last, max([*rows, *at_hand]), "head", f"the head record {here.head.fault}")


def _of_end(writer: str, newest: Row | None, here: _Here | None, place: Place, report: Report) -> Iterator[Fault]:
    """Whether a chain of which all that is known is sealed goes as far as it was written."""
    if newest is None:  # a folder that was made, and nothing written yet
        if here and here.head.sequence >= 0:
            yield Fault(writer, 0, 0, "truncated", f"events 0 to {here.head.sequence} are missing")
        return
    ended, last, following = newest["ended"], newest["last_sequence"], newest["segment"] + 1
    head = max(here.head.sequence if here else -1, newest["head_sequence"] if ended else -1)
    if head > last:
        number = newest["segment"] if ended else following
        yield Fault(writer, last + 1, number, "truncated", f"the tail is cut: events {last + 1} to {head} are missing")
    elif not ended and here:
        yield Fault(writer, last + 1, following, "missing_segment", "the open segment is missing")
    elif not ended and newest["place"] == place.id:
        yield Fault(writer, last + 1, following, "missing_chain", "the writer's folder is gone from here")
    elif not ended:
        report.elsewhere.append(writer)


def _gaps(writer: str, rows: Mapping[int, Row], at_hand: Mapping[int, bytes], keys: Keys) -> Iterator[Fault]:
    """Segments between others that are neither sealed nor here, and sealed ones of which a file here says otherwise."""
    known = rows.keys() | at_hand.keys()
    for number in sorted(set(range(max(known, default=-1) + 1)) - known):
        sealed = [row["last_sequence"] for other, row in rows.items() if other < number]
        read = [Segment.read(data, keys).intact for other, data in at_hand.items() if other < number]
        before = max([-1, *sealed, *(line.sequence for intact in read for line in intact)])
        yield Fault(writer, before + 1, number, "missing_segment", f"segment {number} is missing")
    for number in sorted(rows.keys() & at_hand.keys()):
        row = rows[number]
        if row["lines_digest"] != hashlib.sha256(at_hand[number]).hexdigest():
            reach = Reach(row["first_sequence"], row["previous_hash"], row["last_sequence"])
            found = list(chains.faults(Segment.read(at_hand[number], keys), writer, number, reach))
            yield from found or [Fault(writer, -1, number, "changed", "the file differs from what was sealed of it")]


def _of_followed(rows: list[Row], known: list[Fault]) -> Iterator[Fault]:
    """Seals that others follow and that are not there."""
    there = {name_of(row) for row in rows}
    told = {(one.writer, one.segment) for one in known}
    for name in sorted({name for row in rows for name in row["follows"]} - there):
        writer, segment, _ = name.split("/")
        if (writer, int(segment)) not in told:
            yield Fault(writer, -1, int(segment), "missing_segment", "its seal is missing, which a later seal follows")


def _tell_torn(report: Report, writer: str, number: int, segment: Segment) -> None:
    if segment.torn:
        sequence = max((line.sequence for line in segment.intact), default=-1) + 1
        report.torn.append(f"{writer} segment {number}: event {sequence} was not written to its end, nor answered")
