"""Planting into one cell of JSON lines at a time, in pairs of copies that differ in nothing but the identifier there.

Belongs here: which cells, which identifiers. Does not belong here: copies that hold many at once (tables), what a difference
between two records means (influence).

A model input is numbers: what reached it is found by no search. But if it does not depend on who was planted, nobody is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medvec_assets.scorer.planting import Subject
from medvec_assets.scorer.plants import Mint

TABLE = "table"  # the key that tells a line's table: a connector writes it
KINDS = ("name", "mrn", "phone", "zip", "ssn", "date")
REMARK = "remark"
_JOINED = ("code", "name", "vocabulary")
_TITLE = re.compile(r"(.*_)?(title|description)")


@dataclass(frozen=True)
class Pair:
    """Two copies of one object, with two identifiers of `kind` in the same cell of it."""

    kind: str
    place: str
    copies: tuple[bytes, bytes]


def pairs(data: bytes, subject: Subject, known: set[str]) -> Iterator[Pair]:
    """Pairs for the first cell of each column of each table that is not in `known`, where they are noted."""
    lines = data.decode("utf-8").splitlines()
    for number, line in enumerate(lines):
        row = json.loads(line)
        for column in sorted(row.keys() - {TABLE}):
            place = f"cell {row.get(TABLE, '')}.{column}"
            if place in known:
                continue
            known.add(place)
            for kind in (REMARK,) if _is_joined(column, row) else KINDS:
                copies = []
                for turn in range(2):
                    cell = {column: _identifier(kind, place, subject.mint, turn)}
                    planted = json.dumps(row | cell, sort_keys=True, separators=(",", ":"))
                    copy = [*lines[:number], planted, *lines[number + 1 :]]
                    copies.append("".join(f"{one}\n" for one in copy).encode())
                yield Pair(kind, place, (copies[0], copies[1]))


def _is_joined(column: str, row: dict[str, Any]) -> bool:
    """Whether it is a dictionary's text or code, which nobody types a name into: only a remark is planted in its place. A
    dictionary's entry is told by its columns: `drug_code` beside `drug_name`."""
    start, _, end = column.rpartition("_")
    beside = [f"{start}_{other}" in row for other in _JOINED if other != end]
    return _TITLE.fullmatch(column) is not None or (end in _JOINED and any(beside))


def _identifier(kind: str, place: str, mint: Mint, turn: int) -> str:
    if kind == REMARK:
        return f"{mint.sentence(place)}\n{mint.sentence(place)}"
    if kind == "date":
        return f"{mint.date(place, 1 + turn):%Y-%m-%d} 10:00:00"
    return mint.plant(kind, place) or ""
