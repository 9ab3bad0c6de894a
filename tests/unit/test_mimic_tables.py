"""MIMIC-IV's stays: the same from a mirror and from PhysioNet, each table read once, nothing half a release."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr
from standins import physionet as standin

from medvec_assets.connectors import LISTING, parts, physionet
from medvec_assets.connectors.mimic_tables import TABLES, MimicTables, open_connector
from resources import http_source
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings

SAMPLE = Path(__file__).parents[1] / "datasets" / "mimic_stays" / "in" / "physionet.org" / "files"
NOTHING = pl.DataFrame(schema=LISTING)
KEY = "11" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "files"))


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.PhysioNet]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(physionet, "REQUESTS_PER_SECOND", 10_000.0)
    with standin.serving(root) as found:
        yield found


def connector(home: Path, source: str | None) -> MimicTables:
    sources = {"mimic_stays": source} if source else {}
    credentials = {"physionet": SecretStr(standin.CREDENTIAL)}
    settings = Settings(home=home, sources=sources, credentials=credentials, pseudonym_key=KEY)
    return open_connector(settings, "mimic_stays")


def listed(found: MimicTables) -> pl.DataFrame:
    return pl.concat([listing.objects for listing in found.listings(NOTHING)]).sort("object_id")


def rewritten(root: Path, path: str, old: bytes, new: bytes) -> None:
    release = root / "mimiciv" / "3.1"
    (release / path).write_bytes(gzip.compress(gzip.decompress((release / path).read_bytes()).replace(old, new)))
    standin.seal(release)


def test_the_sample_a_mirror_and_the_service_hold_the_same_stays(tmp_path: Path, server: standin.PhysioNet) -> None:
    found = [
        connector(tmp_path / f"home{i}", s)
        for i, s in enumerate((None, str(server.root), server.url("mimiciv", "3.1")))
    ]
    assert len({one.version() for one in found}) == 1
    frames = [listed(one) for one in found]
    assert frames[0].height == 48 and frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    uri = frames[0]["uri"][5]
    assert len({one.read(uri, max_bytes=1 << 20) for one in found}) == 1
    assert not any(frames[0]["object_id"].str.contains("^[0-9]+$"))


def test_a_table_crosses_the_web_once(tmp_path: Path, server: standin.PhysioNet) -> None:
    for _ in range(2):
        listed(connector(tmp_path / "home", server.url("mimiciv", "3.1")))
    assert sorted(server.fetched()) == sorted(
        {path for one in TABLES.values() for path in (one.path, one.titles) if path} | {"LICENSE.txt"}
    )


def test_a_release_that_changed_one_table_reads_that_and_moves_its_stays(
    tmp_path: Path, server: standin.PhysioNet
) -> None:
    before = listed(connector(tmp_path / "home", server.url("mimiciv", "3.1")))
    shutil.copytree(server.root / "mimiciv" / "3.1", server.root / "mimiciv" / "3.2")
    (server.root / "mimiciv" / "3.1").rename(server.root / "mimiciv" / "old")
    (server.root / "mimiciv" / "3.2").rename(server.root / "mimiciv" / "3.1")
    rewritten(
        server.root, "icu/icustays.csv.gz", b"Coronary Care Unit (CCU)", b"Cardiac Vascular Intensive Care Unit (CVICU)"
    )
    server.seen.clear()
    after = listed(connector(tmp_path / "home", server.url("mimiciv", "3.1")))
    assert server.fetched() == ["icu/icustays.csv.gz"]
    moved = before.join(after, on=["object_id", "checksum", "uri"], how="anti")
    assert 0 < moved.height < before.height / 2
    assert before["object_id"].equals(after["object_id"])


def test_the_order_of_a_tables_rows_changes_nothing(tmp_path: Path, root: Path) -> None:
    before = listed(connector(tmp_path / "home", str(root)))
    path = root / "mimiciv" / "3.1" / "hosp" / "diagnoses_icd.csv.gz"
    header, *rows = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join([header, *reversed(rows)]) + b"\n"))
    standin.seal(root / "mimiciv" / "3.1")
    assert listed(connector(tmp_path / "home", str(root))).equals(before)


def test_a_wrong_checksum_fails_the_source_before_any_listing(tmp_path: Path, server: standin.PhysioNet) -> None:
    server.replaced["hosp/labevents.csv.gz"] = gzip.compress(b"subject_id\n1\n")
    for source in (server.url("mimiciv", "3.1"), str(server.root)):
        (server.root / "mimiciv" / "3.1" / "hosp" / "labevents.csv.gz").write_bytes(b"other")
        found = connector(tmp_path / "home", source).listings(NOTHING)
        with pytest.raises(SourceError) as refusal:
            next(found)
        assert refusal.value.code == "checksum_mismatch"


def test_a_release_that_changes_in_the_middle_of_a_listing_fails_it(tmp_path: Path, server: standin.PhysioNet) -> None:
    found = connector(tmp_path / "home", server.url("mimiciv", "3.1")).listings(NOTHING)
    next(found)
    rewritten(server.root, "hosp/transfers.csv.gz", b"Medicine", b"Surgery")
    with pytest.raises(SourceError) as refusal:
        list(found)
    assert refusal.value.code == "release_changed"


@pytest.mark.parametrize("killed_in", ["download", "landing"])
def test_a_killed_listing_goes_on_where_it_was(
    tmp_path: Path, server: standin.PhysioNet, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    url, done = server.url("mimiciv", "3.1"), []
    with monkeypatch.context() as killed:
        if killed_in == "download":
            download = http_source.HttpSource.download

            def half(self: http_source.HttpSource, path: str, target: Path) -> None:
                download(self, path, target)
                done.append(path)
                if path == TABLES["labevents"].path:
                    target.write_bytes(target.read_bytes()[:1_000])
                    raise KeyboardInterrupt

            killed.setattr(http_source.HttpSource, "download", half)
        else:
            write = parts._write_shards

            def in_the_sixth(folder: Path, key: str, frames: Iterator[pl.DataFrame]) -> None:
                done.append(key)
                write(folder, key, frames)
                if len(done) == 6:
                    raise KeyboardInterrupt

            killed.setattr(parts, "_write_shards", in_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            listed(connector(tmp_path / "home", url))
    fetched = server.fetched()
    server.seen.clear()
    sorted_anew: list[str] = []
    write_shards = parts._write_shards
    monkeypatch.setattr(parts, "_write_shards", lambda *given: (sorted_anew.append(given[1]), write_shards(*given))[1])
    assert listed(connector(tmp_path / "home", url)).height == 48
    assert len(sorted_anew) == len(TABLES) - 5  # the five before it are not sorted again
    again = set(fetched) & set(server.fetched())
    assert again == ({TABLES["labevents"].path} if killed_in == "download" else set())
    if killed_in == "download":
        assert (TABLES["labevents"].path, "bytes=999-") in server.seen


def test_a_stay_that_the_release_has_not_is_missing(tmp_path: Path) -> None:
    found = connector(tmp_path / "home", None)
    for uri in ("physionet:mimiciv#subject_id=1&hadm_id=1", "physionet:mimiciv", "s3://bucket/key"):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(uri, max_bytes=1 << 20)
        assert refusal.value.code == "object_missing"


def test_rows_that_are_in_no_stay_are_told(tmp_path: Path) -> None:
    *_, last = connector(tmp_path / "home", None).listings(NOTHING)
    assert [(one.object_id, one.code) for one in last.rejected] == [
        ("table-labevents", "rows_without_subject"),
        ("table-admissions", "stay_without_id"),
    ]


def shifted(row: list[str]) -> list[str]:
    return ["", *row[:-1]]


def unnamed(row: list[str]) -> list[str]:
    return [row[0], "n/a", *row[2:]]


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        ("hosp/labevents.csv.gz", shifted, "schema_drift"),
        ("hosp/diagnoses_icd.csv.gz", unnamed, "schema_drift"),
        ("icu/icustays.csv.gz", shifted, "schema_drift"),
        ("hosp/admissions.csv.gz", unnamed, "source_empty"),
        ("hosp/admissions.csv.gz", None, "source_empty"),
    ],
)
def test_a_table_whose_rows_are_nobodys_fails_the_source(
    tmp_path: Path, root: Path, path: str, change: Callable[[list[str]], list[str]] | None, code: str
) -> None:
    """Its columns moved, or there is nothing in it: the stays would be listed without these rows, and nobody would know."""
    release = root / "mimiciv" / "3.1"
    text = io.StringIO(gzip.decompress((release / path).read_bytes()).decode("latin-1"))
    header, *rows = csv.reader(text)
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([header, *(change(row) for row in rows if change)])
    (release / path).write_bytes(gzip.compress(written.getvalue().encode("latin-1")))
    standin.seal(release)
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path / "home", str(root)))
    assert refusal.value.code == code and refusal.value.remedy


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be"])
def test_a_table_of_another_encoding_fails_the_source(tmp_path: Path, root: Path, encoding: str) -> None:
    path = root / "mimiciv" / "3.1" / "hosp" / "transfers.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().encode(encoding)))
    standin.seal(root / "mimiciv" / "3.1")
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path / "home", str(root)))
    assert refusal.value.code == "schema_drift"


def test_a_column_that_is_gone_fails_the_source(tmp_path: Path, root: Path) -> None:
    rewritten(root, "hosp/labevents.csv.gz", b"valuenum", b"value_num")
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path / "home", str(root)))
    assert refusal.value.code == "schema_drift"
