"""What was read of an object is kept until a manifest holds it; what cannot be kept or trusted is read again."""

from __future__ import annotations

import logging
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.dicom_files import edited, real
from helpers.pipeline import Pipeline

from medvec_assets.catalog.tcia_radiology import TCIA_RADIOLOGY
from medvec_assets.connectors.observations import Observations
from resources.object_store import ObjectStore
from resources.settings import Settings

PLACE = Path("landed", "tcia_radiology", "observed.sqlite")


class Source:
    """Objects that are read of a store; `reads` are their names."""

    def __init__(self, home: Path, **settings: int) -> None:
        self.kept = Observations(Settings(home=home, **settings), "tcia_radiology")
        self.reads: list[str] = []

    def of(self, name: str, etag: str = "e", fact: str = "fact") -> str:
        def observe() -> str:
            self.reads.append(name)
            return fact

        return self.kept.of(name, etag, observe)


def test_an_object_is_read_once_by_all_processes_until_it_changes(tmp_path: Path) -> None:
    first, second = Source(tmp_path), Source(tmp_path)
    assert first.of("a") == second.of("a", fact="not read") == "fact"
    assert second.of("a", etag="later", fact="new") == first.of("a", etag="later") == "new"
    assert (first.reads, second.reads) == (["a"], ["a"])
    assert stat.S_IMODE((tmp_path / PLACE).parent.stat().st_mode) == 0o700


def test_many_threads_share_it(tmp_path: Path) -> None:
    source = Source(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: source.of(str(n % 50), fact=str(n % 50)), range(400)))
    assert found == [str(n % 50) for n in range(400)] and set(source.reads) == {str(n) for n in range(50)}


def test_nothing_is_known_of_an_object_without_etag_or_answer(tmp_path: Path) -> None:
    source = Source(tmp_path)
    for _ in range(2):
        source.of("a", etag="")
        source.of("b", fact="")
    assert source.reads == ["a", "b"] * 2


def test_a_file_name_that_is_no_text_can_be_kept(tmp_path: Path) -> None:
    for _ in range(2):
        source = Source(tmp_path)
        source.of("file:///scan\udcff.dcm")
    assert source.reads == []


def test_a_fact_that_does_not_fit_its_digest_is_read_again(tmp_path: Path) -> None:
    Source(tmp_path).of("a")
    with sqlite3.connect(tmp_path / PLACE) as file:
        file.execute("UPDATE observed SET fact = 'another'")
    later = Source(tmp_path)
    assert later.of("a") == later.of("a") == "fact" and later.reads == ["a"]


def test_a_broken_file_begins_anew(tmp_path: Path) -> None:
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_bytes(b"torn by a power cut" * 500)
    source = Source(tmp_path)
    for name in ("a", "b", "b"):
        assert source.of(name) == "fact"
    assert source.reads == ["a", "b"]


def test_what_cannot_be_kept_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / PLACE).mkdir(parents=True)  # no file can be there
    source = Source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [source.of("a"), source.of("a"), source.of("b")] == ["fact"] * 3
    assert source.reads == ["a", "a", "b"] and len(caplog.records) == 1
    assert "cannot be kept" in caplog.text and "fact" not in caplog.text


def test_at_its_limit_it_keeps_what_it_has(tmp_path: Path) -> None:
    source = Source(tmp_path, landed_bytes=40_000)
    for name in range(40):
        source.of(str(name), fact="x" * 1_000)
    reads = len(source.reads)
    source.of("0")
    assert len(source.reads) == reads == 40 and (tmp_path / PLACE).stat().st_size < 80_000
    source.of("39")
    assert len(source.reads) == 41


def test_a_committed_manifest_lets_go_of_it(tmp_path: Path, files: Pipeline) -> None:
    kept = Observations(files.settings, files.spec.id)
    kept.of("name of a patient", "e", lambda: "fact")
    files.connector.add("1", b"content")
    files.refresh()
    place = files.settings.home / "landed" / files.spec.id / "observed.sqlite"
    with sqlite3.connect(place) as file:
        assert file.execute("SELECT count(*) FROM observed").fetchone() == (0,)
    assert b"fact" not in place.read_bytes()


def facts(home: Path) -> int:
    with closing(sqlite3.connect(home / PLACE)) as file:
        return int(file.execute("SELECT count(*) FROM observed").fetchone()[0])


def test_a_file_of_an_earlier_version_begins_anew(tmp_path: Path) -> None:
    (tmp_path / PLACE).parent.mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / PLACE)) as file:
        file.execute("CREATE TABLE observed (key BLOB PRIMARY KEY, fact TEXT, digest BLOB) WITHOUT ROWID")
    source = Source(tmp_path)
    for name in ("a", "b", "b"):
        assert source.of(name) == "fact"
    assert source.reads == ["a", "b"]


def test_where_objects_were_refused_what_the_listing_asked_for_stays_until_one_does_not(tmp_path: Path) -> None:
    for name in ("refused", "accepted", "withdrawn while it was listed"):
        Source(tmp_path).of(name)
    began = datetime.now(UTC)
    for name in ("refused", "accepted"):  # the listing was killed before, and goes on
        Source(tmp_path).of(name)
    Source(tmp_path).kept.drop(unless_asked_since=began)
    assert facts(tmp_path) == 2

    began = datetime.now(UTC)
    second = Source(tmp_path)
    second.of("refused")
    second.kept.drop(unless_asked_since=began)
    assert second.reads == [] and facts(tmp_path) == 1

    second.kept.drop()
    assert facts(tmp_path) == 0


def test_an_object_that_a_manifest_refuses_is_read_once(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reads = tmp_path / "in" / "c", list[str]()
    folder.mkdir(parents=True)
    (folder / "good.dcm").write_bytes(real("CT_small.dcm"))
    (folder / "refused.dcm").write_bytes(edited(PatientID="\x07"))
    original = ObjectStore.digest_and_head

    def counted(self: ObjectStore, key: str, head_bytes: int) -> tuple[str, bytes]:
        reads.append(Path(key).name)
        return original(self, key, head_bytes)

    monkeypatch.setattr(ObjectStore, "digest_and_head", counted)
    pipeline.spec = TCIA_RADIOLOGY
    pipeline.site(sources={TCIA_RADIOLOGY.id: str(folder.parent)})
    for number in range(3):
        reads.clear()
        outcome = pipeline.refresh().outcome
        assert (outcome.rows_out, outcome.quarantined) == (1 + number, 1)
        assert sorted(reads) == (["good.dcm", "refused.dcm"] if number == 0 else [f"{number}.dcm"])
        assert facts(pipeline.settings.home) == 2, "of the one refused, and of the last one accepted"
        (folder / f"{number + 1}.dcm").write_bytes(real("MR_small.dcm"))
