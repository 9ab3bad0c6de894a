"""`medvec deid`: names, resuming, refusing, counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.deid_files import TOKEN, made, read
from helpers.dicom_files import real
from typer.testing import CliRunner

from medvec_assets import deid_folder
from medvec_assets.cli import app
from medvec_assets.deid.dicom import Options, deidentify
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid_folder import FILES, REPORT, deidentify_folder
from resources.errors import ConfigError, StorageError

SECRET = b"k" * 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "DOE^JANE"
    (folder / "1961 QZJANE").mkdir(parents=True)
    (folder / "1961 QZJANE" / "a.dcm").write_bytes(made(StudyDate=b"20200101", PatientName=TOKEN))
    (folder / "1961 QZJANE" / "b.dcm").write_bytes(made(StudyDate=b"20200111", instance="1.2.9"))
    (folder / "note.txt").write_bytes(TOKEN)
    (folder / "scan").write_bytes(made(Modality=b"US", instance="1.2.10"))
    (folder / "link").symlink_to(folder / "scan")
    return folder


def run(source: Path, target: Path, **more: Any) -> dict[str, Any]:
    return deidentify_folder(source, target, SECRET, options=Options(), **more)


def copies(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*.dcm"))}


def test_a_folder_becomes_copies_under_other_names(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    report = run(source, target)
    assert (report["files"], report["written"], report["unchanged"]) == (4, 2, 0)
    assert report["quarantined"] == {"burned_in_text_possible": 1, "not_dicom": 1}
    assert report["codes"]["113100"] == 2 and report["actions"]["dates_shifted"] == 2
    found = copies(target)
    assert len(found) == 2 and len({name.split("/")[0] for name in found}) == 1
    expected = deidentify((source / "1961 QZJANE/a.dcm").read_bytes(), Pseudonyms(SECRET, "dicom"), Options())
    assert expected.data in found.values()
    written = b"".join([str(path).encode() + path.read_bytes() for path in target.rglob("*") if path.is_file()])
    for token in (TOKEN, b"DOE", b"1961", b"a.dcm", b"note"):
        assert token not in written.replace(str(tmp_path).encode(), b"")
    rows = [json.loads(line) for line in (target / FILES).read_text().splitlines()]
    assert [row["position"] for row in rows] == [1, 2, 3, 4]  # note.txt, scan, then the folder's
    assert json.loads((target / REPORT).read_text()) == report
    assert {row["code"] for row in rows} == {None, "not_dicom", "burned_in_text_possible"}


def test_what_was_done_is_not_done_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    run(source, target)
    done: list[int] = []
    monkeypatch.setattr(deid_folder, "deidentify", lambda *all_: done.append(1) or deidentify(*all_))
    assert run(source, target)["unchanged"] == 2 and not done
    (source / "1961 QZJANE" / "a.dcm").write_bytes(made(StudyDate=b"20200102"))
    next(iter(target.rglob("*.dcm"))).write_bytes(b"cut")
    report = run(source, target)
    assert report["written"] + report["unchanged"] == 2 and len(done) in (1, 2)  # the cut one may be the changed one
    assert all(data[128:132] == b"DICM" for data in copies(target).values())
    deidentify_folder(source, target, SECRET, options=Options(device=True))
    assert len(done) >= 5  # other rules


def test_a_killed_run_goes_on_where_it_was(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    calls: list[int] = []

    def killed(*all_: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return deidentify(*all_)

    monkeypatch.setattr(deid_folder, "deidentify", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, target)
    with (target / FILES).open("a") as log:
        log.write('{"file": "ha')
    report = run(source, target)
    assert len(calls) == 5 and (report["written"], report["unchanged"]) == (1, 1)
    assert len(copies(target)) == 2 and not list(target.rglob(".*"))


def test_a_file_that_is_refused_now_loses_its_copy(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    (source / "1961 QZJANE" / "a.dcm").write_bytes(made(BurnedInAnnotation=b"YES"))
    assert run(source, target)["quarantined"]["burned_in_text"] == 1 and len(copies(target)) == 1


def test_workers_write_the_same(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "one")
    report = run(source, tmp_path / "two", workers=2)
    assert copies(tmp_path / "one") == copies(tmp_path / "two") and report["written"] == 2


def test_subjects_are_those_of_the_named_source(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", source_name="tcia")
    (first, *_) = copies(tmp_path / "out").values()
    assert f"{Pseudonyms(SECRET, 'tcia').subject('P1')}".encode() in first
    with pytest.raises(ConfigError, match="other pseudonyms"):
        run(source, tmp_path / "out")


def test_folders_that_cannot_be_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for wrong_source, target in (
        (tmp_path / "none", tmp_path / "out"),
        (tmp_path / "empty", tmp_path / "out"),
        (source, tmp_path / "file"),
        (source, source / "out"),
        (source, source),
        (source / "1961 QZJANE", source),
        (source, tmp_path / "full"),
    ):
        with pytest.raises(ConfigError) as caught:
            run(wrong_source, target)
        assert "DOE" not in str(caught.value)


def test_a_target_that_cannot_be_written_ends_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left", str(source))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as caught:
        run(source, tmp_path / "out")
    assert "disk is full" in caught.value.message and "DOE" not in str(caught.value)
    assert not copies(tmp_path / "out")


def test_the_command(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDVEC_PSEUDONYM_KEY", SECRET.hex())
    done = CliRunner().invoke(app, ["deid", str(source), str(tmp_path / "out"), "--pixels", "refuse", "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["written"] == 2 and report == json.loads((tmp_path / "out" / REPORT).read_text())
    human = CliRunner().invoke(app, ["deid", str(source), str(tmp_path / "out"), "--pixels", "refuse"])
    assert "0 written, 2 unchanged" in human.stdout and "quarantined, not_dicom: 1" in human.stdout
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x").write_bytes(b"x")
    assert CliRunner().invoke(app, ["deid", str(tmp_path / "bad"), str(tmp_path / "none")]).exit_code == 1
    usage = CliRunner().invoke(app, ["deid", str(tmp_path / "nothing"), str(tmp_path / "none")])
    assert isinstance(usage.exception, ConfigError)


def test_real_files_in_folders(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_truncated.dcm", "reportsi.dcm"):
        (tmp_path / "in" / name).write_bytes(real(name))
    report = run(tmp_path / "in", tmp_path / "out")
    assert report["quarantined"] == {"structured_content": 1, "truncated": 1} and report["written"] == 2
    subjects = {read(type("Copy", (), {"data": data})).PatientID for data in copies(tmp_path / "out").values()}
    assert all(subject.startswith("k") for subject in subjects) and len(subjects) == 2
