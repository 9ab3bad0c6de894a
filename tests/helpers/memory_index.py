"""resources.vector_index.VectorIndex in memory: the same methods, the same rules of what may be written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from resources.errors import IndexInvalid
from resources.vector_index import SCALAR_FIELDS, CollectionInfo, CollectionSpec, IndexHit, Layout
from resources.vector_index.rows import slices
from resources.vector_index.types import collection_name, partition_filter

FINGERPRINT_CHUNK = 2  # small, so that a reader that takes only the first chunk fails


@dataclass
class _Collection:
    info: CollectionInfo
    metric: str
    layout: Layout
    entities: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class MemoryIndex:
    """Exact search. `on_change` is called before each changed entity: a test may end the process there."""

    server: str = "memory"
    on_change: Callable[[], None] = lambda: None
    settled: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)
    held: dict[str, _Collection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def collections(self) -> list[str]:
        return sorted(self.held)

    def is_alive(self) -> bool:
        return True

    def describe(self, name: str) -> CollectionInfo | None:
        found = self.held.get(self.aliases.get(name, name))
        return found.info if found else None

    def ensure(self, spec: CollectionSpec) -> CollectionInfo:
        if spec.name not in self.held:
            info = CollectionInfo(spec.name, str(uuid4()), spec.dim, dict(spec.properties), spec.layout)
            self.held[spec.name] = _Collection(info, spec.metric, spec.layout)
        found = self.held[spec.name]
        found.layout = replace(found.layout, ef_search=spec.layout.ef_search, nprobe=spec.layout.nprobe)
        found.info = replace(found.info, declared=found.layout)
        if (found.info.dim, found.metric) != (spec.dim, spec.metric):
            raise IndexInvalid(f"collection {spec.name} is of another kind", remedy="drop it and sync again")
        return found.info

    def layout(self, name: str) -> Layout | None:
        found = self.held.get(name)
        return found.layout if found else None

    def drop(self, name: str) -> None:
        self.held.pop(collection_name(name), None)
        self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}

    def set_alias(self, alias: str, name: str) -> None:
        assert name in self.held
        self.aliases[collection_name(alias)] = name

    def alias_target(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def count(self, name: str, partition: str | None = None) -> int:
        return len(self._matching(name, partition))

    def fingerprints(self, name: str, partition: str) -> Iterator[dict[str, str]]:
        found = [(e["entity_id"], e["row_fingerprint"]) for e in self._matching(name, partition)]
        for start in range(0, len(found), FINGERPRINT_CHUNK):
            yield dict(found[start : start + FINGERPRINT_CHUNK])

    def write(
        self,
        name: str,
        partition: str,
        rows: Iterable[pa.RecordBatch],
        expected: int = 0,
        *,
        empty: bool | None = None,
    ) -> int:
        assert empty is not True or not self._matching(name, partition), "what is there would be doubled"
        collection = self._collection(name)
        partition_filter(partition)
        written = 0
        for batch in rows:
            for entities in slices(batch, partition, collection.info.dim):
                for entity in entities:
                    self.on_change()
                    collection.entities[entity["entity_id"]] = copy.deepcopy(entity)
                    written += 1
        return written

    def delete(self, name: str, partition: str, entity_ids: Sequence[str]) -> int:
        entities = self._collection(name).entities
        here = [e for e in entity_ids if e in entities and entities[e]["partition"] == partition]
        for entity_id in here:
            self.on_change()
            del entities[entity_id]
        return len(here)

    def delete_partition(self, name: str, partition: str) -> None:
        self.delete(name, partition, [e["entity_id"] for e in self._matching(name, partition)])

    def settle(self, name: str) -> None:
        self.settled.append(name)

    @contextmanager
    def settled_once(self) -> Iterator[None]:
        yield

    def compact(self, name: str) -> bool:
        self._collection(name)
        self.compacted.append(name)
        return True

    def search(
        self,
        name: str,
        vectors: NDArray[np.float32],
        limit: int,
        *,
        params: Mapping[str, int],
        partitions: Sequence[str] | None = None,
    ) -> list[list[IndexHit]]:
        candidates = [e for e in self._matching(name) if partitions is None or e["partition"] in partitions]
        answers = []
        for query in vectors:
            hits = [IndexHit(float(query @ e["vector"]), {f: e[f] for f in SCALAR_FIELDS}) for e in candidates]
            answers.append(sorted(hits, key=lambda hit: -hit.score)[:limit])
        return answers

    def get(self, name: str, entity_ids: Sequence[str]) -> list[dict[str, Any]]:
        entities = self._collection(name).entities
        return [copy.deepcopy(entities[e]) for e in entity_ids if e in entities]

    def _collection(self, name: str) -> _Collection:
        found = self.held.get(self.aliases.get(name, name))
        if found is None:
            raise IndexInvalid(f"collection {name} does not exist", remedy="run `medvec sync`")
        return found

    def _matching(self, name: str, partition: str | None = None) -> list[dict[str, Any]]:
        entities = self._collection(name).entities.values()
        return [e for e in entities if partition is None or e["partition"] == partition]
