"""The Azure connector against Azurite: real pages, signatures and refusals, where the stand-in has our reading of them."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import polars as pl
import pytest

from medvec_assets.connectors import Connector, azure_blobs, open_connector
from resources.errors import ObjectRejected, SourceError
from resources.settings import Settings
from tests.services import Azurite, NotInstalled

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[1] / "datasets" / "aimi_chest_xray" / "in"
CONTAINER = "chexpert"
ODD_NAME = "other/a&b <ü> 100%.txt"


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    try:
        made = Azurite()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    with made as server:
        server.create(CONTAINER)
        for path in FOLDER.rglob("*"):
            if path.is_file():
                server.put(CONTAINER, path.relative_to(FOLDER).as_posix(), path.read_bytes())
        server.put(CONTAINER, ODD_NAME, b"odd")
        yield server


def connector(home: Path, source: str, sas: str = "") -> Connector:
    settings = Settings(
        home=home, sources={"aimi_chest_xray": source}, credentials={"aimi": sas}, pseudonym_key="22" * 32
    )
    return open_connector("aimi", settings, "aimi_chest_xray")


def listed(found: Connector) -> pl.DataFrame:
    return pl.concat([piece.objects for piece in found.listings(pl.DataFrame())]).sort("object_id")


def test_the_container_is_the_folder(azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_blobs, "PAGE_BLOBS", 7)
    found = connector(tmp_path, azurite.container(CONTAINER), azurite.sas("rl"))
    objects, folder = listed(found), listed(connector(tmp_path, str(FOLDER)))
    same = ["object_id", "cohort", "size_bytes", "subject_ref", "record_ref", "media_type"]
    assert objects.select(same).equals(folder.select(same)) and objects.height > 20
    assert set(objects["checksum_kind"]) == {"md5"}
    for row in objects.head(3).iter_rows(named=True):
        assert md5(found.read(row["uri"], max_bytes=1 << 20)).hexdigest() == row["checksum"]
    before = found.version()
    azurite.put(CONTAINER, ODD_NAME, b"odd, and changed")
    assert found.version() != before


def test_a_name_outside_ascii_is_found_and_read(azurite: Azurite, tmp_path: Path) -> None:
    made = azure_blobs.AzureBlobs(azurite.container(CONTAINER) + "/other", azurite.sas("rl"), "aimi", None)  # type: ignore[arg-type]
    [odd] = made.list()
    assert odd.key == ODD_NAME.removeprefix("other/") and made.get(odd.uri, 100).startswith(b"odd")
    with pytest.raises(ObjectRejected) as refusal:
        made.get(odd.uri + "x", 100)
    assert refusal.value.code == "object_missing"


def test_what_a_signature_does_not_allow_is_refused(azurite: Azurite, tmp_path: Path) -> None:
    address, good = azurite.container(CONTAINER), azurite.sas("rl")
    wrong = {
        "expired": azurite.sas("rl", hours=-1),
        "no listing": azurite.sas("r"),
        "forged": good.replace("sp=rl", "sp=rwl"),
        "none": "",
    }
    codes = {}
    for what, sas in wrong.items():
        with pytest.raises(SourceError) as refusal:
            connector(tmp_path, address, sas).version()
        codes[what] = refusal.value.code
    assert codes.pop("expired") == "credentials_expired"
    assert set(codes.values()) == {"credentials_refused"}
    unknowing = azure_blobs.AzureBlobs(address, wrong["expired"], "aimi", None)  # type: ignore[arg-type]
    unknowing._expires = None  # what the service itself says of an expired one
    with pytest.raises(SourceError) as refusal:
        list(unknowing.list())
    assert refusal.value.code == "credentials_refused"
