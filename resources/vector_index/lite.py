"""Milvus Lite as one server process per folder, shared by every process and thread that uses it.

Belongs here: starting, adopting, sharing and stopping the server. Does not belong here: talking to it (milvus),
what runs inside it (lite_process).

Files in the folder: `data/` (Milvus Lite's own), `server.log` and the one before it, `server.json` (pid, creation
time, port), `start.lock` (held while somebody comes or goes), `users.lock` (each using process holds it shared).
The kernel drops a killed process's locks, so `users.lock` is true after kill -9 too: who gets it alone is the last.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from resources import child_process
from resources.errors import ConfigError, IndexUnavailable

START_SECONDS = 90.0  # 4 s measured; a cold disk and a long write-ahead log take longer
STOP_SECONDS = 30.0  # a flush of 128 MB of rows held in memory
_POLL_SECONDS = 0.05
_PROGRAM = "resources.vector_index.lite_process"


@dataclass(frozen=True)
class LiteServer:
    """A running server: where it is and which process it is."""

    folder: Path
    pid: int
    create_time: float
    port: int

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_alive(self) -> bool:
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The server's process; None if it ended, or if the pid is some other process by now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 1 and str(self.folder) in process.cmdline()
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class _Share:
    """This process's one use of a folder's server, whatever the number of its threads."""

    server: LiteServer
    users_fd: int
    threads: int = 0


_shares: dict[Path, _Share] = {}
_guard = threading.RLock()


@contextmanager
def lite_server(folder: Path) -> Iterator[LiteServer]:
    """The server of `folder`, started if none runs, adopted if one does; stopped when its last user leaves.

    Raises IndexUnavailable if it does not come up (with the end of its log), ConfigError if `folder` is a file.
    """
    folder = folder.expanduser().absolute()
    with _guard:
        share = _shares.get(folder)
        if share is None:
            share = _shares[folder] = _enter(folder)
        elif not share.server.is_alive():
            with _start_lock(folder):
                share.server = _running(folder) or _start(folder)
        share.threads += 1
        server = share.server
    try:
        yield server
    finally:
        with _guard:
            share.threads -= 1
            if share.threads == 0 and _shares.get(folder) is share:
                del _shares[folder]
                _leave(share)


def _enter(folder: Path) -> _Share:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"the index folder {folder} is a file", remedy="set MEDVEC_INDEX_URI to a folder or http(s)://"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    users_fd = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with _start_lock(folder):
            fcntl.flock(users_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # only ever held alone under the start lock
            return _Share(_running(folder) or _start(folder), users_fd)
    except BaseException:
        os.close(users_fd)
        raise


def _leave(share: _Share) -> None:
    folder = share.server.folder
    try:
        with _start_lock(folder):
            try:
                fcntl.flock(share.users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # others use it
                return
            current = _running(folder)
            if current is not None:
                _stop(current)
    finally:
        os.close(share.users_fd)


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "start.lock", timeout=START_SECONDS + STOP_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise IndexUnavailable(
            f"another process has been starting or stopping the index in {folder} for too long",
            remedy=f"see {folder / 'server.log'}; end the process that holds {folder / 'start.lock'}",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _running(folder: Path) -> LiteServer | None:
    """The server that `server.json` names, if that process lives and is ours."""
    try:
        state = json.loads((folder / "server.json").read_text())
        server = LiteServer(folder, int(state["pid"]), float(state["create_time"]), int(state["port"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if server.is_alive() else None


def _start(folder: Path) -> LiteServer:
    log = folder / "server.log"
    if log.exists():
        log.replace(folder / "server.log.1")  # the run before stays readable, and no log grows for ever
    with log.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=folder,
            env=child_process.environment(),
            start_new_session=True,  # Ctrl-C in the terminal must not end the server in the middle of a write
        )
    threading.Thread(target=child.wait, daemon=True).start()  # collects the exit status: no zombie
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        server = _running(folder)
        if server is not None and server.pid == child.pid:
            return server
        if child.poll() is not None:
            break
        time.sleep(_POLL_SECONDS)
    child.kill()
    raise _not_started(folder, log)


def _not_started(folder: Path, log: Path) -> IndexUnavailable:
    text = log.read_text(errors="replace")
    if "DataDirLockedError" in text:
        return IndexUnavailable(
            f"the index folder {folder / 'data'} is locked by a process that medvec did not start",
            remedy="close the other Milvus Lite client (see `fuser` on its LOCK file), then try again",
        )
    tail = "\n".join(text.splitlines()[-8:])
    return IndexUnavailable(
        f"the Milvus Lite server in {folder} did not start within {START_SECONDS:.0f} s; its log ends:\n{tail}",
        remedy=f"see {log}; check free disk and memory, then try again",
    )


def _stop(server: LiteServer) -> None:
    process = server.process()
    if process is None:
        return
    try:
        process.terminate()
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()  # acknowledged rows are in the write-ahead log
        process.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        return


def _forget_after_fork() -> None:
    """A forked child uses its parent's server only through servers it opens itself; it must not stop the parent's."""
    global _guard
    _guard = threading.RLock()
    for share in _shares.values():
        os.close(share.users_fd)
    _shares.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
