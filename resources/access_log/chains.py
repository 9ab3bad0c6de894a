"""What one segment's bytes say, and every way in which they differ from a chain.

Belongs here: judging lines. Does not belong here: where they were read, or seals (verifying).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from resources.access_log.events import Line, decode
from resources.access_log.keys import Keys


@dataclass(frozen=True)
class Fault:
    """One event or segment that is not as it was written. `sequence` is -1 where no event can be named."""

    writer: str
    sequence: int
    segment: int
    rule: str
    detail: str

    def __str__(self) -> str:
        place = f"event {self.sequence}" if self.sequence >= 0 else "segment"
        return f"{self.writer} {place} (segment {self.segment}): {self.detail} [{self.rule}]"


@dataclass(frozen=True)
class Segment:
    """One segment's lines. `torn` is what follows the last newline: of a write that did not end."""

    lines: tuple[Line, ...]
    torn: bytes

    @classmethod
    def read(cls, data: bytes, keys: Keys) -> Segment:
        *whole, torn = data.split(b"\n")
        return cls(tuple(decode(line, keys) for line in whole), torn)

    @property
    def intact(self) -> list[Line]:
        return [line for line in self.lines if line.intact]

    def times(self) -> list[datetime]:
        return [line.at for line in self.intact]


@dataclass(frozen=True)
class Reach:
    """Where a segment begins and ends; `previous` empty and `last` None where nobody says so."""

    first: int
    previous: str
    last: int | None = None


def faults(segment: Segment, writer: str, number: int, reach: Reach) -> Iterator[Fault]:
    """Every event of `reach` that is changed, missing, there twice, out of order or not chained to its predecessor."""

    def fault(sequence: int, rule: str, detail: str) -> Fault:
        return Fault(writer, sequence, number, rule, detail)

    good = [line for line in segment.lines if line.intact and line.writer == writer]
    numbers = [line.sequence for line in good]
    changed: set[int] = set()
    before = reach.first - 1
    for line in segment.lines:
        if line.intact and line.writer == writer:
            before = line.sequence
            continue
        # Named by where it stands, and by what it says of itself only if another event stands there.
        before = line.sequence if before + 1 in numbers and line.sequence not in numbers else before + 1
        changed.add(before)
        yield fault(before, "changed", "the event was changed after it was written")
    known = set(numbers) | changed
    end = max([*known, reach.first - 1])
    last = max(end, reach.last if reach.last is not None else -1)
    for start, stop in _runs(sorted(set(range(reach.first, end + 1)) - known)):
        yield fault(
            start, "missing", f"events {start} to {stop} are missing" if stop > start else "the event is missing"
        )
    if last > end:
        yield fault(end + 1, "truncated", f"the tail is cut: events {end + 1} to {last} are missing")
    for sequence, times in Counter(numbers).items():
        if times > 1:
            yield fault(sequence, "repeated", f"the event is there {times} times")
    for found, expected in sorted(zip(numbers, sorted(numbers), strict=True)):
        if found != expected:
            yield fault(found, "reordered", f"the event stands where event {expected} belongs")
    yield from _unlinked(good, reach, fault)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        whole = [number for _, number in run]
        yield whole[0], whole[-1]


def _unlinked(good: list[Line], reach: Reach, fault: Callable[[int, str, str], Fault]) -> Iterator[Fault]:
    hashes = {reach.first - 1: reach.previous} if reach.previous else {}
    hashes |= {line.sequence: line.hash for line in good}
    for line in good:
        before = hashes.get(line.sequence - 1)
        if before is not None and line.previous != before:
            yield fault(line.sequence, "unlinked", "the event does not follow the one before it")
