"""Kill -9 of the real service under load: every request that was answered has its event.

MEDVEC_KILLS says how many times (4); 50 of them were run by hand for the access log's acceptance.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resources.access_log import Keys
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.access_log.sealing import archive
from resources.access_log.verifying import verify
from resources.settings import Settings

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("MEDVEC_KILLS", "4"))
CLIENTS = 4
WAIT_SECONDS = 120.0
# Answers and refusals; none of them needs an index.
ASKED = (("/v1/datasets", True), ("/v1/datasets", False), (f"/v1/lineage/{'0' * 32}", True), ("/nowhere", True))


# Imports the service once and then forks one for each line it is sent: a start takes 0.1 s, not seconds.
NURSERY = """
import os, sys
import uvicorn
from api.server import serve
from resources.settings import Settings
settings = Settings()
for line in sys.stdin:
    child = os.fork()
    if not child:
        serve(settings)
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Services:
    """The service as `python -m api` runs it, one after the other."""

    def __init__(self, home: Path, port: int) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")}
        environment |= {"MEDVEC_HOME": str(home), "MEDVEC_API_PORT": str(port)}
        self._log = (home / "service.log").open("ab")
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    def _read(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()

    @contextmanager
    def one(self, ending: signal.Signals) -> Iterator[None]:
        """A service that gets `ending` at the end of the block."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.write("start\n")
        child = int(self._read())
        try:
            yield
        finally:
            os.kill(child, ending)
            assert self._read() == "ended"

    def close(self) -> None:
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait(30)
        self._log.close()


class Load:
    """Clients that ask without a pause, and keep the receipt of every answer they read to its end."""

    def __init__(self, port: int, key: str) -> None:
        self.receipts: list[str] = []
        self.answers = 0
        self._port, self._key = port, key
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop.is_set():
            path, has_key = ASKED[number % len(ASKED)]
            number += 1
            with suppress(OSError, http.client.HTTPException):
                line.request("GET", path, headers={"X-API-Key": self._key if has_key else "wrong"})
                answer = line.getresponse()
                answer.read()
                self.answers += 1
                if answer.status != 503:
                    self.receipts.append(answer.headers["X-Medvec-Event"])
                continue
            line.close()  # it is dead, or not up yet
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(reached: Callable[[], bool], home: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, (home / "service.log").read_text()
        time.sleep(0.005)


def test_every_answered_request_has_its_event(tmp_path: Path) -> None:
    settings, port, dice, key = Settings(home=tmp_path), _free_port(), random.Random(), "k" * 64
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "api.key").write_text(key)
    services, load = Services(tmp_path, port), Load(port, key)
    try:
        for _ in range(KILLS):
            with services.one(signal.SIGKILL):
                enough = load.answers + dice.randint(1, 50)
                _wait(lambda enough=enough: load.answers >= enough, tmp_path)  # type: ignore[misc]
                time.sleep(dice.uniform(0, 0.2))
    finally:
        load.end()
    lake, place, keys = archive(settings), Place.of(settings), Keys.of(settings)
    span = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    there = {f"{one.writer}:{one.sequence}:{one.hash[:16]}" for one in events(lake, place, keys, *span)}
    assert len({one.split(":")[0] for one in load.receipts}) == KILLS
    assert set(load.receipts) - there == set()
    assert verify(lake, place, keys).faults == []

    killed = place.writers()
    with services.one(signal.SIGTERM):  # seals what the killed ones left, and at its end its own
        _wait(lambda: not any(place.segments(one) for one in killed), tmp_path)
    services.close()
    report = verify(lake, place, keys)
    assert report.faults == [] and report.open_segments == 0
    assert (report.writers, len(report.killed)) == (KILLS + 1, KILLS)
    print(f"{KILLS} kills: {len(load.receipts)} receipts, {report.events} events, {len(report.torn)} torn lines")  # noqa: T201
