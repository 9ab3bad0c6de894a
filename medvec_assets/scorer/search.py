"""Looks for planted identifiers, byte by byte, in everything that a run wrote.

Belongs here: matching, and which files below a folder may hold what the source holds. Does not belong here: spellings
(spellings), unpacking (containers), what a hit means for a partition (score).

All spellings of a run's tokens are some ten thousand patterns: `bytes.find` takes 2 s a megabyte for them, one pass of
an Aho-Corasick automaton 4 ms, and 20 ms to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick

from medvec_assets.scorer.containers import pieces
from medvec_assets.scorer.plants import Token
from medvec_assets.scorer.spellings import Spelling, patterns

_HEX = frozenset(b"0123456789abcdef")


@dataclass(frozen=True, order=True)
class Leak:
    """An identifier of `kind` that was planted in `planted` and stands in `found`. Nothing of what stands around it."""

    kind: str
    planted: str
    found: str
    spelling: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.planted} in {self.found} ({self.spelling})"


class Searcher:
    """Finds tokens in bytes, whatever they are spelled like or packed in."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        found = patterns(tokens)
        self._spellings = list(found.values())
        self._automaton = BytesAhoCorasick(list(found)) if found else None

    def in_bytes(self, data: bytes, where: str) -> set[Leak]:
        """Leaks in `data` and in everything that can be unpacked of it; `where` is told with each."""
        leaks: set[Leak] = set()
        for inside, piece in pieces(data):
            place = f"{where}: {inside}" if inside else where
            for token, spelling in self._tokens_in(piece.lower()).items():
                leaks.add(Leak(token.kind, token.place, place, spelling))
        return leaks

    def in_text(self, text: str, where: str) -> set[Leak]:
        return self.in_bytes(text.encode("utf-8", "surrogateescape"), where)

    def in_folder(self, folder: Path, name: str, is_known: Callable[[str], bool] = lambda found: False) -> set[Leak]:
        """Leaks in every file below `folder` and in the files' names, but where `is_known` says that it is to be there: it
        is given `name/path`, or `name/path: column x` for what stands in a column."""
        leaks: set[Leak] = set()
        for path in sorted(folder.rglob("*")):
            below = path.relative_to(folder).as_posix()
            leaks |= self.in_text(below, f"{name}: a file's name")
            if path.is_file():
                leaks |= self.in_bytes(path.read_bytes(), f"{name}/{below}")
        return {leak for leak in leaks if not is_known(leak.found)}

    def _tokens_in(self, folded: bytes) -> dict[Token, str]:
        """token -> the spelling in which it was found; the longest of several."""
        found: dict[Token, tuple[int, Spelling]] = {}
        matches = self._automaton.find_matches_as_indexes(folded, overlapping=True) if self._automaton else []
        for number, start, end in matches:
            spelling = self._spellings[number]
            if spelling.bounded and not _stands_alone(folded, start, end):
                continue
            if spelling.token not in found or found[spelling.token][0] < end - start:
                found[spelling.token] = (end - start, spelling)
        return {token: spelling.name for token, (_, spelling) in found.items()}


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    """Whether it is no part of a digest. One neighbour may be a digit by chance: in a binary file the length or the tag of
    the next value often is."""
    inside = start and data[start - 1] in _HEX and end < len(data) and data[end] in _HEX
    return not inside
