"""`medvec deid`: a folder of DICOM files into a folder of de-identified copies, with a report.

Belongs here: walking, names, resuming, writing, counting. Does not belong here: de-identification itself (deid.dicom).

Every folder and file of the source has one of the target's, under a keyed name: names are often patients' names.
`deid_files.jsonl` in the target has a line per file: its surrogate name, its position in the sorted walk of the source
(how somebody who has the source finds it again), what was done to it or why it was refused, and a keyed digest of what
was read, by which the next run knows that it has nothing to do. No line, name or message holds anything of the source.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from medvec_assets.deid.dicom import PROFILE, Options, deidentify, text_finder
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.stages.context import Progress, no_progress
from resources.errors import ConfigError, ObjectRejected, StorageError

REPORT, FILES = "deid_report.json", "deid_files.jsonl"
MAX_FILE_BYTES = 2 << 30  # a file is held in memory, and its copy too
NAME_DIGITS = 24  # of 64: names collide once in 1e14 files of one folder

Row = dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """What a worker process needs to know, once."""

    secret: bytes
    source_name: str
    source: Path
    target: Path
    options: Options

    @property
    def pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(self.secret, self.source_name)

    @property
    def key(self) -> str:
        """Tells pseudonyms of two keys or source names apart, and nothing else."""
        return self.pseudonyms.digest("folder key", "").hex()[:12]

    @property
    def profile(self) -> str:
        """What a copy depends on beside its input; the detector counts where it is used."""
        finds = text_finder.is_installed() and self.options.pixels != "refuse"
        kept = " ".join(self.options.codes)
        return f"{PROFILE} {kept} {self.options.pixels} {text_finder.MODEL if finds else 'no-detector'}"


def deidentify_folder(
    source: Path,
    target: Path,
    secret: bytes,
    *,
    source_name: str = "dicom",
    options: Options | None = None,
    workers: int = 1,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """De-identifies every file below `source` into `target`; the report, which is written there too.

    `source_name`: subjects and UIDs get the pseudonyms of this source. Files that were done before and did not change
    are left alone. Raises ConfigError on folders that cannot be, StorageError when the target cannot be written; a bad
    file is a line of the report."""
    started = time.monotonic()
    job = _Job(secret, source_name, source.resolve(), target.resolve(), options or Options(pixels="clean"))
    _check_folders(job)
    names = list(_walk(job.source))
    if not names:
        raise ConfigError("the source folder holds no file", remedy="name the folder that holds the DICOM files")
    known = _known(job)
    rows: list[Row] = []
    with _writing():
        job.target.mkdir(parents=True, exist_ok=True)
        log = (job.target / FILES).open("a", encoding="utf-8")
    with _writing(), log:
        tasks = [(position, name, known.get(_surrogate(job, name))) for position, name in enumerate(names, 1)]
        for row in _done(job, tasks, workers):
            rows.append(row)
            if not row["unchanged"]:
                log.write(json.dumps(row) + "\n")
                log.flush()
            progress("de-identified", len(rows), len(names))
        report = _report(job, rows, time.monotonic() - started)
        _write(job.target / REPORT, json.dumps(report, indent=1, sort_keys=True).encode() + b"\n")
        _write(job.target / FILES, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return report


def _check_folders(job: _Job) -> None:
    if not job.source.is_dir():
        raise ConfigError("the source is no folder", remedy="give the folder that holds the DICOM files first")
    if job.target.exists() and not job.target.is_dir():
        raise ConfigError("the target is a file", remedy="give a folder for the copies")
    if job.target == job.source or job.source in job.target.parents or job.target in job.source.parents:
        remedy = "give a target outside the source, or copies and originals could be taken for each other"
        raise ConfigError("source and target lie within each other", remedy=remedy)
    if job.target.is_dir() and not (job.target / FILES).exists() and any(job.target.iterdir()):
        raise ConfigError("the target holds other files", remedy="give an empty folder, or one of an earlier run")


def _walk(source: Path) -> Iterator[str]:
    """Every file below, as a path from `source`, in one order. Links are not followed: they may lead anywhere."""
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(source).as_posix()


def _surrogate(job: _Job, name: str) -> str:
    """The path of a file's copy below the target."""
    pseudonyms = job.pseudonyms
    *folders, _ = parts = name.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(folders))]
    kept = [pseudonyms.digest("folder", one).hex()[:NAME_DIGITS] for one in above]
    return "/".join([*kept, f"{pseudonyms.digest('file', name).hex()[:NAME_DIGITS]}.dcm"])


def _known(job: _Job) -> dict[str, Row]:
    """surrogate -> its last line; a line that a killed run wrote half of is left out."""
    found: dict[str, Row] = {}
    path = job.target / FILES
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["file"]] = row
        if row["key"] != job.key:
            remedy = "use the key and the source name that it was written with, or another target"
            raise ConfigError("the target was written with other pseudonyms", remedy=remedy)
    return found


def _done(job: _Job, tasks: list[tuple[int, str, Row | None]], workers: int) -> Iterator[Row]:
    """A row per file, in order."""
    if workers == 1 or len(tasks) == 1:
        for task in tasks:
            yield _file(job, *task)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (job,)) as pool:
        yield from pool.map(_in_worker, tasks, chunksize=4)


_job: list[_Job] = []  # of a worker process


def _begin(job: _Job) -> None:
    _job.append(job)


def _in_worker(task: tuple[int, str, Row | None]) -> Row:
    return _file(_job[0], *task)


def _file(job: _Job, position: int, name: str, before: Row | None) -> Row:
    """De-identifies one file, or finds that it was done before."""
    pseudonyms = job.pseudonyms
    surrogate = _surrogate(job, name)
    row: Row = {"file": surrogate, "position": position, "key": job.key, "profile": job.profile}
    row |= {"unchanged": False, "code": None, "remedy": None, "bytes": 0, "codes": [], "actions": {}}
    path = job.source / name
    try:
        data = _read(path)
        row["input"] = hashlib.blake2b(data, key=job.secret[:64], digest_size=16).hexdigest()
        if before is not None and _stands(job, row, before):
            return before | {"position": position, "unchanged": True}
        copy = deidentify(data, pseudonyms, job.options)
    except ObjectRejected as refusal:
        _forget(job.target / surrogate)
        return row | {"code": refusal.code, "remedy": refusal.remedy}
    _write(job.target / surrogate, copy.data)
    return row | {"bytes": len(copy.data), "codes": list(copy.codes), "actions": copy.by_keyword}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ObjectRejected("the object is too large", code="too_large", remedy="split the object")
        return path.read_bytes()
    except OSError:
        remedy = "check who owns it and what holds it, and run again"
        raise ObjectRejected("the object cannot be read", code="unreadable", remedy=remedy) from None


def _stands(job: _Job, row: Row, before: Row) -> bool:
    """Whether the earlier run's answer holds: equal input, equal rules, and the copy is where it was."""
    if any(row[name] != before.get(name) for name in ("input", "profile")):
        return False
    copy = job.target / row["file"]
    return bool(before["code"]) or (copy.is_file() and copy.stat().st_size == before["bytes"])


def _forget(copy: Path) -> None:
    """A file that is refused now has no copy, also if an earlier state of it had one."""
    with _writing():
        copy.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    with _writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    """Failures to write become StorageError, without a path in the message."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else "the target cannot be written"
        remedy = "free space, or check who owns the target, and run again: what is done is not done again"
        raise StorageError(what, remedy=remedy) from None


def _report(job: _Job, rows: list[Row], seconds: float) -> dict[str, Any]:
    actions: Counter[str] = Counter()
    for row in rows:
        for action, keywords in row["actions"].items():
            actions[action] += sum(keywords.values())
    unchanged = sum(1 for row in rows if row["unchanged"] and not row["code"])
    return {
        "files": len(rows),
        "written": sum(1 for row in rows if not row["unchanged"] and not row["code"]),
        "unchanged": unchanged,
        "quarantined": dict(sorted(Counter(row["code"] for row in rows if row["code"]).items())),
        "actions": dict(sorted(actions.items())),
        "codes": dict(sorted(Counter(code for row in rows for code in row["codes"]).items())),
        "profile": job.profile,
        "seconds": round(seconds, 3),
    }
