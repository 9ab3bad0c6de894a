"""Every rule of DICOM de-identification holds back something that the scorer plants: switched off, it is a fault with a name.

Not held to it here: what is refused as a whole, text in pixels and bits that no pixel uses. The scorer searches bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers.dicom_files import real
from pydicom import Dataset, dcmread

from medvec_assets.deid import dicom
from medvec_assets.deid.dicom import Options, codes, pixels, private, rules, table, values
from medvec_assets.deid.dicom.rules import Rule
from medvec_assets.deid.dicom.walk import Walk, element
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.scorer.dicom_folder import score_folder
from medvec_assets.scorer.score import Score
from resources.errors import ObjectRejected

Patch = pytest.MonkeyPatch
NATIVE, JPEG_LS, JPEG_2000 = "MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"
CURRENT = [b""]
"""The file that is being de-identified, for faults that copy what the engine was not given."""


def scored(tmp_path: Path, *names: str) -> Score:
    source = tmp_path / "in"
    source.mkdir()
    for name in names:
        (source / name).write_bytes(real(name))
    return score_folder(source, run, tmp_path / "out", b"the rules of DICOM")


def run(planted: Path, out: Path) -> list[Any]:
    out.mkdir()
    report: list[Any] = []
    pseudonyms = Pseudonyms(b"k" * 32, "dicom")
    for number, path in enumerate(sorted(planted.rglob("*.dcm"))):
        CURRENT[0] = path.read_bytes()
        try:
            copy = dicom.deidentify(CURRENT[0], pseudonyms)
        except ObjectRejected as refusal:
            report.append((refusal.code, str(refusal)))
            continue
        (out / f"{number}.dcm").write_bytes(copy.data)
        report.append((copy.actions, copy.by_keyword, copy.codes))
    return report


@pytest.fixture(autouse=True)
def rules_made_anew() -> Any:
    """Rules are looked up once for each element; those of a patched table must not outlive it."""
    rules.table.cache_clear()
    dicom._methods.cache_clear()
    yield
    rules.table.cache_clear()
    dicom._methods.cache_clear()


def test_nothing_comes_through_while_every_rule_is_at_work(tmp_path: Path) -> None:
    found = scored(tmp_path, "CT_small.dcm", NATIVE, JPEG_LS, JPEG_2000)
    assert found.leaks == () and found.passed
    assert found.planted >= 1_000 and found.places >= 140 and found.kinds >= 20
    assert (found.objects, found.copies, found.records, found.quarantined) == (4, 8, 8, 0)
    assert (found.resolved_uid_references, found.unresolved_uid_references) == (8, 0)
    assert found.dates_kept >= 40 and found.intervals_broken == 0
    assert (found.codes_missing, found.ages_over_90) == (0, 0)


# ---------------------------------------------------------------- elements


def as_it_is(value: bytes) -> bytes:
    return value


def untreated(which: Callable[[Rule], bool]) -> Callable[[Patch], None]:
    """Elements of some rules keep the value that they had."""

    def switch_off(patch: Patch) -> None:
        treated = Walk._treated

        def kept(walk: Walk, rule: Rule, raw: Any) -> Any:
            return (raw.VR, raw.value) if which(rule) and isinstance(raw.value, bytes) else treated(walk, rule, raw)

        patch.setattr(Walk, "_treated", kept)

    return switch_off


def action(letter: str) -> Callable[[Patch], None]:
    """The action of table E.1-1 on attributes that no option keeps."""
    return untreated(
        lambda rule: rule.kind == "drop" and rule.otherwise == letter and rule.keyword in table.rows() and bool(rule.vr)
    )


def unlisted(rule: Rule) -> bool:
    return rule.kind == "drop" and rule.keyword not in table.rows() and bool(rule.vr)


def pattern(keyword: str) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(rules._PATTERNS, keyword, as_it_is)


def form(name: str) -> Callable[[Patch], None]:
    """A form that numbers and terms are held to: made once for each element."""
    return lambda patch: patch.setattr(values, name, lambda *bounds: as_it_is)


def kept_if_no_date(patch: Patch) -> None:
    shifted = values.shifted_dates
    patch.setattr(values, "shifted_dates", lambda value, days: shifted(value, days) or value)


def every_vr_believed(patch: Patch) -> None:
    patch.setattr(Walk, "_bytes", lambda walk, rule, raw: raw.value)


def private_elements_kept(patch: Patch) -> None:
    def kept(walk: Walk, tag: int, raw: Any, creators: dict[int, str], found: dict[int, bytes]) -> None:
        if isinstance(raw.value, bytes):
            found[tag] = element(tag, raw.VR, raw.value)

    patch.setattr(Walk, "_private", kept)


def safe_private_values_kept(patch: Patch) -> None:
    key = ("Philips PET Private Group", 0x7053, 0x00)
    patch.setitem(private.SAFE, key, Rule("SUVFactor", "DS", "value", "X", as_it_is))


def device_identity_retained(patch: Patch) -> None:
    patch.setattr(dicom, "Options", partial(Options, device=True))


# ---------------------------------------------------------------- codes


def text_of(item: Dataset, tag: int) -> str:
    return codes._text(item, tag)


def every_code_known(patch: Patch) -> None:
    patch.setattr(codes, "encoded", lambda item: codes.item_of(text_of(item, codes._VALUE), "99LOCAL", "Known"))


def meanings_as_typed(patch: Patch) -> None:
    known = codes.encoded

    def typed(item: Dataset) -> bytes | None:
        told = [text_of(item, tag) for tag in (codes._VALUE, codes._SCHEME, codes._MEANING)]
        return known(item) and codes.item_of(*told)

    patch.setattr(codes, "encoded", typed)


# ---------------------------------------------------------------- the file around them


def preamble_kept(patch: Patch) -> None:
    head = dicom._head
    patch.setattr(dicom, "_head", lambda *of: CURRENT[0][:128] + head(*of)[128:])


def file_meta_kept(patch: Patch) -> None:
    head = dicom._head

    def with_title(*of: str) -> bytes:
        title = dcmread(BytesIO(CURRENT[0]), stop_before_pixels=True).file_meta.SourceApplicationEntityTitle
        return head(*of) + element(0x00020016, "AE", str(title).encode())

    patch.setattr(dicom, "_head", with_title)


def bytes_after_pixels_kept(patch: Patch) -> None:
    patch.setattr(pixels, "_native", lambda kept, value, bits, masked: value)


def comments_kept(patch: Patch) -> None:
    patch.setattr(pixels, "_clean_stream", as_it_is)


# ---------------------------------------------------------------- who, when


def true_names(patch: Patch) -> None:
    stamped = dicom._stamped
    untreated(lambda rule: rule.keyword == "PatientName")(patch)
    patch.setattr(dicom, "_stamped", lambda *of: {t: one for t, one in stamped(*of).items() if t != 0x00100010})


def every_seal_believed(patch: Patch) -> None:
    def own(dataset: Dataset, instance: str, pseudonyms: Pseudonyms) -> Any:
        return dicom._Source(dicom._patient(dataset), 0, ("113100",))

    patch.setattr(dicom._Source, "of", own)


RULES: dict[str, tuple[Callable[[Patch], Any], str, set[str]]] = {
    # rule: (how it is switched off, the file, places or kinds of which identifiers come through)
    "X, removed": (action("X"), NATIVE, {"LO AdmissionID", "PN OtherPatientNames", "LO PatientAddress"}),
    "Z, emptied": (action("Z"), NATIVE, {"SH AccessionNumber", "accented_name"}),
    "D, a dummy": (action("D"), NATIVE, {"LO InstitutionName", "structured report PNAME", "encapsulated document"}),
    "U, a new UID": (
        lambda patch: patch.setattr(values.UidMap, "of", lambda self, uid: uid),
        NATIVE,
        {"UI StudyInstanceUID", "UI SOPInstanceUID", "UI FrameOfReferenceUID"},
    ),
    "elements on no list": (untreated(unlisted), NATIVE, {"UC LongCodeValue", "colour profile"}),
    "elements in no dictionary": (
        untreated(lambda rule: rule.keyword == "NotInDictionary"),
        NATIVE,
        {"element in no dictionary", "trailing padding"},
    ),
    "overlays": (
        untreated(lambda rule: rule.keyword == "Overlays"),
        NATIVE,
        {"overlay data", "overlay comments", "overlay label"},
    ),
    "curves": (untreated(lambda rule: rule.keyword == "Curves"), NATIVE, {"curve label"}),
    "private elements": (
        private_elements_kept,
        NATIVE,
        {"private block SIEMENS CSA HEADER, UN", "private element without a creator"},
    ),
    "forms of safe private elements": (
        safe_private_values_kept,
        NATIVE,
        {"private element that is safe by the standard"},
    ),
    "items of sequences": (
        untreated(lambda rule: rule.kind == "sequence"),
        NATIVE,
        {"sequence EnergyWindowInformationSequence/SH EnergyWindowName"},
    ),
    "patients in items of sequences": (
        untreated(lambda rule: rule.keyword == "PatientID"),
        NATIVE,
        {"sequence EnergyWindowInformationSequence/LO PatientID"},
    ),
    "known codes only": (every_code_known, NATIVE, {"sequence ProcedureCodeSequence/SH CodeValue"}),
    "meanings of codes": (meanings_as_typed, NATIVE, {"sequence AnatomicRegionSequence/LO CodeMeaning"}),
    "vocabulary of terms": (form("terms"), NATIVE, {"CS BodyPartExamined"}),
    "vocabulary of descriptions": (form("words"), NATIVE, {"LO StudyDescription", "free text PatientComments"}),
    "vocabulary of makers": (pattern("Manufacturer"), NATIVE, {"LO Manufacturer"}),
    "patterns of text": (pattern("StackID"), NATIVE, {"SH StackID"}),
    "digits of integers": (form("integers"), NATIVE, {"IS AcquisitionNumber"}),
    "digits of decimals": (form("decimals"), NATIVE, {"DS TableHeight"}),
    "sizes of binary numbers": (form("binary"), NATIVE, {"FD TemporalPositionTimeOffset"}),
    "known tags": (form("tags"), NATIVE, {"AT SelectorSequencePointer"}),
    "VRs that fit": (every_vr_believed, NATIVE, {"a name in LUTData, which a parser refuses"}),
    "form of dates": (kept_if_no_date, NATIVE, {"a name in DA InstanceCreationDate"}),
    "form of times": (lambda p: p.setattr(values, "times", as_it_is), NATIVE, {"a name in TM ContentTime"}),
    "device identity": (device_identity_retained, NATIVE, {"device_serial", "SH StationName"}),
    "preamble of zeros": (preamble_kept, NATIVE, {"file preamble"}),
    "file meta": (file_meta_kept, NATIVE, {"file meta SourceApplicationEntityTitle"}),
    "bytes after the pixels": (bytes_after_pixels_kept, NATIVE, {"bytes after the pixels"}),
    "comments of JPEG": (comments_kept, JPEG_LS, {"comment in a compressed frame"}),
    "comments of JPEG 2000": (comments_kept, JPEG_2000, {"comment in a compressed frame"}),
    "pseudonyms of patients": (
        lambda patch: patch.setattr(Pseudonyms, "subject", lambda self, subject: subject),
        NATIVE,
        {"the subject's id"},
    ),
    "names of patients": (true_names, NATIVE, {"the subject's name"}),
    "the key of a seal": (every_seal_believed, NATIVE, {"the subject's id", "date", "UI SOPInstanceUID"}),
    "shift of dates": (lambda p: p.setattr(values, "shift_days", lambda *of: 0), NATIVE, {"date"}),
    "shift of dates with times": (
        lambda patch: patch.setattr(values, "shifted_datetimes", lambda value, days: value.rstrip()),
        NATIVE,
        {"date"},
    ),
    "the oldest age": (pattern("PatientAge"), NATIVE, {"AS PatientAge"}),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_is_switched_off_is_a_leak_that_is_named(tmp_path: Path, monkeypatch: Patch, rule: str) -> None:
    switch_off, name, expected = RULES[rule]
    switch_off(monkeypatch)
    found = scored(tmp_path, name)
    named = {leak.planted for leak in found.leaks} | {leak.kind for leak in found.leaks}
    assert expected <= named, sorted(named)
    assert not found.passed
    assert all(leak.found.startswith("out/") for leak in found.leaks)


# ---------------------------------------------------------------- what must still hold


def another_uid_each_time(patch: Patch) -> None:
    numbers = count(1)
    patch.setattr(values.UidMap, "of", lambda self, uid: uid if values.is_registered(uid) else f"2.25.{next(numbers)}")


def another_shift_for_each_file(patch: Patch) -> None:
    days = count(300)
    patch.setattr(values, "shift_days", lambda *of: next(days))


def another_shift_for_each_date(patch: Patch) -> None:
    shifted, days = values.shifted_dates, count(300)
    patch.setattr(values, "shifted_dates", lambda value, _: shifted(value, next(days)))


def no_method(patch: Patch) -> None:
    patch.setattr(dicom, "_methods", lambda applied: b"")


FAULTS: dict[str, tuple[Callable[[Patch], Any], str]] = {
    "one UID for one UID": (another_uid_each_time, "unresolved_uid_references"),
    "one shift for a patient": (another_shift_for_each_file, "intervals_broken"),
    "one shift for all dates of a file": (another_shift_for_each_date, "intervals_broken"),
    "codes of what was done": (no_method, "codes_missing"),
    "the oldest age": (pattern("PatientAge"), "ages_over_90"),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_rule_that_keeps_files_useful_is_missed_where_it_is_switched_off(
    tmp_path: Path, monkeypatch: Patch, rule: str
) -> None:
    switch_off, fault = FAULTS[rule]
    switch_off(monkeypatch)
    found = scored(tmp_path, NATIVE)
    assert getattr(found, fault) > 0
    assert not found.passed
