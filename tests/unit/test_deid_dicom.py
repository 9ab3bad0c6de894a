"""De-identification of DICOM: nothing planted survives, what must resolve resolves, and what cannot be right is refused."""

from __future__ import annotations

import struct
from datetime import date
from typing import Any

import pytest
from helpers.deid_files import (
    DEFLATED,
    DIGITS,
    KEYS,
    SYNTAXES,
    TOKEN,
    Element,
    copied,
    encode,
    image,
    made,
    of,
    part10,
    read,
    tag,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary

from medvec_assets.deid.dicom import codes, deidentify
from medvec_assets.deid.pseudonyms import Pseudonyms
from resources.errors import ObjectRejected

# ---------------------------------------------------------------- nothing planted survives

VALUES = {  # a value of each VR with a token in it; the others are numbers, of which a token of digits is a long one
    "AE": TOKEN,
    "AS": TOKEN[:4],
    "CS": TOKEN,
    "DA": DIGITS[:8],
    "DS": DIGITS + b".5",
    "DT": DIGITS,
    "IS": DIGITS,
    "LO": b"CHEST " + TOKEN,
    "LT": TOKEN + b" 3 mm",
    "OB": TOKEN,
    "OW": TOKEN,
    "OF": TOKEN + b"..",
    "OD": TOKEN + b"..",
    "OL": TOKEN + b"..",
    "OV": TOKEN + b"..",
    "PN": TOKEN + b"^X",
    "SH": TOKEN,
    "ST": TOKEN,
    "TM": DIGITS,
    "UC": TOKEN,
    "UI": b"1.2.840." + DIGITS,
    "UN": TOKEN,
    "UR": b"http://" + TOKEN,
    "UT": TOKEN,
    "FD": TOKEN + b"..",
}
# Numbers by their definition, held to their keyword and to nothing else; pixels are another test's.
_BY_DEFINITION = ("PixelData", "Data", "List", "Table", "Padding", "Angle", "ChannelM")
PLANTABLE = sorted(
    (number, entry[4], entry[0])
    for number, entry in DicomDictionary.items()
    if entry[0] in VALUES and number >> 16 > 8 and not any(part in entry[4] for part in _BY_DEFINITION)
)


@st.composite
def planted(draw: st.DrawFn, depth: int = 0) -> list[Element]:
    """Elements of any kind with tokens in them, nested to some depth, with private blocks between them."""
    chosen = draw(st.lists(st.sampled_from(PLANTABLE), max_size=12, unique_by=lambda one: one[0]))
    found: dict[int, Element] = {number: (number, vr, VALUES[vr]) for number, _, vr in chosen}
    group = draw(st.sampled_from((0x0009, 0x0019, 0x0029, 0x7053, 0x2001)))
    creator = draw(st.sampled_from((b"ACME " + TOKEN, b"SIEMENS MR HEADER", b"Philips PET Private Group")))
    block = draw(st.integers(0x10, 0xFF))
    found[group << 16 | block] = (group << 16 | block, "LO", creator)
    for low in draw(st.lists(st.integers(0, 0xFF), max_size=4, unique=True)):
        vr = draw(st.sampled_from(sorted(VALUES)))
        number = group << 16 | block << 8 | low
        found[number] = (number, vr, VALUES[vr])
    if depth < 4:
        sequences = st.sampled_from(SEQUENCES)
        for number in draw(st.lists(sequences, max_size=2, unique=True)):
            found[number] = (number, "SQ", draw(st.lists(planted(depth + 1), max_size=2)))  # type: ignore[assignment]
    return list(found.values())


SEQUENCES = [tag(name) for name in ("SharedFunctionalGroupsSequence", "SourceImageSequence", "IconImageSequence")]
SEQUENCES += [tag(name) for name in ("RequestAttributesSequence", "AnatomicRegionSequence", "ContentSequence")]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(planted(), st.sampled_from(SYNTAXES), st.booleans())
def test_no_planted_token_survives_anywhere(elements: list[Element], syntax: str, undefined: bool) -> None:
    own = {number for number, _, _ in image()}
    whole = [*image(syntax, subject=TOKEN.decode()), *(one for one in elements if one[0] not in own)]
    data = part10(encode(whole, syntax, undefined), syntax)
    assert TOKEN in data or syntax == DEFLATED
    copy = copied(data)
    for token in (TOKEN, DIGITS):
        assert token not in copy.data
        assert token not in repr(copy.by_keyword).encode()
    assert read(copy).SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert copied(copy.data).data == copy.data


PLACES = {
    "preamble": lambda: part10(encode(image()), preamble=TOKEN),
    "sending application": lambda: part10(encode(image()), meta=[(0x00020016, "AE", TOKEN)]),
    "implementation version": lambda: part10(encode(image()), meta=[(0x00020013, "SH", TOKEN)]),
    "private information": lambda: part10(
        encode(image()), meta=[(0x00020100, "UI", b"1.2." + DIGITS), (0x00020102, "OB", TOKEN)]
    ),
    "overlay": lambda: made((0x60003000, "OW", TOKEN), (0x60004000, "LT", TOKEN), (0x60FE3000, "OW", TOKEN)),
    "curve": lambda: made((0x50003000, "OW", TOKEN), (0x50FE0030, "SH", TOKEN)),
    "trailing padding": lambda: made((0xFFFCFFFC, "OB", TOKEN * 100)),
    "after the last element": lambda: made() + TOKEN[:6],
    "behind the last pixel": lambda: made(PixelData=bytes(range(32)) + TOKEN),
    "icon": lambda: made(of("IconImageSequence", [[of("PixelData", TOKEN, "OB")]])),
    "graphic annotation": lambda: made(
        of("GraphicAnnotationSequence", [[of("TextObjectSequence", [[of("UnformattedTextValue", TOKEN)]])]])
    ),
    "structured content": lambda: made(of("ContentSequence", [[of("TextValue", TOKEN), of("PersonName", TOKEN)]])),
    "code meaning": lambda: made(of("AnatomicRegionSequence", [code(b"T-A0100", b"SRT", TOKEN)])),
    "code value": lambda: made(of("AnatomicRegionSequence", [code(TOKEN, b"99LOCAL", b"Brain")])),
    "unknown element": lambda: made((0x00080999, "LO", TOKEN)),
    "unknown VR": lambda: made(of("StudyDescription", TOKEN, "UN")),
    "group length": lambda: made((0x00080000, "OB", TOKEN)),
    "character set": lambda: made(SpecificCharacterSet=TOKEN),
    "signature": lambda: made((0xFFFAFFFA, "SQ", [[of("CertificateOfSigner", TOKEN)]])),
    "colour profile": lambda: made(ICCProfile=TOKEN * 20),
    "long value": lambda: made(of("StudyDescription", TOKEN * 5_000)),
    "a number's decimals": lambda: made(SliceThickness=b"1." + b"0" * 9 + DIGITS),
    "number": lambda: made(SliceThickness=b"471108"),
    "text under a number's VR": lambda: made(of("SmallestImagePixelValue", TOKEN, "LO")),
    "age": lambda: made(PatientAge=TOKEN[:4]),
    "earlier method": lambda: made(of("DeidentificationMethod", TOKEN)),
}


def code(value: bytes, scheme: bytes, meaning: bytes) -> list[Element]:
    return [of("CodeValue", value), of("CodingSchemeDesignator", scheme), of("CodeMeaning", meaning)]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_file_is_looked_into(place: str) -> None:
    data = PLACES[place]()
    copy = copied(data)
    for token in (TOKEN[:4], DIGITS, b"471108"):
        assert token not in copy.data
    assert copy.data[:128] == bytes(128)


def test_nothing_is_told_in_warnings_or_logs(caplog: Any, capfd: Any, recwarn: Any) -> None:
    odd = b"1.2." + TOKEN
    for values in ({"SeriesInstanceUID": odd}, {"SOPInstanceUID": odd}, {"PatientID": TOKEN + b"\xff\\x"}):
        copied(made(StudyDate=TOKEN, PatientAge=TOKEN[:4], **values))
    with pytest.raises(ObjectRejected) as caught:
        copied(made(SOPClassUID=odd))
    streams = capfd.readouterr()
    told = caplog.text + streams.out + streams.err + "".join(str(one.message) for one in recwarn) + str(caught.value)
    assert TOKEN.decode() not in told


def test_a_known_code_keeps_its_meaning_as_the_standard_has_it() -> None:
    (item,) = read(copied(made(of("AnatomicRegionSequence", [code(b"T-A0100", b"SRT", TOKEN)])))).AnatomicRegionSequence
    assert (item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) == (
        "T-A0100",
        "SRT",
        codes.known()["SCT", "12738006"],
    )


def test_words_of_the_vocabulary_stay_and_the_others_go() -> None:
    copy = read(copied(made(SeriesDescription=b"AX T1 POST Gd Doe,Jane 19610203", StudyDescription=TOKEN)))
    assert (copy.SeriesDescription, "StudyDescription" in copy) == ("AX T1 POST", False)


# ---------------------------------------------------------------- what is said to have been done


def test_codes_and_flags_say_just_what_was_done() -> None:
    copy = copied(made(StudyDate=b"20200229"))
    dataset = read(copy)
    assert copy.codes == ("113100", "113105", "113107", "113108", "113111")
    assert [(item.CodeValue, item.CodingSchemeDesignator) for item in dataset.DeidentificationMethodCodeSequence] == [
        (one, "DCM") for one in copy.codes
    ]
    assert dataset.PatientIdentityRemoved == "YES" and dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert dataset.PatientID == dataset.PatientName == KEYS.subject("P1")
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


OPTIONS = {  # option -> (element, its value, what is left of it with and without the option)
    "dates": ("SeriesTime", b"101500", "101500", "000000"),
    "patient_characteristics": ("PatientSex", b"F", "F", ""),
    "descriptors": ("SeriesDescription", b"CHEST", "CHEST", None),
    "device": ("DeviceSerialNumber", b"AB-12", "AB-12", "REMOVED"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_keeps_what_it_names_and_is_named(option: str) -> None:
    keyword, value, kept, dropped = OPTIONS[option]
    codes = {}
    for is_on, left in ((True, kept), (False, dropped)):
        copy = copied(made(of(keyword, value)), **{option: is_on})
        assert read(copy).get(keyword) == left
        codes[is_on] = set(copy.codes)
    assert len(codes[True] - codes[False]) == 1 and codes[False] < codes[True]


def test_safe_private_elements_stay_under_their_creator() -> None:
    private: list[Element] = [(0x00190011, "LO", b"SIEMENS MR HEADER "), (0x0019110C, "IS", b"1000")]
    private += [(0x0019110D, "CS", b"NONE"), (0x00191127, "FD", struct.pack("<6d", *range(6)))]
    for syntax in SYNTAXES[:2]:
        kept = read(copied(made(*private, syntax=syntax)))
        block = kept.private_block(0x0019, "SIEMENS MR HEADER")
        assert (block[0x0C].value, list(block[0x27].value)) == (1000, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        assert len([one for one in kept if one.tag.is_private]) == 3
    assert not any(one.tag.is_private for one in read(copied(made(*private), safe_private=False)))


def test_actions_are_counted_by_keyword() -> None:
    copy = copied(made(StudyDescription=TOKEN, StudyDate=b"20200101", PatientBirthDate=b"19500101"))
    assert copy.by_keyword["dates_shifted"] == {"StudyDate": 1}
    assert copy.by_keyword["emptied"] == {"PatientBirthDate": 1}
    assert copy.actions["uids_mapped"] == 3 and copy.by_keyword["removed"] == {"StudyDescription": 1}


# ---------------------------------------------------------------- dates, UIDs, subjects


@given(
    st.lists(st.dates(date(1905, 1, 1), date(2035, 1, 1)), min_size=2, max_size=4),
    st.sampled_from(["P1", "P 2", "DOE"]),
)
@settings(max_examples=40, deadline=None)
def test_intervals_of_a_subject_are_kept_within_and_across_files(days: list[date], subject: str) -> None:
    moved = []
    for number, day in enumerate(days):
        text = f"{day:%Y%m%d}".encode()
        nested = of(
            "SourceImageSequence", [[of("ContentDate", text), of("AcquisitionDateTime", text + b"1015.5+0100")]]
        )
        copy = read(copied(made(nested, StudyDate=text, StudyTime=b"101500", subject=subject, instance=f"1.{number}")))
        (item,) = copy.SourceImageSequence
        assert item.ContentDate == copy.StudyDate != text.decode()
        assert item.AcquisitionDateTime == f"{copy.StudyDate}1015.5+0100" and copy.StudyTime == "101500"
        moved.append(date.fromisoformat(copy.StudyDate))
    assert [one - moved[0] for one in moved] == [one - days[0] for one in days]


@pytest.mark.parametrize("odd", [b"2020.01.01", b"20201301", b"202001", b"JANUARY", b"20200101-20200201", b"00000000"])
def test_dates_of_another_form_are_not_kept(odd: bytes) -> None:
    dataset = read(copied(made(StudyDate=odd, SeriesDate=odd)))
    assert (dataset.StudyDate, dataset.SeriesDate) == ("", "19000101")  # types 2 and 3


@pytest.mark.parametrize(
    ("age", "kept"), [("089Y", "089Y"), ("090Y", "090Y"), ("103Y", "090Y"), ("999M", "999M"), ("12", "")]
)
def test_ages_of_90_and_over_are_one(age: str, kept: str) -> None:
    assert read(copied(made(PatientAge=age.encode()))).get("PatientAge", "") == kept


def test_references_resolve_within_and_across_files() -> None:
    first = read(copied(made(instance="1.2.3.4")))
    reference = [
        of("ReferencedSOPClassUID", b"1.2.840.10008.5.1.4.1.1.2"),
        of("ReferencedSOPInstanceUID", b"1.2.3.4\0"),
    ]
    second = read(copied(made(of("SourceImageSequence", [reference]), instance="1.2.3.5"), device=True))
    (item,) = second.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert item.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == (second.StudyInstanceUID, second.SeriesInstanceUID)
    assert all(uid.is_valid and len(uid) <= 64 and uid.startswith("2.25.") for uid in (first.SOPInstanceUID,))
    other = deidentify(made(), Pseudonyms(b"x" * 32, "test"))
    assert read(other).SOPInstanceUID != first.SOPInstanceUID and read(other).PatientID != first.PatientID


def test_a_subject_without_id_is_its_study() -> None:
    first, second = (read(copied(made(subject="", instance=f"1.2.{n}", StudyDate=b"20200101"))) for n in (1, 2))
    assert first.PatientID == second.PatientID and first.StudyDate == second.StudyDate != "20200101"


def test_only_a_true_seal_is_believed() -> None:
    copy = copied(made(StudyDate=b"20200101"))
    assert copied(copy.data).data == copy.data
    other = Pseudonyms(b"x" * 32, "test")
    assert deidentify(copy.data, other).data != copy.data
    forged = bytearray(copy.data)
    at = forged.index(b"2.25.", forged.index(b"\x08\x00\x18\x00UI"))  # another instance under the same seal
    forged[at + 6] ^= 1
    assert read(copied(bytes(forged))).PatientID != read(copy).PatientID
