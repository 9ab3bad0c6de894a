"""What was fetched once is kept by its content, complete or not at all, and bounded."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from medvec_assets.connectors import landing as module
from medvec_assets.connectors.landing import Landing
from resources.object_store import ObjectStore
from resources.settings import Settings


def landing(tmp_path: Path, **settings: int) -> Landing:
    return Landing(Settings(home=tmp_path, **settings), "tcia_catalog")


def test_a_file_is_read_once(tmp_path: Path) -> None:
    reads: list[str] = []

    def read() -> bytes:
        reads.append("read")
        return b"content"

    assert landing(tmp_path).bytes("md5-1", read) == b"content"
    assert landing(tmp_path).bytes("md5-1", read) == b"content"  # of another process, after a kill
    assert reads == ["read"]


def test_what_broke_off_is_not_there(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        path.mkdir()
        (path / "part").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        landing(tmp_path).made("table", half)
    assert [path for path in (tmp_path / "landed" / "tcia_catalog").glob("??/*") if path.suffix != ".lock"] == []
    made = landing(tmp_path).made("table", lambda path: path.mkdir())
    assert made.is_dir()


def test_what_a_killed_process_left_goes_when_the_entry_is_made(tmp_path: Path) -> None:
    made = landing(tmp_path).made("table", lambda path: path.mkdir())
    left = made.with_name(f".{made.name}.0123")
    made.rename(left)
    (left / "part").write_text("half")
    assert landing(tmp_path).made("table", lambda path: path.mkdir()) == made
    assert not left.exists() and list(made.iterdir()) == []


def test_it_is_the_owners_alone(tmp_path: Path) -> None:
    landing(tmp_path).bytes("md5-1", lambda: b"x")
    assert stat.S_IMODE((tmp_path / "landed" / "tcia_catalog").stat().st_mode) == 0o700


def test_beyond_the_limit_the_least_used_goes_and_folders_stay(tmp_path: Path) -> None:
    kept = landing(tmp_path, landed_bytes=250)
    folder = kept.made("table", lambda path: path.mkdir())
    first, second = (kept.made(name, lambda path: path.write_bytes(b"x" * 100)) for name in ("a", "b"))
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    kept.bytes("a", lambda: b"")  # used again
    kept.made("c", lambda path: path.write_bytes(b"x" * 100))
    assert folder.exists() and first.exists() and not second.exists()


def test_what_nobody_asked_for_since_the_last_listing_is_evicted_with_folders_and_what_a_kill_left(
    tmp_path: Path,
) -> None:
    kept, day = landing(tmp_path), timedelta(days=1)
    now = datetime.now(UTC)
    table, group = (kept.made(name, lambda path: path.mkdir()) for name in ("table", "group"))
    for folder in (table, group):
        (folder / "rows").write_bytes(b"x" * 100)
    file, kept_file = (kept.made(name, lambda path: path.write_bytes(b"x" * 7)) for name in ("a", "b"))
    left = table.with_name(f".{table.name}.0123")
    left.mkdir()
    in_work = group.with_name(f".{group.name}.0123")
    in_work.mkdir()
    for path in (table, group, file, left, in_work):
        os.utime(path, ((now - 40 * day).timestamp(),) * 2)
    assert kept.evict(now) == 0, "never listed: nobody knows what is of the present release"
    kept.listed(now - 2 * day)
    assert kept.evict(now - 41 * day) == 0
    kept.made("group", lambda path: path.mkdir())  # the present release asks for it
    with FileLock(group.with_suffix(".lock")):
        assert kept.evict(now - 30 * day) == 107
    assert group.exists() and kept_file.exists() and in_work.exists()
    assert not (table.exists() or file.exists() or left.exists())
    assert kept.evict(now + day) == 0, "what was asked for since the listing stays"
    assert kept.made("table", lambda path: path.mkdir()).exists()


def test_many_small_files_are_not_walked_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[Path] = []
    glob = Path.glob

    def counted(path: Path, pattern: str) -> Iterator[Path]:
        walks.append(path)
        return glob(path, pattern)

    kept = landing(tmp_path, landed_bytes=10_000)
    monkeypatch.setattr(Path, "glob", counted)
    for number in range(200):
        kept.bytes(str(number), lambda: b"x")
    assert walks.count(tmp_path / "landed" / "tcia_catalog") <= 3


def test_what_another_process_made_room_of_is_read_again(tmp_path: Path) -> None:
    kept = landing(tmp_path)
    made = kept.made

    def gone(name: str, make: Callable[[Path], None]) -> Path:
        path = made(name, make)
        path.unlink()
        return path

    kept.made = gone  # type: ignore[method-assign]
    assert kept.bytes("md5-1", lambda: b"content") == b"content"


def test_what_a_power_cut_left_a_part_of_is_read_again(tmp_path: Path) -> None:
    kept, is_right = landing(tmp_path), lambda data: data == b"content"
    kept.made("md5-1", lambda path: path.write_bytes(b"con"))
    for _ in range(2):
        assert kept.bytes("md5-1", lambda: b"content", is_right) == b"content"
    assert kept.made("md5-1", lambda _: pytest.fail("it is there")).read_bytes() == b"content"


# ---------------------------------------------------------------- what is read to be digested


class Bucket(ObjectStore):
    """A folder that is read as a bucket is. `midway` is called after the first piece of an object."""

    def __init__(self, root: Path, midway: Callable[[], object] = lambda: None) -> None:
        super().__init__(str(root))
        self.folder, self.midway, self.reads = None, midway, list[str]()

    def digest_and_head(
        self, key: str, head_bytes: int = 0, write: Callable[[bytes], object] | None = None
    ) -> tuple[str, bytes]:
        self.reads.append(key)

        def halting(piece: bytes) -> None:
            assert write is not None
            write(piece[:1])
            self.midway()
            write(piece[1:])

        return super().digest_and_head(key, head_bytes, halting if write else None)


def put(root: Path, key: str, data: bytes) -> str:
    """The name that stages keep an object by."""
    root.mkdir(exist_ok=True)
    (root / key).write_bytes(data)
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "landed" / "tcia_catalog").glob("??/*"))


def unread() -> bytes:
    pytest.fail("fetched again")


def test_what_crossed_the_web_to_be_digested_is_kept_by_its_digest(tmp_path: Path) -> None:
    name = put(tmp_path / "in", "a", b"content")
    read = Bucket(tmp_path / "in")
    assert landing(tmp_path).digest_and_head(read, "a", 7, 3) == (name.partition("-")[2], b"con")
    assert landing(tmp_path).bytes(name, unread) == b"content" and len(entries(tmp_path)) == 1


def test_what_lies_in_a_folder_is_not_copied(tmp_path: Path) -> None:
    name = put(tmp_path / "in", "a", b"content")
    assert landing(tmp_path).digest_and_head(ObjectStore(str(tmp_path / "in")), "a", 7)[0] == name.partition("-")[2]
    assert entries(tmp_path) == []


def test_a_process_killed_in_reading_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    name = put(tmp_path / "in", "a", b"content")
    child = os.fork()
    if child == 0:
        killed = Bucket(tmp_path / "in", lambda: os.kill(os.getpid(), signal.SIGKILL))
        landing(tmp_path).digest_and_head(killed, "a", 7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(entries(tmp_path)) == 2, "its lock and a draft"
    landing(tmp_path).digest_and_head(Bucket(tmp_path / "in"), "a", 7)
    assert len(entries(tmp_path)) == 1
    assert landing(tmp_path).bytes(name, unread) == b"content"


def test_of_two_at_once_each_has_its_answer_and_one_entry_is_kept(tmp_path: Path) -> None:
    name = put(tmp_path / "in", "a", b"content")
    answers = []
    first = Bucket(
        tmp_path / "in",
        lambda: answers.append(landing(tmp_path).digest_and_head(Bucket(tmp_path / "in"), "a", 7, 3)),
    )
    assert landing(tmp_path).digest_and_head(first, "a", 7, 3) == answers[0] == (name.partition("-")[2], b"con")
    assert landing(tmp_path).bytes(name, unread) == b"content" and len(entries(tmp_path)) == 1


def test_a_listing_keeps_no_more_than_fits_and_no_object_that_stages_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OBJECT_BYTES", 150)
    sizes = {"large": 200, "a": 100, "b": 100, "c": 100}
    names = {key: put(tmp_path / "in", key, key.encode() * (size // len(key))) for key, size in sizes.items()}
    kept, bucket = landing(tmp_path, landed_bytes=250), Bucket(tmp_path / "in")
    for key, size in sizes.items():
        assert kept.digest_and_head(bucket, key, size)[0] == names[key].partition("-")[2]
    assert bucket.reads == list(sizes) and len(entries(tmp_path)) == 2
    assert [len(kept.bytes(names[key], unread)) for key in "ab"] == [100, 100]


@contextmanager
def nowhere_to_write(tmp_path: Path) -> Iterator[None]:
    """No folder can be where the landing should be."""
    (tmp_path / "landed").write_bytes(b"")
    yield


@contextmanager
def full_disk(tmp_path: Path) -> Iterator[None]:
    """No file gets longer than four bytes: what writes more is told so by the system, as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("trouble", [nowhere_to_write, full_disk])
def test_what_cannot_be_kept_fails_no_reading_and_is_told_once(
    trouble: Callable[[Path], AbstractContextManager[None]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {key: put(tmp_path / "in", key, f"content {key}".encode()) for key in "ab"}
    kept, bucket, fetched = landing(tmp_path), Bucket(tmp_path / "in"), list[str]()

    def fetch(key: str) -> bytes:
        fetched.append(key)
        return f"content {key}".encode()

    with caplog.at_level(logging.WARNING), trouble(tmp_path):
        digests = [kept.digest_and_head(bucket, key, 9)[0] for key in "ab"]
        contents = [landing(tmp_path).bytes(names[key], partial(fetch, key)) for key in "ab"]
    assert digests == [name.partition("-")[2] for name in names.values()]
    assert contents == [b"content a", b"content b"] and fetched == ["a", "b"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and not any("content" in one for one in told), "one of each landing, which is three"
    assert tmp_path.joinpath("landed").is_file() or entries(tmp_path) == []


def test_who_keeps_nothing_finds_what_is_there_and_adds_nothing(tmp_path: Path) -> None:
    name = put(tmp_path / "in", "a", b"content")
    reader = Landing(Settings(home=tmp_path), "tcia_catalog", keeps=False)
    assert reader.bytes(name, lambda: b"content") == b"content"
    reader.digest_and_head(Bucket(tmp_path / "in"), "a", 7)
    assert not (tmp_path / "landed").exists()
    landing(tmp_path).bytes(name, lambda: b"content")
    assert reader.bytes(name, unread) == b"content"
