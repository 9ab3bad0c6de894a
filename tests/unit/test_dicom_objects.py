"""The DICOM connector: layouts, identity, what is read again, what a name can leak."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from helpers.dicom_files import deflated_bomb, edited, folder, real

from medvec_assets.connectors import LISTING, Connector, open_connector
from medvec_assets.connectors import dicom_objects as module
from resources.errors import ObjectRejected, SourceError
from resources.object_store import ObjectStore
from resources.settings import Settings

NOTHING = pl.DataFrame()


def connector(source: Path | None, home: Path) -> Connector:
    sources = {"tcia_radiology": str(source)} if source else {}
    return open_connector("dicom_objects", Settings(home=home, sources=sources), "tcia_radiology")


def listed(found: Connector, previous: pl.DataFrame = NOTHING) -> pl.DataFrame:
    return pl.concat([listing.objects for listing in found.listings(previous)])


def put(root: Path, key: str, data: bytes) -> Path:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The keys of the objects that are read."""
    keys: list[str] = []
    original = ObjectStore.digest_and_head

    def counted(self: ObjectStore, key: str, head_bytes: int) -> tuple[str, bytes]:
        keys.append(key)
        return original(self, key, head_bytes)

    monkeypatch.setattr(ObjectStore, "digest_and_head", counted)
    yield keys


def test_the_sample_bundle_is_the_packages_own_files(tmp_path: Path) -> None:
    found = connector(None, tmp_path)
    objects = listed(found)
    assert objects.schema == pl.Schema(LISTING)
    assert dict(objects.group_by("cohort").len().iter_rows()) == {"pydicom_data": 68, "pydicom_tests": 78}
    assert objects["object_id"].is_unique().all()
    assert objects["license"].unique().to_list() == ["MIT"]
    assert not objects.drop("removed_in_version").null_count().sum_horizontal().item()
    ct = objects.filter(pl.col("uri").str.ends_with("/CT_small.dcm")).row(0, named=True)
    assert ct["checksum"] == hashlib.sha256(real("CT_small.dcm")).hexdigest()
    assert ct["subject_ref"] == "1CT1"
    assert found.read(ct["uri"], max_bytes=1 << 20) == real("CT_small.dcm")
    assert found.version() == connector(None, tmp_path).version()


def test_cohorts_come_from_the_first_folder(tmp_path: Path) -> None:
    for key in ("top.dcm", "Head & Neck/x/1.dcm", "研究/1.dcm", "head-neck/2.dcm"):
        put(tmp_path / "in", key, real("CT_small.dcm"))
    cohorts = sorted(listed(connector(tmp_path / "in", tmp_path))["cohort"])
    assert cohorts[0].startswith("cohort_") and cohorts[1:] == ["head_neck", "head_neck", "root"]


def test_identity_comes_from_the_header_and_unreadable_files_stay_listed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root, "c/good.dcm", real("CT_small.dcm"))
    put(root, "c/deflated.dcm", edited("image_dfl.dcm", PatientID="DEFLATED"))
    put(root, "c/nobody1.dcm", edited("CT_small.dcm", PatientID=""))
    put(root, "c/nobody2.dcm", edited("CT_small.dcm", PatientID="", InstanceNumber=2))
    put(root, "c/no_series.dcm", edited("CT_small.dcm", drop=("SeriesInstanceUID",)))
    put(root, "c/empty.dcm", b"")
    put(root, "c/bomb.dcm", deflated_bomb(megabytes=64))
    put(root, "c/notes.txt", b"not DICOM")
    objects = listed(connector(root, tmp_path))
    by_name = {Path(row["uri"]).name: row for row in objects.iter_rows(named=True)}
    assert len(by_name) == 8
    assert by_name["good.dcm"]["subject_ref"] == "1CT1"
    assert by_name["deflated.dcm"]["subject_ref"] == "DEFLATED"
    # Without a patient id the instances of one series still belong together.
    first, second = (by_name[name] for name in ("nobody1.dcm", "nobody2.dcm"))
    assert first["subject_ref"].startswith("unknown:")
    assert (first["subject_ref"], first["record_ref"]) == (second["subject_ref"], second["record_ref"])
    assert by_name["no_series.dcm"]["record_ref"] != by_name["good.dcm"]["record_ref"]
    unreadable = {name for name, row in by_name.items() if row["media_type"] != "application/dicom"}
    assert unreadable == {"empty.dcm", "notes.txt", "bomb.dcm"}
    assert by_name["empty.dcm"]["checksum"] == hashlib.sha256(b"").hexdigest()
    assert set(objects["license"]) == {"unspecified"}


def test_a_folders_licence_is_what_its_file_says(tmp_path: Path) -> None:
    root, home = tmp_path / "in", tmp_path / "home"
    file = real("CT_small.dcm")
    for place in ("stated", "silent", "stated/deeper"):
        put(root, f"{place}/a.dcm", file)
    put(root, "stated/LICENSE", b"CC BY 4.0\nhttps://creativecommons.org/licenses/by/4.0/\n")
    put(root, "stated/deeper/LICENSE", b"a file like any other")
    put(root, "silent/LICENSE", b" \n")
    found = connector(root, home)
    licenses = listed(found).group_by("cohort").agg(pl.col("license").unique(), pl.len()).sort("cohort").rows()
    assert licenses == [("silent", ["unspecified"], 1), ("stated", ["CC BY 4.0"], 3)]
    before = found.version()
    put(root, "silent/LICENSE", b"CC0")
    assert found.version() != before
    assert set(listed(found)["license"]) == {"CC BY 4.0", "CC0"}


def test_a_series_in_two_folders_or_under_two_patients_is_separate_records(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root, "a/1.dcm", real("CT_small.dcm"))
    put(root, "b/1.dcm", real("CT_small.dcm"))
    put(root, "a/2.dcm", edited("CT_small.dcm", PatientID="OTHER"))
    put(root, "a/3.dcm", edited("CT_small.dcm", InstanceNumber=9))
    assert listed(connector(root, tmp_path))["record_ref"].n_unique() == 3


def test_unchanged_objects_are_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    root = tmp_path / "in"
    for name in ("a.dcm", "b.dcm", "broken.dcm"):
        put(root, f"c/{name}", real("CT_small.dcm") if name != "broken.dcm" else b"x")
    found = connector(root, tmp_path)
    version, first = found.version(), listed(found)
    assert sorted(reads) == ["c/a.dcm", "c/b.dcm", "c/broken.dcm"]
    reads.clear()
    again = listed(found, first)
    assert reads == [] and again.equals(first) and found.version() == version
    put(root, "c/b.dcm", real("MR_small.dcm"))
    changed = listed(found, first)
    assert reads == ["c/b.dcm"] and found.version() != version
    moved = changed.join(first, on=["object_id", "checksum"], how="anti")
    assert moved.height == 1 and moved["subject_ref"].item() == "4MR1"


def test_names_stay_in_the_uri(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root, "c/DOE_JANE.dcm", edited("CT_small.dcm", PatientName="DOE^JANE", StudyDescription="DOE JANE"))
    row = listed(connector(root, tmp_path)).row(0, named=True)
    assert "DOE" not in json.dumps({name: value for name, value in row.items() if name != "uri"})


def test_an_empty_or_missing_source_withdraws_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "missing"):
        with pytest.raises(SourceError):
            list(connector(tmp_path / source, tmp_path).listings(NOTHING))


def test_only_objects_of_this_source_are_read(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret", b"secret")
    put(tmp_path / "in", "c/1.dcm", b"1")
    found = connector(tmp_path / "in", tmp_path)
    for uri in (secret.as_uri(), "s3://bucket/x", f"{(tmp_path / 'in').as_uri()}/../secret"):
        with pytest.raises(ObjectRejected):
            found.read(uri, max_bytes=100)


def test_idc_layout_takes_everything_from_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_OBJECTS", 2)  # several pieces
    index = pl.scan_parquet(folder("idc_index_data", "idc_index.parquet"))
    series = index.filter(pl.col("Modality") == "CT").head(2).collect().to_dicts()
    instance = "11111111-2222-3333-4444-555555555555.dcm"
    root = tmp_path / "in"
    for row in series:
        put(root, f"{row['crdc_series_uuid']}/{instance}", real("CT_small.dcm"))
    put(root, f"00000000-0000-0000-0000-000000000000/{instance}", real("CT_small.dcm"))
    pieces = list(connector(root, tmp_path).listings(NOTHING))
    objects = {row["uri"].split("/")[-2]: row for piece in pieces for row in piece.objects.iter_rows(named=True)}
    assert set(objects) == {row["crdc_series_uuid"] for row in series}
    for row in series:
        found = objects[row["crdc_series_uuid"]]
        assert found["cohort"] == row["collection_id"]
        assert found["subject_ref"] == row["PatientID"]
        assert found["record_ref"] == row["SeriesInstanceUID"]
        assert found["license"] == row["license_short_name"]
        assert found["upstream_version"] == f"v{row['series_revised_idc_version']}"
        assert found["first_seen_version"] == f"v{row['series_init_idc_version']}"
    (unknown,) = [rejection for piece in pieces for rejection in piece.rejected]
    assert unknown.code == "series_not_in_index"


def test_an_object_that_vanishes_while_it_is_listed_is_rejected_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "in"
    put(root, "c/a.dcm", real("CT_small.dcm"))
    gone = put(root, "c/b.dcm", real("CT_small.dcm"))
    original = ObjectStore.digest_and_head

    def late(self: ObjectStore, key: str, head_bytes: int) -> tuple[str, bytes]:
        gone.unlink(missing_ok=True)
        return original(self, key, head_bytes)

    monkeypatch.setattr(ObjectStore, "digest_and_head", late)
    (piece,) = connector(root, tmp_path).listings(NOTHING)
    assert piece.objects.height == 1
    assert [rejection.code for rejection in piece.rejected] == ["object_missing"]
