"""Persons of an OMOP release: the same from Parquet and from BigQuery, tables read once, a release as a whole."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from standins import bigquery as standin

from medvec_assets.catalog.aou_persons import AOU_PERSONS
from medvec_assets.connectors import LISTING, omop_tables
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.omop import TABLES, Omop, open_connector
from medvec_assets.connectors.omop_tables import BigQueryTables, ParquetTables, open_tables
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable
from resources.lakehouse import Lakehouse
from resources.policy import refusal
from resources.settings import Agreement, Settings

AGREEMENT = Agreement(id=AOU_PERSONS.terms.agreement, holder="H", datasets={"aou_persons"}, expires=date.max)
SAMPLE = Path(__file__).parents[1] / "datasets" / "aou_persons" / "in" / "SYNTHETIC_C2022Q4R0"
NOTHING = pl.DataFrame(schema=LISTING)
SETTINGS = {"pseudonym_key": "11" * 32, "device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "C2022Q4R13"))


def parquet(home: Path, folder: Path) -> Omop:
    return open_connector(Settings(home=home, sources={"aou_persons": str(folder)}, **SETTINGS), "aou_persons")


def bigquery(home: Path, client: standin.Client) -> Omop:
    settings = Settings(home=home, **SETTINGS)
    source = BigQueryTables(standin.PROJECT, client.folder.name, client)
    return Omop(source, Landing(settings, "aou_persons"), Pseudonyms(settings.pseudonym_secret, "aou_persons"))


def listed(found: Omop) -> pl.DataFrame:
    return pl.concat([listing.objects for listing in found.listings(NOTHING)]).sort("object_id")


def rewritten(path: Path, change: pl.Expr) -> None:
    frame = pl.read_parquet(path).with_columns(change)
    pq.write_table(frame.to_arrow(), path)


def test_parquet_and_bigquery_hold_the_same_persons(tmp_path: Path, folder: Path) -> None:
    one, other = parquet(tmp_path / "a", folder), bigquery(tmp_path / "b", standin.Client(folder))
    frame = listed(one)
    assert frame.height == 46 and frame.equals(listed(other))
    assert frame["cohort"].unique().to_list() == ["C2022Q4R13"]
    assert one.version().startswith("C2022Q4R13 (2023-01-01, v5.0 30-AUG-22) ")
    uri = frame["uri"][3]
    assert one.read(uri, max_bytes=1 << 20) == other.read(uri, max_bytes=1 << 20)


def test_an_export_in_several_files_is_one_table(tmp_path: Path, folder: Path) -> None:
    before = listed(parquet(tmp_path / "a", folder))
    whole = pq.read_table(folder / "measurement.parquet")
    (folder / "measurement.parquet").unlink()
    (folder / "measurement").mkdir()
    for number, start in enumerate(range(0, whole.num_rows, 100)):
        pq.write_table(whole.slice(start, 100), folder / "measurement" / f"{number:012}.parquet")
    assert listed(parquet(tmp_path / "b", folder)).equals(before)


def test_a_query_names_its_columns_and_is_asked_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omop_tables, "BATCH_ROWS", 50)  # of a page: a table comes in several
    client = standin.Client(folder)
    for _ in range(2):
        listed(bigquery(tmp_path, client))
    assert (
        f"SELECT `person_id`, `visit_concept_id`, `visit_start_date` FROM `{standin.PROJECT}.C2022Q4R13.visit_occurrence`"
        in client.queries
    )
    of_persons = [sql for sql in client.queries if not sql.endswith(("cdm_source`",))]
    assert len(of_persons) == len(set(of_persons)) == len(TABLES) + 1


def test_a_query_that_breaks_off_is_asked_again_and_the_others_are_not(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omop_tables, "BATCH_ROWS", 50)
    client = standin.Client(folder)
    client.fails_after = {"drug_exposure": 2}
    with pytest.raises(SourceUnavailable):
        listed(bigquery(tmp_path, client))
    asked = [sql for sql in client.queries if "cdm_source" not in sql]
    client.queries.clear()
    assert listed(bigquery(tmp_path, client)).height == 46
    again = set(asked) & set(client.queries)
    assert len(again) == 1 and "drug_exposure" in again.pop()


@pytest.mark.parametrize(
    ("allowed", "name", "code"), [(False, "C2022Q4R13", "credentials_refused"), (True, "C1999", "source_missing")]
)
def test_what_bigquery_refuses_is_said_without_its_words(
    tmp_path: Path, folder: Path, allowed: bool, name: str, code: str
) -> None:
    source = BigQueryTables(standin.PROJECT, name, standin.Client(folder, allowed=allowed))
    with pytest.raises(SourceError) as refusal:
        source.etag("person")
    assert refusal.value.code == code and "Table" not in str(refusal.value)


def test_a_source_is_a_folder_or_a_data_set() -> None:
    found = open_tables("bigquery://fc-aou-cdr-prod-ct.C2022Q4R13")
    assert isinstance(found, BigQueryTables) and (found.name, found.is_remote) == ("C2022Q4R13", True)
    assert isinstance(open_tables("file:///data/C2022Q4R13"), ParquetTables)
    with pytest.raises(ConfigError):
        open_tables("bigquery://fc-aou-cdr-prod-ct")


def test_a_column_that_is_gone_fails_the_source_and_an_optional_one_does_not(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = listed(parquet(tmp_path / "a", folder))
    person = folder / "person.parquet"
    pq.write_table(
        pq.read_table(person).drop_columns(["sex_at_birth_concept_id"]).append_column("new_one", pa.nulls(47)), person
    )
    with caplog.at_level(logging.WARNING):
        after = listed(parquet(tmp_path / "b", folder))
    assert after["object_id"].equals(before["object_id"]) and "new_one" in caplog.text
    pq.write_table(pq.read_table(person).drop_columns(["year_of_birth"]), person)
    with pytest.raises(SourceError, match="year_of_birth") as refusal:
        listed(parquet(tmp_path / "c", folder))
    assert refusal.value.code == "schema_drift"


@pytest.mark.parametrize("broken", ["missing", "cut"])
def test_a_table_that_is_missing_or_cut_fails_the_source(tmp_path: Path, folder: Path, broken: str) -> None:
    path = folder / "measurement.parquet"
    data = path.read_bytes()
    path.unlink()
    if broken == "cut":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError) as refusal:
        listed(parquet(tmp_path, folder))
    assert refusal.value.code == {"missing": "source_missing", "cut": "table_unreadable"}[broken]


def column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


def no_utf8(table: pa.Table) -> pa.Table:
    data = pa.array([(name or "").encode() + b"\xf6" for name in table["concept_name"].to_pylist()], pa.binary())
    text = pa.StringArray.from_buffers(len(data), data.buffers()[1], data.buffers()[2])
    return column("concept_name", text)(table)


ROWS = 270  # of the sample's measurements


@pytest.mark.parametrize(
    ("table", "change", "code"),
    [
        ("measurement", column("person_id", pa.nulls(ROWS, pa.int64())), "schema_drift"),
        ("measurement", column("person_id", pa.array([float(i) for i in range(ROWS)])), "schema_drift"),
        ("measurement", column("person_id", pa.array(range(ROWS))), "schema_drift"),
        ("measurement", column("value_as_number", pa.array([[1.0]] * ROWS)), "schema_drift"),
        ("measurement", lambda table: table.append_column("person_id", table["person_id"]), "schema_drift"),
        ("person", lambda table: table.slice(0, 0), "source_empty"),
        ("concept", no_utf8, "table_unreadable"),
    ],
)
def test_a_table_that_is_not_what_it_says_fails_the_source(
    tmp_path: Path, folder: Path, table: str, change: Callable[[pa.Table], pa.Table], code: str
) -> None:
    path = folder / f"{table}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(SourceError) as refusal:
        listed(parquet(tmp_path, folder))
    assert refusal.value.code == code and refusal.value.remedy


def test_a_table_that_changes_while_it_is_read_fails_the_listing(tmp_path: Path, folder: Path) -> None:
    found = parquet(tmp_path / "home", folder).listings(NOTHING)
    next(found)
    rewritten(folder / "drug_exposure.parquet", pl.col("quantity") + 1)
    with pytest.raises(SourceError) as refusal:
        list(found)
    assert refusal.value.code == "release_changed"


def test_a_changed_table_alone_is_read_again(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(parquet(tmp_path / "home", folder))
    rewritten(folder / "condition_occurrence.parquet", pl.col("condition_concept_id").fill_null(0))
    read: list[str] = []
    frames = ParquetTables.frames

    def noted(self: ParquetTables, table: str, layout: omop_tables.Layout) -> Iterator[pl.DataFrame]:
        read.append(table)
        return frames(self, table, layout)

    monkeypatch.setattr(ParquetTables, "frames", noted)
    listed(parquet(tmp_path / "home", folder))
    assert sorted(read) == ["cdm_source", "concept", "condition_occurrence"]


def test_a_person_that_is_not_there_is_missing(tmp_path: Path, folder: Path) -> None:
    found = parquet(tmp_path / "home", folder)
    for uri in ("omop:person#person_id=5", "omop:person", "s3://bucket/key"):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(uri, max_bytes=1 << 20)
        assert refusal.value.code == "object_missing"


def test_who_is_not_in_the_next_release_is_dated_and_has_no_record(tmp_path: Path, folder: Path) -> None:
    here = {"site": "workbench", "agreements": (AGREEMENT,)}

    def refreshed(source: Path) -> pl.DataFrame:
        settings = Settings(home=tmp_path / "home", sources={"aou_persons": str(source)}, **SETTINGS, **here)
        ctx = Context(settings, Lakehouse.open(settings), "run")
        for partition in manifest.refresh(ctx, AOU_PERSONS).plan["partition"]:
            records.build(ctx, AOU_PERSONS, partition)
        snapshots = [ctx.lake.snapshot(table(AOU_PERSONS.id)) for table in (tables.manifest, tables.records)]
        objects, found = (one.read() for one in snapshots if one)
        return objects.join(
            found.select("record_id"), left_on="object_id", right_on="record_id", how="left", coalesce=False
        )

    before = refreshed(folder)
    following = Path(shutil.copytree(folder, tmp_path / "C2024Q3R8"))
    gone = 1_000_013
    person = pl.read_parquet(following / "person.parquet").filter(pl.col("person_id") != gone)
    pq.write_table(person.to_arrow(), following / "person.parquet")
    after = refreshed(following)
    assert before.filter(pl.col("subject_ref") == str(gone))["record_id"][0] is not None
    assert after.filter(pl.col("subject_ref") == str(gone)).is_empty(), "bronze forgets who left"
    assert after.height == before.height - 1 and set(after["cohort"]) == {"C2024Q3R8"}
    noted = Lakehouse(str(tmp_path / "home" / "lake")).snapshot(tables.withdrawals())
    assert noted is not None
    [row] = noted.read().to_dicts()
    assert row["removed_in_version"].startswith("C2024Q3R8 ")


def test_real_data_stays_in_its_workbench() -> None:
    outside, inside = (Settings(site=site, agreements=(AGREEMENT,)) for site in ("anywhere", "workbench"))
    refused = refusal(outside, AOU_PERSONS.terms, date(2026, 1, 1))
    assert refused is not None and refused.rule == "residency"
    assert refusal(inside, AOU_PERSONS.terms, date(2026, 1, 1)) is None
    assert AOU_PERSONS.smallest_count == 21
