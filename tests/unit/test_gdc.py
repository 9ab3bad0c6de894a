"""The GDC connector: its API and a folder of gdc-client's, what each says of a file, and what goes wrong with them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr
from standins.gdc import EXPIRED, TOKEN, GdcStandIn, serving

from medvec_assets.catalog.gdc_rna_seq import GDC_RNA_SEQ
from medvec_assets.connectors import LISTING, Connector, Listing, gdc, open_connector
from medvec_assets.stages import manifest, quarantine, records
from medvec_assets.stages.context import Context
from resources import http_source, tables
from resources.errors import ObjectRejected, SourceError, SourceUnavailable
from resources.lakehouse import Lakehouse
from resources.settings import Settings

FOLDER = Path(__file__).parents[1] / "datasets/gdc_rna_seq/in"
DATASET = GDC_RNA_SEQ.id
NOTHING = pl.DataFrame()
# What a record says beside where it was read from.
SAME = [name for name in tables.RECORDS.names if name != "payload_uri"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[GdcStandIn]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(gdc, "REQUESTS_PER_SECOND", 10_000.0)
    with serving(FOLDER) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "in")
    return tmp_path / "in"


def settings(home: Path, source: str, token: str = "") -> Settings:
    credentials = {"gdc": SecretStr(token)} if token else {}
    return Settings(home=home, sources={DATASET: source}, credentials=credentials, pseudonym_key="11" * 32)


def connector(home: Path, source: str, token: str = "") -> Connector:
    return open_connector("gdc", settings(home, source, token), DATASET)


def context(home: Path, source: str) -> Context:
    found = settings(home, source)
    return Context(found, Lakehouse.open(found), "run")


def listed(found: Connector) -> pl.DataFrame:
    return pl.concat([piece.objects for piece in found.listings(NOTHING)])


def rejections(found: Connector) -> dict[str, str]:
    return {one.object_id: one.code for piece in found.listings(NOTHING) for one in piece.rejected}


def edit(folder: Path, change: Any) -> None:
    """`change` applied to the hits of files.json."""
    path = folder / "files.json"
    answer = json.loads(path.read_text())
    change(answer["data"]["hits"])
    path.write_text(json.dumps(answer))


def made(home: Path, source: str) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    """Records and quarantined (object, code) of every partition."""
    ctx = context(home, source)
    for partition in manifest.refresh(ctx, GDC_RNA_SEQ).plan["partition"]:
        records.build(ctx, GDC_RNA_SEQ, partition)
    snapshot = ctx.lake.snapshot(tables.records(DATASET))
    assert snapshot is not None
    aside = quarantine.read(ctx, GDC_RNA_SEQ).select("object_id", "code").sort("object_id").rows()
    return snapshot.read().sort("record_id"), aside


def test_a_file_is_listed_by_project_case_and_aliquot(tmp_path: Path) -> None:
    found = connector(tmp_path, str(FOLDER))
    objects = listed(found)
    assert objects.schema == pl.Schema(LISTING)
    assert sorted(objects["cohort"].unique()) == [f"synthetic_{n}" for n in ("blood", "broken", "liver", "lung")]
    hits = {hit["file_id"]: hit for hit in json.loads((FOLDER / "files.json").read_text())["data"]["hits"]}
    for row in objects.iter_rows(named=True):
        hit = hits[row["object_id"]]
        assert (row["checksum"], row["checksum_kind"], row["size_bytes"]) == (hit["md5sum"], "md5", hit["file_size"])
        assert row["subject_ref"] == hit["cases"][0]["case_id"]
        assert row["record_ref"] == hit["associated_entities"][0]["entity_id"]
    # Of each project two cases gave two aliquots.
    liver = objects.filter(pl.col("cohort") == "synthetic_liver")
    assert (liver.height, liver["subject_ref"].n_unique(), liver["record_ref"].n_unique()) == (8, 6, 8)
    # Another workflow's file is not listed; a controlled one is, under its dbGaP study.
    assert objects.height == len(hits) - 1
    controlled = objects.filter(pl.col("access_tier") == "controlled")
    assert controlled["license"].to_list() == ["dbGaP phs000000"]
    assert set(objects.filter(pl.col("access_tier") == "open")["license"]) == {gdc.OPEN_LICENSE}


def test_folder_and_service_give_the_same_records(tmp_path: Path, service: GdcStandIn) -> None:
    remote, remote_aside = made(tmp_path / "remote", service.url)
    local, local_aside = made(tmp_path / "local", str(FOLDER))
    assert remote.select(SAME).equals(local.select(SAME))
    assert remote_aside == local_aside and len(remote) == 24
    assert all(uri == f"object:{i[0]}" for uri, i in local.select("payload_uri", "object_ids").iter_rows())
    assert sum(path == "/files" for path in service.seen) == 4  # 38 files, 10 a page


def test_what_is_asked_of_a_file_holds_nothing_of_a_person() -> None:
    assert not [field for field in gdc.FIELDS if any(word in field for word in ("demographic", "diagnos", "submitter"))]


def test_too_many_requests_are_asked_again(tmp_path: Path, service: GdcStandIn) -> None:
    service.script.extend([(429, {"Retry-After": "0"}), (503, {}), (429, {"Retry-After": "0"})])
    assert listed(connector(tmp_path, service.url)).height == 38
    service.script.extend([(503, {})] * http_source.ATTEMPTS)
    with pytest.raises(SourceUnavailable):
        connector(tmp_path, service.url).version()


def test_a_token_is_sent_and_an_expired_one_is_told(tmp_path: Path, service: GdcStandIn) -> None:
    uri = f"{service.url}/data/{next(hit['file_id'] for hit in service.hits if hit['access'] != 'open')}"
    assert connector(tmp_path, service.url, TOKEN).read(uri, max_bytes=1 << 20)
    for token in ("", EXPIRED):
        with pytest.raises(SourceError) as refusal:
            connector(tmp_path, service.url, token).read(uri, max_bytes=1 << 20)
        assert refusal.value.code == "credentials_refused" and "MEDVEC_CREDENTIALS" in refusal.value.remedy
        assert EXPIRED not in str(refusal.value)


def test_a_controlled_file_is_refused_before_it_is_read(tmp_path: Path, service: GdcStandIn) -> None:
    _, aside = made(tmp_path, service.url)
    controlled = next(hit["file_id"] for hit in service.hits if hit["access"] != "open")
    assert (controlled, "license_not_allowed") in aside
    assert controlled not in service.data_read


def test_wrong_bytes_are_quarantined_alone(tmp_path: Path, service: GdcStandIn) -> None:
    good = next(hit for hit in service.hits if "liver" in hit["cases"][0]["primary_site"].lower())
    service.bodies[good["file_id"]] += b"\n"
    found, aside = made(tmp_path, service.url)
    assert (good["file_id"], "checksum_mismatch") in aside and len(found) == 23


def test_a_release_that_changes_while_it_is_listed_commits_nothing(tmp_path: Path, service: GdcStandIn) -> None:
    ctx = context(tmp_path, service.url)

    def publish(path: str) -> None:
        if path == "/files":
            service.status["data_release"] = "Data Release 0.2 - later"

    service.before = publish
    with pytest.raises(SourceUnavailable) as refusal:
        manifest.refresh(ctx, GDC_RNA_SEQ)
    assert (refusal.value.code, refusal.value.retryable) == ("release_changed", True)
    assert manifest.current_plan(ctx, GDC_RNA_SEQ).is_empty()
    assert manifest.refresh(ctx, GDC_RNA_SEQ).upstream_version == "Data Release 0.2 - later"


@pytest.mark.parametrize("lose", [0, -1])
def test_pages_that_do_not_add_up_are_no_listing(tmp_path: Path, service: GdcStandIn, lose: int) -> None:
    def move(path: str) -> None:
        if path == "/files" and service.seen.count("/files") == 2:
            service.hits.pop(lose)

    service.hits.sort(key=lambda hit: str(hit["file_id"]))
    service.before = move
    with pytest.raises(SourceUnavailable):
        listed(connector(tmp_path, service.url))


def test_redacted_cases_become_tombstones(tmp_path: Path, service: GdcStandIn) -> None:
    ctx = context(tmp_path, service.url)
    manifest.refresh(ctx, GDC_RNA_SEQ)
    records.build(ctx, GDC_RNA_SEQ, "synthetic_liver")
    case = next(
        hit["cases"][0]["case_id"] for hit in service.hits if hit["cases"][0]["submitter_id"].endswith("LIVER-01")
    )
    service.hits = [hit for hit in service.hits if hit["cases"][0]["case_id"] != case]
    service.status["data_release"] = "Data Release 0.2 - redaction"
    read = len(service.data_read)
    assert manifest.refresh(ctx, GDC_RNA_SEQ).changed_partitions == ("synthetic_liver",)
    records.build(ctx, GDC_RNA_SEQ, "synthetic_liver")
    snapshot = ctx.lake.snapshot(tables.manifest(DATASET))
    assert snapshot is not None
    gone = snapshot.read().filter(pl.col("subject_ref") == case)
    assert gone["removed_in_version"].to_list() == ["Data Release 0.2 - redaction"] * 2
    kept = ctx.lake.snapshot(tables.records(DATASET))
    assert kept is not None and len(kept.read()) == 6
    assert len(service.data_read) == read  # what stays is read from what was landed


def test_a_killed_run_reads_only_what_is_missing(tmp_path: Path, service: GdcStandIn) -> None:
    ctx = context(tmp_path, service.url)
    manifest.refresh(ctx, GDC_RNA_SEQ)

    def kill(path: str) -> None:
        if len(service.data_read) == 4:
            raise ConnectionResetError

    service.before = kill
    service.handle_error = lambda request, address: None  # type: ignore[method-assign]
    with pytest.raises(SourceUnavailable), pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_source, "ATTEMPTS", 1)
        records.build(ctx, GDC_RNA_SEQ, "synthetic_liver")
    before = service.data_read[:3]
    service.before = lambda path: None
    service.seen.clear()
    assert records.build(ctx, GDC_RNA_SEQ, "synthetic_liver").rows_out == 8
    assert len(service.data_read) == 5 and not set(service.data_read) & set(before)


def test_a_withdrawn_file_and_a_foreign_uri_are_missing(tmp_path: Path, service: GdcStandIn) -> None:
    for found, uri in (
        (connector(tmp_path, service.url), f"{service.url}/data/00000000-0000-4000-8000-000000000000"),
        (connector(tmp_path, service.url), "http://127.0.0.1:1/data/x"),
        (connector(tmp_path, str(FOLDER)), "file:///etc/hostname"),
    ):
        with pytest.raises(ObjectRejected) as refusal:
            found.read(uri, max_bytes=1 << 20)
        assert refusal.value.code == "object_missing"


@pytest.mark.parametrize(
    "answer", [{"data": {}}, {"data": {"hits": [], "pagination": {}}}, [], {"message": "internal server error"}]
)
def test_another_layout_is_the_sources_failure(tmp_path: Path, folder: Path, answer: Any) -> None:
    (folder / "files.json").write_text(json.dumps(answer))
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path, str(folder)))
    assert refusal.value.code == "schema_drift"


def test_gdc_under_maintenance_is_asked_later(tmp_path: Path, service: GdcStandIn) -> None:
    service.status["status"] = "MAINTENANCE"
    with pytest.raises(SourceUnavailable):
        connector(tmp_path, service.url).version()


def test_a_folder_that_is_not_whole_says_what_is_missing(tmp_path: Path, folder: Path) -> None:
    found = connector(tmp_path, str(folder))
    version = found.version()
    ids = listed(found).sort("object_id")["object_id"].to_list()[:4]
    gone, short, other, untold = ids
    next((folder / gone).iterdir()).unlink()
    path = next((folder / short).iterdir())
    path.write_bytes(path.read_bytes()[:-1])

    def disagree(hits: list[dict[str, Any]]) -> None:
        for hit in hits:
            if hit["file_id"] == other:
                hit["md5sum"] = hashlib.md5(b"another", usedforsecurity=False).hexdigest()
        hits[:] = [hit for hit in hits if hit["file_id"] != untold]

    edit(folder, disagree)
    assert rejections(found) == {
        gone: "object_missing",
        short: "size_mismatch",
        other: "manifest_disagrees",
        untold: "metadata_missing",
    }
    assert found.version() != version
    (folder / "gdc_manifest.txt").unlink()
    with pytest.raises(SourceError) as refusal:
        listed(found)
    assert refusal.value.code == "source_empty"


def test_only_files_that_the_manifest_asks_for_are_listed(tmp_path: Path, folder: Path) -> None:
    lines = (folder / "gdc_manifest.txt").read_text().splitlines()
    (folder / "gdc_manifest.txt").unlink()
    # Two downloads into one folder, the second asking for some of the first again.
    for name, rows in {"gdc_manifest.2026-01-01.txt": lines[1:4], "gdc_manifest.2026-02-01.txt": lines[3:6]}.items():
        (folder / name).write_text("\n".join([lines[0], *rows]) + "\n")
    assert len(listed(connector(tmp_path, str(folder)))) == 5
    (folder / "gdc_manifest.2026-02-01.txt").write_text("id\tname\n")
    with pytest.raises(SourceError) as refusal:
        listed(connector(tmp_path, str(folder)))
    assert refusal.value.code == "schema_drift"


def test_a_file_of_two_cases_or_of_no_aliquot_is_rejected(tmp_path: Path, folder: Path) -> None:
    ids: list[str] = []

    def break_three(hits: list[dict[str, Any]]) -> None:
        one, two, three = [hit for hit in hits if "LIVER" in hit["cases"][0]["submitter_id"]][:3]
        one["associated_entities"] = []
        two["cases"] = two["cases"] * 2
        three["associated_entities"][0]["case_id"] = "another"
        ids.extend(hit["file_id"] for hit in (one, two, three))

    edit(folder, break_three)
    assert rejections(connector(tmp_path, str(folder))) == dict.fromkeys(ids, "no_aliquot")


def test_a_release_alone_moves_no_partition(tmp_path: Path, service: GdcStandIn) -> None:
    ctx = context(tmp_path, service.url)
    manifest.refresh(ctx, GDC_RNA_SEQ)
    service.status["data_release"] = "Data Release 0.2 - nothing new here"
    for hit in service.hits:
        hit["data_release"] = "0.1 - 0.2"
    assert manifest.refresh(ctx, GDC_RNA_SEQ).changed_partitions == ()


def test_listing_is_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdc, "PAGE_FILES", 7)
    pieces: list[Listing] = list(connector(tmp_path, str(FOLDER)).listings(NOTHING))
    assert len(pieces) == 6 and sum(piece.objects.height for piece in pieces) == 38
