"""A planted identifier is found however it is spelled and whatever it is packed in, and nothing else is."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from helpers.dicom_files import real
from hypothesis import given
from hypothesis import strategies as st

from medvec_assets.scorer.plants import DATE_YEARS, KINDS, Mint
from medvec_assets.scorer.search import Searcher
from resources.lakehouse import Lakehouse
from resources.tables import TableSpec


@pytest.fixture
def mint() -> Mint:
    return Mint(b"search")


def found(mint: Mint, data: bytes) -> set[str]:
    """Kinds of the tokens in `data`."""
    return {leak.kind for leak in Searcher(mint.tokens).in_bytes(data, "there")}


def value_of(mint: Mint, kind: str) -> str:
    value = mint.plant(kind, f"where {kind} is")
    assert value is not None
    return value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "date"])
def test_every_kind_is_found_as_planted_in_any_case_and_in_utf16(mint: Mint, kind: str) -> None:
    value = value_of(mint, kind)
    for text in (value, value.upper(), value.lower()):
        assert found(mint, f"({text})".encode()) == {kind}
        assert found(mint, text.encode("utf-16-le")) == {kind}
        assert found(mint, text.encode("utf-16-be")) == {kind}


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "hexadecimal": lambda value: value.encode().hex().upper().encode(),
    "base64": lambda value: base64.b64encode(value.encode()),
    "base64, one byte later": lambda value: base64.b64encode(b"x" + value.encode()),
    "base64, two bytes later": lambda value: base64.b64encode(b"xy" + value.encode() + b" and more"),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(b"??" + value.encode()),
    "URL": lambda value: quote(value, safe="").encode(),
    "form": lambda value: quote_plus(value).encode(),
    "JSON": lambda value: json.dumps({"a": value}).encode(),
    "XML": lambda value: value.encode("ascii", "xmlcharrefreplace"),
    "sha256": lambda value: hashlib.sha256(value.encode()).hexdigest().encode(),
    "half a sha256": lambda value: hashlib.sha256(value.encode()).hexdigest()[:32].encode(),
    "md5 of lower case": lambda value: hashlib.md5(value.lower().encode(), usedforsecurity=False).hexdigest().encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["accented_name", "mrn", "ssn", "phone", "email", "address", "uid", "url", "ipv6"])
def test_every_encoding_is_seen_through(mint: Mint, kind: str, spelling: str) -> None:
    assert found(mint, SPELLINGS[spelling](value_of(mint, kind))) == {kind}


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d", "%B {}, %Y", "%d-%b-%Y"]
)
def test_a_date_is_found_in_every_form(mint: Mint, form: str) -> None:
    day = mint.date("a form", 0)
    assert found(mint, f"x {day.strftime(form).format(day.day)} y".encode()) == {"date"}
    assert found(mint, pa.array([day]).cast(pa.string())[0].as_py().encode()) == {"date"}


def test_names_are_found_by_their_family_and_numbers_without_separators(mint: Mint) -> None:
    given, _, family = value_of(mint, "accented_name").partition(" ")
    plain = family.replace("ü", "u")
    for text in (family, f"{family}^{given}", f"{family.upper()}, {given}", plain, plain.upper()):
        assert found(mint, text.encode()) == {"accented_name"}
        assert found(mint, text.encode("latin-1")) == {"accented_name"}
    ssn, phone = value_of(mint, "ssn"), value_of(mint, "phone")
    assert found(mint, ssn.replace("-", "").encode()) == {"ssn"}
    digits = "".join(filter(str.isdigit, phone))
    for text in (digits, f"{digits[:3]}-{digits[3:6]}-{digits[6:]}", f"+1 {digits[:3]}.{digits[3:6]}.{digits[6:]}"):
        assert found(mint, text.encode()) == {"phone"}


def test_eight_digits_within_a_digest_are_chance_and_beside_one_other_byte_are_not(mint: Mint) -> None:
    day = mint.date("a date", 2)
    assert found(mint, f"a{day:%Y%m%d}f".encode()) == set()
    assert found(mint, f"{day:%Y%m%d}101500".encode()) == {"date"}
    assert found(mint, b"\x38" + f"{day:%Y%m%d}".encode() + b"\0") == {"date"}


# ---------------------------------------------------------------- containers


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", data)
    return out.getvalue()


def parquet(data: bytes, **more: object) -> bytes:
    out = io.BytesIO()
    inner = pa.array([{"deep": [data.decode()]}] * 500)
    table = pa.table({"n": list(range(500)), "nested": inner, "raw": [data] * 500})
    pq.write_table(table, out, compression="zstd", **more)
    return out.getvalue()


def arrow(data: bytes) -> bytes:
    out = io.BytesIO()
    pyarrow.feather.write_feather(pa.table({"text": [data.decode()] * 300}), out, compression="lz4")
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data * 20)
    return out.getvalue().to_pybytes()


def deflated_dicom(data: bytes) -> bytes:
    head = real("image_dfl.dcm")[:334]  # preamble and file meta
    return head + zlib.compress(data * 20, wbits=-15)


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "the second of two gzip members": lambda data: gzip.compress(b"first") + gzip.compress(data),
    "a gzip file cut short": lambda data: gzip.compress(data * 30 + bytes(range(256)))[:-12],
    "gzip behind other bytes": lambda data: b"header" * 9 + gzip.compress(data),
    "zlib": zlib.compress,
    "zip": zipped,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "parquet": parquet,
    "parquet with a dictionary": lambda data: parquet(data, use_dictionary=True),
    "feather": arrow,
    "deflated DICOM": deflated_dicom,
    "gzip in zip in gzip": lambda data: gzip.compress(zipped(gzip.compress(data))),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_opened(mint: Mint, container: str) -> None:
    packed = CONTAINERS[container](f"a note of {value_of(mint, 'mrn')} and {value_of(mint, 'name')}. ".encode())
    assert found(mint, packed) == {"mrn", "name"}


def test_numbers_and_times_in_columns_are_found_as_they_are_written(mint: Mint) -> None:
    number, day = mint.digits(10, "a number"), mint.date("a date", 0)
    out = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([int(number)], pa.int64()), "born": [day], "x": [1.5]}), out)
    leaks = Searcher(mint.tokens).in_bytes(out.getvalue(), "file")
    assert {(leak.kind, leak.found) for leak in leaks} == {("mrn", "file: column id"), ("date", "file: column born")}


def test_a_table_of_the_lake_is_searched_with_its_log_and_its_paths(mint: Mint, tmp_path: Path) -> None:
    place, told, kept = (value_of(mint, kind) for kind in ("sample", "accession", "mrn"))
    schema = pa.schema([pa.field("partition", pa.string()), pa.field("text", pa.string())])
    table, lake = TableSpec("silver/x/records", schema, ("partition",)), Lakehouse(str(tmp_path))
    rows = pa.table({"partition": [place], "text": [kept]}, schema=schema).to_batches()
    lake.replace(lake.ensure(table), {}, rows, {"who": told})
    leaks = Searcher(mint.tokens).in_folder(tmp_path, "lake")
    where = {leak.kind: {one.found for one in leaks if one.kind == leak.kind} for leak in leaks}
    assert any(found.endswith("column text") for found in where["mrn"])
    assert any("_delta_log" in found for found in where["accession"])
    assert "lake: a file's name" in where["sample"]
    known = Searcher(mint.tokens).in_folder(tmp_path, "lake", lambda found: "_delta_log" in found)
    assert "accession" not in {leak.kind for leak in known}


@given(
    data=st.binary(max_size=400),
    head=st.sampled_from([b"", b"PAR1", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x78\x9c", b"ARROW1"]),
)
def test_damaged_containers_are_searched_as_they_are_and_hold_nothing_by_chance(data: bytes, head: bytes) -> None:
    mint = Mint(b"property")
    value = mint.plant("name", "anywhere")
    searcher = Searcher(mint.tokens)
    assert searcher.in_bytes(head + data, "x") == set()
    assert searcher.in_bytes(head + data + str(value).encode(), "x") != set()


def test_what_is_written_every_day_holds_no_token(mint: Mint) -> None:
    for kind in KINDS[:-1]:
        mint.plant(kind, "nowhere")
    digests = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000))
    assert found(mint, digests.encode()) == set()
    assert found(mint, real("CT_small.dcm")) == set()
    assert date.today().year not in DATE_YEARS
