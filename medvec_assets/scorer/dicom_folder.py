"""The score of whatever turns a folder of DICOM files into a folder of de-identified ones.

Belongs here: planting into copies of a folder, and what de-identified files must still be worth: references that resolve,
intervals that are kept, the codes that say what was done. Does not belong here: the rules, or how files are named.

An output's input is known again by its instance number, which counts the copies and is no identifier.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvec_assets.scorer.planting import Subject, planter
from medvec_assets.scorer.plants import Mint
from medvec_assets.scorer.score import Score, counted, listening
from medvec_assets.scorer.search import Searcher

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FILES = 200
OLDEST_TOLD = 90  # years: in HIPAA's safe harbour it stands for all who are older than 89
DICOM = "application/dicom"
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime")
_UNREADABLE = (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, RuntimeError)

Run = Callable[[Path, Path], object]
"""De-identifies the files of one folder into another; what it returns (a report) is searched too."""


@dataclass(frozen=True)
class _Facts:
    """What of one file is compared: `references` are instance UIDs by their place at any depth, `dates` days by keyword."""

    subject: str
    number: int
    uid: str
    references: dict[str, str]
    dates: dict[str, date]
    age: int
    has_codes: bool


def score_folder(in_dir: Path, run: Run, out_dir: Path, seed: bytes) -> Score:
    """Plant into copies of the DICOM files below `in_dir`, `run` them into `out_dir` (empty), and score what comes out.

    The copies of one patient's files stay one patient's. Damaged copies lie among them, which may be refused.
    """
    started = time.monotonic()
    mint = Mint(seed)
    planted_dir = out_dir.with_name(f"{out_dir.name}.planted")
    objects = _plant_folder(in_dir, planted_dir, mint)
    with listening() as heard:
        heard.append(str(run(planted_dir, out_dir)))
    searcher = Searcher(mint.tokens)
    leaks = searcher.in_folder(out_dir, "out") | searcher.in_text("\n".join(heard), "logs and the report")
    before, after = _facts(planted_dir), _facts(out_dir)
    planted, kinds, places = counted(mint.tokens)
    resolved, unresolved = _references_kept(before, after)
    dates, broken = _intervals_kept(before, after)
    return Score(
        seed_digest=mint.seed_digest,
        planted=planted,
        kinds=kinds,
        places=places,
        objects=objects,
        copies=len(before),
        records=len(after),
        quarantined=len(before) - len(after),
        leaks=tuple(sorted(leaks)),
        failure="" if after else "nothing_written",
        resolved_uid_references=resolved,
        unresolved_uid_references=unresolved,
        dates_kept=dates,
        intervals_broken=broken,
        codes_missing=sum(not one.has_codes for one in after.values()),
        ages_over_90=sum(one.age > OLDEST_TOLD for one in after.values()),
        seconds=time.monotonic() - started,
    )


def _plant_folder(in_dir: Path, planted_dir: Path, mint: Mint) -> int:
    plant, subjects, objects = planter(DICOM), dict[str, Subject](), 0
    assert plant is not None
    for path in sorted(in_dir.rglob("*")):
        if objects == MAX_FILES or not path.is_file():
            continue
        data = path.read_bytes()
        patient = _read(data)
        if patient is None:
            continue
        known = str(patient.get("PatientID", ""))
        subject = subjects.setdefault(known, Subject.like(mint, known))
        copies = list(plant(data, subject))
        objects += bool(copies)
        for copy in copies:
            folder = planted_dir / (mint.plant("file_name", "a folder's name") or "")
            folder.mkdir(parents=True)
            (folder / f"{mint.plant('file_name', 'a file name')}.dcm").write_bytes(copy.data)
    return objects


def _facts(folder: Path) -> dict[int, _Facts]:
    """Facts by instance number of every file that can be read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        dataset = _read(path.read_bytes()) if path.is_file() else None
        if dataset is not None:
            facts = _of(dataset)
            found[facts.number] = facts
    return found


def _read(data: bytes) -> Dataset | None:
    from pydicom import dcmread

    if data[128:132] != b"DICM":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(BytesIO(data), stop_before_pixels=True)
    except _UNREADABLE:
        return None


def _of(dataset: Dataset) -> _Facts:
    codes = [item.get("CodeValue") for item in dataset.get("DeidentificationMethodCodeSequence") or []]
    method = dataset.get("DeidentificationMethod")
    age = str(dataset.get("PatientAge") or "")
    return _Facts(
        str(dataset.get("PatientID", "")),
        int(dataset.get("InstanceNumber") or 0),
        str(dataset.get("SOPInstanceUID", "")),
        dict(_references(dataset)),
        {keyword: day for keyword in _DATES if (day := _day(dataset.get(keyword))) is not None},
        int(age[:3]) if age.endswith("Y") and age[:3].isdigit() else 0,
        dataset.get("PatientIdentityRemoved") == "YES" and bool(method) and bool(codes) and all(codes),
    )


def _references(dataset: Dataset, above: str = "") -> Iterator[tuple[str, str]]:
    """(place, UID) of the instances that are referred to, at any depth. No other value is looked at: pydicom warns of many."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    for tag in sorted(dataset.keys()):
        vr = dataset.get_item(tag).VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
        for number, item in enumerate(dataset[tag].value or []) if vr == "SQ" else ():
            place = f"{above}{tag}[{number}]"
            if "ReferencedSOPInstanceUID" in item:
                yield place, str(item.ReferencedSOPInstanceUID)
            yield from _references(item, place)


def _day(value: Any) -> date | None:
    try:
        return datetime.strptime(str(value or "")[:8], "%Y%m%d").date()
    except ValueError:
        return None


# ---------------------------------------------------------------- what must still hold


def _references_kept(before: dict[int, _Facts], after: dict[int, _Facts]) -> tuple[int, int]:
    """(how many lead where they led, how many do not), of references to a file of the same patient that was written too. One
    that was removed leads nowhere, and nowhere wrong."""
    target = {(facts.subject, facts.uid): facts.number for facts in before.values()}
    right = wrong = 0
    for number in before.keys() & after.keys():
        for place, uid in after[number].references.items():
            other = target.get((before[number].subject, before[number].references.get(place, "")))
            if other in after:
                right += uid == after[other].uid
                wrong += uid != after[other].uid
    return right, wrong


def _intervals_kept(before: dict[int, _Facts], after: dict[int, _Facts]) -> tuple[int, int]:
    """(dates that moved by as many days as most of their patient's did, dates that did not). One that was removed keeps no
    interval and breaks none."""
    moved: dict[str, Counter[int]] = {}
    for number in before.keys() & after.keys():
        old, new = before[number].dates, after[number].dates
        days = ((new[keyword] - old[keyword]).days for keyword in old.keys() & new.keys())
        moved.setdefault(before[number].subject, Counter()).update(days)
    right = sum(max(days.values()) for days in moved.values() if days)
    return right, sum(days.total() for days in moved.values()) - right
