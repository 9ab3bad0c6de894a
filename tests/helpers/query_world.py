"""A small published lake for the tests of search, lineage and the service: real Delta tables, an exact fake index.

Two datasets: `tcia_catalog` (space text, 4-d, three cohorts' partitions, one content with two members) and
`tcia_radiology` (space image, 3-d). Index entities are made by the vectors stage itself, so ids and fields are its own.
"""

from __future__ import annotations

import copy
import json
import operator
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvec_assets import fingerprints
from medvec_assets.catalog import dataset
from medvec_assets.stages import entities
from resources import encoders, tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec
from resources.vector_index import CollectionInfo, Condition, IndexHit, Layout

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
_EMPTY = {pa.string(): "-", pa.int64(): 0, pa.int32(): 0, pa.list_(pa.string()): []}


@dataclass(frozen=True)
class Item:
    """One record with one vector."""

    dataset: str
    record_id: str
    cohort: str
    partition: str
    vector: tuple[float, ...]
    content: str = ""
    space: str = "text"
    space_version: str = "minilm@1"
    access_tier: str = "open"
    study: str | None = None

    @property
    def attributes(self) -> str:
        return json.dumps({"modality": "CT", "not_allowed": "SECRET"} | ({"study": self.study} if self.study else {}))

    @property
    def vector_id(self) -> str:
        return fingerprints.vector_id(self.dataset, self.space, self.record_id)

    @property
    def content_digest(self) -> str:
        return fingerprints.text_digest(self.content or self.record_id)


A1 = Item("tcia_catalog", "a1", "lung", "lung.0", (1.0, 0.0, 0.0, 0.0), content="chest")
A2 = Item("tcia_catalog", "a2", "lung", "lung.0", (1.0, 0.0, 0.0, 0.0), content="chest")
B1 = Item("tcia_catalog", "b1", "lung", "lung.1", (0.8, 0.6, 0.0, 0.0))
C1 = Item("tcia_catalog", "c1", "liver", "liver", (0.0, 1.0, 0.0, 0.0))
R1 = Item("tcia_radiology", "r1", "pydicom", "pydicom", (1.0, 0.0, 0.0), space="image", space_version="lite0@1")
R2 = Item("tcia_radiology", "r2", "pydicom", "pydicom", (0.6, 0.8, 0.0), space="image", space_version="lite0@1")
ITEMS = (A1, A2, B1, C1, R1, R2)


def append(lake: Lakehouse, table: TableSpec, *rows: dict[str, Any]) -> None:
    """Append `rows`, with harmless values in the columns that a test does not name."""
    schema = table.schema
    defaults = {f.name: None if f.nullable else _EMPTY.get(f.type, NOON) for f in schema}
    filled = [defaults | row for row in rows]
    assert all(row.keys() == defaults.keys() for row in filled)
    lake.append(table, pa.Table.from_pylist(filled, schema=schema), {})


def versions_of(lake: Lakehouse, spaces: Sequence[tuple[str, str]]) -> dict[str, int]:
    """dataset/space -> the Delta version that its embeddings have now."""
    found = {f"{name}/{space}": lake.snapshot(tables.embeddings(name, space)) for name, space in spaces}
    return {name: snapshot.version for name, snapshot in found.items() if snapshot is not None}


def weights(space_version: str, settings: Settings) -> str:
    return encoders.card(space_version, settings).weights_digest


@dataclass
class World:
    """A lake, the index that was reconciled with it, and their settings."""

    settings: Settings
    lake: Lakehouse
    index: FakeIndex

    def publish(self, *items: Item) -> None:
        """Bronze, silver, gold and the index, as a run would leave them."""
        for item in items:
            self._bronze_and_silver(item)
            append(self.lake, tables.embeddings(item.dataset, item.space), self._gold(item))
        for name, space, version in sorted({(one.dataset, one.space, one.space_version) for one in items}):
            here = [one for one in items if (one.dataset, one.space, one.space_version) == (name, space, version)]
            self._audit(here)
            self._index(here)

    def suppress(self, item: Item) -> None:
        append(self.lake, tables.suppression(), {"subject_key": f"subject-of-{item.record_id}", "reason": "withdrawn"})

    def _bronze_and_silver(self, item: Item) -> None:
        shared = {"cohort": item.cohort, "license": "CC BY 4.0", "access_tier": item.access_tier}
        append(
            self.lake,
            tables.manifest(item.dataset),
            shared
            | {
                "object_id": f"object-{item.record_id}",
                "uri": f"s3://idc-open-data/{item.record_id}/*",
                "subject_ref": "PATIENT-NAME",
                "upstream_version": "v25",
                "first_seen_version": "v3",
                "attributes": "{}",
            },
        )
        append(
            self.lake,
            tables.records(item.dataset),
            shared
            | {
                "record_id": item.record_id,
                "subject_key": f"subject-of-{item.record_id}",
                "partition": item.partition,
                "object_ids": [f"object-{item.record_id}"],
                "text": "SECRET TEXT",
                "attributes": item.attributes,
                "payload_uri": f"s3://idc-open-data/{item.record_id}/*",
                "deid_profile": "profile-1",
                "deid_actions": "{}",
                "content_digests": json.dumps({item.space: item.content_digest}),
            },
        )

    def _gold(self, item: Item) -> dict[str, Any]:
        return {
            "space_version": item.space_version,
            "partition": item.partition,
            "vector_id": item.vector_id,
            "record_id": item.record_id,
            "part_kind": "whole",
            "subject_key": f"subject-of-{item.record_id}",
            "cohort": item.cohort,
            "modality": "CT",
            "attributes": item.attributes,
            "encoder": item.space_version,
            "weights_digest": weights(item.space_version, self.settings),
            "dim": len(item.vector),
            "vector": item.vector,
            "license": "CC BY 4.0",
            "access_tier": item.access_tier,
            "content_digest": item.content_digest,
            "fingerprint": f"{item.space_version}-{item.content_digest}",
            "run_id": f"run-embed-{item.partition}",
        }

    def _audit(self, items: Sequence[Item]) -> None:
        name, space, version = items[0].dataset, items[0].space, items[0].space_version
        done: dict[str, Any] = {"dataset": name, "upstream_version": "v25", "code_version": "c0de"}
        rows = [
            done
            | {
                "asset": "manifest",
                "table_path": f"bronze/{name}/manifest",
                "table_version": 1,
                "run_id": "run-manifest",
            }
        ]
        for partition in sorted({one.partition for one in items}):
            for step, (asset, path) in enumerate(
                {
                    "records": f"silver/{name}/records",
                    f"{space}_embeddings": f"gold/{name}/{space}_embeddings",
                    f"{space}_vectors": self.collection(items[0]),
                }.items()
            ):
                rows.append(
                    done
                    | {
                        "asset": asset,
                        "partition": partition,
                        "space_version": "-" if asset == "records" else version,
                        "table_path": path,
                        "table_version": step + 2,
                        "run_id": f"run-{'embed' if 'embed' in asset else asset}-{partition}",
                        "finished_at": NOON + timedelta(minutes=step + 1),
                    }
                )
        append(self.lake, tables.materializations(), *rows)

    def _index(self, items: Sequence[Item]) -> None:
        first = items[0]
        name = self.collection(first)
        properties = {"medvec.weights_digest": weights(first.space_version, self.settings)}
        info = CollectionInfo(name, "uuid-1", len(first.vector), properties, Layout("IVF_FLAT", 0, 256, 32))
        gold = self.lake.snapshot(tables.embeddings(first.dataset, first.space))
        assert gold is not None
        vectors = {row: np.asarray(vector, np.float32) for row, vector in gold.read(["vector_id", "vector"]).rows()}
        for partition in sorted({one.partition for one in items}):
            held = entities.desired(dataset(first.dataset), gold, first.space_version, partition)
            for row in held.to_dicts():
                entity = row | {"attributes": json.loads(row["attributes"]), "delta_version": gold.version}
                self.index.add(info, vectors[row["vector_id"]], entity)
            receipt = {"dataset": first.dataset, "collection": name, "partition": partition, "entities": len(held)}
            append(self.lake, tables.index_receipts(), receipt | {"collection_uuid": "uuid-1"})
            cohort = next(one.cohort for one in items if one.partition == partition)
            plan = {"cohort": cohort, "partition": partition, "objects": len(held)}
            append(self.lake, tables.partitions(first.dataset), plan)
        generation = {"dataset": first.dataset, "space": first.space, "access_tier": first.access_tier}
        append(
            self.lake,
            tables.generations(),
            generation | {"generation": 1, "space_version": first.space_version, "collection": name, "state": "live"},
        )

    @staticmethod
    def collection(item: Item) -> str:
        return f"{item.dataset}__{item.space}__{item.access_tier}__g1"


@dataclass
class FakeIndex:
    """Exact search over entities in memory, with VectorIndex's reading methods."""

    infos: dict[str, CollectionInfo] = field(default_factory=dict)
    held: dict[str, list[tuple[NDArray[np.float32], dict[str, Any]]]] = field(default_factory=dict)
    searched: list[tuple[str, Sequence[str] | None]] = field(default_factory=list)
    params: dict[str, int] = field(default_factory=dict)  # of the last search
    calls: int = 0

    def add(self, info: CollectionInfo, vector: NDArray[np.float32], entity: dict[str, Any]) -> None:
        self.infos[info.name] = info
        others = [held for held in self.held.get(info.name, []) if held[1]["entity_id"] != entity["entity_id"]]
        self.held[info.name] = [*others, (vector, entity)]

    def collections(self) -> list[str]:
        return sorted(self.infos)

    def is_alive(self) -> bool:
        return True

    def describe(self, name: str) -> CollectionInfo | None:
        return self.infos.get(name)

    def search(
        self,
        name: str,
        vectors: NDArray[np.float32],
        limit: int,
        *,
        params: Mapping[str, int],
        partitions: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> list[list[IndexHit]]:
        self.calls += 1
        self.searched.append((name, partitions))
        self.params = dict(params)
        answers = []
        for query in vectors:
            assert abs(float(np.linalg.norm(query)) - 1) < 1e-6, "queries must have unit norm"
            near = [
                IndexHit(float(vector @ query), entity)
                for vector, entity in self.held[name]
                if (partitions is None or entity["partition"] in partitions)
                and all(fits(one, entity) for one in conditions)
            ]
            answers.append(sorted(near, key=lambda hit: -hit.score)[:limit])
        return answers


def fits(condition: Condition, entity: Mapping[str, Any]) -> bool:
    """What a server's filter says of an entity, said again in Python."""
    column = condition.field in ("modality", "license")
    held = entity[condition.field] if column else entity["attributes"].get(condition.field)
    if condition.op == "contains":
        return isinstance(held, list) and any(_same(value, one) for value in condition.values for one in held)
    if condition.op == "==":
        return any(_same(value, held) for value in condition.values)
    compare = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}[condition.op]
    is_number = isinstance(held, int | float) and not isinstance(held, bool)
    return is_number and bool(compare(held, condition.values[0]))


def _same(asked: Any, held: Any) -> bool:
    return asked == held and isinstance(asked, bool) == isinstance(held, bool)


class FakeEncoder:
    """Encodes the word `liver` as C1's vector and everything else as A1's; counts its loads."""

    loads = 0

    def __init__(self, card: Any) -> None:
        self.card = card

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray([C1.vector if "liver" in text else A1.vector for text in batch], np.float32)


def settings_of(home: Path) -> Settings:
    return Settings(home=home, lake_uri="", index_uri="", api_host="127.0.0.1", weights={}, agreements=())


def built_world(home: Path) -> World:
    """`ITEMS` published below `home`. Takes a second: build once, `copy_of` it for every test."""
    world = empty_world(home)
    world.publish(*ITEMS)
    return world


def copy_of(world: World, home: Path) -> World:
    """The same lake in another folder, free to be changed."""
    shutil.copytree(world.settings.home, home, dirs_exist_ok=True)
    copied = empty_world(home)
    return World(copied.settings, copied.lake, copy.deepcopy(world.index))


def empty_world(home: Path) -> World:
    settings = settings_of(home)
    return World(settings, Lakehouse.open(settings), FakeIndex())


def use_fake_encoder(monkeypatch: Any) -> None:
    monkeypatch.setattr(encoders, "load", lambda ref, settings: FakeEncoder(encoders.card(ref, settings)))


@contextmanager
def opened(index: FakeIndex) -> Iterator[Any]:
    yield index
