"""The connector of 1000 Genomes: which objects there are, what is read again, what is fetched, what a panel file must be."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pysam
import pytest
from helpers.vcf_files import (
    LAST,
    NAME,
    PANEL,
    SAMPLES,
    SITES,
    WHOLE,
    balanced,
    header,
    put_panel,
    put_vcf,
    record,
    records,
    release,
)

from medvec_assets.connectors import LISTING, sample_folder, vcf_file, vcf_objects
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.vcf_objects import VcfObjects, open_connector
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.object_store import ObjectStore
from resources.settings import Settings

NOTHING = pl.DataFrame()
ID = "kgp_genotypes"
MAX = 1 << 20


def connector(source: Path | str, home: Path) -> VcfObjects:
    return open_connector(Settings(home=home, sources={ID: str(source)}), ID)


def listed(found: VcfObjects, previous: pl.DataFrame = NOTHING) -> pl.DataFrame:
    return pl.concat([listing.objects for listing in found.listings(previous)])


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the VCF files that are read."""
    names: list[str] = []
    original = vcf_file.read_calls

    def counted(vcf: Path, index: Path, name: str, *further: Any) -> Any:
        names.append(name)
        return original(vcf, index, name, *further)

    monkeypatch.setattr(vcf_file, "read_calls", counted)
    yield names


def test_the_sample_bundle_is_what_pysam_reads(tmp_path: Path) -> None:
    found = open_connector(Settings(home=tmp_path), ID)
    objects = listed(found)
    assert objects.schema == pl.Schema(LISTING)
    assert objects.height == 2_507 and objects["object_id"].is_unique().all()
    assert not objects.drop("removed_in_version").null_count().sum_horizontal().item()
    assert set(objects["cohort"]) == {"genome"} and set(objects["license"]) == {"IGSR open data"}
    (path,) = sample_folder(ID).glob("*.vcf.gz")
    with pysam.VariantFile(str(path)) as file:
        rows = {f"{r.chrom}:{r.pos}": r.samples["HG00096"]["GT"] for r in file}
    row = objects.filter(pl.col("object_id") == "genome.HG00096").row(0, named=True)
    data = found.read(row["uri"], max_bytes=MAX)
    assert row["checksum"] == hashlib.sha256(data).hexdigest() and row["size_bytes"] == len(data)
    _, sites, calls = data.decode().splitlines()
    spelled = {":".join(s.split(":")[:2]): c for s, c in zip(sites.split(), calls.split(), strict=True)}
    assert spelled == {place: "/".join(map(str, sorted(call))) for place, call in rows.items()}
    noted = json.loads(row["attributes"])
    assert (noted["population"], noted["superpopulation"], noted["sex"]) == ("GBR", "EUR", "male")
    assert (row["subject_ref"], row["upstream_version"]) == ("HG00096", "v5b.20130502")


def test_one_chromosome_is_a_block_and_several_are_the_genome(tmp_path: Path) -> None:
    objects = listed(connector(release(tmp_path / "in"), tmp_path))
    cohorts = dict(objects.group_by("cohort").agg("subject_ref").iter_rows())
    assert cohorts == {"chr22": list(SAMPLES), "genome": list(SAMPLES)}


def test_what_holds_no_panel_site_or_no_sample_is_left_alone(tmp_path: Path, read_files: list[str]) -> None:
    root = release(tmp_path / "in")
    x = record(LAST, ["0|0"] * 3).replace("22\t", "X\t", 1)
    put_vcf(root / NAME.replace("chr22", "chrX"), [*header()[:-1], "##contig=<ID=X,length=1>", header()[-1]], [x])
    put_vcf(root / "ALL.wgs.v5b.20130502.sites.vcf.gz", header(()), [])
    put_vcf(root / "supporting" / "GRCh38_positions" / NAME, header(lengths={"22": 50818468}), records([LAST]))
    shutil.copy(root / PANEL, root / PANEL.replace("call_samples", "call_male_samples"))  # chromosome Y's
    found = connector(root, tmp_path)
    assert listed(found)["object_id"].n_unique() == 6 and sorted(read_files) == [NAME, WHOLE]


def test_equal_genotypes_are_equal_bytes(tmp_path: Path) -> None:
    """However they are phased, named, ordered, annotated."""
    plain = connector(release(tmp_path / "a"), tmp_path / "home")
    other = put_panel(tmp_path / "b").parent

    def unphased(site: int, sample: int) -> str:
        first, _, second = balanced(site, sample)
        return f"{second}/{first}:9"

    rows = [
        record(site, [unphased(row, sample) for sample in range(3)], form="GT:DP", prefix="chr")
        for row, site in enumerate(SITES)
    ]
    by_name = sorted(rows, key=lambda row: (row.split("\t")[0], int(row.split("\t")[1])))
    put_vcf(other / WHOLE, header(prefix="chr"), by_name)
    first = listed(plain).filter(pl.col("cohort") == "genome")
    assert listed(connector(other, tmp_path / "home"))["checksum"].to_list() == first["checksum"].to_list()


def test_a_large_file_is_read_by_region_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = release(tmp_path / "in")
    whole = listed(connector(root, tmp_path / "one"))
    monkeypatch.setattr(vcf_file, "WHOLE_BYTES", 0)
    assert listed(connector(root, tmp_path / "two")).equals(whole)


def test_unchanged_files_are_not_read_again(tmp_path: Path, read_files: list[str]) -> None:
    root = release(tmp_path / "in")
    version, first = connector(root, tmp_path).version(), listed(connector(root, tmp_path))
    read_files.clear()
    again = connector(root, tmp_path / "another machine")
    assert listed(again, first).equals(first) and again.version() == version and read_files == []
    put_vcf(
        root / NAME, header(), records([LAST], lambda site, sample: "1|1" if sample == 1 else balanced(site, sample))
    )
    changed = listed(again, first)
    assert read_files == [NAME] and again.version() != version
    moved = changed.join(first, on=["object_id", "checksum"], how="anti")
    assert moved["object_id"].to_list() == ["chr22.HG00097"]


def test_a_file_that_lost_a_sample_is_read_when_it_comes_back(tmp_path: Path, read_files: list[str]) -> None:
    """The lost sample's tombstone still tells of the file as it was; alone it is not the file."""
    root = release(tmp_path / "in")
    first = listed(connector(root, tmp_path))
    tombstone = first.filter(pl.col("object_id") == "chr22.HG00097")
    read_files.clear()
    home = tmp_path / "another machine"
    assert listed(connector(root, home), tombstone).equals(first) and sorted(read_files) == [NAME, WHOLE]


def test_new_labels_need_no_file(tmp_path: Path, read_files: list[str]) -> None:
    root = release(tmp_path / "in")
    first = listed(connector(root, tmp_path))
    read_files.clear()
    (root / PANEL).write_text((root / PANEL).read_text().replace("HG00097\tGBR", "HG00097\tFIN"))
    after = listed(connector(root, tmp_path), first)
    assert read_files == [] and after["checksum"].equals(first["checksum"])
    assert after["attributes"].str.contains("FIN").sum() == 2


def test_a_killed_listing_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, asked = release(tmp_path / "in"), []
    original = vcf_file.read_calls

    def killed(vcf: Path, index: Path, name: str, *further: Any) -> Any:
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(vcf, index, name, *further)

    monkeypatch.setattr(vcf_file, "read_calls", killed)
    with pytest.raises(KeyboardInterrupt):
        listed(connector(root, tmp_path))
    assert listed(connector(root, tmp_path)).height == 6 and asked == [NAME, WHOLE, WHOLE]


def test_only_samples_of_this_source_are_read(tmp_path: Path) -> None:
    found = connector(release(tmp_path / "in"), tmp_path)
    uri = listed(found)["uri"][0]
    assert connector(tmp_path / "in", tmp_path).read(uri, max_bytes=MAX) == found.read(uri, max_bytes=MAX)
    for other in (uri.replace("HG00096", "NOBODY"), uri.partition("#")[0], "s3://bucket/x.vcf.gz#HG00096", "x"):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(other, max_bytes=MAX)
        assert refusal.value.code == "object_missing"
    with pytest.raises(ObjectRejected) as refusal:
        found.read(uri, max_bytes=10)
    assert refusal.value.code == "object_too_large"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "panel_missing"),
        ("", "panel_invalid"),
        ("sample\tpop\tsuper_pop\tgender\n", "panel_invalid"),
        ("sample\tsuper_pop\tpop\tgender\nHG00096\tEUR\tGBR\tmale\n", "panel_invalid"),
        ("sample\tpop\tsuper_pop\tgender\nHG00096\tGBR\tEUR\tother words\n", "panel_invalid"),
        ("sample\tpop\tsuper_pop\tgender\nHG00096\tGBR\tEUR\tmale\tfurther\n", "panel_invalid"),
        ("sample\tpop\tsuper_pop\tgender\n" + "HG00096\tGBR\tEUR\tmale\n" * 2, "panel_invalid"),
        ("sample\tpop\tsuper_pop\tgender\nHG00096\t\xff\tEUR\tmale\n", "panel_invalid"),
    ],
)
def test_a_wrong_panel_file_is_the_sources_fault(tmp_path: Path, text: str | None, code: str) -> None:
    root = release(tmp_path / "in")
    (root / PANEL).unlink()
    if text is not None:
        (root / PANEL).write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError) as refusal:
        listed(connector(root, tmp_path))
    assert refusal.value.code == code and "HG00096" not in str(refusal.value)


def test_two_panels_or_two_files_of_a_chromosome_are_a_choice_for_somebody(tmp_path: Path) -> None:
    root = release(tmp_path / "in")
    for original, copy, code in (
        (PANEL, PANEL.replace("v3", "v2"), "panel_missing"),
        (NAME, NAME.replace("v5b", "v5a"), "block_twice"),
    ):
        shutil.copy(root / original, root / copy)
        if original == NAME:
            shutil.copy(root / f"{NAME}.tbi", root / f"{copy}.tbi")
        with pytest.raises(SourceError) as refusal:
            listed(connector(root, tmp_path))
        assert refusal.value.code == code
        (root / copy).unlink()


def test_an_empty_or_missing_source_withdraws_nothing(tmp_path: Path) -> None:
    put_panel(tmp_path / "empty")
    for source in ("empty", "missing"):
        with pytest.raises(SourceError):
            listed(connector(tmp_path / source, tmp_path))


def test_the_licence_is_what_its_file_says_or_the_projects_own_bucket(tmp_path: Path) -> None:
    root = release(tmp_path / "in")
    (root / "LICENSE").write_text("CC0\nfurther words\n")
    assert set(listed(connector(root, tmp_path))["license"]) == {"CC0"}
    (root / "LICENSE").unlink()
    assert set(listed(connector(root, tmp_path))["license"]) == {"unspecified"}
    store = ObjectStore(str(root))
    for uri, license in (
        ("s3://1000genomes/release/20130502", "IGSR open data"),
        ("s3://1000genomes-x/y", "unspecified"),
    ):
        store.uri = uri
        assert set(listed(VcfObjects(store, Landing(Settings(home=tmp_path), ID)))["license"]) == {license}


# ---------------------------------------------------------------- a bucket


class Bucket(ObjectStore):
    """A store that has no folder that htslib could read: everything of it must be fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = None
        self.fetched: list[str] = []

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.fetched.append(key)
        return super().get_range(key, start, length)


def test_a_bucket_gives_the_records_of_its_mirror_and_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcf_objects, "CHUNK_BYTES", 1_000)
    root = release(tmp_path / "in")
    bucket, landing = Bucket(root), Landing(Settings(home=tmp_path / "home"), ID)
    first = listed(VcfObjects(bucket, landing))
    assert first.equals(listed(connector(root, tmp_path)))
    chunks = {name: -(-(root / name).stat().st_size // 1_000) for name in (NAME, WHOLE)}
    assert {name: bucket.fetched.count(name) for name in chunks} == chunks
    bucket.fetched.clear()
    again = VcfObjects(bucket, landing)
    assert listed(again).equals(first) and again.read(first["uri"][0], max_bytes=MAX) and bucket.fetched == []


def test_a_fetch_that_breaks_off_leaves_nothing_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcf_objects, "CHUNK_BYTES", 1_000)
    bucket, landing = Bucket(release(tmp_path / "in")), Landing(Settings(home=tmp_path / "home"), ID)
    original = ObjectStore.get_range

    def broken(store: ObjectStore, key: str, start: int, length: int) -> bytes:
        if key == WHOLE and start:
            raise SourceUnavailable("no answer", remedy="run again")
        return original(store, key, start, length)

    monkeypatch.setattr(ObjectStore, "get_range", broken)
    with pytest.raises(SourceUnavailable):
        listed(VcfObjects(bucket, landing))
    monkeypatch.setattr(ObjectStore, "get_range", original)
    bucket.fetched.clear()
    assert listed(VcfObjects(bucket, landing)).height == 6
    assert set(bucket.fetched) == {WHOLE, f"{WHOLE}.tbi"}


def test_a_file_that_changes_while_it_is_fetched_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = release(tmp_path / "in")
    landing = Landing(Settings(home=tmp_path / "home"), ID)
    original = ObjectStore.get_range

    def changing(store: ObjectStore, key: str, start: int, length: int) -> bytes:
        put_vcf(root / WHOLE, header(), records(SITES[:20]))
        return original(store, key, start, length)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "get_range", changing)
        with pytest.raises(SourceUnavailable, match="changed while"):
            listed(VcfObjects(Bucket(root), landing))
    (data,) = {
        VcfObjects(Bucket(root), landing).read(uri, max_bytes=MAX).split(b"\n")[1]
        for uri in listed(VcfObjects(Bucket(root), landing)).filter(pl.col("cohort") == "genome")["uri"]
    }
    assert data.count(b" ") == 19


def test_a_file_without_samples_holds_none(tmp_path: Path) -> None:
    put_panel(tmp_path / "in")
    put_vcf(tmp_path / "in" / NAME, header(()), [])
    put_vcf(tmp_path / "in" / WHOLE, header(), records())
    found = connector(tmp_path / "in", tmp_path)
    uri = listed(found)["uri"][0]
    assert found.read(uri, max_bytes=MAX)
    with pytest.raises(ObjectRejected) as refusal:
        found.read(uri.replace("wgs", "chr22"), max_bytes=MAX)
    assert refusal.value.code == "object_missing"
