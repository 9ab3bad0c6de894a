"""PhysioNet's files: listed with their checksums, verified, continued after a kill, refused plainly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from standins import physionet as standin

from medvec_assets.connectors import physionet
from resources import http_source
from resources.errors import ConfigError, SourceError, SourceUnavailable
from resources.settings import Settings

TABLE = "hosp/labevents.csv.gz"
DATA = random.Random(4).randbytes(40_000)
LICENSE_TEXT = b"The PhysioNet Credentialed Health Data License\nVersion 1.5.0\n\nCopyright (c) 2024\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "physionet.org" / "files"
    standin.publish(found / "mimiciv" / "3.1", {TABLE: DATA, "LICENSE.txt": LICENSE_TEXT})
    return found


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[standin.PhysioNet]:
    monkeypatch.setattr(http_source, "LONGEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(physionet, "REQUESTS_PER_SECOND", 10_000.0)
    with standin.serving(root) as found:
        yield found


def settings(home: Path, source: str, credential: str = standin.CREDENTIAL) -> Settings:
    return Settings(home=home, sources={"mimic_stays": source}, credentials={"physionet": SecretStr(credential)})


def project(tmp_path: Path, source: str, credential: str = standin.CREDENTIAL) -> physionet.PhysioNetProject:
    return physionet.open_project(settings(tmp_path / "home", source, credential), "mimic_stays")


def test_a_mirror_and_the_service_publish_the_same(tmp_path: Path, root: Path, server: standin.PhysioNet) -> None:
    mirror = project(tmp_path, str(root.parent))  # found below what `wget -r` leaves
    service = project(tmp_path, server.url("mimiciv", "3.1"))
    published = mirror.published()
    assert published == service.published()
    assert published.release == "3.1" and published.version.startswith("3.1 sha256sums:")
    for one, is_remote in ((mirror, False), (service, True)):
        assert (one.name, one.is_remote) == ("mimiciv", is_remote)
        assert one.fetch(published, TABLE).read_bytes() == DATA
        assert one.license(published) == "PhysioNet Credentialed Health Data License 1.5.0"


def test_a_file_crosses_the_web_once(tmp_path: Path, server: standin.PhysioNet) -> None:
    for _ in range(2):
        service = project(tmp_path, server.url("mimiciv", "3.1"))
        service.fetch(service.published(), TABLE)
    assert server.fetched() == [TABLE]


def test_a_file_that_breaks_off_is_continued(tmp_path: Path, server: standin.PhysioNet) -> None:
    server.cuts = [3_000] * 11  # more often than one request may fail, and longer each time
    service = project(tmp_path, server.url("mimiciv", "3.1"))
    assert service.fetch(service.published(), TABLE).read_bytes() == DATA
    assert [part for path, part in server.seen if path == TABLE][:3] == [None, "bytes=2999-", "bytes=5998-"]


def test_a_killed_download_goes_on_in_the_next_process(
    tmp_path: Path, server: standin.PhysioNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts = [30_000]
    with monkeypatch.context() as killed:
        killed.setattr(http_source, "ATTEMPTS", 1)
        killed.setattr(http_source.HttpSource, "download", _killed_after_one)
        service = project(tmp_path, server.url("mimiciv", "3.1"))
        with pytest.raises(KeyboardInterrupt):
            service.fetch(service.published(), TABLE)
    server.seen.clear()
    service = project(tmp_path, server.url("mimiciv", "3.1"))
    assert service.fetch(service.published(), TABLE).read_bytes() == DATA
    assert [part for path, part in server.seen if path == TABLE] == ["bytes=29999-"]


def _killed_after_one(self: http_source.HttpSource, path: str, target: Path) -> None:
    try:
        self._download(path, target)
    except SourceUnavailable:
        raise KeyboardInterrupt from None


@pytest.mark.parametrize("held", [DATA, DATA + b"more", b"x" * 500], ids=["whole", "too long", "another's"])
def test_whatever_an_earlier_process_left_the_file_comes_right(
    tmp_path: Path, server: standin.PhysioNet, held: bytes
) -> None:
    service = project(tmp_path, server.url("mimiciv", "3.1"))
    published = service.published()
    folder = tmp_path / "home" / "landed" / "mimic_stays"
    folder.mkdir(parents=True)
    (folder / f"{published.sha256(TABLE)[:40]}.part").write_bytes(held)
    assert service.fetch(published, TABLE).read_bytes() == DATA


def test_a_wrong_checksum_fails_the_source(tmp_path: Path, root: Path, server: standin.PhysioNet) -> None:
    server.replaced[TABLE] = DATA[:-1] + b"\0"
    for source in (server.url("mimiciv", "3.1"), str(root)):
        one = project(tmp_path, source)
        published = one.published()
        (root / "mimiciv" / "3.1" / TABLE).write_bytes(DATA[:-2])
        with pytest.raises(SourceError) as refusal:
            one.fetch(published, TABLE)
        assert refusal.value.code == "checksum_mismatch"
    assert server.fetched() == [TABLE]


@pytest.mark.parametrize("credential", ["jdoe:wrong", standin.UNSIGNED])
def test_a_refusal_says_what_an_account_needs_and_no_password(
    tmp_path: Path, server: standin.PhysioNet, credential: str
) -> None:
    with pytest.raises(SourceError, match="data use agreement") as refusal:
        project(tmp_path, server.url("mimiciv", "3.1"), credential).published()
    assert refusal.value.code == "credentials_refused"
    assert credential.partition(":")[2] not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "credential"),
    [("http://physionet.org/files/mimiciv/3.1/", "a:b"), ("https://physionet.org/files/x/1", "")],
)
def test_a_password_is_needed_and_kept_secret(tmp_path: Path, source: str, credential: str) -> None:
    with pytest.raises(ConfigError):
        project(tmp_path, source, credential)


def test_a_release_that_is_not_there_is_told_from_an_empty_one(
    tmp_path: Path, root: Path, server: standin.PhysioNet
) -> None:
    for source in (server.url("mimiciv", "9.9"), str(tmp_path / "unmounted")):
        with pytest.raises(SourceError) as refusal:
            project(tmp_path, source).published()
        assert refusal.value.code == "source_missing"
    (root / "mimiciv" / "3.1" / "SHA256SUMS.txt").write_text("<html>Please sign in</html>\n")
    with pytest.raises(SourceError) as refusal:
        project(tmp_path, str(root)).published()
    assert refusal.value.code == "schema_drift"


def test_a_file_must_be_listed_and_there(tmp_path: Path, root: Path, server: standin.PhysioNet) -> None:
    (root / "mimiciv" / "3.1" / TABLE).unlink()
    for source in (server.url("mimiciv", "3.1"), str(root)):
        one = project(tmp_path, source)
        for path, code in ((TABLE, "release_incomplete"), ("hosp/none.csv.gz", "file_not_published")):
            with pytest.raises(SourceError) as refusal:
                one.fetch(one.published(), path)
            assert refusal.value.code == code


def test_two_releases_in_one_place_are_ambiguous(tmp_path: Path, root: Path) -> None:
    standin.publish(root / "mimiciv" / "2.2", {TABLE: DATA})
    with pytest.raises(ConfigError, match="2 releases"):
        project(tmp_path, str(root.parent))


def test_a_release_that_changes_meanwhile_is_noticed(tmp_path: Path, root: Path, server: standin.PhysioNet) -> None:
    service = project(tmp_path, server.url("mimiciv", "3.1"))
    published = service.published()
    service.confirm(published)
    standin.publish(root / "mimiciv" / "3.1", {TABLE: DATA + b"new"})
    with pytest.raises(SourceError) as refusal:
        service.confirm(published)
    assert refusal.value.code == "release_changed"
