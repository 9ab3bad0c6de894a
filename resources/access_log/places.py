"""The files of writers on this machine: HOME/access/<writer>/, one folder a process.

    00000000.jsonl  the segments, append-only; one that is sealed is gone from here
    head            the newest event's number and hash, so that a cut tail is told
    lock            held by the writer while it lives: the kernel lets go of it however the process ends

Belongs here: names, locks, the head record. Does not belong here: lines (events), who writes them (writer).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from resources.access_log.keys import Keys
from resources.settings import Settings

_WRITER = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
_SEGMENT = re.compile(r"(\d{8})\.jsonl")
HEAD, LOCK = "head", "lock"
HEAD_BYTES = 256  # of one size, so that it is overwritten in one write within one sector


@dataclass(frozen=True)
class Head:
    """The newest event that was written, or why that is not known (`fault`)."""

    sequence: int = -1
    hash: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Place:
    """The folder of all writers of one machine (or volume)."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings) -> Place:
        return cls(settings.home / "access")

    @property
    def id(self) -> str:
        """Tells places of one lake apart, without telling a host's name or a path."""
        return hashlib.sha256(f"{socket.gethostname()}\n{self.folder}".encode()).hexdigest()[:16]

    def new_writer(self) -> str:
        """A writer's name, and its folder."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / name).mkdir(mode=0o700)
        return name

    def writers(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(one.name for one in self.folder.iterdir() if _WRITER.fullmatch(one.name))

    def segments(self, writer: str) -> dict[int, Path]:
        """The segment files that are here, by number."""
        folder = self.folder / writer
        if not folder.is_dir():
            return {}
        found = ((_SEGMENT.fullmatch(one.name), one) for one in folder.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def data(self, writer: str) -> dict[int, bytes]:
        """The bytes of the segments that are here; one that is sealed meanwhile is not."""
        found = {}
        for number, path in self.segments(writer).items():
            with suppress(FileNotFoundError):
                found[number] = path.read_bytes()
        return found

    def segment(self, writer: str, number: int) -> Path:
        return self.folder / writer / f"{number:08d}.jsonl"

    @contextmanager
    def held(self, writer: str, wait: bool = False) -> Iterator[bool]:
        """The writer's lock; False while another process has it: the writer lives, or is being sealed."""
        with (self.folder / writer / LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def lives(self, writer: str) -> bool:
        """Whether somebody holds the writer's lock. Needs no right to write."""
        try:
            with (self.folder / writer / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def head(self, writer: str, keys: Keys) -> Head:
        try:
            record = (self.folder / writer / HEAD).read_bytes().rstrip(b" \n")
            told = json.loads(record)
            body = _head_body(writer, told["sequence"], told["hash"])
        except FileNotFoundError:
            return Head(fault="is missing")
        except (ValueError, KeyError, TypeError):
            return Head(fault="cannot be read")
        if told.get("link") != keys.link(body):
            return Head(fault="was changed")
        return Head(told["sequence"], told["hash"])


def head_record(writer: str, sequence: int, link: str, keys: Keys) -> bytes:
    body = _head_body(writer, sequence, link)
    record = {"sequence": sequence, "hash": link, "link": keys.link(body)}
    return json.dumps(record, separators=(",", ":")).encode().ljust(HEAD_BYTES - 1) + b"\n"


def _head_body(writer: str, sequence: int, link: str) -> bytes:
    return f"head {writer} {sequence} {link}".encode()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a file's own sync does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
