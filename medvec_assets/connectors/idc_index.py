"""The index of Imaging Data Commons: one row per DICOM series of TCIA, as `idc-index-data` publishes it.

Belongs here: reading that index (the package's parquet files, or another index file of the same layout) into listings,
and the tombstones that its list of prior versions tells of. Does not belong here: the series' pixels (dicom_objects),
which descriptor is usable (series_descriptor), which licence is allowed (policy).

A listing passes on what the index says, wrong or not; only a file that is not such an index is refused here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from medvec_assets.connectors import LISTING, Listing
from medvec_assets.json_columns import json_objects
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.settings import Settings

ROWS_PER_LISTING = 250_000  # about 150 MB of strings: the whole index in five pieces
INDEX_NAME = "idc_index.parquet"
PRIOR_VERSIONS_NAME = "prior_versions_index.parquet"

_CURRENT: dict[str, pl.DataType] = {
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
_PRIOR: dict[str, pl.DataType] = {
    "collection_id": pl.String(),
    "PatientID": pl.String(),
    "SeriesInstanceUID": pl.String(),
    "Modality": pl.String(),
    "crdc_series_uuid": pl.String(),
    "series_size_MB": pl.Float64(),
    "series_aws_url": pl.String(),
    "min_idc_version": pl.Int64(),
    "max_idc_version": pl.Int64(),
}


class IdcIndex:
    """Lists one index file and, where there is one, the list of prior versions that belongs to it."""

    is_remote = False
    is_catalogue = True

    def __init__(self, index: Path, prior_versions: Path | None, version: str | None) -> None:
        self._index = index
        self._prior_versions = prior_versions
        self._version = version  # None: the files' digest stands for it

    def version(self) -> str:
        """`idc-index-data <version>`, or the digest of the files where they are not the package's (0.1 s for 80 MB)."""
        if self._version is not None:
            return self._version
        digest = hashlib.sha256()
        for path in (self._index, self._prior_versions):
            if path is not None:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return f"sha256:{digest.hexdigest()}"

    def listings(self, previous: pl.DataFrame) -> Iterator[Listing]:
        """The published series in pieces of at most ROWS_PER_LISTING rows, then the removed ones.

        Nothing of `previous` is needed: the checksums stand in the index. Raises SourceError for a file that cannot
        be read or lacks a column.
        """
        index = _scan(self._index, _CURRENT)
        rows = index.select(pl.len()).collect().item()
        for start in range(0, rows, ROWS_PER_LISTING):
            yield Listing(_published(index.slice(start, ROWS_PER_LISTING)).collect())
        if self._prior_versions is not None:
            yield Listing(_removed(index, _scan(self._prior_versions, _PRIOR)).collect())

    def read(self, uri: str, *, max_bytes: int) -> bytes:
        """Never returns: a catalogue has no bytes. Raises ObjectRejected `object_missing`."""
        raise ObjectRejected(
            f"{uri} is a row of a catalogue, which holds no bytes of it",
            remedy="read the pixels through the dataset tcia_radiology",
            code="object_missing",
        )


def open_connector(settings: Settings, dataset_id: str) -> IdcIndex:
    """The package's index, or the parquet file at `settings.sources[dataset_id]` (or in that folder) with, where it stands
    beside it, its `prior_versions_index.parquet`. Raises ConfigError if there is no index file."""
    source = settings.sources.get(dataset_id)
    if source is None:
        import idc_index_data as package

        shipped = package.IDC_INDEX_PARQUET_FILEPATH
        if shipped is None:
            raise ConfigError(
                f"idc-index-data {package.__version__} came without its index",
                remedy="reinstall it, or name an idc_index.parquet in MEDVEC_SOURCES",
            )
        # The package's major version is IDC's release: 25.0.5 ships v25.
        release = f"IDC v{package.__version__.partition('.')[0]} (idc-index-data {package.__version__})"
        return IdcIndex(shipped, package.PRIOR_VERSIONS_INDEX_PARQUET_FILEPATH, release)
    index = Path(source).expanduser()
    index = index / INDEX_NAME if index.is_dir() else index
    if not index.is_file():
        raise ConfigError(
            f"MEDVEC_SOURCES names {source!r} for {dataset_id}, which is no file and no folder with an {INDEX_NAME}",
            remedy=f"give the local path of an {INDEX_NAME}, or drop the entry to read the installed package's",
        )
    prior_versions = index.with_name(PRIOR_VERSIONS_NAME)
    return IdcIndex(index, prior_versions if prior_versions.is_file() else None, None)


def _scan(path: Path, columns: dict[str, pl.DataType]) -> pl.LazyFrame:
    """`columns` of a parquet file; every column that is missing or of another type is named in one error."""
    try:
        frame = pl.scan_parquet(path)
        found = frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"{path} cannot be read as parquet ({type(error).__name__})",
            remedy="fetch the file again, or reinstall idc-index-data",
        ) from error
    wrong = [
        f"{name}: {dtype} wanted, {found.get(name, 'absent')}"
        for name, dtype in columns.items()
        if found.get(name) != dtype
    ]
    if wrong:
        raise SourceError(
            f"{path} is not laid out as an IDC index: {'; '.join(wrong)}",
            remedy="use the file of idc-index-data 25, or teach medvec_assets/connectors/idc_index.py the new layout",
            code="schema_drift",
        )
    return frame.select(list(columns))


def _published(index: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of the index as LISTING.

    crdc_series_uuid moves with each revision of the DICOM files. A corrected index column does not move it, and need
    not: a partition's content digest covers `attributes` too.
    """
    return _listing(
        index,
        license=pl.col("license_short_name"),
        upstream_version=_release(pl.col("series_revised_idc_version")),
        first_seen_version=_release(pl.col("series_init_idc_version")),
        removed_in_version=pl.lit(None, pl.String),
        attributes=json_objects(
            modality=pl.col("Modality"),
            body_part=pl.col("BodyPartExamined"),
            series_description=pl.col("SeriesDescription"),
            study_description=pl.col("StudyDescription"),
            manufacturer=pl.col("Manufacturer"),
            manufacturer_model=pl.col("ManufacturerModelName"),
            sop_class_name=pl.col("sop_class_name"),
            instances=pl.col("instanceCount"),
            doi=pl.col("source_DOI"),
        ),
    )


def _removed(index: pl.LazyFrame, prior_versions: pl.LazyFrame) -> pl.LazyFrame:
    """One tombstone per series that had versions and has none now, told by the latest of them.

    The list of prior versions has neither a licence nor a descriptor: nothing may be made of such a row.
    """
    latest = (
        prior_versions.join(index.select("SeriesInstanceUID"), on="SeriesInstanceUID", how="anti")
        .with_columns(first_seen=pl.col("min_idc_version").min().over("SeriesInstanceUID"))
        # Two may end with the same release: then by uuid, so that it is the same one every time
        .sort("max_idc_version", "crdc_series_uuid", descending=True)
        .unique("SeriesInstanceUID", keep="first", maintain_order=True)
    )
    return _listing(
        latest,
        license=pl.lit("unknown"),
        upstream_version=_release(pl.col("min_idc_version")),
        first_seen_version=_release(pl.col("first_seen")),
        removed_in_version=_release(pl.col("max_idc_version") + 1),
        attributes=json_objects(modality=pl.col("Modality")),
    )


def _listing(rows: pl.LazyFrame, **own: pl.Expr) -> pl.LazyFrame:
    """LISTING from the columns that both index files have, and the `own` ones of one of them."""
    shared: dict[str, Any] = {
        "object_id": pl.col("SeriesInstanceUID"),
        "cohort": pl.col("collection_id"),
        "uri": pl.col("series_aws_url"),
        "size_bytes": (pl.col("series_size_MB") * 1_000_000).round().cast(pl.Int64),
        "checksum": pl.col("crdc_series_uuid"),
        "checksum_kind": pl.lit("crdc_series_uuid"),
        "media_type": pl.lit("application/dicom"),
        "access_tier": pl.lit("open"),
        "subject_ref": pl.col("PatientID"),
        "record_ref": pl.col("SeriesInstanceUID"),
    }
    values = shared | own
    return rows.select(values[name].alias(name) for name in LISTING)


def _release(number: pl.Expr) -> pl.Expr:
    return pl.format("v{}", number)
