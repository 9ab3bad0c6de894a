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
OLDEST_TOLD = 89  # years; HIPAA's safe harbour groups all beyond
DICOM = "application/dicom"
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime")
_UNREADABLE = (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, RuntimeError)

Run = Callable[[Path, Path], object]
"""De-identifies the files of one folder into another; what it returns (a report) is searched too."""


@dataclass(frozen=True)
class _Facts:
    """What of one file is compared. `dates` are days by keyword, `references` instance UIDs at any depth."""

    subject: str
    number: int
    uid: str
    references: frozenset[str]
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
        unresolved_uid_references=_unresolved(before, after),
        intervals_broken=_broken_intervals(before, after),
        codes_missing=sum(not one.has_codes for one in after.values()),
        ages_over_89=sum(one.age > OLDEST_TOLD for one in after.values()),
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
        frozenset(_references(dataset)),
        {keyword: day for keyword in _DATES if (day := _day(dataset.get(keyword))) is not None},
        int(age[:3]) if age.endswith("Y") and age[:3].isdigit() else 0,
        dataset.get("PatientIdentityRemoved") == "YES" and bool(method) and bool(codes) and all(codes),
    )


def _references(dataset: Dataset) -> Iterator[str]:
    """UIDs of instances that are referred to, at any depth; numeric elements that are damaged are not looked at."""
    for element in dataset:
        if element.VR != "SQ":
            continue
        for item in element.value:
            if "ReferencedSOPInstanceUID" in item:
                yield str(item.ReferencedSOPInstanceUID)
            yield from _references(item)


def _day(value: Any) -> date | None:
    try:
        return datetime.strptime(str(value or "")[:8], "%Y%m%d").date()
    except ValueError:
        return None


# ---------------------------------------------------------------- what must still hold


def _unresolved(before: dict[int, _Facts], after: dict[int, _Facts]) -> int:
    """References that led to a file of the same patient that was written too, and lead there no more."""
    lost = 0
    target = {(facts.subject, facts.uid): facts.number for facts in before.values()}
    for number, facts in after.items():
        wanted = (
            {target.get((before[number].subject, uid)) for uid in before[number].references}
            if number in before
            else set()
        )
        lost += sum(
            after[other].uid not in facts.references for other in wanted if other is not None and other in after
        )
    return lost


def _broken_intervals(before: dict[int, _Facts], after: dict[int, _Facts]) -> int:
    """Dates that moved by other days than most of their patient's did. A date that was removed keeps no interval and breaks
    none."""
    moved: dict[str, list[int]] = {}
    for number, facts in after.items():
        if number in before:
            days = (facts.dates[k] - before[number].dates[k] for k in facts.dates.keys() & before[number].dates.keys())
            moved.setdefault(before[number].subject, []).extend(one.days for one in days)
    return sum(len(days) - max(Counter(days).values()) for days in moved.values() if days)
