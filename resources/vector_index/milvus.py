"""Collections and entities in Milvus: a server, or Milvus Lite as a server of our own.

Belongs here: what medvec asks of an index, and what the tested servers (Milvus Lite 3.2.2, Milvus 2.3.5) need done
differently. Does not belong here: which entities should be there (sync), generations and promotion, Arrow conversion.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resources.errors import IndexInvalid, IndexUnavailable
from resources.settings import Settings
from resources.vector_index import schema
from resources.vector_index.bulk import bulk_place
from resources.vector_index.connection import (
    CALL_SECONDS,
    PATIENT,
    Connection,
    Patience,
    is_server,
    to_server,
)
from resources.vector_index.filters import Condition, conditions_filter
from resources.vector_index.lite import lite_server
from resources.vector_index.plan import Layout
from resources.vector_index.rows import slices
from resources.vector_index.settling import Settling
from resources.vector_index.types import (
    EF_SEARCH_KEY,
    ENTITY_FIELDS,
    MAX_RESULT_ROWS,
    METRIC_KEY,
    NPROBE_KEY,
    SCALAR_FIELDS,
    UUID_KEY,
    CollectionInfo,
    CollectionSpec,
    IndexHit,
    KeyRange,
    batches,
    both,
    collection_name,
    id_filter,
    partition_filter,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pymilvus import MilvusClient

DELETE_IDS = 8_192  # 320 kB of filter; a server takes 0.4-0.7 s a request, whatever its size
GET_IDS = 1_000  # 5 MB of 1280-d vectors
DOUBLED = ""  # no fingerprint: what has it differs from whatever is wanted
SEARCH_HITS = 100_000  # queries x limit in one request: about 50 MB of hits
DELETED_SHARE = 0.2  # of what a collection stores; under it a server merges segment by segment when it sees fit


@contextmanager
def open_index(settings: Settings, patience: Patience = PATIENT) -> Iterator[VectorIndex]:
    """The vector index of this deployment: an http(s):// server, or else a folder served by Milvus Lite.

    Lite's server process is started if none runs for the folder, and stopped when its last user leaves.
    Raises IndexUnavailable if nothing answers, ConfigError if MEDVEC_INDEX_CA is no certificate, or if this server
    cannot import from MEDVEC_INDEX_BULK_URI.
    """
    if is_server(settings):
        with closing(to_server(settings, patience)) as connection:
            yield VectorIndex(connection, settings)
        return
    with lite_server(Path(settings.index.removeprefix("file://"))) as server:
        remedy = f"run the command again (it starts Milvus Lite); see {server.folder / 'server.log'}"
        with closing(
            Connection(server.uri, "", lite=True, remedy=remedy, is_alive=server.is_alive, patience=patience)
        ) as connection:
            yield VectorIndex(connection, settings)


class VectorIndex(Settling):
    """The collections of one server. Safe to share between threads.

    Every method raises IndexUnavailable if the server does not answer and IndexInvalid if it refuses.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        super().__init__(connection)
        version = str(connection.call("tell its version", lambda client: client.get_server_version()))
        self.server = f"milvus {version.removeprefix('v')}"
        if connection.lite:
            self.server = f"milvus-lite {version.removeprefix('milvus_lite-')}"
        self._bulk = bulk_place(connection, settings, self.server)

    def is_alive(self) -> bool:
        """False once an embedded server has ended: open the index again. A server elsewhere counts as alive."""
        return self._connection.is_alive()

    # -- collections

    def collections(self) -> list[str]:
        """The names of all collections, sorted; no aliases."""
        return sorted(self._connection.call("list collections", lambda client: client.list_collections()))

    def describe(self, name: str) -> CollectionInfo | None:
        """The collection (or an alias' target); None if absent. `uuid` is empty if medvec did not make it."""
        found = self._description(name)
        if found is None:
            return None
        properties = {str(key): str(value) for key, value in found.get("properties", {}).items()}
        own = {key: value for key, value in properties.items() if not schema.is_reserved(key)}
        return CollectionInfo(
            found["collection_name"],
            properties.get(UUID_KEY, ""),
            schema.dimension(found),
            own,
            schema.declared(properties),
        )

    def ensure(self, spec: CollectionSpec) -> CollectionInfo:
        """The collection, made with a fresh uuid if absent. IndexInvalid if one of that name is not `spec`'s kind.

        Of a layout only how widely to look is brought up to date where the collection exists: `layout` tells of the rest.
        """
        found = self._description(spec.name)
        if found is None:
            instance = str(uuid.uuid4())
            self._loaded.discard(spec.name)
            self._connection.call(
                f"create {spec.name}", lambda client: schema.create(client, spec, instance, lite=self._connection.lite)
            )
            found = self._description(spec.name)
            ours = (found or {}).get("properties", {}).get(UUID_KEY) == instance  # or another maker was first
            if ours and not self._connection.lite:
                self._made.add(spec.name)
        metric = (found or {}).get("properties", {}).get(METRIC_KEY)
        info = self.describe(spec.name)
        if info is None or not info.uuid or info.dim != spec.dim or metric != spec.metric:
            have = f"{info.dim} dimensions, metric {metric or 'unknown'}" if info else "nothing"
            raise IndexInvalid(
                f"collection {spec.name} holds {have}, not {spec.dim} dimensions, metric {spec.metric}, made by medvec",
                remedy="drop it and sync again, or use another generation",
            )
        widths = {EF_SEARCH_KEY: str(spec.layout.ef_search), NPROBE_KEY: str(spec.layout.nprobe)}
        if not widths.items() <= info.properties.items():
            self._set_properties(spec.name, widths)
            info = self.describe(spec.name) or info
        self._ensure_index(spec.name)
        return info

    def layout(self, name: str) -> Layout | None:
        """How the collection is laid out, as its server tells; None if absent. `shards` is 0 where nobody chooses it."""
        found, lite = self._description(name), self._connection.lite
        if found is None:
            return None
        return self._connection.call(
            f"describe the index of {name}", lambda client: schema.layout(client, name, found, lite=lite)
        )

    def drop(self, name: str) -> None:
        """Removes the collection and the aliases that point at it. Nothing happens if it is absent."""
        found = self._description(collection_name(name))
        if found is None:
            return

        def drop_aliases(client: MilvusClient) -> None:
            for alias in client.list_aliases(name)["aliases"]:
                client.drop_alias(alias)

        self._connection.call(f"drop the aliases of {name}", drop_aliases)
        self._connection.call(f"drop {name}", lambda client: client.drop_collection(name, timeout=CALL_SECONDS))
        self._loaded.discard(name)
        self._made.discard(name)

    def set_alias(self, alias: str, name: str) -> None:
        """Points `alias` at `name`, whatever it pointed at before, in one step."""
        collection_name(alias)
        before = self.alias_target(alias)
        if before == name:
            return
        self._loaded.discard(alias)
        if before is None:
            self._connection.call(f"create alias {alias}", lambda client: client.create_alias(name, alias))
        else:
            self._connection.call(f"move alias {alias}", lambda client: client.alter_alias(name, alias))

    def alias_target(self, alias: str) -> str | None:
        """The collection that `alias` points at; None if there is no such alias."""
        found = self._description(alias)
        return None if found is None or found["collection_name"] == alias else str(found["collection_name"])

    # -- entities

    def count(self, name: str, partition: str | None = None) -> int:
        """Entities in the collection or one partition of it, strongly consistent."""
        return self._counted(name, partition_filter(partition) if partition is not None else "")

    def fingerprints(self, name: str, partition: str) -> Iterator[dict[str, str]]:
        """All of a partition's entities as chunks of entity_id -> row_fingerprint. Never silently incomplete.

        A chunk may come again with every fingerprint DOUBLED: among its ids are some that the server holds twice. Two
        runs that found a partition empty at the same time leave that behind; `write` of these ids mends it.
        """
        where = partition_filter(partition)
        self._settle_imports(name, partition)
        counted = 0 if self._connection.lite or self._is_untouched(name) else self._counted(name, where)
        if not (counted or self._connection.lite):
            return  # a strongly consistent read takes a server 0.2 s: one is enough
        walked: list[tuple[KeyRange, int]] = []
        for part, rows in self._walk(name, where, ["entity_id", "row_fingerprint"], counted):
            walked.append((part, len(rows)))
            yield {row["entity_id"]: row["row_fingerprint"] for row in rows}
        if self._connection.lite or counted == sum(size for _, size in walked):
            return
        for part, size in walked:  # a query answers each id once, a count counts every copy
            here = both(where, part.filter)
            if self._counted(name, here) != size:
                for _, found in self._walk(name, here, ["entity_id"], size):
                    yield {row["entity_id"]: DOUBLED for row in found}

    def write(
        self,
        name: str,
        partition: str,
        rows: Iterable[pa.RecordBatch],
        expected: int = 0,
        *,
        empty: bool | None = None,
    ) -> int:
        """Writes the entities of `rows` (ENTITY_SCHEMA), replacing those of the same id; returns their number.

        `attributes` is a JSON object as text. All rows must be of `partition`. IndexInvalid if a batch breaks a rule.
        `expected`: how many rows will come, about. Many into an empty partition are imported where the server can.
        `empty`: whether the partition has no entity, if the caller has just seen that; None counts.
        """
        where = partition_filter(partition)
        info = self.describe(name)
        if info is None:
            raise IndexInvalid(f"collection {name} does not exist", remedy="run `medvec sync`")
        self._settle_imports(name, partition)
        large = self._bulk is not None and expected >= self._bulk.rows
        if large or empty is None:
            empty = not self._connection.lite and (self._is_untouched(name) or self._counted(name, where) == 0)
        self._made.discard(name)
        if self._bulk is not None and large and empty:
            written = self._bulk.fill(info, partition, rows)
            if (found := self._settle_imports(name, partition)) != written:
                raise IndexUnavailable(
                    f"{written} entities were imported into {name}, and {found} are there",
                    remedy="a request was repeated, or another run wrote too: run `medvec sync` again, which mends it",
                )
            return written
        written = 0
        for batch in rows:
            for entities in slices(batch, partition, info.dim):
                self._replace(name, entities, empty)
                written += len(entities)
        return written

    def delete(self, name: str, partition: str, entity_ids: Sequence[str]) -> int:
        """Deletes these entities of one partition; an id that is absent or elsewhere is left alone.

        Returns how many went.
        """
        where = partition_filter(partition)
        self._settle_imports(name, partition)
        return sum(self._delete(name, both(where, id_filter(ids))) for ids in batches(entity_ids, DELETE_IDS))

    def delete_partition(self, name: str, partition: str) -> None:
        """Deletes every entity of the partition."""
        self._settle_imports(name, partition)
        self._delete(name, partition_filter(partition))

    def compact(self, name: str) -> bool:
        """Asks the server to give up the space of deleted entities; does not wait. False where there is little of it, or
        nothing was begun: Lite gives it up at every flush, and answers that it began nothing.
        """

        def ask(client: MilvusClient) -> int:
            return int(client.compact(name, timeout=CALL_SECONDS))

        return self._deleted_share(name) >= DELETED_SHARE and self._connection.call(f"compact {name}", ask) > 0

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
        """The `limit` (at most 16,384) most similar entities of each of `vectors`, float32 [n, dim], best first.

        What was written before the last `settle` is found; later writes within seconds (Bounded consistency).
        `name` may be an alias. `params` are its layout's search_params for this limit and these partitions.
        `partitions` and `conditions`, all of them, restrict the search; an empty sequence of partitions finds nothing.
        """
        if partitions is not None and not partitions:
            return [[] for _ in vectors]
        if not 1 <= limit <= MAX_RESULT_ROWS:
            raise IndexInvalid(f"a search for {limit} hits", remedy=f"ask for 1 to {MAX_RESULT_ROWS}")
        where = both(partition_filter(*partitions) if partitions else "", conditions_filter(conditions))
        queries = list(np.ascontiguousarray(vectors, dtype=np.float32))
        at_once = max(1, min(1_000, SEARCH_HITS // limit))

        def ask(client: MilvusClient, data: list[Any]) -> Any:
            widths = {"params": dict(params)}
            options: dict[str, Any] = {"search_params": widths, "anns_field": "vector"}
            options["timeout"] = self._connection.patience.read_seconds
            return client.search(
                name, data=data, filter=where, limit=limit, output_fields=list(SCALAR_FIELDS), **options
            )

        answer: list[list[IndexHit]] = []
        for start in range(0, len(queries), at_once):
            found = self._read(name, "search", partial(ask, data=queries[start : start + at_once]))
            answer.extend([IndexHit(float(hit["distance"]), dict(hit["entity"])) for hit in hits] for hits in found)
        return answer

    def get(self, name: str, entity_ids: Sequence[str]) -> list[dict[str, Any]]:
        """These entities with all of ENTITY_FIELDS, in no order; an absent id is left out."""
        found: list[dict[str, Any]] = []
        for ids in batches(entity_ids, GET_IDS):
            # Without a limit a server leaves out some where others stand twice.
            found.extend(self._query(name, id_filter(ids), list(ENTITY_FIELDS), MAX_RESULT_ROWS))
        return found

    # -- how

    def _set_properties(self, name: str, values: dict[str, str]) -> None:
        self._connection.call(
            f"set properties of {name}", lambda client: client.alter_collection_properties(name, values)
        )

    def _settle_imports(self, name: str, partition: str) -> int:
        """Waits for imports into the partition, also those that a killed run began: what came up after whatever is done
        next would undo it. Returns how many entities the partition then has; 0 where nothing was imported."""
        info = self.describe(name) if self._bulk is not None else None
        if self._bulk is None or info is None:
            return 0
        imported = self._bulk.settle(info, partition)
        if imported is None:
            return 0
        found = self._await_rows(name, partition_filter(partition), imported) if imported else 0
        self._bulk.clear(name, partition)
        return found

    def _delete(self, name: str, where: str) -> int:
        """Deletes what fits `where` and returns its number.

        A server looks up which ids fit, and finds a part of them only where some stand twice: ask until it finds none.
        """
        deleted = 0
        while True:
            answer = self._read(
                name, "delete from", lambda client: client.delete(name, filter=where, timeout=CALL_SECONDS)
            )
            found = len(answer) if isinstance(answer, list) else int(answer.get("delete_count", 0))
            deleted += found
            if self._connection.lite or found == 0:
                return deleted

    def _replace(self, name: str, entities: list[dict[str, Any]], empty: bool) -> None:
        """Upsert on Lite. A server keeps both copies on insert, and 2.3.5 upserts into the wrong partition:
        there delete, then insert; the delete is left out only on the first try into an empty partition.

        Deleted by id alone, which reaches every copy in 5-40 ms: an id has its partition hashed into it, so that no
        other partition's entity is meant. With the partition in the filter a server looks the ids up first, 0.4-0.7 s.
        """
        stale = id_filter([entity["entity_id"] for entity in entities])
        tries = 0

        def send(client: MilvusClient) -> None:
            nonlocal tries
            tries += 1
            if self._connection.lite:
                client.upsert(name, data=entities, timeout=CALL_SECONDS)
                return
            if tries > 1 or not empty:
                client.delete(name, filter=stale, timeout=CALL_SECONDS)
            client.insert(name, data=entities, timeout=CALL_SECONDS)

        self._connection.call(f"write to {name}", send, quotes=False)
