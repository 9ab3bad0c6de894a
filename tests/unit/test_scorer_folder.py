"""A de-identifier of folders is held to what its files must still be worth: a small right one, and one fault at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers.dicom_files import real, written
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from medvec_assets.scorer.dicom_folder import score_folder
from medvec_assets.scorer.score import Score

KEPT = ("SOPClassUID", "InstanceNumber", "Modality", "Rows", "Columns", "BitsAllocated", "PixelData")
SHIFT = timedelta(days=-211)


def uid(old: str) -> str:
    return f"2.25.{int.from_bytes(sha256(b'key' + old.encode()).digest()[:15], 'big')}"


def deidentified(old: Dataset) -> Dataset:
    """An allow list, keyed UIDs, one shift for all: what a scored file passes with."""
    new = Dataset()
    new.file_meta = Dataset()
    new.file_meta.TransferSyntaxUID = old.file_meta.TransferSyntaxUID
    for keyword in KEPT:
        if keyword in old:
            setattr(new, keyword, old.get(keyword))
    new.file_meta.MediaStorageSOPClassUID = old.SOPClassUID
    new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = uid(old.SOPInstanceUID)
    for keyword in ("StudyDate", "AcquisitionDate"):
        setattr(new, keyword, f"{datetime.strptime(old.get(keyword), '%Y%m%d') + SHIFT:%Y%m%d}")
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid(old.ReferencedImageSequence[0].ReferencedSOPInstanceUID)
    new.ReferencedImageSequence = Sequence([item])
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    new.PatientIdentityRemoved, new.DeidentificationMethod = "YES", "allow list"
    new.DeidentificationMethodCodeSequence = Sequence([code])
    new.PatientAge = "090Y"
    return new


def scored(
    tmp_path: Path,
    change: Callable[[Dataset, Dataset], Any] = lambda old, new: None,
    names: tuple[str, ...] = ("MR_small.dcm",),
) -> Score:
    source = tmp_path / "in"
    source.mkdir()
    for number, name in enumerate(names):
        (source / f"{number}.dcm").write_bytes(real(name))
    (source / "notes.txt").write_bytes(b"no DICOM")

    def run(planted: Path, out: Path) -> str:
        out.mkdir()
        for number, path in enumerate(sorted(planted.rglob("*.dcm"))):
            old = dcmread(BytesIO(path.read_bytes()))
            if old["RescaleSlope"].VR != "DS" if "RescaleSlope" in old else False:
                continue  # a damaged one
            new = deidentified(old)
            change(old, new)
            (out / f"{number}.dcm").write_bytes(written(new))
        return '{"written": 2}'

    return score_folder(source, run, tmp_path / "out", b"folder")


def test_a_folder_that_is_well_done_passes(tmp_path: Path) -> None:
    found = scored(tmp_path, names=("CT_small.dcm", "MR_small.dcm"))
    assert found.passed, found.leaks
    assert found.planted >= 500 and found.places >= 100
    assert (found.objects, found.copies, found.records, found.quarantined) == (2, 4, 2, 2)
    assert (found.resolved_uid_references, found.dates_kept) == (2, 4)


def wrong_references(old: Dataset, new: Dataset) -> None:
    new.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def another_shift(old: Dataset, new: Dataset) -> None:
    new.AcquisitionDate = "20010101"


def no_codes(old: Dataset, new: Dataset) -> None:
    del new.DeidentificationMethodCodeSequence


def true_age(old: Dataset, new: Dataset) -> None:
    new.PatientAge = "091Y"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (wrong_references, "unresolved_uid_references"),
        (another_shift, "intervals_broken"),
        (no_codes, "codes_missing"),
        (true_age, "ages_over_90"),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_each_fault_is_counted_and_fails(tmp_path: Path, change: Callable[[Dataset, Dataset], Any], fault: str) -> None:
    found = scored(tmp_path, change)
    assert getattr(found, fault) == 1
    assert not found.passed


PLACES: dict[str, Callable[[Dataset, Dataset], Any]] = {
    "UI StudyInstanceUID": lambda old, new: setattr(new, "StudyInstanceUID", old.StudyInstanceUID),
    "free text ImageComments": lambda old, new: setattr(new, "ImageComments", old.ImageComments),
    "structured report PNAME": lambda old, new: setattr(new, "ContentSequence", old.ContentSequence),
    "private block SIEMENS CSA HEADER, UN": lambda old, new: new.add(old[0x0029, 0x1004]),
    "overlay data": lambda old, new: new.add(old[0x6000, 0x3000]),
    "icon image": lambda old, new: setattr(new, "IconImageSequence", old.IconImageSequence),
    "trailing padding": lambda old, new: new.add(old[0xFFFC, 0xFFFC]),
    "file preamble": lambda old, new: setattr(new, "preamble", old.preamble),
    "file meta SourceApplicationEntityTitle": lambda old, new: setattr(
        new.file_meta, "SourceApplicationEntityTitle", old.file_meta.SourceApplicationEntityTitle
    ),
    "nested sequence in RequestAttributesSequence": lambda old, new: setattr(
        new, "RequestAttributesSequence", old.RequestAttributesSequence
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_kept_of_any_place_is_a_leak_that_names_it(tmp_path: Path, place: str) -> None:
    found = scored(tmp_path, PLACES[place])
    assert place in {leak.planted for leak in found.leaks}
    assert all(leak.found.startswith("out/") for leak in found.leaks)


def test_a_report_that_names_somebody_and_a_folder_that_stays_empty_fail(tmp_path: Path) -> None:
    def run(planted: Path, out: Path) -> str:
        out.mkdir()
        return f"refused: {sorted(path.name for path in planted.rglob('*.dcm'))}"

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(real("CT_small.dcm"))
    found = score_folder(tmp_path / "in", run, tmp_path / "out", b"folder")
    assert found.failure == "nothing_written"
    assert {(leak.planted, leak.found) for leak in found.leaks} == {("a file name", "logs and the report")}
