"""Payloads: the de-identified bytes of records whose source is not open, below `payload/<dataset>/` of the lake.

Belongs here: writing, verifying and removing them. Does not belong here: what their bytes are (modalities), which records
have one and when it is made (records), what of open sources is read (connectors).

A payload is named by the sha256 of its bytes and its `payload_uri` is relative to the lake, so that a lake may be moved. It
is written before the record that names it is committed, and removed after the last such record is gone: a killed run leaves
one too many, never one too few. One that is damaged or lost is made again from its source (records.land_again).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain

import numpy as np
import pyarrow.compute as pc

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import ReadObject
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import ObjectRejected
from resources.lakehouse import Snapshot
from resources.object_store import ObjectStore

DAMAGED = "payload_damaged"
GRACE = timedelta(
    days=1
)  # a partition takes an hour: what was landed before it and no record names is of no run at work
MAX_PAYLOAD_BYTES = 4 << 30  # no more than an object of a source may have
_DIGEST_CHARS, _KEPT_CHARS = 64, 16
_REMEDY = (
    "it could not be made again from its source as it was: restore it from the lake's backup, or let the source change or "
    "withdraw the object and run again"
)


class Payloads:
    """The payloads of one dataset. Raises what ObjectStore raises where the lake itself fails."""

    def __init__(self, lake_root: str, dataset: str) -> None:
        self.folder = tables.payloads(dataset)
        self._store = ObjectStore(lake_root)
        self._name = re.compile(re.escape(self.folder) + r"([0-9a-f]{2})/(\1[0-9a-f]{62})")

    def land(self, data: bytes) -> str:
        """Write a payload; its `payload_uri`. What is there already is written again: that mends it, and makes it young."""
        uri = self.uri_of(data)
        self._store.put(uri, data)
        return uri

    def uri_of(self, data: bytes) -> str:
        """The `payload_uri` of these bytes, landed or not."""
        digest = hashlib.sha256(data).hexdigest()
        return f"{self.folder}{digest[:2]}/{digest}"

    def holds(self, uri: str) -> bool:
        """Whether `uri` is one of these payloads' and no object's of a source."""
        return self._name.fullmatch(uri) is not None

    def read(self, uri: str) -> bytes:
        """A payload's bytes. ObjectRejected DAMAGED if it is not there, or is not what its name says."""
        try:
            data = self._store.get(uri, MAX_PAYLOAD_BYTES)
        except ObjectRejected as error:
            raise ObjectRejected(f"{uri} is not in the lake", code=DAMAGED, remedy=_REMEDY) from error
        if hashlib.sha256(data).hexdigest() != uri[-_DIGEST_CHARS:]:
            raise ObjectRejected(f"{uri} is not what its name says", code=DAMAGED, remedy=_REMEDY)
        return data

    def reader(self, of_source: ReadObject) -> ReadObject:
        """Reads payloads from the lake, and every other URI by `of_source`."""
        return lambda uri: self.read(uri) if self.holds(uri) else of_source(uri)

    def older_than(self, moment: datetime) -> Iterator[str]:
        """Those last landed before `moment`. Drafts that killed writers left before it are removed on the way."""
        self._store.remove_drafts(self.folder, moment)
        return (one.key for one in self._store.list(self.folder) if one.modified < moment and self.holds(one.key))

    def remove(self, uris: Iterable[str]) -> int:
        """How many were removed."""
        removed = 0
        for uri in uris:
            self._store.delete(uri)
            removed += 1
        return removed


def of_partition(records: Snapshot, partition: str) -> set[str]:
    """Every payload_uri of a partition's records, of open sources too."""
    return {uri for uris in _uris(records, pc.field("partition") == partition) for uri in uris}


def remove_unused(ctx: Context, spec: DatasetSpec, candidates: set[str]) -> int:
    """Remove those of `candidates` that no record of the dataset names; their number."""
    records, payloads = ctx.lake.snapshot(tables.records(spec.id)), Payloads(ctx.lake.root, spec.id)
    unused = set(filter(payloads.holds, candidates))
    if unused and records is not None:
        for uris in _uris(records):
            unused.difference_update(uris)
    return payloads.remove(unused)


def sweep(ctx: Context, spec: DatasetSpec) -> int:
    """Remove every payload that no record names, and none that was landed within GRACE; their number.

    Held meanwhile: 8 bytes for each record. Two names that begin alike are taken for one, which keeps a payload and removes
    none.
    """
    records, payloads = ctx.lake.snapshot(tables.records(spec.id)), Payloads(ctx.lake.root, spec.id)
    if records is None:
        return 0
    old = payloads.older_than(datetime.now(UTC) - GRACE)
    first = next(old, None)
    if first is None:
        return 0
    named = np.unique(
        np.fromiter((_beginning(uri) for uris in _uris(records) for uri in filter(payloads.holds, uris)), np.uint64)
    )

    def is_named(uri: str) -> bool:
        place = np.searchsorted(named, _beginning(uri))
        return bool(place < len(named) and named[place] == _beginning(uri))

    return payloads.remove(uri for uri in chain([first], old) if not is_named(uri))


def _uris(records: Snapshot, where: pc.Expression | None = None) -> Iterator[list[str]]:
    for batch in records.scan(["payload_uri"], where):
        yield batch["payload_uri"].to_pylist()


def _beginning(uri: str) -> np.uint64:
    """The first 64 bits of a payload's digest."""
    return np.uint64(int(uri[-_DIGEST_CHARS:][:_KEPT_CHARS], 16))
