"""What every real server of the tests has in common: a folder, a loopback port, a start that waits, a certain end.

Belongs here: processes and readiness. Does not belong here: any one server's command line, pytest.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from .keeper import NO_NAMESPACE

KEEPER = Path(__file__).with_name("keeper.py")
POLL_SECONDS = 0.1
LOG_TAIL_BYTES = 2_000


class ServerFailed(RuntimeError):
    """A server is not installed, did not come up or went away; the message ends with what to do."""


class Server(ABC):
    """One server on 127.0.0.1:`port`. The port is its own and stays the same over restarts; so does its data.

    `with Milvus() as milvus:` starts it and removes it; in between it may be stopped, killed and started again.
    It also ends, and its folder goes, when the process that made it ends in any way.
    """

    name: ClassVar[str]
    inner_port: int  # where it listens in its own network
    start_seconds: ClassVar[float] = 60.0
    stop_signal: ClassVar[int] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 10.0  # then SIGKILL
    user: ClassVar[str | None] = None  # runs as this user where we are root

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"medvec-{self.name}-"))
        self.log = self.folder / "server.log"
        self.pid = 0
        self._keeper: subprocess.Popen[bytes] | None = None
        # Bound and not listening: nobody else is given this port, and while the server is down it refuses.
        self._reserved = _loopback_socket(0)
        self.port: int = self._reserved.getsockname()[1]
        self._prepared = False

    # -- what a server must say

    @abstractmethod
    def command(self) -> list[str]:
        """The server's command line; it runs in `folder`."""

    @abstractmethod
    def ask(self) -> None:
        """A request that needs the whole server; raises whatever it raises until the server is ready."""

    @abstractmethod
    def prepare(self) -> None:
        """Files and data before the first start."""

    def variables(self) -> dict[str, str]:
        """Environment variables of the server, beside PATH, HOME and LANG."""
        return {}

    def litter(self) -> list[Path]:
        """Files outside `folder` that it leaves behind when it is killed; `{pid}` stands for its process."""
        return []

    def reach(self) -> list[int]:
        """Ports of the machine's loopback that the server itself connects to."""
        return []

    # -- what can be done with it

    def start(self) -> Self:
        """Starts it on its data and returns when it answers. ServerFailed with the end of its log if it does not."""
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self._launch()
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends it as its operator would; the data stay."""
        self._end(b"keep")

    def kill(self) -> None:
        """kill -9; the data stay."""
        self._end(b"kill")

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def close(self) -> None:
        """Ends it at once and for good, and removes its folder."""
        self.kill()
        self._reserved.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- how

    def _launch(self) -> None:
        listener = _loopback_socket(self.port)
        listener.listen(128)
        keep = ["--folder", self.folder, "--listen-fd", listener.fileno(), "--port", self.inner_port]
        keep += ["--stop-signal", int(self.stop_signal), "--patience", self.stop_seconds]
        keep += ["--user", self.user] if self.user and os.geteuid() == 0 else []
        keep += [word for port in self.reach() for word in ("--reach", port)]
        keep += [word for path in self.litter() for word in ("--litter", path)]
        base = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LANG": "C.UTF-8"}
        with listener, self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", KEEPER, *map(str, keep), "--", *self.command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=base | self.variables(),
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C reaches pytest, which stops the servers in order
            )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline() or 0)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while True:
            assert self._keeper is not None
            code = self._keeper.poll()
            if code is not None:
                raise self._failed(f"ended with status {code}", code)
            try:
                return self.ask()
            except Exception as error:  # noqa: BLE001 until it is up, a client may say anything
                last = error
            if time.monotonic() > deadline:
                said = f"{type(last).__name__}: {last}"
                raise self._failed(f"did not answer in {self.start_seconds:.0f} s ({said})") from last
            time.sleep(POLL_SECONDS)

    def _failed(self, what: str, code: int = 0) -> ServerFailed:
        if code == NO_NAMESPACE:
            remedy = "it needs a network namespace: as root CAP_SYS_ADMIN (docker run --privileged), otherwise kernel."
            return ServerFailed(f"{self.name} was not started; {remedy}unprivileged_userns_clone=1")
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return ServerFailed(f"{self.name} {what}. `make servers` installs it anew. Its log ends:\n{tail}")

    def _end(self, word: bytes) -> None:
        if self._keeper is None:
            return
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):  # it ended by itself; stuck: killed below
            self._keeper.communicate(word, timeout=self.stop_seconds + 20)
        self._keeper.kill()
        self._keeper.wait()
        self._keeper, self.pid = None, 0


def _loopback_socket(port: int) -> socket.socket:
    """Bound to 127.0.0.1:port beside others of this user; 0 finds a port that nobody has."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


def call(*command: Any, user: str | None = None) -> None:
    """Runs a tool to its end; ServerFailed with what it said if it fails."""
    who = {"user": user, "group": user, "extra_groups": []} if user and os.geteuid() == 0 else {}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd="/", check=False, **who)
    if done.returncode:
        raise ServerFailed(f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout)[-LOG_TAIL_BYTES:]}")
