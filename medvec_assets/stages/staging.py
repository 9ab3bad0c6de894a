"""Rows and vectors on their way to the commit: on local disk, and in the lake for a retry to adopt.

Belongs here: `RowSpool` and `VectorScratch` (in files, so that memory does not grow with them), `Staging` (survives the
process).
Does not belong here: which fingerprints are wanted (embeddings), the committed rows (lakehouse).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc
from numpy.typing import NDArray

from resources.object_store import ObjectStore

MAX_SEGMENT_BYTES = 1 << 30
# Rows of a spool that are in memory together, and that the Delta writer is given at once: 3 MB of 384 float32. It queues
# several batches and copies each.
BATCH_ROWS = 2_048


@dataclass(frozen=True)
class Origin:
    """Which run computed a vector, and when: kept when the vector is kept."""

    run_id: str
    created_at: datetime


class RowSpool:
    """Rows of string columns in a file, to be read again as often as needed, BATCH_ROWS at a time."""

    def __init__(self, folder: Path, columns: Sequence[str], frames: Iterable[pl.DataFrame]) -> None:
        self._path = folder / "rows.arrow"
        self.rows = 0
        schema = pa.schema([(name, pa.string()) for name in columns])
        with pa.OSFile(str(self._path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for frame in frames:
                writer.write_table(frame.select(columns).to_arrow().cast(schema), BATCH_ROWS)
                self.rows += frame.height

    def __iter__(self) -> Iterator[pl.DataFrame]:
        # Read, not mapped: mapped pages would count as this process's memory, up to the whole file.
        with pa.OSFile(str(self._path)) as source, pa.ipc.open_stream(source) as batches:
            for batch in batches:
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame


class VectorScratch:
    """fingerprint -> float32 [dim] in a file, for the fingerprints that are wanted: 36 bytes of memory each."""

    def __init__(self, folder: Path, dim: int, wanted: Iterable[str]) -> None:
        """`wanted`: distinct fingerprints, of 32 characters; anything else that is added later is left out."""
        self._file = (folder / "vectors.f32").open("w+b")
        self._dim = dim
        self._names = np.sort(_names(wanted))
        # One cell more than names: a fingerprint that is not wanted is found at -1, and no vector is lacking there.
        self._origin = np.full(len(self._names) + 1, -1, np.int32)
        self._origin[-1] = 0
        self._origins: dict[Origin, int] = {}

    def lacks(self, fingerprints: Iterable[str]) -> NDArray[np.bool_]:
        """For each, whether it is wanted and has no vector yet."""
        return self._origin[self._places(fingerprints)] < 0

    def complete(self) -> bool:
        return not (self._origin < 0).any()

    def add(self, fingerprints: Sequence[str], vectors: NDArray[np.float32], origins: Sequence[Origin]) -> None:
        """`vectors`: float32 [n, dim], one per fingerprint; what has a vector already is left as it is."""
        size = 4 * self._dim
        for place, vector, origin in zip(self._places(fingerprints), vectors, origins, strict=True):
            if self._origin[place] < 0:
                self._file.seek(place * size)
                self._file.write(np.ascontiguousarray(vector, dtype=np.float32).tobytes())
                self._origin[place] = self._origins.setdefault(origin, len(self._origins))
        self._file.flush()

    def get(self, fingerprints: Sequence[str]) -> tuple[NDArray[np.float32], list[Origin]]:
        """float32 [n, dim] and origins, in the order asked for; KeyError if one has no vector."""
        places, size = self._places(fingerprints), 4 * self._dim
        if (places < 0).any() or (self._origin[places] < 0).any():
            raise KeyError("a fingerprint without a vector")
        raw = b"".join(os.pread(self._file.fileno(), size, place * size) for place in places)
        origins = list(self._origins)
        return np.frombuffer(raw, np.float32).reshape(-1, self._dim), [origins[i] for i in self._origin[places]]

    def close(self) -> None:
        self._file.close()

    def _places(self, fingerprints: Iterable[str]) -> NDArray[np.intp]:
        sought = _names(fingerprints)
        places = np.searchsorted(self._names, sought)
        found = np.take(self._names, places, mode="clip") == sought if len(self._names) else False
        return np.where(found, places, -1)


def _names(fingerprints: Iterable[str]) -> NDArray[np.bytes_]:
    return np.array(list(fingerprints), "S32")


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
