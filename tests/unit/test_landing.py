"""What was fetched once is kept by its content, complete or not at all, and bounded."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from medvec_assets.connectors.landing import Landing
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
