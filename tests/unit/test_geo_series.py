"""The connector of GEO's series: mirror and service, what is read again, what withdraws and what does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from standins.ncbi import KEY, Ncbi, World, serving
from test_series_matrix import matrix, packed

from medvec_assets.connectors import LISTING, Connector, Listing, eutils, geo_series, open_connector, series_matrix
from medvec_assets.stages.manifest import validated
from resources import http_source
from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable
from resources.settings import Settings

NOTHING = pl.DataFrame(schema=LISTING)
DATASET = "geo_expression"
TWO_PLATFORMS = {"GSE2-GPL96_series_matrix.txt.gz": b"", "GSE2-GPL97_series_matrix.txt.gz": b""}


def of_series(series: str, *names: str, platform: str = "GPL96") -> bytes:
    data = matrix(names, [(f"p{number}", *[f"{number}.{len(names)}"] * len(names)) for number in range(5)])
    return packed(data.replace(b"GSE1000", series.encode()).replace(b"GPL96", platform.encode()))


@pytest.fixture
def world() -> World:
    return World(
        matrices={
            "GSE1000": {"GSE1000_series_matrix.txt.gz": of_series("GSE1000", "GSM1", "GSM2")},
            "GSE2": {
                "GSE2-GPL96_series_matrix.txt.gz": of_series("GSE2", "GSM3"),
                "GSE2-GPL97_series_matrix.txt.gz": of_series("GSE2", "GSM4", platform="GPL97"),
            },
        }
    )


@pytest.fixture
def ncbi(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ncbi]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(eutils, "REQUESTS_PER_SECOND", 1_000)
    monkeypatch.setattr(geo_series, "FILES_PER_SECOND", 1_000)
    with serving(world) as server:
        yield server


def mirror(world: World, root: Path) -> Path:
    for series, files in world.matrices.items():
        for name, data in files.items():
            path = root / "geo" / "series" / f"GSE{series[3:-3]}nnn" / series / "matrix" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def connector(source: str | Path, home: Path, **settings: object) -> Connector:
    return open_connector("geo_series", Settings(home=home, sources={DATASET: str(source)}, **settings), DATASET)  # type: ignore[arg-type]


def service(ncbi: Ncbi, home: Path, series: str = "GSE1000,GSE2") -> Connector:
    return connector(ncbi.source(f"series={series}", f"&files={ncbi.base}"), home)


def listed(found: Connector, previous: pl.DataFrame = NOTHING) -> tuple[pl.DataFrame, dict[str, str]]:
    listings = list(found.listings(previous))
    rejected = {one.object_id: one.code for listing in listings for one in listing.rejected}
    return pl.concat([listing.objects for listing in listings]).sort("object_id"), rejected


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read of matrix files."""
    reads: list[str] = []
    original = series_matrix.convert
    monkeypatch.setattr(
        series_matrix, "convert", lambda source, target: (reads.append("read"), original(source, target))
    )
    return reads


def test_folder_and_service_give_the_same_samples(world: World, ncbi: Ncbi, tmp_path: Path) -> None:
    folder, web = connector(mirror(world, tmp_path / "in"), tmp_path / "a"), service(ncbi, tmp_path / "b")
    (mirrored, _), (served, rejected) = listed(folder), listed(web)
    assert rejected == {}
    assert mirrored["object_id"].to_list() == ["GSE1000-GSM1", "GSE1000-GSM2", "GSE2-GSM3", "GSE2-GSM4"]
    same = [name for name in LISTING if name not in ("uri", "attributes")]
    assert mirrored.select(same).equals(served.select(same))
    assert validated(Listing(served))[1] == []
    for frame, found in ((mirrored, folder), (served, web)):
        data = found.read(frame["uri"][0], max_bytes=1 << 20)
        assert data.startswith(b"#series: GSE1000\n#platform: GPL96\n#sample: GSM1\n") and data.endswith(b"p4\t4.2\n")
    assert mirrored["cohort"].to_list() == ["gse1000", "gse1000", "gse2", "gse2"]
    assert mirrored["subject_ref"].to_list() == ["GSM1", "GSM2", "GSM3", "GSM4"]


def test_a_file_is_read_once_while_it_stays(world: World, ncbi: Ncbi, tmp_path: Path, converted: list[str]) -> None:
    web = service(ncbi, tmp_path)
    version, (first, _) = web.version(), listed(web)
    assert len(converted) == 3
    again = service(ncbi, tmp_path)
    assert again.version() == version and listed(again, first)[0].equals(first)
    again.read(first["uri"][0], max_bytes=1 << 20)
    assert len(converted) == 3 and len([one for one in ncbi.asked(".gz") if one.method == "GET"]) == 3
    world.matrices["GSE1000"]["GSE1000_series_matrix.txt.gz"] = of_series("GSE1000", "GSM1", "GSM2", "GSM9")
    assert again.version() != version
    changed, _ = listed(again, first)
    assert len(converted) == 4
    assert set(changed["object_id"]) - set(first["object_id"]) == {"GSE1000-GSM9"}


def test_a_killed_listing_goes_on_where_it_was(ncbi: Ncbi, tmp_path: Path, converted: list[str]) -> None:
    killed = service(ncbi, tmp_path).listings(NOTHING)
    next(killed)
    killed.close()
    assert listed(service(ncbi, tmp_path))[0].height == 4
    assert len(converted) == 3


def test_a_broken_file_withdraws_nothing_and_is_not_read_again(
    world: World, tmp_path: Path, converted: list[str]
) -> None:
    root = mirror(world, tmp_path / "in")
    found = connector(root, tmp_path)
    first, _ = listed(found)
    path = next(root.rglob("GSE1000_series_matrix.txt.gz"))
    path.write_bytes(path.read_bytes()[:-30])
    for _ in range(2):
        after, rejected = listed(found, first)
        assert rejected == {"GSE1000_series_matrix.txt.gz": "truncated_gzip"}
        assert after.equals(first)
    assert len(converted) == 4
    with pytest.raises(ObjectRejected) as refusal:
        found.read(first["uri"][0], max_bytes=1 << 20)
    assert refusal.value.code == "truncated_gzip"


def test_a_bad_sample_is_told_again_without_reading(world: World, tmp_path: Path, converted: list[str]) -> None:
    world.matrices = {"GSE1000": {"GSE1000_series_matrix.txt.gz": of_series("GSE1000", "GSM1", "GSM2", "GSM2")}}
    found = connector(mirror(world, tmp_path / "in"), tmp_path)
    first, rejected = listed(found)
    assert (first["object_id"].to_list(), rejected) == (["GSE1000-GSM1"], {"GSE1000-GSM2": "duplicate_sample"})
    assert listed(found, first)[1] == rejected and len(converted) == 1


@pytest.mark.parametrize(
    ("kind", "code"), [("deleted", "series_withdrawn"), ("private", "series_private"), ("missing", "series_missing")]
)
def test_a_series_that_is_not_public_any_more_is_withdrawn(
    world: World, ncbi: Ncbi, tmp_path: Path, kind: str, code: str
) -> None:
    web = service(ncbi, tmp_path)
    version, (first, _) = web.version(), listed(web)
    world.unlisted["GSE2"] = kind
    after, rejected = listed(web, first)
    assert web.version() != version
    assert rejected == {"GSE2": code} and set(after["cohort"]) == {"gse1000"}


def test_a_series_is_not_withdrawn_by_anything_less(world: World, ncbi: Ncbi, tmp_path: Path) -> None:
    web = service(ncbi, tmp_path)
    first, _ = listed(web)
    ncbi.plan = [("GSE2/matrix/", (403, {}, b"<html>Access forbidden!</html>"))]
    after, rejected = listed(web, first)
    assert rejected == {"GSE2": "matrix_empty"} and after.equals(first)
    world.matrices["GSE1000"]["GSE1000_series_matrix.txt.gz"] = b"<html>down for maintenance</html>"
    after, rejected = listed(web, first)
    assert rejected == {"GSE1000_series_matrix.txt.gz": "not_gzip"} and after.equals(first)
    del world.matrices["GSE2"]  # E-utilities do not know it, and its page says nothing of why
    ncbi.plan = [("acc.cgi", (200, {}, b"<html>busy</html>"))]
    with pytest.raises(SourceUnavailable):
        listed(web, first)
    assert listed(web, first)[1]["GSE2"] == "matrix_empty"  # its page shows it: only not indexed yet


def test_samples_of_one_person_share_a_subject(tmp_path: Path, world: World) -> None:
    further = '!Sample_characteristics_ch1\t"subject: 7"\t"subject: 7"\n'
    data = packed(matrix(further=further))
    world.matrices = {"GSE1000": {"GSE1000_series_matrix.txt.gz": data}}
    frame, _ = listed(connector(mirror(world, tmp_path / "in"), tmp_path))
    assert frame["subject_ref"].to_list() == ["GSE1000/7", "GSE1000/7"]


def test_an_empty_or_missing_source_withdraws_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "missing"):
        with pytest.raises(SourceError):
            list(connector(tmp_path / source, tmp_path).listings(NOTHING))


def test_only_samples_of_this_source_are_read(world: World, tmp_path: Path) -> None:
    found = connector(mirror(world, tmp_path / "in"), tmp_path)
    uri = listed(found)[0]["uri"][0]
    for other in (
        uri.rpartition("#")[0],
        f"{uri}9",
        uri.replace("/in/", "/elsewhere/"),
        "https://x.org/GSE1_series_matrix.txt.gz#GSM1",
    ):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(other, max_bytes=1 << 20)
        assert refusal.value.code == "object_missing"
    with pytest.raises(ObjectRejected, match="more bytes"):
        found.read(uri, max_bytes=10)


def test_settings_name_series(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        connector("https://eutils.ncbi.nlm.nih.gov/entrez/eutils?series=SRP1", tmp_path)


def test_a_key_is_not_sent_to_the_file_host(ncbi: Ncbi, tmp_path: Path) -> None:
    source = ncbi.source("series=GSE1000", f"&files={ncbi.base}")
    listed(connector(source, tmp_path, credentials={"ncbi": KEY}))
    for one in ncbi.asked("/geo/"):
        assert KEY not in json.dumps([one.query, one.form, one.headers])
