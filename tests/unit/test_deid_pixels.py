"""What stands around pixels, and text in them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.deid_files import KEYS, TOKEN, copied, encode, image, made, of, part10, read
from helpers.dicom_files import edited, real
from helpers.dicom_files import made as pictured
from PIL import Image, ImageDraw, ImageFont
from pydicom.pixels.utils import pixel_array

from medvec_assets.deid.dicom import burned_in, pixels, text_finder
from medvec_assets.deid.dicom.text_finder import Box
from medvec_assets.modalities import modality
from medvec_assets.modalities.imaging import image_input
from resources.errors import IntegrityError, ObjectRejected

SECONDARY = b"1.2.840.10008.5.1.4.1.1.7"
RAMP = (np.arange(64 * 64, dtype=np.int16) % 1000).reshape(64, 64)


def refusal(data: bytes, **options: Any) -> str:
    with pytest.raises(ObjectRejected) as caught:
        copied(data, **options)
    return caught.value.code


# ---------------------------------------------------------------- around pixels


def test_bits_that_no_pixel_uses_are_cleared() -> None:
    hidden = struct.pack("<16H", *(number | 0xF000 for number in range(16)))  # an overlay in the bits above
    assert pixel_array(read(copied(made(PixelData=hidden)))).ravel().tolist() == list(range(16))
    signed = struct.pack("<16h", *range(-8, 8))
    copy = read(copied(made(PixelData=signed, PixelRepresentation=b"\1\0")))
    assert copy.PixelData == signed


def test_real_overlays_leave_planes_and_pixels() -> None:
    for name in ("MR-SIEMENS-DICOM-WithOverlays.dcm", "examples_overlay.dcm"):
        copy = read(copied(real(name)))
        assert not [element for element in copy if element.tag.group & 0xFF00 == 0x6000]
        assert int(np.asarray(pixel_array(copy)).max()) < 1 << copy.BitsStored


def jpeg(*segments: bytes, tail: bytes = b"") -> bytes:
    """A stream of JPEG's form, which nothing here decodes."""
    head = b"\xff\xd8" + b"".join(segments)
    return head + b"\xff\xda\x00\x04ab" + b"coded" + b"\xff\xd9" + tail


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


KEPT = (segment(0xEE, b"Adobe" + bytes(7)), segment(0xE0, b"JFIF\0" + bytes(9)), segment(0xDB, b"table"))


@pytest.mark.parametrize(
    "stream",
    [
        jpeg(segment(0xFE, TOKEN), *KEPT),
        jpeg(segment(0xE1, b"Exif\0\0" + TOKEN), segment(0xE2, b"ICC_PROFILE\0" + TOKEN), *KEPT),
        jpeg(segment(0xE0, b"JFXX\0" + TOKEN * 20), *KEPT),
        jpeg(*KEPT, tail=TOKEN),
        jpeg(*KEPT),
    ],
)
def test_a_compressed_stream_keeps_its_pixels_only(stream: bytes) -> None:
    clean = pixels._clean_stream(stream)
    assert TOKEN not in clean and clean.rstrip(b"\0") == jpeg(*KEPT)


def tile(comment: bytes = b"") -> bytes:
    inner = (segment(0x64, comment) if comment else b"") + b"\xff\x93coded"
    return b"\xff\x90\x00\x0a\x00\x00" + struct.pack(">I", 12 + len(inner)) + b"\x00\x01" + inner


def test_comments_in_jpeg_2000_and_between_scans() -> None:
    start, comment = b"\xff\x4f\xff\x51\x00\x04ab", segment(0x64, b"\0\1" + TOKEN)
    clean = pixels._clean_stream(b"JP2 box with " + TOKEN + start + comment + tile() + b"\xff\xd9" + TOKEN)
    assert clean.rstrip(b"\0") == start + tile() + b"\xff\xd9"
    with pytest.raises(ObjectRejected):
        pixels._clean_stream(start + tile(TOKEN) + b"\xff\xd9")
    with pytest.raises(ObjectRejected):
        pixels._clean_stream(jpeg(*KEPT)[:-2] + segment(0xFE, TOKEN) + b"\xff\xd9")


@pytest.mark.parametrize("comment", [b"", TOKEN])
def test_offsets_of_frames_stay_while_they_are_true(comment: bytes) -> None:
    stream = jpeg(*KEPT, *([segment(0xFE, comment)] if comment else []))
    stream += b"\0" * (len(stream) & 1)
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(stream)) + stream
    basic = b"\xfe\xff\x00\xe0" + struct.pack("<2I", 4, 0)
    whole = [one for one in image() if one[1] != "OW"]
    whole += [of("ExtendedOffsetTable", bytes(8)), of("ExtendedOffsetTableLengths", bytes(8))]
    pixel_data = struct.pack("<2H2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + basic + item
    data = part10(encode(whole) + pixel_data + b"\xfe\xff\xdd\xe0" + bytes(4), "1.2.840.10008.1.2.4.50")
    copy = copied(data)
    assert TOKEN not in copy.data
    assert ("ExtendedOffsetTable" in read(copy)) is (not comment)
    assert read(copy).PixelData.startswith(basic if not comment else basic[:4] + bytes(4))


def test_fragments_that_lie_about_their_length_are_refused() -> None:
    for damaged in (b"\xfe\xff\x00\xe0\xff\0\0\0ab", b"\x08\x00\x00\x00\x02\0\0\0ab"):
        with pytest.raises(ObjectRejected):
            pixels._encapsulated(damaged)


# ---------------------------------------------------------------- text in pixels


@pytest.mark.parametrize(
    ("values", "at_risk"),
    [
        ({}, False),
        ({"BurnedInAnnotation": b"YES"}, True),
        ({"SOPClassUID": SECONDARY}, True),
        ({"SOPClassUID": SECONDARY, "BurnedInAnnotation": b"NO"}, False),
        ({"Modality": b"US"}, True),
        ({"ImageType": b"DERIVED\\SECONDARY\\SCREEN SAVE"}, True),
        ({"ConversionType": b"DF"}, True),
        ({"SOPClassUID": b"1.2.840.10008.5.1.4.1.1.77.1.4"}, True),
        ({"SOPClassUID": b"1.2.840.10008.5.1.4.1.1.66.4", "Modality": b"SEG"}, False),
    ],
)
def test_images_at_risk_are_refused_unless_somebody_looked(values: dict[str, bytes], at_risk: bool) -> None:
    if not at_risk:
        assert "113101" not in copied(made(**values)).codes
        return
    said = "burned_in_text" if values.get("BurnedInAnnotation") == b"YES" else "burned_in_text_possible"
    assert refusal(made(**values)) == said


def test_without_a_detector_nothing_at_risk_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_finder, "is_installed", lambda: False)
    assert refusal(made(Modality=b"US"), pixels="clean") == "burned_in_text_possible"
    assert copied(made(), pixels="clean").codes[1] == "113105"


def finder(monkeypatch: pytest.MonkeyPatch, *answers: list[Box]) -> list[Any]:
    """A detector with these answers, the last one for ever; the pictures it was shown."""
    shown: list[Any] = []

    def text_boxes(picture: Any) -> list[Box]:
        shown.append(picture)
        return answers[min(len(shown), len(answers)) - 1]

    monkeypatch.setattr(text_finder, "is_installed", lambda: True)
    monkeypatch.setattr(text_finder, "text_boxes", text_boxes)
    return shown


def test_text_is_blanked_and_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = finder(monkeypatch, [Box(2, 3, 6, 20)], [])
    data = pictured(RAMP, Modality="US")
    copy = copied(data, pixels="clean")
    dataset = read(copy)
    assert "113101" in copy.codes and dataset.BurnedInAnnotation == "NO"
    expected = RAMP.copy()
    blanked = pixel_array(dataset)
    expected[2:6, 3:20] = blanked[2, 3]
    assert np.array_equal(blanked, expected) and blanked[2, 3] in RAMP[1:7, 2:21]
    assert len(shown) == 4 and all((one.dtype, one.shape) == (np.uint8, (64, 64, 3)) for one in shown)
    monkeypatch.setattr(text_finder, "text_boxes", lambda _: pytest.fail("it was looked at again"))
    assert copied(copy.data, pixels="clean").data == copy.data


def test_an_image_without_text_keeps_its_pixels_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    finder(monkeypatch, [])
    data = edited("MR_small_RLE.dcm", Modality="US")
    copy = copied(data, pixels="clean")
    assert read(copy).PixelData == read(copied(real("MR_small_RLE.dcm"))).PixelData and "113101" in copy.codes
    assert "113101" in copied(real("CT_small.dcm"), pixels="clean_all").codes
    assert "113101" not in copied(real("CT_small.dcm"), pixels="clean").codes


def test_blanked_colour_in_a_compressed_syntax_is_written_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    finder(monkeypatch, [Box(0, 0, 5, 5)], [])
    dataset = read(copied(real("SC_rgb_jpeg_dcmtk.dcm"), pixels="clean"))
    assert (dataset.PhotometricInterpretation, dataset.file_meta.TransferSyntaxUID) == ("RGB", "1.2.840.10008.1.2.1")
    picture = pixel_array(dataset)
    assert picture.shape == (100, 100, 3) and len(np.unique(picture[:5, :5].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        ([Box(0, 0, 4, 4)], "burned_in_text"),  # never gone
        ([Box(row, 0, row + 6, 60) for row in range(0, 60, 10)], "burned_in_text"),  # most of it
        ([Box(0, 0, 40, 40)], "burned_in_text_possible"),  # no line of text is that large
    ],
)
def test_what_cannot_be_cleaned_is_refused(boxes: list[Box], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finder(monkeypatch, boxes)
    assert refusal(pictured(RAMP, Modality="US"), pixels="clean") == code


def test_every_frame_is_seen_or_the_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = finder(monkeypatch, [])
    copied(pictured(np.stack([RAMP] * 3), Modality="US"), pixels="clean")
    assert len(shown) == 6
    monkeypatch.setattr(burned_in, "MAX_FRAMES", 2)
    assert refusal(pictured(np.stack([RAMP] * 3), Modality="US"), pixels="clean") == "burned_in_text_possible"


def labelled(colour: int) -> np.ndarray:
    picture = Image.fromarray(np.full((240, 320), 235, np.uint8))
    ImageDraw.Draw(picture).text((8, 8), "DOE JANE 1961", fill=colour, font=ImageFont.load_default(12))
    return np.asarray(picture)


@pytest.mark.skipif(not text_finder.is_installed(), reason="the extra `pixels` is not installed")
@pytest.mark.parametrize("colour", [0, 222])
def test_the_real_detector_blanks_a_name(colour: int) -> None:
    picture = labelled(colour)
    cleaned = pixel_array(read(copied(pictured(picture, Modality="US"), pixels="clean")))
    assert (cleaned == 235).all()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    text_finder._session.cache_clear()
    monkeypatch.setattr(text_finder, "MODEL_SHA256", "0" * 64)
    with pytest.raises(IntegrityError):
        text_finder.text_boxes(np.zeros((64, 64, 3), np.uint8))
    text_finder._session.cache_clear()


# ---------------------------------------------------------------- in the pipeline


def records(access_tier: str, **values: Any) -> tuple[pl.DataFrame, list[str]]:
    objects_ = pl.DataFrame({"object_id": ["o"], "uri": ["mem:o"]}).with_columns(
        pl.lit(value).alias(name)
        for name, value in {
            "cohort": "c",
            "license": "MIT",
            "access_tier": access_tier,
            "subject_ref": "P1",
            "record_ref": "S1",
        }.items()
    )
    frame, rejected = modality("imaging").records(objects_, lambda _: pictured(RAMP, **values), KEYS)
    return frame, [one.code for one in rejected]


def test_records_of_closed_sources_come_from_the_copy() -> None:
    open_, _ = records("open", PatientName="DOE^JANE", BodyPartExamined="CHEST")
    closed, _ = records("controlled", PatientName="DOE^JANE", BodyPartExamined="CHEST")
    for column in ("attributes", "content_digests", "subject_key", "record_id"):
        assert open_[column][0] == closed[column][0]
    assert (open_["deid_profile"][0], closed["deid_profile"][0]) == ("technical-allow-list-1", "dicom-ps3.15-1")
    assert json.loads(closed["deid_actions"][0])["uids_mapped"] == 2


def test_text_in_pixels_never_becomes_a_vector() -> None:
    assert records("open", BurnedInAnnotation="YES")[1] == ["burned_in_text"]
    with pytest.raises(ObjectRejected, match="burned"):
        image_input(pictured(RAMP, BurnedInAnnotation="YES"))
    assert records("open", Modality="US")[0].height == 1  # its publisher looked
    assert records("controlled", Modality="US")[1] == ["burned_in_text_possible"]
    assert records("controlled", Modality="US", BurnedInAnnotation="NO")[0].height == 1
