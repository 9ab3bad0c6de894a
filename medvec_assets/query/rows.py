"""A few rows out of large tables: find the key in narrow columns first, then read the rest of its partition only.

A scan of one id column of 1,044,191 rows is megabytes; the same filter over all columns decodes 1.6 GB of vectors.

Belongs here: keyed reads shared by search and lineage; hiding suppressed subjects and what leaks. `subject_key` leaves this
module for the access log only. Does not belong here: what the rows mean, or any write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import SYNTHETIC
from medvec_assets.scorer.verdicts import Verdicts
from resources import tables
from resources.tables import TableSpec

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse, Snapshot

_WIDE_OR_PRIVATE = {"vector", "subject_key"}
EMBEDDING_COLUMNS = [name for name in tables.EMBEDDINGS.names if name not in _WIDE_OR_PRIVATE]


def one_of(column: str, values: Iterable[str]) -> pc.Expression:
    """Rows whose `column` is one of `values`; none, if there are none (Arrow refuses an untyped empty list)."""
    return pc.field(column).isin(pa.array(sorted(set(values)), pa.string()))


def read(
    lake: Lakehouse, table: TableSpec, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pl.DataFrame:
    """Matching rows of `table`; no rows, with the right columns, if the table does not exist yet."""
    return read_of(lake.snapshot(table), table, columns, where)


def read_of(
    snapshot: Snapshot | None,
    table: TableSpec,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
) -> pl.DataFrame:
    """What `read` says, of a snapshot of `table`."""
    if snapshot is not None:
        return snapshot.read(columns, where)
    empty = pl.from_arrow(table.schema.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return empty.select(columns) if columns is not None else empty


def find_embeddings(lake: Lakehouse, dataset: str, space: str, column: str, value: str) -> pl.DataFrame:
    """Embedding rows (`EMBEDDING_COLUMNS`) whose `column` (vector_id, record_id) is `value`, of all space versions."""
    snapshot = lake.snapshot(tables.embeddings(dataset, space))
    if snapshot is None:
        return read(lake, tables.embeddings(dataset, space), EMBEDDING_COLUMNS)
    matches = pc.field(column) == value
    places = snapshot.read(["space_version", "partition"], matches)
    for key in ("space_version", "partition"):  # physical partitions: prunes to the files that hold the rows
        matches = one_of(key, places[key]) & matches
    return snapshot.read(EMBEDDING_COLUMNS, matches)


def read_vector(lake: Lakehouse, dataset: str, space: str, row: dict[str, Any]) -> NDArray[np.float32] | None:
    """The vector [dim] of an embedding row found before; None if it was replaced in between."""
    keys = ("space_version", "partition", "vector_id")
    where = reduce(and_, (pc.field(key) == row[key] for key in keys))
    found = read(lake, tables.embeddings(dataset, space), ["vector"], where)
    return np.asarray(found["vector"][0], dtype=np.float32) if found.height else None


def entity_of(row: dict[str, Any]) -> str:
    """The index entity that stands for an embedding row's content: the id the vectors stage gave it."""
    content = ("partition", "license", "access_tier", "content_digest", "part_kind", "part_index")
    return fingerprints.entity_id(*(row[name] for name in content))


def source_uri(dataset: str, payload_uri: str, object_ids: Sequence[str]) -> str:
    """What an answer says of where a record is from: of an open one where its source has it, of another its object's
    surrogate. Where the lake keeps a payload, and under which digest, is nobody's who asks."""
    return f"object:{object_ids[0]}" if payload_uri.startswith(tables.payloads(dataset)) else payload_uri


def subjects_of(
    lake: Lakehouse, dataset: str, record_ids: Iterable[str], partitions: Iterable[str] | None = None
) -> frozenset[str]:
    """The pseudonyms of whose records these are, for the access log alone: no answer may hold one."""
    where = one_of("record_id", record_ids)
    if partitions is not None:
        where = one_of("partition", partitions) & where
    return frozenset(read(lake, tables.records(dataset), ["subject_key"], where)["subject_key"])


def find_records(
    lake: Lakehouse,
    dataset: str,
    record_ids: Iterable[str],
    partitions: Iterable[str],
    columns: Sequence[str],
    *,
    made_up: bool,
) -> pl.DataFrame:
    """`record_id` and `columns` of the records that still exist, whose subject is not suppressed and whose partition's
    de-identification does not leak.

    `partitions` is where they are expected. A record that a split has moved since is looked for everywhere. `made_up`: only
    those that say so. A deployment that reads the synthetic sample may show that anywhere, and nothing else that the lake
    may still hold of the dataset.
    """
    wanted = set(record_ids)
    names = list(dict.fromkeys(["record_id", "subject_key", "partition", "attributes", *columns]))
    table = tables.records(dataset)
    found = read(lake, table, names, one_of("partition", partitions) & one_of("record_id", wanted))
    moved = wanted - set(found["record_id"])
    if moved:
        found = pl.concat([found, read(lake, table, names, one_of("record_id", moved))])
    suppressed = read(lake, tables.suppression(), ["subject_key"])
    shown = found.join(suppressed, on="subject_key", how="anti")
    verdicts = Verdicts(lake, dataset)
    leaking = [name for name in shown["partition"].unique() if verdicts.leaks(name)]
    shown = shown.filter(~pl.col("partition").is_in(leaking))
    if made_up:
        shown = shown.filter(pl.col("attributes").str.json_path_match(f"$.{SYNTHETIC}") == "true")
    return shown.unique("record_id", keep="first", maintain_order=True).select("record_id", *columns)
