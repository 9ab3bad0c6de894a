"""GEO's matrix files: what becomes of a good one, and the code of every bad one."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvec_assets.connectors import series_matrix
from medvec_assets.connectors.series_matrix import convert, sample_bytes, samples
from resources.errors import ObjectRejected

HEADER = '!Series_title\t"caf\xe9"\n'.encode("latin-1") + b'!Series_geo_accession\t"GSE1000"\n\n'


def matrix(
    names: Sequence[str] = ("GSM1", "GSM2"),
    rows: Sequence[Sequence[str]] = (("p1", "1.5", "2"), ("p2", "null", "-3e2")),
    further: str = "",
    columns: Sequence[str] | None = None,
    end: str = "!series_matrix_table_end\n",
) -> bytes:
    """A series matrix, not compressed."""

    def line(*cells: str) -> str:
        return "\t".join(f'"{cell}"' for cell in cells) + "\n"

    head = "!Sample_geo_accession\t" + line(*names) + "!Sample_platform_id\t" + line(*["GPL96"] * len(names)) + further
    table = line("ID_REF", *(names if columns is None else columns)) + "".join(
        "\t".join([f'"{row[0]}"', *row[1:]]) + "\n" for row in rows
    )
    return HEADER + f"{head}!series_matrix_table_begin\n{table}{end}".encode()


def landed(data: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "landed"
    convert(io.BytesIO(data), folder)
    return folder


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def code_of(data: bytes, tmp_path: Path) -> str:
    folder = landed(data, tmp_path)
    with pytest.raises(ObjectRejected) as refusal:
        samples(folder)
    assert not (folder / series_matrix.TABLE).exists()
    return refusal.value.code


def test_a_sample_is_its_column_and_what_is_told_of_it(tmp_path: Path) -> None:
    further = (
        '!Sample_type\t"RNA"\t"RNA"\n!Sample_organism_ch1\t"Homo sapiens"\t"Homo sapiens"\n'
        '!Sample_characteristics_ch1\t"Tissue: lung"\t""\n!Sample_characteristics_ch1\t"patient id: P7"\t"value_type: counts"\n'
        '!Sample_contact_name\t"Jane,,Doe"\t"Jane,,Doe"\n'
    )
    folder = landed(packed(matrix(further=further)), tmp_path)
    data = sample_bytes(folder, "GSM1")
    assert data.decode() == (
        "#tissue: lung\n#patient id: P7\n#series: GSE1000\n#platform: GPL96\n#sample: GSM1\n#type: RNA\n#organism: Homo sapiens\n"
        "feature_id\tvalue\np1\t1.5\np2\tnull\n"
    )
    first, second = samples(folder)
    assert first["sha256"] == hashlib.sha256(data).hexdigest() and first["size_bytes"] == len(data)
    assert (first["subject"], second["subject"]) == ("P7", None)
    assert b"value_type" not in sample_bytes(folder, "GSM2")  # a submitter's words do not change what values are
    assert b"Jane" not in data


@given(values=st.lists(st.lists(st.floats(allow_nan=False).map(repr), min_size=3, max_size=3), min_size=1, max_size=40))
def test_every_block_size_gives_the_columns_of_the_file(
    values: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("matrix")
    names = ("GSM1", "GSM2", "GSM3")
    rows = [(f"p{number}", *row) for number, row in enumerate(values)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_matrix, "BLOCK_BYTES", 128)
        patch.setattr(series_matrix, "BLOCK_ROWS", 1)
        convert(io.BytesIO(packed(matrix(names, rows))), folder / "made")
    for position, sample in enumerate(samples(folder / "made"), start=1):
        data = sample_bytes(folder / "made", sample["accession"])
        assert hashlib.sha256(data).hexdigest() == sample["sha256"]
        assert data.decode().partition("value\n")[2] == "".join(f"{row[0]}\t{row[position]}\n" for row in rows)


def test_a_bad_column_leaves_its_neighbours(tmp_path: Path) -> None:
    names = ("GSM1", "GSM2", "GSM2", "GSM4", "P. Smith")
    data = matrix(names, [("p1", *"12345")], columns=("GSM1", "GSM2", "GSM2", "GSM5", "P. Smith"))
    folder = landed(packed(data), tmp_path)
    assert {one["accession"]: one["code"] for one in samples(folder)} == {
        "GSM1": None,
        "GSM2": "duplicate_sample",
        "GSM4": "sample_mismatch",
        "GSM5": "sample_mismatch",
        "P. Smith": "bad_accession",
    }
    assert sample_bytes(folder, "GSM1").endswith(b"p1\t1\n")
    with pytest.raises(ObjectRejected) as refusal:
        sample_bytes(folder, "GSM2")
    assert refusal.value.code == "object_missing"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (packed(matrix())[:-40], "truncated_gzip"),
        (packed(matrix())[:-8] + bytes(8), "truncated_gzip"),
        (matrix(), "not_gzip"),
        (b"", "not_gzip"),
        (packed(matrix(rows=[("p1", "1", "2"), ("p2", "1")])), "matrix_shifted"),
        (packed(matrix(rows=[("p1", "1", "2"), ("p2", "1", "2", "3")])), "matrix_shifted"),
        (packed(matrix(further='!Sample_type\t"RNA"\n')), "matrix_shifted"),
        (packed(matrix(end="")), "matrix_layout"),
        (packed(matrix().replace(b"!series_matrix_table_begin", b"!begin")), "matrix_layout"),
        (packed(matrix().replace(b"ID_REF", b"probe")), "matrix_layout"),
        (packed(matrix().replace(b"GSE1000", b"GDS1000")), "matrix_layout"),
        (packed(matrix(rows=[])), "matrix_empty"),
        (packed(matrix().replace(b"p2", b"p\xe9")), "matrix_encoding"),
        (
            packed(matrix(further='!Sample_characteristics_ch1\t"a: X"\t"b"\n').replace(b"X", b"\xe9")),
            "matrix_encoding",
        ),
        (packed(matrix().decode("latin-1").encode("utf-16")), "matrix_layout"),
        (b'<html>Accession "GSE1000" was deleted by the GEO staff on Jan 02, 2020</html>', "series_withdrawn"),
        (b'<html>Accession "GSE1000" is currently private and is scheduled', "series_private"),
        (b'<html>Could not find a public or private accession "GSE1000"', "series_missing"),
        (b"<html>Please log in</html>", "not_gzip"),
    ],
)
def test_a_bad_file_has_a_code(data: bytes, code: str, tmp_path: Path) -> None:
    assert code_of(data, tmp_path) == code
