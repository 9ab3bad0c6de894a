"""CSV tables that are not what they should be: what fails the source, what is one bad row, what is only noted."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import polars as pl
import pytest

from medvec_assets.connectors import csv_tables
from medvec_assets.connectors.csv_tables import CsvTable
from resources.errors import SourceError

COLUMNS = ("subject_id", "drug")


def table(tmp_path: Path, data: bytes, layout: tuple[str, ...] = ("subject_id", "poe_id", "drug")) -> CsvTable:
    path = tmp_path / "prescriptions.csv.gz"
    path.write_bytes(gzip.compress(data))
    return CsvTable("prescriptions", path, layout, COLUMNS)


def rows(found: CsvTable) -> list[tuple[str | None, ...]]:
    return pl.concat(list(found.frames())).rows()


def test_columns_are_taken_by_name_and_a_value_may_hold_a_line_break(tmp_path: Path) -> None:
    found = table(tmp_path, b'\xef\xbb\xbfdrug,poe_id,subject_id\n"a\nb",,1\n,x,2\n')
    assert rows(found) == [("1", "a\nb"), ("2", None)]


def test_a_table_larger_than_a_block_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 4_096)
    found = table(tmp_path, b"subject_id,poe_id,drug\n" + b"".join(b"%d,,d%d\n" % (i, i) for i in range(5_000)))
    frames = list(found.frames())
    assert len(frames) > 5
    assert pl.concat(frames).rows() == [(str(i), f"d{i}") for i in range(5_000)]


def test_a_row_with_another_number_of_fields_is_a_row_of_nulls(tmp_path: Path) -> None:
    found = table(tmp_path, b"subject_id,poe_id,drug\n1,,a\n2,,b,c\n3\n4,,d\n")
    assert rows(found) == [("1", "a"), ("4", "d"), (None, None), (None, None)]


def test_a_table_of_such_rows_is_another_layout(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refusal:
        rows(table(tmp_path, b"subject_id,poe_id,drug\n1,,a\n2,,b,c\n3,,b,c\n"))
    assert refusal.value.code == "schema_drift"


@pytest.mark.parametrize("header", [b"subject_id,poe_id", b"subject_id,drug,drug", b""])
def test_a_column_that_is_missing_or_there_twice_fails_the_source(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(SourceError, match="drug") as refusal:
        rows(table(tmp_path, header + b"\n1,2,3\n"))
    assert refusal.value.code == "schema_drift"


def test_a_further_column_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert rows(table(tmp_path, b"subject_id,poe_id,drug,new_one\n1,,a,z\n")) == [("1", "a")]
    assert "new_one" in caplog.text


def test_bytes_that_are_no_utf8_are_marked_where_they_stand(tmp_path: Path) -> None:
    found = table(tmp_path, b"subject_id,poe_id,drug\n1,,Propof\xf6l\n2,,fine\n")
    assert rows(found) == [("1", "Propof\N{REPLACEMENT CHARACTER}l"), ("2", "fine")]


def test_a_plain_file_is_read_too(tmp_path: Path) -> None:
    found = table(tmp_path, b"")
    found.path.write_bytes(b"subject_id,poe_id,drug\n1,,a\n")
    assert rows(found) == [("1", "a")]


def test_a_file_that_is_cut_fails_the_source(tmp_path: Path) -> None:
    found = table(tmp_path, b"subject_id,poe_id,drug\n" + b"".join(b"%d,,d%d\n" % (i, i * i) for i in range(9_000)))
    data = found.path.read_bytes()
    found.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError) as refusal:
        rows(found)
    assert refusal.value.code == "table_unreadable"


def test_a_page_of_html_fails_the_source(tmp_path: Path) -> None:
    found = table(tmp_path, b"")
    found.path.write_bytes(b"<html>Please sign in</html>")
    with pytest.raises(SourceError) as refusal:
        rows(found)
    assert refusal.value.code == "schema_drift"
