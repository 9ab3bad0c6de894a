"""The model input of space `codes`: how often each code occurs, hashed into FEATURES signed features.

Belongs here: the arithmetic, bit for bit the same on every machine, and the spelling in which a record keeps it. Does not
belong here: which codes there are.

A code's place and sign are a hash of its text, so that no vocabulary has to be fitted or kept, and a code that no release
has had yet has a place too. Two of them in one place add up; with signs, what that does to a cosine averages to nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEATURES = 2_048  # a stay has some 100 distinct codes: one in twenty shares its place with another of the same stay
GRID = 1_024  # values are whole multiples of 1/GRID: exact in float32, and the same whatever the libm
INPUT_VERSION = "codes-1"
_ENTRY = np.dtype([("place", "<u2"), ("steps", "<i4")])


def code_counts(events: pl.DataFrame, parts: int) -> NDArray[np.int64]:
    """Steps of 1/GRID, int64 [parts, FEATURES], of events (UInt32 `part` below `parts`, String `code`): the sum over a part's
    distinct codes of sign(code) * log1p(occurrences), at the code's place."""
    codes = events["code"].unique()
    hashed = [_place(code) for code in codes]
    places = pl.DataFrame(
        {"code": codes, "place": [place for place, _ in hashed], "sign": [sign for _, sign in hashed]},
        schema={"code": pl.String(), "place": pl.Int64(), "sign": pl.Int64()},
    ).with_row_index("number")
    # Counted by number: grouping by the texts themselves takes three times as long.
    numbered = events.select("part", "code").join(places.select("code", "number"), on="code")
    placed = numbered.group_by("part", "number").len("occurrences").join(places, on="number")
    steps = np.rint(np.log1p(placed["occurrences"].to_numpy()) * GRID).astype(np.int64)  # then whole numbers only
    found = np.zeros((parts, FEATURES), np.int64)
    np.add.at(found, (placed["part"].to_numpy(), placed["place"].to_numpy()), placed["sign"].to_numpy() * steps)
    return found


def features_of(steps: NDArray[np.int64]) -> NDArray[np.float32]:
    return (steps / GRID).astype(np.float32)


def packed(steps: NDArray[np.int64]) -> list[bytes]:
    """Each part's features that are not 0, in order: six bytes each, place and steps."""
    parts, places = np.nonzero(steps)
    entries = np.empty(len(parts), _ENTRY)
    entries["place"], entries["steps"] = places, steps[parts, places]
    data, bounds = entries.tobytes(), np.searchsorted(parts, np.arange(len(steps) + 1)) * _ENTRY.itemsize
    return [data[start:end] for start, end in pairwise(bounds)]


def unpacked(payloads: Sequence[bytes]) -> NDArray[np.float32]:
    """float32 [payloads, FEATURES] of what `packed` gave."""
    entries = np.frombuffer(b"".join(payloads), _ENTRY)
    parts = np.repeat(np.arange(len(payloads)), [len(one) // _ENTRY.itemsize for one in payloads])
    steps = np.zeros((len(payloads), FEATURES), np.int64)
    steps[parts, entries["place"]] = entries["steps"]
    return features_of(steps)


@lru_cache(maxsize=1 << 18)
def _place(code: str) -> tuple[int, int]:
    """(place, sign) of a code."""
    number = int.from_bytes(hashlib.blake2b(code.encode(), digest_size=8).digest(), "big")
    return number % FEATURES, 1 if number >> 63 else -1
