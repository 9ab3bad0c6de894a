"""Search by an uploaded image over the real app: what is taken, what is refused, and that nothing of it is kept."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from helpers.dicom_files import edited, jpeg2000_bomb, jpeg_bomb, made, real
from helpers.image_world import DICOM, GZIP, NIFTI, PNG, Bright, InProcess, nifti, png
from helpers.query_world import R1, World, built_world, opened

from api.app import create_app
from medvec_assets.cli.ask import _read_image
from medvec_assets.modalities.imaging import image_input
from medvec_assets.query.decoder import Decoder
from medvec_assets.query.uploads import ENDINGS, MEDIA_TYPES
from resources import encoders
from resources.errors import Busy, ConfigError, ObjectRejected
from resources.settings import Settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(encoders, "load", Bright)
    monkeypatch.setattr("api.service.Decoder", InProcess)
    small = world.settings.model_copy(update={"api_upload_bytes": 2 << 20, "api_upload_pixels": 1_000_000})
    with TestClient(create_app(small, lambda _: opened(world.index)), base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = (world.settings.home / "keys" / "api.key").read_text()
        yield client


def sent(client: TestClient, data: bytes, media_type: str, **params: Any) -> Any:
    return client.post("/v1/search/image", content=data, headers={"Content-Type": media_type}, params=params)


def test_a_dicom_file_takes_the_way_of_ingest(client: TestClient) -> None:
    data = real("CT_small.dcm")
    answer = sent(client, data, DICOM, limit=1, explain=True)
    assert answer.status_code == 200, answer.text
    [hit] = answer.json()["hits"]
    assert (hit["record_id"], hit["thumbnail"]) == ("r1", f"/v1/thumbnails/{R1.vector_id}")
    assert answer.json()["explain"]["collections"][0]["dataset"] == "tcia_radiology"
    assert np.array_equal(Bright.seen[0], image_input(data))


def test_a_picture_and_a_volume_are_taken(client: TestClient) -> None:
    volume = next(Path("tests/datasets/ukb_brain_mri/in").rglob("*.zip"), None)
    assert [hit["record_id"] for hit in sent(client, png(), PNG).json()["hits"]] == ["r1", "r2"]
    assert [hit["record_id"] for hit in sent(client, png(level=9), PNG, limit=1).json()["hits"]] == ["r2"]
    assert volume is not None
    answer = sent(client, volume.read_bytes(), NIFTI)
    assert answer.status_code in (200, 422) and answer.headers["content-type"].startswith("application/")


def test_an_image_is_narrowed_paged_and_grouped(client: TestClient) -> None:
    first = sent(client, png(), PNG, limit=1, group_by="subject", datasets="tcia_radiology").json()
    second = sent(client, png(), PNG, limit=1, group_by="subject", datasets="tcia_radiology", cursor=first["cursor"])
    assert [one["record_id"] for one in first["hits"] + second.json()["hits"]] == ["r1", "r2"]
    assert sent(client, png(), PNG, filter="body_part=CHEST").json()["hits"] == []
    assert sent(client, png(), PNG, filter="secret=CHEST").status_code == 422
    assert sent(client, png(), PNG, surprise=1).status_code == 422


@pytest.mark.parametrize(
    ("media_type", "data", "code"),
    [
        (DICOM, b"", "empty_object"),
        (DICOM, b"JANE-DOE" * 100, "not_dicom"),
        (DICOM, real("CT_small.dcm")[:20_000], "truncated"),
        (DICOM, edited(BurnedInAnnotation="YES"), "burned_in_text"),
        (DICOM, edited(Modality="US"), "burned_in_text_possible"),
        (DICOM, jpeg2000_bomb(60_000), "dimensions_refused"),
        (DICOM, made(np.arange(1_100_000).astype(np.uint8).reshape(1_000, 1_100)), "dimensions_refused"),
        (PNG, png(1_100, 1_000), "dimensions_refused"),
        (PNG, png()[:60], "truncated"),
        (PNG, b"GIF89a", "unsupported_format"),
        (DICOM, jpeg_bomb(60_000), "dimensions_refused"),
        (NIFTI, b"x" * 400, "unsupported_format"),
        (NIFTI, nifti(200, 200, 200), "dimensions_refused"),
        (NIFTI, nifti(20, 20, 20), "truncated"),
        (GZIP, b"\x1f\x8b" + b"x" * 100, "decode_failed"),
    ],
)
def test_a_bad_file_is_a_422_that_names_the_rule(client: TestClient, media_type: str, data: bytes, code: str) -> None:
    answer = sent(client, data, media_type)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "JANE-DOE" not in answer.text


def test_no_damage_is_a_server_error(client: TestClient) -> None:
    """Bytes of good files overturned at random; the same ones every time."""
    chance = random.Random(5)
    files = {DICOM: real("CT_small.dcm")[:12_000], PNG: png(), NIFTI: nifti(8, 8, 8) + bytes(range(256)) * 4}
    for number in range(120):
        media_type = (DICOM, PNG, NIFTI)[number % 3]
        data = bytearray(files[media_type])
        for _ in range(chance.randint(1, 30)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert sent(client, bytes(data), media_type).status_code in (200, 422)


def test_what_is_too_large_or_of_another_type_is_refused(client: TestClient) -> None:
    assert sent(client, b"x" * (2 << 20), PNG).status_code == 422, "at the limit it is read"
    assert sent(client, b"x" * ((2 << 20) + 1), PNG).status_code == 413
    assert sent(client, png(), "text/html").status_code == 415
    assert client.post("/v1/search/image", content=png()).status_code == 415
    assert client.post("/v1/search", content=b"x" * ((1 << 20) + 1)).status_code == 413
    del client.headers["X-API-Key"]
    assert sent(client, png(), PNG).status_code == 401


def test_nothing_of_a_file_is_logged_or_written(
    client: TestClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def files() -> set[Path]:
        found = set(world.settings.home.rglob("*")) | set(Path.cwd().glob("*"))
        return {path for path in found if "access" not in path.parts}  # the access log holds a keyed hash of it

    sent(client, edited(PatientName="SOMEBODY"), DICOM)  # the first file makes the home's key of pseudonyms
    before = files()
    with caplog.at_level(logging.DEBUG):
        assert sent(client, edited(PatientName="JANE-DOE"), DICOM).status_code == 200
        sent(client, edited(PatientName="JANE-DOE")[:3_000], DICOM)
    assert "JANE-DOE" not in caplog.text
    assert files() == before
    written = [path for path in world.settings.home.rglob("*") if path.is_file()]
    assert not [path for path in written if b"JANE-DOE" in path.read_bytes()]


def test_every_type_is_in_the_document(client: TestClient) -> None:
    asked = client.get("/openapi.json").json()["paths"]["/v1/search/image"]["post"]
    assert set(asked["requestBody"]["content"]) == set(MEDIA_TYPES)
    assert set(ENDINGS.values()) < set(MEDIA_TYPES.values())
    assert {"filter", "datasets", "limit", "cursor"} <= {one["name"] for one in asked["parameters"]}


def test_the_command_line_reads_a_file_as_the_service_does(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(real("CT_small.dcm"))
    (tmp_path / "x.PNG").write_bytes(png())
    settings = Settings(home=tmp_path)
    assert np.array_equal(_read_image(tmp_path / "slice", settings).model_input, image_input(real("CT_small.dcm")))
    assert _read_image(tmp_path / "x.PNG", settings).model_input.mean() > 100
    with pytest.raises(ConfigError, match="cannot be read"):
        _read_image(tmp_path / "absent", settings)


# -- the process

STUB = """
import sys, time, os
print("ready", flush=True)
while sys.stdin.readline():
    exec(open(os.environ["WHAT"]).read())
"""


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Decoder, Path]]:
    """A decoder whose process does what a file says after it was asked."""
    (tmp_path / "decoder_stub.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("WHAT", str(tmp_path / "what.py"))
    monkeypatch.setenv("MEDVEC_INDEX_TOKEN", "secret")
    monkeypatch.setenv("OF_TEST", "1")
    settings = Settings(home=tmp_path, api_upload_seconds=1.0, decode_workers=1)
    decoder = Decoder(settings, "decoder_stub")
    yield decoder, tmp_path / "what.py"
    decoder.close()


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("time.sleep(3600)", "too_slow"),
        ("os._exit(1)", "decode_failed"),
        ("print('[1]', flush=True)", "decode_failed"),
        ("print('{\"code\": 1}', flush=True)", "decode_failed"),
        ("print('JANE', flush=True)", "decode_failed"),
    ],
)
def test_a_file_that_takes_its_process_along_is_refused_and_the_next_is_read(
    stubbed: tuple[Decoder, Path], does: str, code: str
) -> None:
    decoder, what = stubbed
    what.write_text(does)
    with pytest.raises(ObjectRejected) as caught:
        decoder.decode("raster", b"\n" if "sleep" not in does else b"x" * (1 << 20))
    assert caught.value.code == code
    what.write_text("""
assert 'MEDVEC_INDEX_TOKEN' not in os.environ and 'OF_TEST' in os.environ
print("{}", flush=True); sys.stdout.buffer.write(bytes(224 * 224 * 3)); sys.stdout.flush()
""")
    assert decoder.decode("raster", b"\n").model_input.shape == (224, 224, 3)


def test_no_more_bodies_are_held_than_there_is_room_for(stubbed: tuple[Decoder, Path]) -> None:
    decoder, _ = stubbed
    with decoder.place(), decoder.place(), pytest.raises(Busy), decoder.place():
        pass
    with decoder.place():
        pass
