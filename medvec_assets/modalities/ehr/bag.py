"""The model input of space `codes`: how often each code occurs, hashed into FEATURES signed features.

Belongs here: the arithmetic, bit for bit the same on every machine. Does not belong here: which codes there are.

A code's place and sign are a hash of its text, so that no vocabulary has to be fitted or kept, and a code that no release
has had yet has a place too. Two of them in one place add up; with signs, what that does to a cosine averages to nothing.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEATURES = 2_048  # a stay has some 100 distinct codes: one in twenty shares its place with another of the same stay
GRID = 1_024  # values are whole multiples of 1/GRID: exact in float32, and the same whatever the libm
INPUT_VERSION = "codes-1"


def code_counts(events: pl.DataFrame, parts: int) -> NDArray[np.float32]:
    """float32 [parts, FEATURES] of events (UInt32 `part` below `parts`, String `code`): the sum over a part's distinct
    codes of sign(code) * log1p(occurrences), at the code's place."""
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
    return (found / GRID).astype(np.float32)


@lru_cache(maxsize=1 << 18)
def _place(code: str) -> tuple[int, int]:
    """(place, sign) of a code."""
    number = int.from_bytes(hashlib.blake2b(code.encode(), digest_size=8).digest(), "big")
    return number % FEATURES, 1 if number >> 63 else -1
