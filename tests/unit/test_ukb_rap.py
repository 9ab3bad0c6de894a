"""UK Biobank's bulk files: the mount and the platform's API give the same; who withdrew is marked and never read again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import date
from hashlib import md5
from pathlib import Path

import polars as pl
import pytest
from standins.dnanexus import TOKEN, DnanexusStandIn
from standins.scripted import Answer, Request

from medvec_assets.catalog import dataset
from medvec_assets.catalog.spec import Withdrawal
from medvec_assets.connectors import LISTING, Connector, Listing, open_connector
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import validated
from resources import http_source, tables
from resources.errors import ConfigError, ObjectRejected, PolicyRefused, SourceError, SourceUnavailable
from resources.lakehouse import Lakehouse
from resources.object_store import ObjectStore
from resources.settings import Agreement, Settings

FOLDER = Path(__file__).parents[1] / "datasets" / "ukb_brain_mri" / "in"
NOTHING = pl.DataFrame()
KEY = "22" * 32
SPEC = dataset("ukb_brain_mri")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnanexusStandIn]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    with DnanexusStandIn(FOLDER) as standin:
        yield standin


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "in")
    return tmp_path / "in"


def connector(source: Path | DnanexusStandIn, home: Path, token: str = TOKEN, **sources: str) -> Connector:
    place = str(source) if isinstance(source, Path) else source.address
    given = {"ukb_brain_mri": place, **sources}
    settings = Settings(home=home / "home", sources=given, credentials={"ukb": token}, pseudonym_key=KEY)
    return open_connector("ukb_rap", settings, "ukb_brain_mri")


def pieces(found: Connector, previous: pl.DataFrame = NOTHING) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    got: list[Listing] = list(found.listings(previous))
    rejected = sorted((one.code, one.object_id) for piece in got for one in piece.rejected)
    return pl.concat([piece.objects for piece in got]).sort("object_id"), rejected


def downloads(service: DnanexusStandIn) -> list[Request]:
    return [request for request in service.seen if request.method == "GET"]


def test_mount_and_api_list_the_same(service: DnanexusStandIn, mount: Path, tmp_path: Path) -> None:
    folder, api = (pieces(connector(source, tmp_path)) for source in (mount, service))
    same = [name for name in LISTING if name not in ("uri", "checksum", "checksum_kind", "attributes")]
    assert folder[0].select(same).equals(api[0].select(same)) and folder[1] == api[1]
    good, refused = validated(Listing(api[0]))
    assert good.height == api[0].height == 20 and refused == []
    assert [code for code, _ in api[1]] == ["name_not_understood"]
    assert set(api[0]["cohort"]) == {"instance_2", "instance_3"} and set(api[0]["access_tier"]) == {"controlled"}


def test_the_api_lists_by_pages_and_reads_nothing_for_it(service: DnanexusStandIn, tmp_path: Path) -> None:
    found = connector(service, tmp_path)
    objects, _ = pieces(found)
    assert downloads(service) == [] and set(objects["checksum_kind"]) == {"md5"}
    starts = {request.body for request in service.asked("findDataObjects")}
    assert len(starts) == -(-len(service.files) // service.page)
    row = objects.row(0, named=True)
    assert md5(found.read(row["uri"], max_bytes=1 << 20)).hexdigest() == row["checksum"]


def test_a_file_of_many_parts_goes_by_its_id_and_an_archived_one_is_refused_alone(
    service: DnanexusStandIn, tmp_path: Path
) -> None:
    large, archived, *_ = [one for one, (path, _) in service.files.items() if path.endswith("_0.zip")]
    service.many_parts, service.archived = {large}, {archived}
    found = connector(service, tmp_path)
    objects, rejected = pieces(found)
    assert objects.filter(pl.col("checksum_kind") == "etag")["checksum"].to_list() == [large]
    assert sorted(code for code, _ in rejected) == ["name_not_understood", "not_live"]
    with pytest.raises(ObjectRejected) as refusal:
        found.read(f"{service.address.rpartition('/Bulk')[0]}/{archived}", max_bytes=100)
    assert refusal.value.code == "not_live"


@pytest.mark.parametrize(("token", "code"), [("expired", "credentials_refused"), ("", "credentials_refused")])
def test_an_expired_token_says_so(service: DnanexusStandIn, tmp_path: Path, token: str, code: str) -> None:
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path, token).version()
    assert refusal.value.code == code and "'ukb'" in str(refusal.value)


def test_the_token_goes_to_the_platform_alone(service: DnanexusStandIn, tmp_path: Path) -> None:
    found = connector(service, tmp_path)
    objects, _ = pieces(found)
    assert TOKEN not in json.dumps(objects.to_dicts())
    for address in ("http://elsewhere.org/project-x", "https://api.dnanexus.com/Bulk/T1"):
        settings = Settings(home=tmp_path, sources={"ukb_brain_mri": address})
        with pytest.raises(ConfigError):
            open_connector("ukb_rap", settings, "ukb_brain_mri")
    for uri in ("https://elsewhere.org/file-1", "file:///etc/passwd"):
        with pytest.raises(ObjectRejected):
            found.read(uri, max_bytes=100)


def test_busy_is_asked_again_and_another_protocol_refused(service: DnanexusStandIn, tmp_path: Path) -> None:
    service.plan = [("findData", Answer(status=503)), ("findData", Answer(status=429, headers={"Retry-After": "0"}))]
    assert pieces(connector(service, tmp_path))[0].height == 20
    for body in (b"{}", b"[]", b'{"results": [{"id": "file-1"}], "next": null}'):
        service.plan = [("findData", Answer(body))]
        with pytest.raises(SourceError) as refusal:
            connector(service, tmp_path).version()
        assert refusal.value.code == "schema_drift"


def test_a_project_that_changes_while_it_is_listed_is_listed_again(service: DnanexusStandIn, tmp_path: Path) -> None:
    path = "99/9900001_20252_2_0.zip"

    def grow(request: Request) -> None:
        if len(service.asked("findDataObjects")) == 7:
            service.put(path, b"new")

    service.before = grow
    with pytest.raises(SourceUnavailable) as refusal:
        pieces(connector(service, tmp_path))
    assert refusal.value.code == "source_changed"


# ---------------------------------------------------------------- the mount


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    keys: list[str] = []
    original = ObjectStore.digest_and_head

    def counted(self: ObjectStore, key: str, head_bytes: int) -> tuple[str, bytes]:
        keys.append(key.rpartition("/")[2])
        return original(self, key, head_bytes)

    monkeypatch.setattr(ObjectStore, "digest_and_head", counted)
    return keys


def test_what_has_not_changed_is_not_read_again(mount: Path, tmp_path: Path, reads: list[str]) -> None:
    first, _ = pieces(connector(mount, tmp_path))
    assert len(reads) == len(set(reads)) == 20
    reads.clear()
    again, _ = pieces(connector(mount, tmp_path / "elsewhere"), first)
    assert reads == [] and again.equals(first)
    (mount / "99" / "9900001_20252_2_0.zip").write_bytes(b"another")
    later, _ = pieces(connector(mount, tmp_path / "elsewhere"), first)
    assert reads == ["9900001_20252_2_0.zip"]
    assert later.join(first, on=["object_id", "checksum"], how="anti").height == 1


def test_an_empty_mount_withdraws_nothing(tmp_path: Path) -> None:
    for name in ("empty", "missing"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(SourceError):
            pieces(connector(tmp_path / name, tmp_path))


# ---------------------------------------------------------------- withdrawals


def test_who_withdraws_is_marked_from_the_first_lists_date_on_and_not_read(
    mount: Path, tmp_path: Path, reads: list[str]
) -> None:
    first, _ = pieces(connector(mount, tmp_path))
    before = connector(mount, tmp_path).version()
    (mount / "w12345_20250301.csv").write_text("9900001\n9900002\n")
    found = connector(mount, tmp_path)
    assert found.version() != before
    reads.clear()
    second, rejected = pieces(found, first)
    gone = second.filter(pl.col("removed_in_version").is_not_null())
    assert set(gone["subject_ref"]) == {"9900001", "9900002"} and gone.height == 3
    assert set(gone["removed_in_version"]) == {"withdrawn-2025-03-01"}
    assert second.height == first.height and reads == [] and len(rejected) == 1
    (mount / "w12345_20250601.csv").write_text("eid\n9900001\n9900002\n9900004\n")
    third, _ = pieces(connector(mount, tmp_path), second)
    dates = dict(third.drop_nulls("removed_in_version").select("subject_ref", "removed_in_version").rows())
    assert dates["9900004"] == "withdrawn-2025-06-01"
    assert dates["9900001"] == "withdrawn-2025-03-01"  # a later list does not restart the clock


def test_who_is_not_in_the_manifest_does_not_come_into_it_by_withdrawing(mount: Path, tmp_path: Path) -> None:
    (mount / "w12345_2025-03-01.csv").write_text('"9900001"\r\n')
    objects, rejected = pieces(connector(mount, tmp_path))
    assert "9900001" not in set(objects["subject_ref"]) and objects.height == 18
    assert len(rejected) == 1


def test_lists_may_lie_in_another_place_and_the_newest_counts(
    service: DnanexusStandIn, tmp_path: Path, mount: Path
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "w12345_20240101.csv").write_text("9900003\n")
    (lists / "w12345_20250101.csv").write_text("9900004\n")
    service.put("w12345_20230101.csv", b"9900005\n")
    first, _ = pieces(connector(service, tmp_path))
    objects, _ = pieces(connector(service, tmp_path, ukb_withdrawals=str(lists)), first)
    gone = objects.filter(pl.col("removed_in_version") == "withdrawn-2025-01-01")
    assert set(gone["subject_ref"]) == {"9900004"}


@pytest.mark.parametrize("content", [b"", b"eid\n", b"990001\n", b"9900001\n<html>", b"\x00\xff", b"Jane Doe\n"])
def test_a_list_that_is_none_stops_the_run(mount: Path, tmp_path: Path, content: bytes) -> None:
    (mount / "w12345_20250301.csv").write_bytes(content)
    with pytest.raises(SourceError) as refusal:
        pieces(connector(mount, tmp_path))
    assert refusal.value.code == "withdrawal_list_invalid" and "Jane" not in str(refusal.value)


# ---------------------------------------------------------------- through the stages


def run(settings: Settings) -> tuple[Context, pl.DataFrame]:
    ctx = Context(settings, Lakehouse.open(settings), "run")
    for partition in manifest.refresh(ctx, SPEC).plan["partition"]:
        records.build(ctx, SPEC, partition)
    snapshot = ctx.lake.snapshot(tables.records(SPEC.id))
    assert snapshot is not None
    return ctx, snapshot.read()


def test_the_rules_of_the_source_hold(mount: Path, tmp_path: Path) -> None:
    """Only at the RAP, with the agreement; an eid stays in bronze; who withdraws leaves the records."""
    settings = {"home": tmp_path / "home", "sources": {SPEC.id: str(mount)}, "pseudonym_key": KEY}
    agreed = {"agreements": [Agreement(id="ukb-mta", holder="H", datasets={SPEC.id}, expires=date.max)]}
    for elsewhere in ({}, {"site": "rap"}, agreed):
        with pytest.raises(PolicyRefused):
            run(Settings(**settings, **elsewhere))
    here = Settings(**settings, site="rap", **agreed)
    ctx, made = run(here)
    assert made.height == 13
    quarantine = ctx.lake.snapshot(tables.quarantine(SPEC.id))
    assert quarantine is not None
    for table in (made, quarantine.read()):
        assert re.search(r"\b99000\d\d", str(table.to_dicts())) is None
    (mount / "w12345_20250301.csv").write_text("9900001\n")
    _, later = run(here)
    assert later.height == 11 and set(later["record_id"]) < set(made["record_id"])
    assert (SPEC.withdrawal, SPEC.withdrawal_grace.days) == (Withdrawal.ERASE, 90)
