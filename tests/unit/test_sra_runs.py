"""The connector of sequencing runs: mirror and service, consent, heads of files, what is read again, what withdraws."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from standins.ncbi import RATE_LIMITED, Ncbi, mirrored_runs, serving

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.connectors import LISTING, Connector, Listing, eutils, open_connector, sra_places, sra_runs
from medvec_assets.connectors.sra_metadata import HEADER, Run, runs
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.sequencing import MODALITY
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import validated
from resources import http_source, tables
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.lakehouse import Lakehouse
from resources.object_store import ObjectStore
from resources.settings import Settings

SAMPLE = Path(__file__).parents[1] / "datasets" / "sra_runs" / "in"
NOTHING = pl.DataFrame(schema=LISTING)
STUDIES = "studies=SRP900000001,SRP900000002"
CONTROLLED, ARCHIVED = "SRR900000033", "SRR900000029"


@pytest.fixture
def ncbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ncbi]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(eutils, "REQUESTS_PER_SECOND", 1_000)
    monkeypatch.setattr(eutils, "PAGE_IDS", 5)  # several pages a study
    monkeypatch.setattr(sra_places, "FILES_PER_SECOND", 1_000)
    with serving(mirrored_runs(SAMPLE)) as server:
        yield server


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "in"))


def connector(source: str | Path, home: Path) -> Connector:
    return open_connector("sra_runs", Settings(home=home, sources={"sra_runs": str(source)}), "sra_runs")


def listed(found: Connector, previous: pl.DataFrame = NOTHING) -> tuple[pl.DataFrame, dict[str, str]]:
    listings = list(found.listings(previous))
    rejected = {one.object_id: one.code for listing in listings for one in listing.rejected}
    return pl.concat([listing.objects for listing in listings]).sort("object_id"), rejected


def recorded(frame: pl.DataFrame, found: Connector) -> tuple[pl.DataFrame, dict[str, str]]:
    allowed = frame.filter(pl.col("license") == sra_runs.LICENSE)
    made, refused = MODALITY.records(
        allowed, lambda uri: found.read(uri, max_bytes=1 << 24), Pseudonyms(b"k" * 32, "sra")
    )
    return made.sort("record_id"), {one.object_id: one.code for one in refused}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys whose bytes are read in a folder."""
    keys: list[str] = []
    for name in ("get", "get_range"):
        original = getattr(ObjectStore, name)

        def counted(self: ObjectStore, key: str, *rest: Any, original: Any = original) -> bytes:
            if not key.endswith(".csv"):
                keys.append(key)
            data: bytes = original(self, key, *rest)
            return data

        monkeypatch.setattr(ObjectStore, name, counted)
    return keys


def test_folder_and_service_give_the_same_records(ncbi: Ncbi, tmp_path: Path) -> None:
    folder = connector(SAMPLE, tmp_path / "a")
    by_name = connector(ncbi.source(STUDIES, f"&reads={ncbi.base}/reads"), tmp_path / "b")
    by_xml = connector(ncbi.source(STUDIES), tmp_path / "c")
    expected, refused = recorded(listed(folder)[0], folder)
    assert expected.height == 24 and len(refused) == 7
    assert (folder.is_remote, by_xml.is_remote) == (False, True)
    same = ["record_id", "subject_key", "cohort", "license", "attributes", "content_digests"]
    for web in (by_name, by_xml):
        frame, rejected = listed(web)
        assert set(rejected) == {ARCHIVED} and validated(Listing(frame))[1] == []
        made, codes = recorded(frame, web)
        assert made.select(same).equals(expected.select(same))
        assert sorted(codes.values()) == sorted(refused.values())
    assert {"md5"} == set(listed(by_xml)[0].filter(pl.col("access_tier") == "open")["checksum_kind"])


def test_a_run_has_its_study_its_sample_and_its_files(tmp_path: Path) -> None:
    found = connector(SAMPLE, tmp_path)
    frame, rejected = listed(found)
    mates = frame.filter(pl.col("record_ref") == "SRR900000001")
    assert mates["object_id"].to_list() == ["SRR900000001_1", "SRR900000001_2"]
    first = mates.row(0, named=True)
    assert (first["cohort"], first["subject_ref"], first["license"]) == (
        "srp900000001",
        "SAMN900000001",
        "NCBI SRA public",
    )
    data = found.read(first["uri"], max_bytes=1 << 20)
    assert first["checksum"] == hashlib.sha256(data).hexdigest() and first["size_bytes"] == len(data)
    assert rejected == {ARCHIVED: "sra_archive"}
    assert found.version() == connector(SAMPLE, tmp_path).version()


def test_a_consent_makes_a_run_controlled_and_untouched(ncbi: Ncbi, tmp_path: Path) -> None:
    ncbi.world.reads[f"{CONTROLLED}/{CONTROLLED}_1.fastq.gz"] = b"never read"
    web = connector(ncbi.source(STUDIES, f"&reads={ncbi.base}/reads"), tmp_path)
    row = listed(web)[0].filter(pl.col("record_ref") == CONTROLLED).row(0, named=True)
    assert (row["access_tier"], row["license"], row["object_id"]) == ("controlled", "dbGaP consent GRU", CONTROLLED)
    assert ncbi.asked(f"/reads/{CONTROLLED}") == []
    # Were its licence allowed by mistake, the modality stops it.
    _, refused = MODALITY.records(pl.DataFrame([row], schema=LISTING), lambda uri: b"", Pseudonyms(b"k" * 32, "sra"))
    assert [one.code for one in refused] == ["not_open"]


def test_a_run_that_comes_under_a_consent_loses_its_open_objects(ncbi: Ncbi, tmp_path: Path) -> None:
    web = connector(ncbi.source(STUDIES), tmp_path)
    version, (first, _) = web.version(), listed(web)
    for row in ncbi.world.runs[:2]:
        row["Consent"] = "" if row["Run"].endswith("1") else "HMB"
    after, _ = listed(web, first)
    assert web.version() != version
    gone = set(first["object_id"]) - set(after["object_id"])
    assert gone == {"SRR900000001_1", "SRR900000001_2", "SRR900000002_1"}
    tiers = dict(after.filter(pl.col("access_tier") == "controlled").select("object_id", "license").rows())
    assert tiers["SRR900000001"] == "dbGaP consent unknown"  # no word on consent is no consent


def test_withdrawn_runs_and_studies_are_not_listed(ncbi: Ncbi, tmp_path: Path) -> None:
    web = connector(ncbi.source(STUDIES), tmp_path)
    first, _ = listed(web)
    ncbi.world.hidden_runs.add("SRR900000002")  # still in the table, not public any more
    after, rejected = listed(web, first)
    assert set(first["object_id"]) - set(after["object_id"]) == {"SRR900000002_1"} and "SRR900000002" not in rejected
    ncbi.world.runs = [row for row in ncbi.world.runs if row["SRAStudy"] != "SRP900000001"]
    after, rejected = listed(web, first)
    assert set(after["cohort"]) == {"srp900000002"} and rejected["SRP900000001"] == "study_withdrawn"
    assert listed(web)[1]["SRP900000001"] == "study_missing"


def test_an_empty_answer_withdraws_nothing(ncbi: Ncbi, tmp_path: Path) -> None:
    web = connector(ncbi.source(STUDIES), tmp_path)
    ncbi.plan = [("esearch", (200, {}, b"<eSearchResult><Count>0</Count><IdList/></eSearchResult>"))]
    with pytest.raises(SourceUnavailable):
        list(web.listings(NOTHING))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no run"):
        list(connector(tmp_path / "empty", tmp_path).listings(NOTHING))


def test_unchanged_files_are_not_read_again(mirror: Path, tmp_path: Path, reads: list[str]) -> None:
    found = connector(mirror, tmp_path)
    version, (first, _) = found.version(), listed(found)
    assert len(reads) == 35
    reads.clear()
    assert listed(found, first)[0].equals(first) and found.version() == version and reads == []
    path = next(mirror.rglob("SRR900000003.fastq.gz"))
    path.write_bytes(path.read_bytes() + gzip.compress(b""))
    changed, _ = listed(found, first)
    assert len(reads) == 1 and found.version() != version
    assert changed.join(first, on=["object_id", "checksum"], how="anti")["object_id"].to_list() == ["SRR900000003"]


def test_a_killed_listing_leaves_nothing_to_read_but_the_rest(
    mirror: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sra_runs, "PIECE_RUNS", 10)
    found = connector(mirror, tmp_path)
    killed = found.listings(NOTHING)
    before = next(killed).objects
    killed.close()
    reads.clear()
    frame, _ = listed(connector(mirror, tmp_path), before)
    assert len(reads) == frame.filter(pl.col("access_tier") == "open").height - before.height


def test_of_a_large_file_the_head_is_an_object(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sra_runs, "HEAD_BYTES", 8_000)
    found = connector(mirror, tmp_path)
    row = listed(found)[0].filter(pl.col("object_id") == "SRR900000003").row(0, named=True)
    data = found.read(row["uri"], max_bytes=1 << 20)
    assert row["uri"].endswith("#bytes=0-7999") and len(data) == row["size_bytes"] == 8_000
    assert row["checksum"] == hashlib.sha256(data).hexdigest()
    made, _ = recorded(pl.DataFrame([row], schema=LISTING), found)
    assert 100 <= json.loads(made["attributes"][0])["reads_used"] < 400
    with pytest.raises(ObjectRejected, match="more bytes"):
        found.read(row["uri"], max_bytes=10)


def test_a_head_from_the_web_is_fetched_once(ncbi: Ncbi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sra_runs, "HEAD_BYTES", 8_000)
    source = ncbi.source(STUDIES)
    row = listed(connector(source, tmp_path))[0].filter(pl.col("record_ref") == "SRR900000003").row(0, named=True)
    assert row["checksum_kind"] == "source_md5" and ncbi.asked("/reads/") == []
    ncbi.plan = [("/reads/", RATE_LIMITED)]
    first = connector(source, tmp_path).read(row["uri"], max_bytes=1 << 20)
    assert (
        connector(source, tmp_path).read(row["uri"], max_bytes=1 << 20)
        == first
        == ncbi.world.reads["SRR900000003/SRR900000003.fastq.gz"][:8_000]
    )
    assert [one.headers["Range"] for one in ncbi.asked("/reads/")] == [
        "bytes=0-7999"
    ] * 2  # the refused one, and it again


def test_bytes_that_are_not_the_published_ones_are_found_out(ncbi: Ncbi, tmp_path: Path) -> None:
    web = connector(ncbi.source(STUDIES), tmp_path)
    row = listed(web)[0].filter(pl.col("record_ref") == "SRR900000003").row(0, named=True)
    path = "SRR900000003/SRR900000003.fastq.gz"
    ncbi.world.reads[path] = ncbi.world.reads["SRR900000004/SRR900000004.fastq.gz"]
    digest = hashlib.md5(web.read(row["uri"], max_bytes=1 << 20), usedforsecurity=False).hexdigest()
    assert row["checksum_kind"] == "md5" and digest != row["checksum"]  # what the records stage compares


def test_through_the_stages_bad_bytes_are_quarantined_and_withdrawn_runs_dated(ncbi: Ncbi, tmp_path: Path) -> None:
    spec = next(one for one in CATALOG if one.id == "sra_runs")
    chosen = Settings(home=tmp_path, sources={"sra_runs": ncbi.source(STUDIES)}, pseudonym_key="11" * 32, device="cpu")
    ctx = Context(chosen, Lakehouse.open(chosen), "first")
    plan = manifest.refresh(ctx, spec).plan["partition"].to_list()
    assert plan == ["srp900000001", "srp900000002"]
    good = ncbi.world.reads["SRR900000003/SRR900000003.fastq.gz"]
    ncbi.world.reads["SRR900000003/SRR900000003.fastq.gz"] = ncbi.world.reads["SRR900000004/SRR900000004.fastq.gz"]
    records.build(ctx, spec, plan[0])
    assert quarantined(ctx, spec)["SRR900000003_1"] == "checksum_mismatch"
    ncbi.world.reads["SRR900000003/SRR900000003.fastq.gz"] = good
    asked = len(ncbi.asked("/reads/"))

    ncbi.world.runs = [row for row in ncbi.world.runs if row["Run"] != "SRR900000002"]
    ctx = Context(chosen, Lakehouse.open(chosen), "second")
    refreshed = manifest.refresh(ctx, spec)
    assert refreshed.changed_partitions == ("srp900000001",)
    records.build(ctx, spec, plan[0])
    rows = ctx.lake.snapshot(tables.manifest(spec.id)).read()  # type: ignore[union-attr]
    removed = rows.filter(pl.col("removed_in_version").is_not_null())
    assert removed.select("object_id", "removed_in_version").rows() == [("SRR900000002_1", refreshed.upstream_version)]
    made = ctx.lake.snapshot(tables.records(spec.id)).read()["record_id"].to_list()  # type: ignore[union-attr]
    assert "SRR900000002" not in made and "SRR900000003" in made
    assert "SRR900000003_1" not in quarantined(ctx, spec)
    # Only what had been wrong was fetched: the rest is landed.
    assert {one.path for one in ncbi.asked("/reads/")[asked:]} == {"/reads/SRR900000003/SRR900000003.fastq.gz"}


def quarantined(ctx: Context, spec: DatasetSpec) -> dict[str, str]:
    snapshot = ctx.lake.snapshot(tables.quarantine(spec.id))
    assert snapshot is not None
    return dict(snapshot.read(["object_id", "code"]).rows())


def test_a_run_without_reads_says_where_to_put_them(mirror: Path, tmp_path: Path) -> None:
    next(mirror.rglob("SRR900000003.fastq.gz")).unlink()
    single = next(mirror.rglob("SRR900000004.fastq.gz"))
    for mate in (1, 2):  # as fasterq-dump splits: mates, and what lost its mate
        shutil.copy(single, single.with_name(f"SRR900000004_{mate}.fastq.gz"))
    frame, rejected = listed(connector(mirror, tmp_path))
    assert rejected["SRR900000003"] == "reads_missing"
    assert frame.filter(pl.col("record_ref") == "SRR900000004")["object_id"].to_list() == [
        "SRR900000004_1",
        "SRR900000004_2",
    ]


def test_reads_may_lie_in_folders_beside_the_service(ncbi: Ncbi, mirror: Path, tmp_path: Path) -> None:
    web = connector(ncbi.source("studies=PRJNA900000001", f"&reads={mirror / 'SRP900000001'}"), tmp_path)
    frame, _ = listed(web)
    assert set(frame["cohort"]) == {"srp900000001"} and frame.height == 18
    assert web.is_remote is False


def test_only_objects_of_this_source_are_read(ncbi: Ncbi, mirror: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    web = connector(ncbi.source(STUDIES, f"&reads={ncbi.base}/reads"), tmp_path)
    for found in (connector(mirror, tmp_path), web):
        for uri in (secret.as_uri(), f"{secret.as_uri()}#bytes=0-10", "https://x.org/SRR1.fastq.gz", "ftp://x.org/1"):
            with pytest.raises(ObjectRejected):
                found.read(uri, max_bytes=100)


def test_a_run_info_table_is_taken_with_and_without_its_header() -> None:
    table = next(SAMPLE.rglob("SraRunInfo.csv")).read_text()
    header, _, body = table.partition("\n")
    assert header == HEADER
    assert list(runs(table)) == list(runs(f"\ufeff{table}")) == list(runs(f"{body}\n\n"))
    assert all(isinstance(run, Run) for run in runs(table))


def test_a_bad_row_leaves_its_neighbours_and_a_bad_table_stops() -> None:
    table = next(SAMPLE.rglob("SraRunInfo.csv")).read_text().splitlines()
    rows = [table[1].replace("ILLUMINA", "ILLUMINA,X"), table[2].replace("SRP900000001", "a study"), table[3]]
    first, second, third = runs("\n".join(rows))
    assert [getattr(one, "code", None) for one in (first, second, third)] == ["runinfo_shifted", "bad_accession", None]
    with pytest.raises(SourceError, match="Consent"):
        list(runs(HEADER.replace("Consent", "consent") + "\n" + table[1]))
