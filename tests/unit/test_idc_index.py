"""The IDC index: what a listing says of a series, tombstones, and files that are not such an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medvec_assets.connectors import LISTING, idc_index, open_connector
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.settings import Settings

SERIES: dict[str, Any] = {
    "collection_id": "tcga_lihc",
    "PatientID": "TCGA-1",
    "SeriesInstanceUID": "1.2.3",
    "source_DOI": "10.7937/x",
    "StudyDescription": "CT abdomen",
    "BodyPartExamined": "LIVER",
    "Modality": "CT",
    "sop_class_name": "CT Image Storage",
    "Manufacturer": None,
    "ManufacturerModelName": "Sensation 16",
    "SeriesDescription": 'quoted "x":null, tab\t',
    "instanceCount": 91,
    "license_short_name": "CC BY 3.0",
    "series_init_idc_version": 2,
    "series_revised_idc_version": 17,
    "crdc_series_uuid": "uuid-1",
    "series_aws_url": "s3://idc-open-data/uuid-1/*",
    "series_size_MB": 26.405988,
}
PRIOR: dict[str, Any] = {
    "collection_id": "tcga_lihc",
    "PatientID": "TCGA-1",
    "SeriesInstanceUID": "1.2.9",
    "Modality": "SEG",
    "crdc_series_uuid": "old-1",
    "series_size_MB": 0.5,
    "series_aws_url": "s3://idc-open-data/old-1/*",
    "min_idc_version": 2,
    "max_idc_version": 9,
}


def write(folder: Path, series: list[dict[str, Any]], prior: list[dict[str, Any]] | None = None) -> Settings:
    """An index as the package lays it out (with a column that nobody asked for), and settings that point at it."""
    index = folder / "idc_index.parquet"
    columns = idc_index._CURRENT | {"StudyDate": pl.String()}
    pl.DataFrame([{"StudyDate": "1999-01-01"} | row for row in series], schema=columns).write_parquet(index)
    if prior is not None:
        pl.DataFrame(prior, schema=idc_index._PRIOR).write_parquet(folder / idc_index.PRIOR_VERSIONS_NAME)
    return Settings(sources={"tcia_catalog": str(index)})


def rows(settings: Settings) -> pl.DataFrame:
    listings = open_connector("idc_index", settings, "tcia_catalog").listings(pl.DataFrame())
    return pl.concat([listing.objects for listing in listings])


def test_a_series_is_listed_as_the_index_says(tmp_path: Path) -> None:
    listed = rows(write(tmp_path, [SERIES]))
    assert dict(listed.schema) == LISTING
    row = listed.row(0, named=True)
    attributes = row.pop("attributes")
    assert row == {
        "object_id": "1.2.3",
        "cohort": "tcga_lihc",
        "uri": "s3://idc-open-data/uuid-1/*",
        "size_bytes": 26_405_988,
        "checksum": "uuid-1",
        "checksum_kind": "crdc_series_uuid",
        "media_type": "application/dicom",
        "license": "CC BY 3.0",
        "access_tier": "open",
        "subject_ref": "TCGA-1",
        "record_ref": "1.2.3",
        "upstream_version": "v17",
        "first_seen_version": "v2",
        "removed_in_version": None,
    }
    expected = {
        "body_part": "LIVER",
        "doi": "10.7937/x",
        "instances": 91,
        "manufacturer_model": "Sensation 16",
        "modality": "CT",
        "series_description": 'quoted "x":null, tab\t',
        "sop_class_name": "CT Image Storage",
        "study_description": "CT abdomen",
    }
    assert list(json.loads(attributes).items()) == list(expected.items())


def test_what_the_source_says_is_passed_on_wrong_or_not(tmp_path: Path) -> None:
    listed = rows(write(tmp_path, [SERIES, SERIES, SERIES | {"license_short_name": None, "series_size_MB": None}]))
    assert listed["object_id"].to_list() == ["1.2.3"] * 3
    assert listed["license"].to_list()[-1] is None and listed["size_bytes"].to_list()[-1] is None


def test_removed_series_leave_one_tombstone_each(tmp_path: Path) -> None:
    revised = PRIOR | {"crdc_series_uuid": "old-2", "min_idc_version": 10, "max_idc_version": 23, "series_size_MB": 0.7}
    superseded = PRIOR | {"SeriesInstanceUID": "1.2.3"}
    listed = rows(write(tmp_path, [SERIES], [PRIOR, revised, superseded]))
    assert listed["object_id"].to_list() == ["1.2.3", "1.2.9"]
    assert dict(listed.schema) == LISTING
    wanted = {
        "checksum": "old-2",
        "size_bytes": 700_000,
        "license": "unknown",
        "upstream_version": "v10",
        "first_seen_version": "v2",
        "removed_in_version": "v24",
        "attributes": '{"modality":"SEG"}',
    }
    assert {name: listed.row(1, named=True)[name] for name in wanted} == wanted


def test_the_index_comes_in_pieces_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idc_index, "ROWS_PER_LISTING", 3)
    settings = write(tmp_path, [SERIES | {"SeriesInstanceUID": f"1.{n}"} for n in range(7)])
    pieces = list(open_connector("idc_index", settings, "tcia_catalog").listings(pl.DataFrame()))
    assert [piece.objects.height for piece in pieces] == [3, 3, 1]
    assert rows(settings)["object_id"].to_list() == [f"1.{n}" for n in range(7)]


def test_an_empty_index_lists_nothing(tmp_path: Path) -> None:
    assert list(open_connector("idc_index", write(tmp_path, []), "tcia_catalog").listings(pl.DataFrame())) == []


def test_the_version_of_another_file_is_its_content(tmp_path: Path) -> None:
    def version(series: list[dict[str, Any]], prior: list[dict[str, Any]] | None = None) -> str:
        return open_connector("idc_index", write(tmp_path, series, prior), "tcia_catalog").version()

    first = version([SERIES])
    assert first.startswith("sha256:") and version([SERIES]) == first
    changed = version([SERIES | {"BodyPartExamined": "HEAD"}])
    assert len({first, changed, version([SERIES], [PRIOR])}) == 3


def test_the_package_is_read_where_no_source_is_given() -> None:
    import idc_index_data

    connector = open_connector("idc_index", Settings(sources={"other": "/nowhere"}), "tcia_catalog")
    assert connector.version() == f"IDC v25 (idc-index-data {idc_index_data.__version__})"
    piece = next(iter(connector.listings(pl.DataFrame()))).objects
    assert piece.height == idc_index.ROWS_PER_LISTING and dict(piece.schema) == LISTING
    assert piece.drop("removed_in_version").null_count().sum_horizontal().item() == 0


def test_a_package_without_its_index_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idc_index_data.IDC_INDEX_PARQUET_FILEPATH", None)
    with pytest.raises(ConfigError, match="without its index"):
        open_connector("idc_index", Settings(sources={}), "tcia_catalog")


def test_a_catalogue_has_no_bytes(tmp_path: Path) -> None:
    connector = open_connector("idc_index", write(tmp_path, [SERIES]), "tcia_catalog")
    with pytest.raises(ObjectRejected, match="tcia_radiology") as caught:
        connector.read("s3://idc-open-data/uuid-1/*", max_bytes=1)
    assert caught.value.code == "object_missing"


def test_a_source_that_is_no_file_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MEDVEC_SOURCES"):
        open_connector("idc_index", Settings(sources={"tcia_catalog": str(tmp_path / "none.parquet")}), "tcia_catalog")


def test_a_file_that_is_no_parquet_fails_the_source(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    path.write_bytes(b"not parquet at all")
    connector = open_connector("idc_index", Settings(sources={"tcia_catalog": str(path)}), "tcia_catalog")
    with pytest.raises(SourceError, match="cannot be read as parquet"):
        next(iter(connector.listings(pl.DataFrame())))


def test_a_truncated_file_fails_the_source(tmp_path: Path) -> None:
    settings = write(tmp_path, [SERIES] * 1000)
    path = Path(settings.sources["tcia_catalog"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="cannot be read as parquet"):
        rows(settings)


def test_schema_drift_names_every_column(tmp_path: Path) -> None:
    path = Path(write(tmp_path, [SERIES]).sources["tcia_catalog"])
    pl.read_parquet(path).drop("Modality").cast({"instanceCount": pl.String}).write_parquet(path)
    with pytest.raises(SourceError, match="Modality: String wanted, absent; instanceCount: Int64") as caught:
        rows(Settings(sources={"tcia_catalog": str(path)}))
    assert caught.value.code == "schema_drift"
