"""Vectors between the encoder and the commit: on local disk by fingerprint, and in the lake for a retry to adopt.

Belongs here: `VectorScratch` (bounded memory, random access) and `Staging` (survives the process).
Does not belong here: which fingerprints are wanted (embeddings), the committed rows (lakehouse).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from resources.object_store import ObjectStore

MAX_SEGMENT_BYTES = 1 << 30


@dataclass(frozen=True)
class Origin:
    """Which run computed a vector, and when: kept when the vector is kept."""

    run_id: str
    created_at: datetime


class VectorScratch:
    """fingerprint -> float32 [dim], in a file: memory holds 100-odd bytes a vector, not the vector."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._file = (folder / "vectors.f32").open("w+b")
        self._dim = dim
        self._rows: dict[str, tuple[int, Origin]] = {}

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def known(self) -> list[str]:
        return list(self._rows)

    def add(self, fingerprints: Sequence[str], vectors: NDArray[np.float32], origins: Sequence[Origin]) -> None:
        """`vectors`: float32 [n, dim], one per fingerprint; a fingerprint that is known already is left as it is."""
        start = len(self._rows)
        fresh = [i for i, fingerprint in enumerate(fingerprints) if fingerprint not in self._rows]
        fresh = list({fingerprints[i]: i for i in reversed(fresh)}.values())[::-1]
        self._file.seek(start * self._dim * 4)
        self._file.write(np.ascontiguousarray(vectors[fresh], dtype=np.float32).tobytes())
        for offset, i in enumerate(fresh):
            self._rows[fingerprints[i]] = (start + offset, origins[i])

    def vectors(self, fingerprints: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, dim] in the order asked for; every fingerprint must be known."""
        if not fingerprints:
            return np.empty((0, self._dim), np.float32)
        self._file.flush()
        stored = np.memmap(self._file, np.float32, "r", shape=(len(self._rows), self._dim))
        return np.asarray(stored[[self._rows[fingerprint][0] for fingerprint in fingerprints]])

    def origin(self, fingerprint: str) -> Origin:
        return self._rows[fingerprint][1]

    def close(self) -> None:
        self._file.close()


class Staging:
    """Finished vectors of one partition and space version, in the lake, until the partition is committed."""

    def __init__(self, lake_root: str, dataset: str, space: str, space_version: str, partition: str) -> None:
        self._store = ObjectStore(lake_root)
        self._prefix = f"staging/{dataset}/{space}/{space_version}/{partition}/"

    def put(self, run_id: str, number: int, fingerprints: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """One segment, written whole or not at all."""
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        table = pa.table(
            {"fingerprint": list(fingerprints), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])},
            metadata={"run_id": run_id},
        )
        sink = io.BytesIO()
        feather.write_feather(table, sink, compression="uncompressed")
        self._store.put(f"{self._prefix}{run_id}-{number:06d}.arrow", sink.getvalue())

    def segments(self) -> Iterator[tuple[Origin, list[str], NDArray[np.float32]]]:
        """What earlier, unfinished runs left: (origin, fingerprints, float32 [n, dim])."""
        for info in sorted(self._store.list(self._prefix), key=lambda found: found.key):
            table = feather.read_table(pa.BufferReader(self._store.get(info.key, MAX_SEGMENT_BYTES)))
            run_id = (table.schema.metadata or {}).get(b"run_id", b"-").decode()
            column = table["vector"].combine_chunks()
            vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
            yield Origin(run_id, info.modified), table["fingerprint"].to_pylist(), vectors

    def clear(self) -> None:
        """Called after the commit: what is in gold need not be staged."""
        for info in list(self._store.list(self._prefix)):
            self._store.delete(info.key)


def staged_keys(store: ObjectStore, dataset: str) -> dict[str, list[str]]:
    """partition -> keys of what is staged for it, in any space at any version."""
    found: dict[str, list[str]] = {}
    for info in store.list(f"staging/{dataset}/"):
        # staging/dataset/space/version/partition/segment
        found.setdefault(info.key.split("/")[4], []).append(info.key)
    return found
