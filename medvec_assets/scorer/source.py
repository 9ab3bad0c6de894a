"""A source of planted copies: the connector that a scored run lists and reads instead of the dataset's own.

Belongs here: which real objects are taken, their copies, how the copies are listed. Does not belong here: the run (score).

Where a dataset's connector can list a plain folder, the copies are put into one, in folders and files named after people, and
the real connector lists it: then what it makes of names is scored too. Otherwise rows are planted as any connector would
list them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.connectors import LISTING, Connector, Listing, open_connector
from medvec_assets.scorer.influence import PlantedPair
from medvec_assets.scorer.planting import Planted, Subject, planter
from medvec_assets.scorer.planting.cells import pairs
from medvec_assets.scorer.planting.manifest_rows import planted_catalogue_row, planted_row
from medvec_assets.scorer.plants import Mint
from medvec_assets.stages import quarantine, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import ObjectRejected

MAX_GOOD, MAX_REFUSED = 2, 1  # objects copied: of records, and of quarantine
MAX_BYTES = 8 << 20  # of all objects copied; the smallest are taken
CATALOGUE_ROWS = 12
PAIRED = "application/x-ndjson"  # in each cell of which an identifier is planted by itself, too
FOLDER_CONNECTORS = frozenset({"dicom_objects"})
"""Connectors that list any folder of files as `<cohort>/.../<file>` beside a `<cohort>/LICENSE`."""


@dataclass
class Copies:
    """What was planted. `rows` are manifest rows (columns of LISTING) without a partition, `contents` the bytes by URI."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    """URIs of copies that a modality should refuse or may; the others it should accept where it accepted the original."""
    pairs: list[PlantedPair] = field(default_factory=list)
    objects: int = 0
    not_plantable: set[str] = field(default_factory=set)
    """Media types in whose bytes nothing was planted."""

    def whole(self) -> Copies:
        """Those that are not damaged."""
        return replace(self, rows=[row for row in self.rows if row["uri"] not in self.damaged], damaged=set(), pairs=[])


class PlantedSource:
    """Lists and reads `copies` (medvec_assets.connectors.Connector)."""

    is_remote = False

    def __init__(self, copies: Copies, version: str) -> None:
        self._copies, self._version = copies, version

    def version(self) -> str:
        return self._version

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        rows = [{name: row[name] for name in LISTING} for row in self._copies.rows]
        yield Listing(pl.DataFrame(rows, schema=LISTING))

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        if uri not in self._copies.contents:
            remedy = "none: a catalogue has no bytes"
            raise ObjectRejected("the object is not in this source", code="object_missing", remedy=remedy)
        return self._copies.contents[uri]


def is_catalogue(ctx: Context, spec: DatasetSpec) -> bool:
    """Whether the dataset's connector lists rows that have no bytes of their own."""
    return bool(getattr(ctx.connector(spec), "is_catalogue", False))


def copies_of(ctx: Context, spec: DatasetSpec, partition: str, mint: Mint) -> Copies:
    """Planted copies of a few real objects of a partition: each as it is under planted names, then with planted bytes."""
    chosen = _chosen(ctx, spec, partition)
    made, subjects, cells = Copies(objects=len(chosen)), dict[str, Subject](), set[str]()
    read = records.reader(ctx, spec, partition)
    for row in chosen:
        subject = subjects.setdefault(row["subject_ref"], Subject.like(mint, row["subject_ref"]))
        if is_catalogue(ctx, spec):
            made.rows.append(planted_catalogue_row(row, subject))
            continue
        try:
            data = read(row["uri"])
        except ObjectRejected:  # it is in quarantine for that
            made.not_plantable.add(row["media_type"])
            continue
        copies = [Planted(data), *_planted_bytes(row["media_type"], data, subject, made)]
        for copy in copies:
            _add(made, planted_row(row, subject, len(made.rows)), copy)
        if row["media_type"] == PAIRED:
            _add_pairs(made, row, data, subject, cells)
    return made


def _add(made: Copies, row: dict[str, Any], copy: Planted) -> None:
    content = {
        "size_bytes": len(copy.data),
        "checksum": hashlib.sha256(copy.data).hexdigest(),
        "checksum_kind": "sha256",
    }
    made.rows.append(row | content)
    made.contents[row["uri"]] = copy.data
    made.damaged |= {row["uri"]} if copy.damaged else set()


def _add_pairs(made: Copies, row: dict[str, Any], data: bytes, subject: Subject, cells: set[str]) -> None:
    """Copies of `data` that are planted in one cell each, of every column that is not in `cells` yet."""
    for pair in pairs(data, subject, cells):
        ids = (f"paired-{len(made.rows)}", f"paired-{len(made.rows) + 1}")
        for name, copy in zip(ids, pair.copies, strict=True):
            named = {
                "object_id": name,
                "record_ref": name,
                "uri": f"file:///archive/{name}",
                "subject_ref": subject.ref,
            }
            _add(made, row | named, Planted(copy, damaged=True))
        made.pairs.append(PlantedPair(pair.kind, pair.place, ids))


def connector_of(ctx: Context, spec: DatasetSpec, copies: Copies, folder: Path, version: str) -> Connector:
    """The connector that a scored run uses: the dataset's own over a folder of copies, or one of planted rows."""
    if spec.connector not in FOLDER_CONNECTORS:
        return PlantedSource(copies, version)
    for row in copies.rows:
        # A name as people give it: patients' names for folders and files.
        path = folder / row["cohort"] / row["uri"].partition("archive/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(copies.contents[row["uri"]])
        (folder / row["cohort"] / "LICENSE").write_text(f"{row['license']}\n")
    sources = {**ctx.settings.sources, spec.id: str(folder)}
    return open_connector(spec.connector, ctx.settings.model_copy(update={"sources": sources}), spec.id)


def _planted_bytes(media_type: str, data: bytes, subject: Subject, made: Copies) -> list[Planted]:
    plant = planter(media_type)
    planted = list(plant(data, subject)) if plant is not None else []
    if not planted:
        made.not_plantable.add(media_type)
    return planted


def _chosen(ctx: Context, spec: DatasetSpec, partition: str) -> list[dict[str, Any]]:
    """Manifest rows of the smallest objects: some that became records, some that were refused."""
    where = pc.field("partition") == partition
    listed, silver = ctx.lake.snapshot(tables.manifest(spec.id)), ctx.lake.snapshot(tables.records(spec.id))
    if listed is None or silver is None:
        return []
    objects = listed.read(where=where & pc.field("removed_in_version").is_null()).sort("size_bytes", "object_id")
    kept = silver.read(["object_ids"], where)["object_ids"].list.first()
    aside = quarantine.read(ctx, spec, records.ASSET, partition).filter(pl.col("disposition") == "quarantined")
    good = objects.filter(pl.col("object_id").is_in(kept.implode()))
    if is_catalogue(ctx, spec):
        return good.head(CATALOGUE_ROWS).to_dicts()
    licensed = objects.filter(pl.col("license").is_in(sorted(spec.licenses)))
    refused = licensed.filter(pl.col("object_id").is_in(aside["object_id"].implode()))
    chosen = pl.concat([good.head(MAX_GOOD), refused.head(MAX_REFUSED)])
    return chosen.filter(pl.col("size_bytes").cum_sum() <= MAX_BYTES).to_dicts()
