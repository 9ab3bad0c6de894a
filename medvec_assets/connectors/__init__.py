"""Connectors: one module per access protocol; list what a source publishes, read one object.

Belongs here: how a source is listed and read, its versions and checksums. Does not belong here: what the bytes mean
(modalities), which of them may be used (policy), or any write.

A connector yields *listings*: polars frames with the columns of `LISTING`, one row per smallest thing the source
versions. The manifest stage validates them, so a connector passes on what the source says, wrong or not.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import polars as pl

from resources.errors import ConfigError
from resources.settings import Settings

MAX_OBJECT_BYTES = 4 << 30  # one DICOM object; the stages refuse a larger one before it is read
LISTING: dict[str, pl.DataType] = {
    "object_id": pl.String(),  # stable over versions; a surrogate where the source's own name could identify
    "cohort": pl.String(),
    "uri": pl.String(),
    "size_bytes": pl.Int64(),
    "checksum": pl.String(),  # changes when, and only when, the object's content does
    "checksum_kind": pl.String(),  # sha256 | md5: verified on read; others are the source's own: etag, crdc_series_uuid, ...
    "media_type": pl.String(),
    "license": pl.String(),
    "access_tier": pl.String(),
    "subject_ref": pl.String(),  # the source's own subject id: bronze only
    "record_ref": pl.String(),  # objects with the same record_ref make one record (a series' instances)
    "upstream_version": pl.String(),  # the release in which this object last changed
    "first_seen_version": pl.String(),
    "removed_in_version": pl.String(),  # null while it is published
    "attributes": pl.String(),  # JSON object: the source's own columns that the modality needs
}


@dataclass(frozen=True)
class Rejection:
    """One object that could not be listed: becomes a quarantine row of stage `manifest`."""

    object_id: str
    code: str
    remedy: str


@dataclass(frozen=True)
class Listing:
    """A piece of what a source publishes: `objects` has the columns of `LISTING`."""

    objects: pl.DataFrame
    rejected: tuple[Rejection, ...] = ()


class Connector(Protocol):
    """Made by `open_connector(spec.connector, settings, dataset_id)`; holds no open connection until it is used.

    An object may be a part of a file (a sample's column of a matrix, a stay's rows of a table; ADR 0013): then its `uri` is
    the file's with a fragment, `read` gives the part's own bytes, and the checksum is theirs.

    One whose rows have no bytes of their own says `is_catalogue = True`: the scorer plants into its rows only.
    """

    is_remote: bool
    """Reads cross the web: stages keep what was verified (landing), so that no object is fetched twice, and so does a listing
    what it reads whole (Landing.digest_and_head)."""

    def version(self) -> str:
        """What the source has published, as one string; equal strings mean that nothing changed. Cheap."""
        ...

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """Everything published now, in pieces. `previous` holds the last manifest's
        (object_id, uri, size_bytes, checksum, checksum_kind, subject_ref, record_ref, attributes) of what was published
        then, possibly empty, so that an object that has not changed is not read again."""
        ...

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """One object's bytes. Raises ObjectRejected `object_missing` or `object_too_large` before taking memory."""
        ...


def open_connector(name: str, settings: Settings, dataset_id: str) -> Connector:
    """The connector called `name` in a spec, a module here, for one dataset."""
    connector: Connector = import_module(f"{__name__}.{name}").open_connector(settings, dataset_id)
    return connector


def cohort_slug(name: str) -> str:
    """A folder's or collection's name as a cohort: [a-z0-9_]+, `LIDC-IDRI` is `lidc_idri`."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return slug or f"cohort_{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"  # a name without a Latin letter


def sample_folder(dataset_id: str) -> Path:
    """The bundle that a dataset is read from without a source in the settings: `in/` of its fixture folder, in the layout
    that a mirror of the source has. The package medvec_samples is tests/datasets, installed under that name."""
    found = find_spec("medvec_samples")
    for place in found.submodule_search_locations or () if found else ():
        folder = Path(place) / dataset_id / "in"
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"there is no sample bundle of {dataset_id}",
        remedy=f"name a source in MEDVEC_SOURCES, or add tests/datasets/{dataset_id}/in and install medvec again",
    )
