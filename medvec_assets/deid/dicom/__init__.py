"""De-identification of DICOM files by PS3.15 annex E: the basic profile and the options that a deployment chooses.

Belongs here: `deidentify`, from a file's bytes to its copy's. Its parts: table (the standard's), rules (what is kept),
values (how), private, codes and terms (lists), walk (through the elements), objects (what is refused), pixels and
burned_in (the image), text_finder (the detector). Does not belong here: reading and writing folders (deid_folder).

What the standard leaves open is decided for the allow list: what is not known to be safe does not leave. The copy has a
preamble of zeros, its own file meta and no text but words of a vocabulary.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from medvec_assets.deid.dicom import burned_in, codes, objects, table, values
from medvec_assets.deid.dicom.pixels import pixel_elements
from medvec_assets.deid.dicom.rules import Options
from medvec_assets.deid.dicom.walk import Walk, element, items
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.imaging.dicom_file import parser_failures_as, read_dataset

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["PROFILE", "Deidentified", "Options", "deidentify"]

PROFILE = "dicom-ps3.15-1"  # moves when a file would come out differently
IMPLEMENTATION_UID = "2.25.229451600072084110330137291447146391621"  # random, once: medvec's own class
_PIXEL_DATA, _OFFSET_TABLES = 0x7FE00010, (0x7FE00001, 0x7FE00002)
_SEAL = re.compile(rb"medvec ([a-z0-9.-]+)\\(113100(?: 1131\d\d)*)\\([0-9a-f]{32}) ?")


@dataclass(frozen=True)
class Deidentified:
    """`data`: the copy's bytes. `actions`: what was done -> how often; `by_keyword` the same for each keyword, never a
    value. `codes`: of PS3.16 CID 7050, the options that were applied to this file."""

    data: bytes
    actions: dict[str, int]
    by_keyword: dict[str, dict[str, int]]
    codes: tuple[str, ...]


def deidentify(data: bytes, pseudonyms: Pseudonyms, options: Options | None = None) -> Deidentified:
    """A de-identified copy of one DICOM file.

    A file that this deployment wrote comes out as it went in. Raises ObjectRejected: those of read_dataset, truncated,
    encapsulated_document, structured_content, graphics, sound, video, private_content, directory, not_an_object,
    sop_class_unknown, burned_in_text, burned_in_text_possible, decode_failed."""
    options = options or Options()
    dataset = read_dataset(data)
    raws = {int(tag): raw for tag, raw in dataset.items()}
    with parser_failures_as("header_invalid", "has an unreadable header", "mend or re-export the object"):
        sop_class, instance = objects.check_kind(dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        source = _Source.of(dataset, instance, pseudonyms)
        looked_at, pixels = _looked_at(dataset, sop_class, options, source)
        walk = Walk(options, values.UidMap(pseudonyms, source.is_ours), source.subject.encode(), source.days)
        kept = walk.elements(raws)
        kept |= pixel_elements(syntax, raws, kept) if pixels is None else pixels
        if len(kept.get(_PIXEL_DATA, b"")) != _encoded_bytes(raws.get(_PIXEL_DATA)):
            for tag in _OFFSET_TABLES:  # of frames that are now shorter
                kept.pop(tag, None)
        applied = tuple(sorted({*options.codes, *(["113101"] if looked_at else [])}))
        instance = walk.uids.of(instance)
        kept |= _stamped(walk, sop_class, instance, applied, pseudonyms, looked_at)
        body = [kept[tag] for tag in sorted(kept)]
    stays = pixels is None and syntax.is_encapsulated and _PIXEL_DATA in kept
    head = _head(sop_class, instance, str(syntax) if stays else "1.2.840.10008.1.2.1")
    return Deidentified(b"".join([head, *body]), *_counted(walk.actions), applied)


def _encoded_bytes(raw: Any) -> int:
    """How long pixel data are in a file if they stay as they were: compressed, between a header and a delimiter."""
    return 12 + len(raw.value or b"") + 8 if raw is not None else 0


@dataclass(frozen=True)
class _Source:
    """Who a file is about. `is_ours`: this deployment de-identified it, so that its pseudonym, dates and UIDs stand."""

    subject: str
    days: int
    codes: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        return bool(self.codes)

    @classmethod
    def of(cls, dataset: Dataset, instance: str, pseudonyms: Pseudonyms) -> _Source:
        """The seal in a file's method is believed: it is keyed, and of just this subject and instance."""
        patient = _patient(dataset)
        value = getattr(dataset.get_item(0x00120063), "value", None)
        found = _SEAL.fullmatch(value) if isinstance(value, bytes) else None
        if found and found[3].decode() == _seal(pseudonyms, patient, instance, found[2].decode()):
            return cls(patient, 0, tuple(found[2].decode().split()))
        # Without a patient, a study is the most that is known to be of one.
        whose = patient or f"study {objects.raw_text(dataset, 0x0020000D) or instance}"
        return cls(pseudonyms.subject(whose), values.shift_days(pseudonyms, whose), ())


def _patient(dataset: Dataset) -> str:
    """The patient's id as connectors read it: in its character set, where it needs one."""
    value = getattr(dataset.get_item(0x00100020), "value", None)
    if isinstance(value, bytes) and value.isascii() and b"\x1b" not in value and b"\\" not in value:
        return value.decode("ascii").strip(" \0")
    return str(dataset.get("PatientID") or "").strip(" \0")


def _seal(pseudonyms: Pseudonyms, subject: str, instance: str, applied: str) -> str:
    return pseudonyms.digest("seal", f"{PROFILE} {subject} {instance} {applied}").hex()[:32]


def _looked_at(
    dataset: Dataset, sop_class: str, options: Options, source: _Source
) -> tuple[bool, dict[int, bytes] | None]:
    """(whether a detector saw the pixels, the elements of new ones if it found text). Raises ObjectRejected."""
    if source.is_ours and options.pixels != "clean_all":
        return "113101" in source.codes, None
    at_risk = objects.may_show_text(dataset, sop_class)
    if at_risk and options.pixels == "refuse":
        raise burned_in.text_possible(declared=objects.raw_text(dataset, 0x00280301) == "YES")
    if not at_risk and (options.pixels != "clean_all" or _PIXEL_DATA not in dataset):
        return False, None
    return True, burned_in.cleaned(dataset)


def _stamped(
    walk: Walk,
    sop_class: str,
    instance: str,
    applied: tuple[str, ...],
    pseudonyms: Pseudonyms,
    looked_at: bool,
) -> dict[int, bytes]:
    """The elements that every copy has: whose it is and how it was de-identified."""
    listed = " ".join(applied)
    seal = _seal(pseudonyms, walk.subject.decode(), instance, listed)
    stamped = {
        0x00080016: element(0x00080016, "UI", sop_class.encode()),
        0x00080018: element(0x00080018, "UI", instance.encode()),
        0x00100010: element(0x00100010, "PN", walk.subject),
        0x00100020: element(0x00100020, "LO", walk.subject),
        0x00120062: element(0x00120062, "CS", b"YES"),
        0x00120063: element(0x00120063, "LO", f"medvec {PROFILE}\\{listed}\\{seal}".encode()),
        0x00120064: _methods(applied),
        0x00280303: element(0x00280303, "CS", b"MODIFIED" if walk.options.dates else b"REMOVED"),
    }
    if looked_at:
        stamped[0x00280301] = element(0x00280301, "CS", b"NO")
    return stamped


@cache
def _methods(applied: tuple[str, ...]) -> bytes:
    found = [codes.item_of(code, "DCM", table.CODES[code]) for code in applied]
    return element(0x00120064, "SQ", items(found))


def _head(sop_class: str, instance: str, syntax: str) -> bytes:
    """A preamble of zeros and file meta with nothing of the original's but its class and transfer syntax."""
    meta = b"".join(
        [
            element(0x00020001, "OB", b"\0\1"),
            element(0x00020002, "UI", sop_class.encode()),
            element(0x00020003, "UI", instance.encode()),
            element(0x00020010, "UI", syntax.encode()),
            element(0x00020012, "UI", IMPLEMENTATION_UID.encode()),
            element(0x00020013, "SH", b"MEDVEC_1"),
        ]
    )
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta


def _counted(actions: Counter[tuple[str, str]]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    totals: Counter[str] = Counter()
    by_keyword: dict[str, dict[str, int]] = {}
    for (action, keyword), count in sorted(actions.items()):
        totals[action] += count
        by_keyword.setdefault(action, {})[keyword] = count
    return dict(totals), by_keyword
