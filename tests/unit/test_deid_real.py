"""De-identification of real files, of damaged ones and of kinds that are refused."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pytest
from helpers.deid_files import BIG, EXPLICIT, TOKEN, Element, copied, encode, image, made, of, part10, read
from helpers.dicom_files import folder, real
from pydicom.pixels.utils import pixel_array

from medvec_assets.deid.dicom import objects
from medvec_assets.modalities.imaging.dicom_file import read_dataset
from resources.errors import ObjectRejected

# ---------------------------------------------------------------- real files


def everything() -> list[str]:
    places = (folder("pydicom", "data/test_files"), folder("data_store", "data"))
    return sorted({path.name for place in places for path in place.glob("*.dcm")})


def test_the_real_files_by_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "may_show_text", lambda *_: False)  # most are test pictures of a class at risk
    outcomes: Counter[str] = Counter()
    for name in everything():
        data = real(name)
        try:
            copy = copied(data)
        except ObjectRejected as refusal:
            outcomes[refusal.code] += 1
            continue
        outcomes["copied"] += 1
        dataset = read(copy)
        assert copied(copy.data).data == copy.data, name
        assert not any(element.tag.group & 0xFF00 == 0x6000 for element in dataset)
        str(dataset)  # every value can be read
    assert outcomes == {
        "copied": 132,
        "not_dicom": 5,
        "structured_content": 3,
        "truncated": 3,
        "sop_class_unknown": 2,
        "missing_transfer_syntax": 1,
    }


def test_elements_under_another_vr_than_their_keywords_are_not_kept() -> None:
    copy = copied(real("badVR.dcm"))
    assert b"id11111" in real("badVR.dcm") and b"id11111" not in copy.data and read(copy).PatientID.startswith("k")


SYNTAX_FILES = """
    CT_small MR_small MR_small_RLE MR_small_bigendian MR_small_implicit MR_small_jp2klossless MR_small_jpeg_ls_lossless
    MR_small_padded SC_rgb_32bit SC_rgb_expb_32bit SC_rgb_small_odd_big_endian SC_rgb_jpeg_dcmtk SC_rgb_jpeg_app14_dcmd
    SC_ybr_full_422_uncompressed JPGExtended image_dfl OBXXXX1A_expb emri_small_big_endian eCT_Supplemental 693_J2KI
"""


@pytest.mark.parametrize("name", SYNTAX_FILES.split())
def test_pixels_stay_what_they_were(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "may_show_text", lambda *_: False)
    data = real(f"{name}.dcm")
    assert np.array_equal(pixel_array(read(copied(data)), index=0), pixel_array(read_dataset(data), index=0))


def test_a_palette_in_big_endian_is_the_one_in_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "may_show_text", lambda *_: False)
    little, big = (read(copied(real(f"OBXXXX1A{kind}.dcm"))) for kind in ("", "_expb"))
    assert little.RedPaletteColorLookupTableData == big.RedPaletteColorLookupTableData


# ---------------------------------------------------------------- what is refused


def damaged_length(short: bool) -> bytes:
    """A private element whose length swallows its neighbours, or leaves half of its value to be read as elements."""
    private: Element = (0x00091001, "LO", b"A" * 40)
    data = bytearray(made((0x00090010, "LO", b"ACME"), private, PatientName=TOKEN, PatientComments=TOKEN))
    at = data.index(b"\x09\x00\x01\x10LO") + 6
    struct.pack_into("<H", data, at, 6 if short else 4_000)
    return bytes(data)


@pytest.mark.parametrize("short", [True, False])
def test_a_private_element_whose_length_lies_leaks_nothing(short: bool) -> None:
    try:
        copy = copied(damaged_length(short))
    except ObjectRejected as refusal:
        assert refusal.code in ("truncated", "header_invalid") and "QZ" not in str(refusal)
        return
    assert TOKEN not in copy.data


def test_depth_is_right_or_refused() -> None:
    nested: list[Element] = [of("PatientName", TOKEN)]
    for _ in range(40):
        nested = [of("SourceImageSequence", [nested])]
    for undefined in (True, False):
        assert TOKEN not in copied(part10(encode([*image(), *nested], undefined=undefined))).data
    for _ in range(600):
        nested = [of("SourceImageSequence", [nested])]
    with pytest.raises(ObjectRejected):
        copied(part10(encode_deep(640)))


def encode_deep(depth: int) -> bytes:
    """That many sequences of undefined length within each other."""
    start = struct.pack("<2H2s2xI", 0x0008, 0x2112, b"SQ", 0xFFFFFFFF) + struct.pack("<2HI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<2HI", 0xFFFE, 0xE00D, 0) + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)
    return encode([one for one in image() if one[0] < 0x00082112]) + start * depth + end * depth


KINDS = {
    "1.2.840.10008.5.1.4.1.1.104.1": "encapsulated_document",
    "1.2.840.10008.5.1.4.1.1.88.33": "structured_content",
    "1.2.840.10008.5.1.4.1.1.88.59": "structured_content",
    "1.2.840.10008.5.1.4.1.1.11.1": "graphics",
    "1.2.840.10008.5.1.4.1.1.9.4.1": "sound",
    "1.2.840.10008.5.1.4.1.1.66": "private_content",
    "1.2.840.10008.1.3.10": "directory",
    "1.2.840.10008.1.1": "not_an_object",
    "1.2.840.113619.4.26": "sop_class_unknown",
}


@pytest.mark.parametrize("sop_class", KINDS)
def test_objects_that_are_made_of_text_are_refused(sop_class: str) -> None:
    with pytest.raises(ObjectRejected) as caught:
        copied(made(SOPClassUID=sop_class.encode()))
    assert caught.value.code == KINDS[sop_class]


def test_random_damage_is_refused_or_leaks_nothing() -> None:
    generator = np.random.default_rng(7)
    for syntax in (EXPLICIT, BIG):
        whole = made((0x00091001, "LO", TOKEN), of("StudyDescription", TOKEN), syntax=syntax)
        for _ in range(150):
            data = bytearray(whole)
            for at in generator.integers(132, len(data), 4):
                data[at] = generator.integers(256)
            try:
                copy = copied(bytes(data))
            except ObjectRejected as refusal:
                assert "QZ" not in str(refusal)
                continue
            assert TOKEN not in copy.data
