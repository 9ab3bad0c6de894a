"""The test servers themselves: seen by nobody else, on a port of their own, and gone with whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.services import Postgres, SeaweedFS, ServerFailed

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60
ORPHAN = """
import sys
from tests.services import Postgres
server = Postgres().start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_a_server_is_reached_at_its_own_port_only_and_the_port_outlives_it(postgres: Postgres) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", postgres.inner_port), 5).close()
    with Postgres() as other:
        assert other.port != postgres.port
        url = other.database()
        other.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other.port), 5).close()
        other.start()
        assert other.url(url.rpartition("/")[2]) == url
        folder = other.folder
    assert not folder.exists()


def test_what_listens_is_on_loopback(seaweedfs: SeaweedFS) -> None:
    listening = [
        c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == seaweedfs.port
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_two_s3_servers_at_once_are_two(seaweedfs: SeaweedFS) -> None:
    """They talk within themselves through sockets in /tmp, which at default ports they would share."""
    with SeaweedFS("lake") as other:
        for server in (seaweedfs, other):
            server.client().put_object(Bucket="lake", Key="services/whose", Body=f"{server.port}".encode())
        other.kill()
        other.start()
        for server in (seaweedfs, other):
            answer = server.client().get_object(Bucket="lake", Key="services/whose")
            assert answer["Body"].read() == f"{server.port}".encode()
        sockets = other.litter()
        assert any(path.is_socket() for path in sockets)
    assert not any(path.exists() for path in sockets)


def test_a_server_ends_and_its_folder_goes_when_its_user_is_killed() -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert user.stdout is not None
    pid, folder = user.stdout.readline().split()
    server = psutil.Process(int(pid))
    assert Path(folder).exists()
    os.kill(user.pid, signal.SIGKILL)
    user.communicate()
    server.wait(WAIT_SECONDS)
    deadline = time.monotonic() + WAIT_SECONDS
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()


def test_a_server_that_cannot_start_shows_its_log_and_leaves_nothing() -> None:
    class Broken(Postgres):
        def command(self) -> list[str]:
            return [*super().command(), "-c", "no_such_setting=1"]

    broken = Broken()
    with pytest.raises(ServerFailed, match=r"ended with status(.|\n)*no_such_setting"), broken:
        pass
    assert not broken.folder.exists()
