"""PNG and JPEG to a model input: what is decoded, what is refused before memory is taken, what is kept of a patient."""

from __future__ import annotations

import json
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvec_assets.connectors import LISTING
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.raster import FINDINGS, MODALITY, age_band, image_attributes
from resources.errors import ObjectRejected

RAMP = np.tile(np.arange(200, dtype=np.uint8), (100, 1))


def encoded(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, form, **options)
    return out.getvalue()


def code(data: bytes) -> str:
    with pytest.raises(ObjectRejected) as refusal:
        MODALITY.model_input(data)
    assert "JANE" not in str(refusal.value)
    return refusal.value.code


def png(rows: int, columns: int, pixels: bytes, depth: int = 8) -> bytes:
    """A PNG that declares so many grey pixels and holds `pixels`, compressed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_an_image_is_fitted_into_a_black_square() -> None:
    made = MODALITY.model_input(encoded(RAMP))
    assert made.shape == (224, 224, 3) and made.dtype == np.uint8
    assert not made[:56].any() and not made[168:].any()
    row = made[112, :, 0].astype(int)
    assert row[0] <= 1 and row[-1] >= 198 and (np.diff(row) >= 0).all()
    assert (made[..., 0] == made[..., 1]).all() and (made[..., 1] == made[..., 2]).all()


def test_every_way_to_store_the_same_grey_gives_the_same() -> None:
    expected = MODALITY.model_input(encoded(RAMP))
    grey = Image.fromarray(RAMP)
    alpha = Image.merge("LA", (grey, Image.new("L", grey.size, 128)))
    for same in (grey.convert("RGB"), grey.convert("RGBA"), alpha, grey.convert("P")):
        assert np.array_equal(MODALITY.model_input(encoded(same)), expected)
    assert (
        np.abs(MODALITY.model_input(encoded(grey.convert("CMYK"), "JPEG", quality=100)).astype(int) - expected).max()
        <= 4
    )
    bits = MODALITY.model_input(encoded(Image.fromarray(RAMP > 100)))
    assert set(np.unique(bits[112])) >= {0, 255}


@pytest.mark.parametrize("low, high", [(0, 4095), (100, 60_000)])
def test_sixteen_bits_are_windowed_by_what_is_in_them(low: int, high: int) -> None:
    deep = np.linspace(low, high, 200 * 100).reshape(100, 200).astype(np.uint16)
    made = MODALITY.model_input(encoded(deep))[56:168, :, 0]
    assert made.min() == 0 and made.max() == 255 and 120 < made.mean() < 135


def test_exif_turns_the_image_and_goes() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B], exif[0x9003] = 6, "DOE^JANE", "2020:01:02 03:04:05"
    text = PngInfo()
    text.add_text("PatientName", "DOE^JANE")
    for data in (encoded(RAMP, "JPEG", exif=exif, quality=100), encoded(RAMP, exif=exif, pnginfo=text)):
        made = MODALITY.model_input(data)
        column = made[:, 112, 0].astype(int)
        assert not made[:, :56].any() and column[-1] > 190 > column[0]
        parsed = MODALITY.parsed(data, {})
        assert parsed.attributes == {"rows": 100, "columns": 200} and parsed.dropped >= 3


def noise(*shape: int, high: int = 256, kind: Any = np.uint8) -> Any:
    return np.random.default_rng(7).integers(0, high, shape).astype(kind)


@pytest.mark.parametrize("turn", [0, 3, 6, 9])
@pytest.mark.parametrize(
    ("pixels", "form"),
    [
        (Image.fromarray(noise(60, 90)), "PNG"),
        (Image.fromarray(noise(60, 90)), "JPEG"),
        (Image.fromarray(noise(90, 60, 3)), "JPEG"),
        (Image.fromarray(noise(90, 60, 3)).convert("CMYK"), "JPEG"),
        (Image.fromarray(noise(90, 60, 3)).convert("P"), "PNG"),
        (Image.fromarray(noise(90, 60, 4)), "PNG"),
        (Image.fromarray(noise(90, 60, 2)), "PNG"),
        (Image.fromarray(noise(60, 90, high=2) > 0), "PNG"),
        (Image.fromarray(noise(60, 90, high=4096, kind=np.uint16)), "PNG"),
    ],
)
def test_a_payload_gives_the_same_input_and_holds_nothing_but_pixels(pixels: Image.Image, form: str, turn: int) -> None:
    exif, text = Image.Exif(), PngInfo()
    exif[0x0112], exif[0x013B] = turn, "DOE^JANE"
    text.add_text("PatientName", "DOE^JANE")
    text.add_itxt("Comment", "DOE^JANE", zip=True)
    told = {"exif": exif, "icc_profile": b"DOE^JANE" * 30, "comment": b"DOE^JANE", "dpi": (71, 71)}
    data = encoded(pixels, form, **told, **({"pnginfo": text} if form == "PNG" else {"quality": 95}))
    parsed = MODALITY.parsed(data, {})
    payload = parsed.payload()
    assert b"JANE" in data and np.array_equal(MODALITY.model_input(payload), parsed.model_input)
    with Image.open(BytesIO(payload)) as plain:
        plain.load()
        assert set(plain.info) == ({"exif"} if 2 <= turn <= 8 else set())
        assert dict(plain.getexif()) == ({0x0112: turn} if 2 <= turn <= 8 else {})
    assert MODALITY.parsed(payload, {}).payload() == payload, "made again of itself it is the same"


def test_what_is_no_good_image_is_refused_by_its_reason() -> None:
    whole = encoded(RAMP, "JPEG")
    assert code(b"") == "empty_object"
    assert code(b"GIF89a" + b"\0" * 50) == "unsupported_format"
    assert code(b"II*\0JANE DOE") == "unsupported_format"
    assert code(whole[: len(whole) // 2]) == "truncated"
    assert code(whole[:30]) in ("truncated", "decode_failed")
    assert code(encoded(RAMP)[:-30]) in ("truncated", "decode_failed")
    assert code(encoded(np.full((50, 50), 9, np.uint8))) == "constant_image"
    assert code(b"\x89PNG\r\n\x1a\nJANE DOE") == "decode_failed"


def test_bombs_are_refused_before_they_take_memory() -> None:
    assert code(png(60_000, 60_000, b"")) == "dimensions_refused"
    assert code(png(20_000, 100, b"")) == "dimensions_refused"
    assert code(png(9_000, 9_000, b"")) == "dimensions_refused"
    text = b"Comment\0\0" + zlib.compress(b"\0" * (32 << 20))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    whole = encoded(RAMP)
    assert code(whole[:33] + chunk + whole[33:]) == "decode_failed"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(["PNG", "JPEG"]))
def test_damage_gives_an_image_or_a_refusal(noise: bytes, at: int, form: str) -> None:
    whole = encoded(RAMP, form)
    damaged = whole[: at % len(whole)] + noise + whole[at % len(whole) + len(noise) :]
    try:
        assert MODALITY.model_input(damaged).shape == (224, 224, 3)
    except ObjectRejected as refusal:
        assert refusal.code


# ---------------------------------------------------------------- what is kept


@given(st.integers(0, 120))
def test_an_age_is_told_by_ten_years_and_never_beyond_ninety(years: int) -> None:
    band = age_band(str(years))
    assert band is not None
    if years >= 90:
        assert band == "90+"
    else:
        low, high = map(int, band.split("-"))
        assert low <= years <= high == low + 9


@pytest.mark.parametrize("age", ["-1", "121", "nan", "inf", "sixty", "1e9"])
def test_an_impossible_age_is_refused(age: str) -> None:
    with pytest.raises(ObjectRejected) as refusal:
        image_attributes({"age": age})
    assert refusal.value.code == "impossible_age"


def test_only_listed_values_are_kept() -> None:
    said = {
        "sex": "Jane Doe",
        "age": "",
        "view": "Frontal",
        "projection": "LL",
        "findings": {"Edema": "1.0", "Fracture": "-1.0", "Pneumonia": "0.0", "Jane Doe": "1.0", "Lung Lesion": "x"},
        "name": "Jane Doe",
    }
    kept = {"view": "frontal", "projection": "LL", "findings": ["edema"], "uncertain_findings": ["fracture"]}
    assert image_attributes(said) == kept
    assert image_attributes({"sex": "Female", "projection": "../etc"}) == {"sex": "F"}
    assert len(FINDINGS) == 14


def test_one_bad_image_is_refused_alone_and_two_of_one_record_are_one() -> None:
    data = {"good": encoded(RAMP), "bad": b"", "again": encoded(RAMP + 1)}

    def row(name: str, record: str) -> dict[str, Any]:
        blank = dict.fromkeys(LISTING, "x") | {"size_bytes": 1, "attributes": "{}"}
        return blank | {"object_id": f"o-{name}", "uri": name, "record_ref": record, "subject_ref": "patient1"}

    objects = pl.DataFrame([row("good", "r1"), row("bad", "r2"), row("again", "r1")], schema=LISTING)
    frame, rejected = MODALITY.records(objects, data.__getitem__, Pseudonyms(b"1" * 32, "aimi"))
    assert frame["object_ids"].to_list() == [["o-again"]]
    assert {(one.object_id, one.code) for one in rejected} == {
        ("o-bad", "empty_object"),
        ("o-good", "duplicate_record"),
    }
    assert "patient1" not in json.dumps(frame.to_dicts())
    inputs = frame.with_columns(object_uris=pl.Series([["again"]]))
    (again,) = MODALITY.model_inputs(inputs, "image", data.__getitem__)
    assert isinstance(again, np.ndarray) and np.array_equal(again, MODALITY.model_input(data["again"]))
    (changed,) = MODALITY.model_inputs(inputs, "image", lambda uri: data["good"])
    assert getattr(changed, "code", "") == "payload_changed"
