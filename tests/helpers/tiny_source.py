"""A source small enough to read in a test: an IDC-like index file, or rows and bytes in memory.

`MEDVEC_SOURCES='{"tcia_catalog": "<path>"}'` with a path of `write_index` gives the real connector a small catalogue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Listing
from resources.errors import ObjectRejected

INDEX_SCHEMA: dict[str, Any] = {
    "collection_id": pl.String(),
    "PatientID": pl.String(),
    "SeriesInstanceUID": pl.String(),
    "source_DOI": pl.String(),
    "StudyDescription": pl.String(),
    "BodyPartExamined": pl.String(),
    "Modality": pl.String(),
    "sop_class_name": pl.String(),
    "Manufacturer": pl.String(),
    "ManufacturerModelName": pl.String(),
    "SeriesDescription": pl.String(),
    "instanceCount": pl.Int64(),
    "license_short_name": pl.String(),
    "series_init_idc_version": pl.Int64(),
    "series_revised_idc_version": pl.Int64(),
    "crdc_series_uuid": pl.String(),
    "series_aws_url": pl.String(),
    "series_size_MB": pl.Float64(),
}


def series(
    uid: str, cohort: str = "lung", patient: str = "P1", what: str = "thin axial", **fields: Any
) -> dict[str, Any]:
    """One row of the index: series `uid`, described as `what`."""
    return {
        "collection_id": cohort,
        "PatientID": patient,
        "SeriesInstanceUID": uid,
        "source_DOI": "10.7937/x",
        "StudyDescription": "CT chest",
        "BodyPartExamined": "CHEST",
        "Modality": "CT",
        "sop_class_name": "CT Image Storage",
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Model 1",
        "SeriesDescription": what,
        "instanceCount": 10,
        "license_short_name": "CC BY 4.0",
        "series_init_idc_version": 2,
        "series_revised_idc_version": 5,
        "crdc_series_uuid": f"uuid-{uid}",
        "series_aws_url": f"s3://idc-open-data/uuid-{uid}/*",
        "series_size_MB": 1.5,
    } | fields


def write_index(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """An index file of `rows`, as connector `idc_index` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(list(rows), schema=INDEX_SCHEMA).write_parquet(path)
    return path


def listed(object_id: str, content: bytes = b"", **fields: Any) -> dict[str, Any]:
    """One row of a listing: an object whose bytes are `content`."""
    return {
        "object_id": object_id,
        "cohort": "lung",
        "uri": f"memory://{object_id}",
        "size_bytes": len(content),
        "checksum": hashlib.sha256(content).hexdigest(),
        "checksum_kind": "sha256",
        "media_type": "text/plain",
        "license": "CC BY 4.0",
        "access_tier": "open",
        "subject_ref": f"subject-{object_id}",
        "record_ref": f"record-{object_id}",
        "upstream_version": "v1",
        "first_seen_version": "v1",
        "removed_in_version": None,
        "attributes": json.dumps({"modality": "CT"}),
    } | fields


@dataclass
class MemoryConnector:
    """A connector over rows and bytes in memory; `reads` counts what was read."""

    is_remote = False

    rows: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    published: str = "v1"
    reads: list[str] = field(default_factory=list)

    def add(self, object_id: str, content: bytes = b"", **fields: Any) -> None:
        row = listed(object_id, content, **fields)
        self.rows.append(row)
        self.contents[row["uri"]] = content

    def version(self) -> str:
        return self.published

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        yield Listing(pl.DataFrame(self.rows, schema=LISTING))

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        self.reads.append(uri)
        if uri not in self.contents:
            raise ObjectRejected(f"there is no object {uri}", code="object_missing", remedy="refresh the manifest")
        return self.contents[uri]
