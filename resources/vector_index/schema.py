"""The schema and the indexes of a collection, as pymilvus wants them.

Belongs here: fields, index parameters, what a given server lacks. Does not belong here: entities, retries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resources.vector_index.plan import HNSW, Layout
from resources.vector_index.types import (
    EF_CONSTRUCTION_KEY,
    EF_SEARCH_KEY,
    ENTITY_FIELDS,
    HNSW_M_KEY,
    INDEX_TYPE_KEY,
    MAX_BYTES,
    METRIC_KEY,
    NLIST_KEY,
    NPROBE_KEY,
    RESERVED_PREFIX,
    UUID_KEY,
    CollectionSpec,
)

if TYPE_CHECKING:
    from pymilvus import MilvusClient

FILTERED_FIELDS = ("cohort", "license", "modality")  # get a scalar index on a server; Lite scans all rows anyway


def is_reserved(key: str) -> bool:
    """Whether a collection's property is the index's own."""
    return key == UUID_KEY or key.startswith(RESERVED_PREFIX)


def dimension(description: dict[str, Any]) -> int:
    """Dimensions of the field `vector`; 0 if the collection has none."""
    found = [item for item in description["fields"] if item["name"] == "vector"]
    return int(found[0]["params"].get("dim", 0)) if found else 0


_NUMBERS = {
    NLIST_KEY: "nlist",
    NPROBE_KEY: "nprobe",
    HNSW_M_KEY: "hnsw_m",
    EF_CONSTRUCTION_KEY: "ef_construction",
    EF_SEARCH_KEY: "ef_search",
}


def declared(properties: dict[str, str]) -> Layout:
    """The layout that a collection's properties tell of; they hold no shards and partitions.

    What was made before layouts were planned tells no type and is HNSW, before IVF_FLAT was no nlist.
    """
    numbers = {name: int(properties.get(key, 0)) for key, name in _NUMBERS.items()}
    return Layout(index_type=properties.get(INDEX_TYPE_KEY, HNSW), shards=0, num_partitions=0, **numbers)


def create(client: MilvusClient, spec: CollectionSpec, instance: str, *, lite: bool) -> None:
    """Makes the collection with its properties. Nothing happens if another process was first."""
    from pymilvus import DataType, MilvusClient, MilvusException

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in ENTITY_FIELDS:
        if name == "vector":
            schema.add_field(name, DataType.FLOAT_VECTOR, dim=spec.dim)
        elif name in MAX_BYTES:
            schema.add_field(
                name,
                DataType.VARCHAR,
                max_length=MAX_BYTES[name],
                is_primary=name == "entity_id",
                is_partition_key=name == "partition",
            )
        else:
            schema.add_field(name, DataType.JSON if name == "attributes" else DataType.INT64)
    properties = spec.properties | {
        UUID_KEY: instance,
        METRIC_KEY: spec.metric,
        INDEX_TYPE_KEY: spec.layout.index_type,
        **{key: str(getattr(spec.layout, name)) for key, name in _NUMBERS.items()},
    }
    # Bounded: a Strong search waits 200 ms for the newest write. Counts and walks ask for Strong themselves.
    options: dict[str, Any] = {"consistency_level": "Bounded", "properties": properties}
    if not lite:  # Lite has one write channel whatever it is told
        options["num_shards"] = spec.layout.shards
        options["num_partitions"] = spec.layout.num_partitions
    try:
        client.create_collection(spec.name, schema=schema, **options)
    except MilvusException:
        if not client.has_collection(spec.name):
            raise


def layout(client: MilvusClient, name: str, description: dict[str, Any], *, lite: bool) -> Layout:
    """How the collection is laid out: what the server says of it, and the properties where it says nothing."""
    made = declared(description.get("properties", {}))
    index = client.describe_index(name, "vector") or {}
    return replace(
        made,
        index_type=str(index.get("index_type", "none")),
        shards=0 if lite else int(description["num_shards"]),
        num_partitions=0 if lite else int(description["num_partitions"]),
        nlist=int(index.get("nlist", made.nlist)),  # Lite does not tell
        hnsw_m=int(index.get("M", made.hnsw_m)),
        ef_construction=int(index.get("efConstruction", made.ef_construction)),
    )


def ensure_indexes(client: MilvusClient, name: str, properties: dict[str, str], *, lite: bool) -> None:
    """Makes the vectors' index, and on a server the scalar ones, where they are missing. Does not wait for the build.

    All of them before the collection is loaded: with one more, 2.3.5 refuses to load it again.
    """
    present = set(client.list_indexes(name))
    if "vector" not in present:
        made, metric = declared(properties), properties[METRIC_KEY]
        kind = {"index_type": made.index_type, "metric_type": metric, "params": made.build_params}
        _create_index(client, name, "vector", **kind)
    for field in () if lite else FILTERED_FIELDS:
        if field not in present:
            _create_index(client, name, field, index_type="Trie")  # 2.3.5 has no INVERTED for strings


def is_built(client: MilvusClient, name: str) -> bool:
    """Whether every sealed row is in the vectors' index. A server says Finished minutes before: count what pends."""
    found = client.describe_index(name, "vector")
    if found is None:
        return False
    return str(found["state"]) == "Finished" and int(found["pending_index_rows"]) == 0


def _create_index(client: MilvusClient, name: str, field: str, **parameters: Any) -> None:
    from pymilvus import MilvusClient, MilvusException

    index = MilvusClient.prepare_index_params()
    index.add_index(field, index_name=field, **parameters)
    try:
        client.create_index(name, index, sync=False)
    except MilvusException:
        if field not in client.list_indexes(name):  # otherwise another process was first
            raise
