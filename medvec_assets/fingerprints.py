"""Identity by content: digests, fingerprints, ids. Pure, and stable for ever: changing one function re-embeds the lake.

Belongs here: every hash that is stored. Does not belong here: hashing files (object_store), keyed pseudonyms (deid).
All digests are lower-case hex of SHA-256, cut to 128 bits where they are ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

_SEPARATOR = b"\x1f"  # cannot occur in any field: the manifest stage refuses control characters


def _hash(*fields: str) -> str:
    return hashlib.sha256(_SEPARATOR.decode().join(fields).encode()).hexdigest()


def hashed_rows(kind: str, rows: pl.DataFrame) -> list[str]:
    """What `entity_id` (kind "entity") and `row_fingerprint` ("row") give for each row of string columns, ten times as fast.

    For an entity the last two columns are joined as `<part_kind>-<part_index>` by the caller.
    """
    lines = rows.select(pl.concat_str([pl.lit(kind), pl.all()], separator="\x1f")).to_series()
    return [hashlib.sha256(line.encode()).hexdigest()[:32] for line in lines]


def text_digest(text: str) -> str:
    """content_digest of a text model input."""
    return hashlib.sha256(b"text" + _SEPARATOR + text.encode()).hexdigest()


def array_digest(array: NDArray[np.generic]) -> str:
    """content_digest of an array model input: dtype, shape and bytes."""
    header = f"array {array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(header + _SEPARATOR + np.ascontiguousarray(array).tobytes()).hexdigest()


def array_digests(rows: NDArray[np.generic]) -> list[str]:
    """`array_digest` of each row, three times as fast: a row's type and shape are written once."""
    rows = np.ascontiguousarray(rows)
    start = hashlib.sha256(f"array {rows.dtype.str} {rows.shape[1:]}".encode() + _SEPARATOR)
    data, size = memoryview(rows.tobytes()), rows.itemsize * int(np.prod(rows.shape[1:]))
    found = []
    for row in range(len(rows)):
        digest = start.copy()
        digest.update(data[row * size : (row + 1) * size])
        found.append(digest.hexdigest())
    return found


def embedding_fingerprint(
    content_digest: str, input_version: str, encoder: str, weights_digest: str, precision: str
) -> str:
    """What decides whether a vector must be computed: equal fingerprints, equal vectors."""
    return _hash("embedding", content_digest, input_version, encoder, weights_digest, precision)[:32]


def vector_id(dataset: str, space: str, record_id: str, part_kind: str = "whole", part_index: int = 0) -> str:
    """Never contains the partition, so a split moves rows and changes no id."""
    return _hash("vector", dataset, space, record_id, part_kind, str(part_index))[:32]


def entity_id(
    partition: str, license: str, access_tier: str, content_digest: str, part_kind: str = "whole", part_index: int = 0
) -> str:
    """One index entity per distinct content within a partition, licence and tier; contains no member's id."""
    return _hash("entity", partition, license, access_tier, content_digest, f"{part_kind}-{part_index}")[:32]


def row_fingerprint(*fields: str) -> str:
    """What reconcile compares: every field of an index entity that a reader can see, and the vector's fingerprint."""
    return _hash("row", *fields)[:32]


def set_digest(rows: Iterable[str]) -> str:
    """Digest of a set of distinct rows, independent of their order and computed in constant memory.

    The sum modulo 2^256 of the rows' hashes (a multiset hash): adding, dropping or changing a row moves it.
    """
    return moved_digest("0", added=rows)


def moved_digest(digest: str, *, added: Iterable[str] = (), removed: Iterable[str] = ()) -> str:
    """What `set_digest` gives for the set of `digest` with rows `added` that were not in it and `removed` that were."""
    total = int(digest, 16) + _sum(added) - _sum(removed)
    return f"{total % (1 << 256):064x}"


def _sum(rows: Iterable[str]) -> int:
    return sum(int.from_bytes(hashlib.sha256(row.encode()).digest(), "big") for row in rows)


def input_digest(*fields: str) -> str:
    """Digest of everything a stage's output depends on: equal means there is nothing to do."""
    return _hash("input", *fields)
