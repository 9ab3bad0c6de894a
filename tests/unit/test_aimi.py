"""Radiographs beside tables: a mirror folder and an Azure container give the same, and nothing crosses the web twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import md5
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from standins.azure_blob import SAS, AzureStandIn
from standins.scripted import Answer, Request

from medvec_assets.catalog import dataset
from medvec_assets.connectors import LISTING, Connector, Listing, aimi, open_connector
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.manifest import validated
from resources import http_source, tables
from resources.errors import ConfigError, MedvecError, ObjectRejected, SourceError, SourceUnavailable
from resources.lakehouse import Lakehouse
from resources.settings import Agreement, Settings

FOLDER = Path(__file__).parents[1] / "datasets" / "aimi_chest_xray" / "in"
RELEASE = "CheXpert-v1.0-synthetic"
NOTHING = pl.DataFrame()
KEY = "22" * 32


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureStandIn]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    with AzureStandIn(FOLDER) as standin:
        yield standin


def connector(source: Path | AzureStandIn, home: Path, sas: str = SAS, below: str = "") -> Connector:
    place = str(source) if isinstance(source, Path) else source.base + below
    settings = Settings(home=home, sources={"aimi_chest_xray": place}, credentials={"aimi": sas}, pseudonym_key=KEY)
    return open_connector("aimi", settings, "aimi_chest_xray")


def pieces(found: Connector, previous: pl.DataFrame = NOTHING) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    got: list[Listing] = list(found.listings(previous))
    rejected = sorted((one.code, one.object_id) for piece in got for one in piece.rejected)
    return pl.concat([piece.objects for piece in got]), rejected


def copy(tmp_path: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(FOLDER, tmp_path / "in")
    change(tmp_path / "in" / RELEASE)
    return tmp_path / "in"


def test_folder_and_container_list_the_same(service: AzureStandIn, tmp_path: Path) -> None:
    folder, service_rows = (pieces(connector(source, tmp_path)) for source in (FOLDER, service))
    same = [name for name in LISTING if name not in ("uri", "checksum", "checksum_kind", "attributes")]
    assert folder[0].select(same).equals(service_rows[0].select(same)) and folder[1] == service_rows[1]
    said = [[json.loads(text) | {"etag": ""} for text in found[0]["attributes"]] for found in (folder, service_rows)]
    assert said[0] == said[1]
    good, refused = validated(Listing(service_rows[0]))
    assert good.height == service_rows[0].height and refused == []
    assert {code for code, _ in folder[1]} == {"duplicate_row", "image_missing", "name_not_understood", "not_in_table"}


def test_every_page_is_asked_for_and_md5_comes_with_it(service: AzureStandIn, tmp_path: Path) -> None:
    found = connector(service, tmp_path)
    objects, _ = pieces(found)
    assert len({request.params.get("marker") for request in service.seen}) == -(-len(service.blobs) // service.page)
    read = [request.path for request in service.seen if not request.path.endswith("/chexpert")]
    assert all(path.endswith(".csv") for path in read) and len(read) == 2
    row = objects.row(0, named=True)
    assert (
        row["checksum_kind"] == "md5" and md5(found.read(row["uri"], max_bytes=1 << 20)).hexdigest() == row["checksum"]
    )


def test_nothing_that_has_not_changed_crosses_the_web_again(service: AzureStandIn, tmp_path: Path) -> None:
    service.without_md5 = {name for name in service.blobs if "patient00001" in name or "patient00002" in name}
    first, _ = pieces(connector(service, tmp_path))
    unhashed = first.filter(pl.col("checksum_kind") == "sha256")
    assert unhashed.height == 2
    service.seen.clear()
    again, _ = pieces(connector(service, tmp_path), first)
    assert again.equals(first)
    assert [request for request in service.seen if "comp" not in request.params] == []
    changed = unhashed["uri"][0].removeprefix(f"{service.base}/")
    service.blobs[changed] += b"more"
    later, _ = pieces(connector(service, tmp_path), first)
    assert [
        request.path.removeprefix(f"{service.root}/") for request in service.seen if "comp" not in request.params
    ] == [changed]
    assert later.join(first, on=["object_id", "checksum"], how="anti").height == 1


def test_a_killed_run_reads_only_what_is_missing(
    service: AzureStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataset("aimi_chest_xray")
    settings = Settings(
        home=tmp_path,
        sources={spec.id: service.base},
        credentials={"aimi": SAS},
        pseudonym_key=KEY,
        agreements=[Agreement(id="stanford-aimi-rua", holder="H", datasets={"aimi_chest_xray"}, expires=date.max)],
    )
    ctx = Context(settings, Lakehouse.open(settings), "run")
    [partition] = manifest.refresh(ctx, spec).plan["partition"]
    original, reads = aimi.Aimi.read, 0

    def cut(self: aimi.Aimi, uri: str, *, max_bytes: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 8:
            raise KeyboardInterrupt
        return original(self, uri, max_bytes=max_bytes)

    monkeypatch.setattr(aimi.Aimi, "read", cut)
    with pytest.raises(KeyboardInterrupt):
        records.build(ctx, spec, partition)
    service.blobs[f"{RELEASE}/train/patient00004/study1/view1_frontal.jpg"] = b"another file than was listed"
    outcome = records.build(ctx, spec, partition)
    asked = [request.path for request in service.seen if request.path.endswith((".jpg", ".png"))]
    assert len(asked) == len(set(asked)) == outcome.rows_in
    quarantine = ctx.lake.snapshot(tables.quarantine(spec.id))
    assert quarantine is not None
    rows = quarantine.read()
    read_before_the_kill = sum("patient00004" in path for path in asked[:7])
    assert rows.filter(pl.col("code") == "checksum_mismatch").height == 1 - read_before_the_kill
    assert "patient" not in rows["object_id"].str.join().item()


def test_a_source_that_changes_while_it_is_listed_is_listed_again(service: AzureStandIn, tmp_path: Path) -> None:
    listings = 0

    def grow(request: Request) -> None:
        nonlocal listings
        listings += "comp" in request.params and "marker" not in request.params
        if listings == 2:
            service.blobs[f"{RELEASE}/train/patient00099/study1/view1_frontal.jpg"] = b"new"

    service.before = grow
    with pytest.raises(SourceUnavailable) as refusal:
        pieces(connector(service, tmp_path))
    assert refusal.value.code == "source_changed" and refusal.value.retryable
    pieces(connector(service, tmp_path))


def test_busy_is_asked_again(service: AzureStandIn, tmp_path: Path) -> None:
    service.plan = [("chexpert", Answer(status=503)), ("chexpert", Answer(status=429, headers={"Retry-After": "0"}))]
    assert pieces(connector(service, tmp_path))[0].height > 20


@pytest.mark.parametrize(
    ("sas", "code"),
    [
        (SAS.replace("2099", "2020"), "credentials_expired"),
        (SAS.replace("2099-01-01T00%3A00%3A00Z", "2020-01-01"), "credentials_expired"),
        (SAS.replace("c2ln", "AAAA"), "credentials_refused"),
        ("", "credentials_refused"),
    ],
)
def test_an_expired_or_wrong_link_says_so_and_is_not_told(
    service: AzureStandIn, tmp_path: Path, sas: str, code: str
) -> None:
    found = connector(service, tmp_path, sas)
    for ask in (found.version, lambda: found.read(f"{service.base}/x.jpg", max_bytes=9)):
        with pytest.raises(SourceError) as refusal:
            ask()
        assert refusal.value.code == code
        assert "sig" not in str(refusal.value) and "c2ln" not in str(refusal.value)


def test_a_container_that_is_not_there_withdraws_nothing(service: AzureStandIn, tmp_path: Path) -> None:
    service.plan = [("chexpert", Answer(status=404))]
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path).version()
    assert refusal.value.code == "source_missing"


def test_no_uri_holds_the_signature(service: AzureStandIn, tmp_path: Path) -> None:
    objects, _ = pieces(connector(service, tmp_path, "?" + SAS))
    assert "c2ln" not in json.dumps(objects.to_dicts())
    for address in (f"{service.base}?{SAS}", "https://account.blob.core.windows.net/", "http://elsewhere.org/a/b"):
        settings = Settings(home=tmp_path, sources={"aimi_chest_xray": address})
        with pytest.raises(ConfigError) as refusal:
            open_connector("aimi", settings, "aimi_chest_xray")
        assert "c2ln" not in str(refusal.value)


def test_a_part_of_a_container(service: AzureStandIn, tmp_path: Path) -> None:
    objects, _ = pieces(connector(service, tmp_path, below=f"/{RELEASE}"))
    assert objects.height == pieces(connector(service, tmp_path))[0].height
    with pytest.raises(ObjectRejected):
        connector(service, tmp_path, below=f"/{RELEASE}").read(f"{service.base}/other/x.jpg", max_bytes=9)


def test_names_outside_xml_and_ascii(service: AzureStandIn, tmp_path: Path) -> None:
    path = f"{RELEASE}/a&b <ü>/patient00001/study9/view1_frontal.jpg"
    service.blobs[path] = b"x"
    _, rejected = pieces(connector(service, tmp_path))
    assert "not_in_table" in {code for code, _ in rejected}
    assert (
        connector(service, tmp_path).read(
            f"{service.base}/{RELEASE}/a%26b%20%3C%C3%BC%3E/patient00001/study9/view1_frontal.jpg", max_bytes=9
        )
        == b"x"
    )


@pytest.mark.parametrize(
    "body", [b"<html>login</html>", b"no xml", b"<EnumerationResults><Blobs><Blob/></Blobs></EnumerationResults>"]
)
def test_another_protocol_is_refused_as_a_whole(service: AzureStandIn, tmp_path: Path, body: bytes) -> None:
    service.plan = [("chexpert", Answer(body))]
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path).version()
    assert refusal.value.code == "schema_drift"


# ---------------------------------------------------------------- tables


def edit(name: str, change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_text()).encode(encoding))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        edit("train.csv", lambda text: text.replace("Age,", "Years,", 1)),
        edit("train.csv", lambda text: text.replace(",Cardiomegaly", ",Heart", 1)),
        edit("train.csv", lambda text: ""),
        edit("train.csv", lambda text: text, "utf-16"),
        edit("train.csv", lambda text: text + '"never closed'),
    ],
)
def test_a_table_of_another_layout_stops_the_run(tmp_path: Path, change: Callable[[Path], None]) -> None:
    with pytest.raises(SourceError) as refusal:
        pieces(connector(copy(tmp_path, change), tmp_path))
    assert refusal.value.code == "schema_drift"


def test_a_broken_row_costs_its_image_alone(tmp_path: Path) -> None:
    def cut(text: str) -> str:
        first, second, *rest = text.splitlines()
        return "\n".join([first, second.rpartition(",")[0], *rest, "CheXpert/train/nobody.jpg" + "," * 18]) + "\n"

    before, _ = pieces(connector(FOLDER, tmp_path))
    after, refused = pieces(connector(copy(tmp_path, edit("train.csv", cut)), tmp_path))
    assert after.height == before.height - 1
    codes = [code for code, _ in refused]
    assert codes.count("row_not_understood") == 2 and codes.count("not_in_table") == 2
    assert len({object_id for _, object_id in refused}) == len(refused)


def test_columns_more_than_known_are_not_looked_at(tmp_path: Path) -> None:
    def more(text: str) -> str:
        return "\n".join(f"{line},{'Name' if not n else 'Jane Doe'}" for n, line in enumerate(text.splitlines())) + "\n"

    objects, _ = pieces(connector(copy(tmp_path, edit("train.csv", more)), tmp_path))
    assert objects.height == pieces(connector(FOLDER, tmp_path))[0].height
    assert "Jane" not in json.dumps(objects.to_dicts())


def test_patients_are_named_in_bronze_alone(tmp_path: Path) -> None:
    objects, rejected = pieces(connector(FOLDER, tmp_path))
    assert not any("patient" in object_id for object_id in [*objects["object_id"], *(one for _, one in rejected)])
    settings = Settings(home=tmp_path, sources={"aimi_chest_xray": str(FOLDER)}, pseudonym_key="33" * 32)
    other, _ = pieces(open_connector("aimi", settings, "aimi_chest_xray"))
    assert set(other["object_id"]) & set(objects["object_id"]) == set()  # keyed: not to be found by trying


@pytest.mark.parametrize("missing", [".csv", ".jpg"])
def test_an_empty_source_withdraws_nothing(tmp_path: Path, missing: str) -> None:
    def without(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.suffix == missing or (missing == ".jpg" and path.suffix == ".png"):
                path.unlink()

    with pytest.raises(MedvecError) as refusal:
        pieces(connector(copy(tmp_path, without), tmp_path))
    assert refusal.value.code == "source_empty"


def test_an_unread_connector_asks_nothing(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "sources": {"aimi_chest_xray": "https://account.blob.core.windows.net/container/folder"}
    }
    assert isinstance(open_connector("aimi", Settings(home=tmp_path, **settings), "aimi_chest_xray"), aimi.Aimi)
