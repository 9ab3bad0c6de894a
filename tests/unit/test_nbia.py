"""The connector over NBIA's REST API, against a stand-in that serves the folder's own fixture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.dicom_files import edited
from standins.nbia import PASSWORD, USER, NbiaStandIn
from standins.scripted import Answer, Request

from medvec_assets.catalog import dataset
from medvec_assets.connectors import LISTING, Connector, nbia, open_connector
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import modality
from medvec_assets.stages.manifest import validated
from resources import http_source
from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable
from resources.settings import Settings

FOLDER = Path(__file__).parents[1] / "datasets" / "tcia_radiology" / "in"
NOTHING = pl.DataFrame()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[NbiaStandIn]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(nbia, "REQUESTS_PER_SECOND", 10_000)
    with NbiaStandIn(FOLDER) as standin:
        yield standin


def connector(service: NbiaStandIn, home: Path, query: str = "", **settings: Any) -> Connector:
    sources = {"tcia_radiology": service.base + query}
    return open_connector("dicom_objects", Settings(home=home, sources=sources, **settings), "tcia_radiology")


def listed(found: Connector, previous: pl.DataFrame = NOTHING) -> pl.DataFrame:
    return pl.concat([listing.objects for listing in found.listings(previous)])


def test_the_address_chooses_the_door(service: NbiaStandIn, tmp_path: Path) -> None:
    assert isinstance(connector(service, tmp_path), nbia.Nbia)
    for source in ("/data/nbia-api", "s3://bucket/nbia-api", "https://example.org/other"):
        assert not nbia.is_nbia(source)
    assert nbia.is_nbia("https://services.cancerimagingarchive.net/nbia-api/")
    with pytest.raises(ConfigError):
        settings = Settings(home=tmp_path, sources={"tcia_radiology": "http://example.org/nbia-api"})
        open_connector("dicom_objects", settings, "tcia_radiology")


def test_every_image_is_listed_with_its_md5_and_licence(service: NbiaStandIn, tmp_path: Path) -> None:
    found = connector(service, tmp_path)
    objects = listed(found)
    good, refused = validated(next(iter(connector(service, tmp_path / "b").listings(NOTHING))))
    assert objects.schema == pl.Schema(LISTING) and good.height == objects.height and refused == []
    assert dict(objects.select("checksum", "cohort").rows()) == {one.digest: one.collection for one in service.images}
    assert set(objects["license"]) == {"MIT"}
    for row in objects.iter_rows(named=True):
        assert md5(found.read(row["uri"], max_bytes=1 << 20)).hexdigest() == row["checksum"]


def test_folder_and_service_make_the_same_records(service: NbiaStandIn, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, sources={"tcia_radiology": str(FOLDER)})
    folder = open_connector("dicom_objects", settings, "tcia_radiology")
    made = {}
    for name, door in (("folder", folder), ("service", connector(service, tmp_path))):
        images = listed(door).filter(pl.col("media_type") == "application/dicom")
        read = lambda uri, door=door: door.read(uri, max_bytes=1 << 20)  # noqa: E731
        frame, refused = modality("imaging").records(images, read, Pseudonyms(b"1" * 32, "tcia"))
        # Not deid_actions: NBIA's listing takes the sample's licence, which is no CC, for a closed tier's.
        columns = ("subject_key", "cohort", "modality", "license", "attributes", "content_digests")
        made[name] = (sorted(frame.select(columns).rows()), {one.code for one in refused})
    assert made["folder"][0] == made["service"][0] and len(made["folder"][0]) >= 2
    # The folder holds a second, truncated file of an image; of one image a service has one file.
    assert made["folder"][1] - made["service"][1] == {"truncated"}


def test_an_unchanged_series_is_not_asked_for_again(service: NbiaStandIn, tmp_path: Path) -> None:
    first = listed(connector(service, tmp_path))
    service.seen.clear()
    again = listed(connector(service, tmp_path / "elsewhere"), first)
    assert again.equals(first)
    assert service.asked("getSOPInstanceUIDs") == service.asked("getM5HashForImage") == []
    changed = next(one for one in service.images if one.modality == "CT")
    service.put(changed.collection, edited("CT_small.dcm", KVP="77"), stamp="2025-01-01 00:00:00.0")
    later = listed(connector(service, tmp_path / "elsewhere"), first)
    assert [request.params["SeriesInstanceUID"] for request in service.asked("getSOPInstanceUIDs")] == [changed.series]
    assert later.join(first, on=["object_id", "checksum"], how="anti").height == 1


def test_what_changes_during_a_listing_belongs_to_the_next(service: NbiaStandIn, tmp_path: Path) -> None:
    """The series' state was taken by version(); whatever is new has another state and is asked for then."""
    found = connector(service, tmp_path)
    before = found.version()
    changed = service.put("chest_ct", edited("CT_small.dcm", KVP="77"), stamp="2025-01-01 00:00:00.0")
    first = listed(found)
    assert found.version() != before
    second = listed(found, first)
    row = second.filter(pl.col("attributes").str.contains(changed.sop, literal=True)).row(0, named=True)
    assert row["checksum"] == changed.digest and row["upstream_version"] == "2025-01-01"
    assert len(service.asked("getSeries")) == 2 * 2  # two collections, two versions: never once more for the listing


def test_a_wrong_checksum_and_a_missing_one(service: NbiaStandIn, tmp_path: Path) -> None:
    silent, lost = service.images[0], service.images[1]
    silent.digest = ""
    service.before = lambda request: _withdraw(service, lost.sop, request)
    rejected = [one for piece in connector(service, tmp_path).listings(NOTHING) for one in piece.rejected]
    assert {one.code for one in rejected} == {"checksum_not_published"} and len(rejected) == 2
    silent.digest = md5(silent.data).hexdigest()  # told a day later
    objects = listed(connector(service, tmp_path))
    assert silent.digest in set(objects["checksum"])


def _withdraw(service: NbiaStandIn, sop: str, request: Request) -> None:
    """The image goes after its series was listed and before its checksum is asked for."""
    if "getM5HashForImage" in request.path:
        service.images = [one for one in service.images if one.sop != sop]


def test_busy_is_asked_again_and_down_is_unavailable(service: NbiaStandIn, tmp_path: Path) -> None:
    service.plan = [("getSeries", Answer(status=429, headers={"Retry-After": "0"})), ("getM5", Answer(status=503))]
    assert listed(connector(service, tmp_path)).height == len(service.images)
    service.plan = [("getCollectionValues", Answer(status=503))] * http_source.ATTEMPTS
    with pytest.raises(SourceUnavailable):
        connector(service, tmp_path).version()


def test_restricted_collections_need_a_token_that_is_renewed(service: NbiaStandIn, tmp_path: Path) -> None:
    service.restricted, service.licenses["chest_ct"] = ("brain_mr",), "CC BY 4.0"
    assert set(listed(connector(service, tmp_path))["cohort"]) == {"chest_ct"}
    secret = {"tcia": f"{USER}:{PASSWORD}"}
    found = connector(service, tmp_path, credentials=secret)
    found.version()
    service.tokens.clear()  # expired
    objects = listed(found)
    assert len(service.asked("oauth/token")) == 2
    tiers = dict(objects.select("cohort", "access_tier").rows())
    assert tiers == {"chest_ct": "open", "brain_mr": "controlled"}
    assert "TCIA Restricted" not in dataset("tcia_radiology").licenses
    for told in (json.dumps(objects.to_dicts()), *(request.path for request in service.seen)):
        assert PASSWORD not in told
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path, credentials={"tcia": f"{USER}:wrong"}).version()
    assert refusal.value.code == "credentials_refused" and "wrong" not in str(refusal.value)


def test_collections_can_be_named(service: NbiaStandIn, tmp_path: Path) -> None:
    assert set(listed(connector(service, tmp_path, "?Collection=chest_ct"))["cohort"]) == {"chest_ct"}
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path, "?Collection=chest_ct&Collection=none").version()
    assert refusal.value.code == "source_missing"


def test_a_licence_may_stand_in_the_series_metadata_alone(service: NbiaStandIn, tmp_path: Path) -> None:
    service.licenses = dict.fromkeys(service.licenses, "CC BY 4.0")
    service.untold = {service.images[0].series}
    assert set(listed(connector(service, tmp_path))["license"]) == {"CC BY 4.0"}
    assert len(service.asked("getSeriesMetaData")) == 1


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"a": 1}', b'[{"Modality": "CT"}]', b'["x"]'])
def test_another_protocol_is_refused_as_a_whole(service: NbiaStandIn, tmp_path: Path, body: bytes) -> None:
    service.plan = [("getSeries", Answer(body))]
    with pytest.raises(SourceError) as refusal:
        connector(service, tmp_path).version()
    assert refusal.value.code == "schema_drift"


def test_nothing_published_withdraws_nothing(service: NbiaStandIn, tmp_path: Path) -> None:
    service.images = []
    with pytest.raises(SourceError):
        listed(connector(service, tmp_path))


def test_only_images_of_this_service_are_read(service: NbiaStandIn, tmp_path: Path) -> None:
    for uri in ("https://elsewhere.org/nbia-api/image?SeriesInstanceUID=1", "file:///etc/passwd"):
        with pytest.raises(ObjectRejected):
            connector(service, tmp_path).read(uri, max_bytes=100)
