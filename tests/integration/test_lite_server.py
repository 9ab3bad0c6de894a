"""One Milvus Lite server per folder: shared, adopted, stopped by the last; with real processes and kill -9."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from resources.errors import ConfigError, IndexUnavailable
from resources.vector_index import LiteServer, lite, lite_server

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
USER = """
import sys
from pathlib import Path
from resources.vector_index import lite_server
with lite_server(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    sys.stdin.readline()
"""
Start = Callable[[Path], tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts another process that uses the folder's server until it reads a line; answers it and the server's pid."""
    users: list[subprocess.Popen[str]] = []

    def run(folder: Path) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", USER, str(folder)]
        user = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        users.append(user)
        assert user.stdout is not None
        return user, int(user.stdout.readline())

    yield run
    for user in users:
        user.kill()
        user.wait(WAIT_SECONDS)


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate("\n", timeout=WAIT_SECONDS)
    assert user.returncode == 0


def test_nested_uses_and_threads_share_one_server_and_the_last_stops_it(tmp_path: Path) -> None:
    def use(_: int) -> int:
        with lite_server(tmp_path / "index") as server:
            return server.pid

    with lite_server(tmp_path / "index") as outer:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(use, range(8))) == {outer.pid}
        assert outer.is_alive()
        sockets = psutil.Process(outer.pid).net_connections()
        assert {socket.laddr.ip.rpartition(":")[2] for socket in sockets if socket.status == "LISTEN"} == {"127.0.0.1"}
        assert os.getsid(outer.pid) != os.getsid(0)  # Ctrl-C in our terminal does not reach it
        assert (tmp_path / "index").stat().st_mode & 0o077 == 0
    assert not outer.is_alive()


def test_two_processes_share_one_server_and_the_last_to_leave_stops_it(tmp_path: Path, start: Start) -> None:
    first, server_pid = start(tmp_path)
    second, same_pid = start(tmp_path)
    assert same_pid == server_pid
    leave(first)
    assert psutil.pid_exists(server_pid)
    with lite_server(tmp_path) as server:
        assert server.pid == server_pid
    leave(second)
    assert not server.is_alive()


def test_a_killed_user_does_not_keep_the_server_from_being_stopped(tmp_path: Path, start: Start) -> None:
    killed, server_pid = start(tmp_path)
    other, _ = start(tmp_path)
    killed.kill()
    killed.wait(WAIT_SECONDS)
    leave(other)
    assert not psutil.pid_exists(server_pid)


def test_the_server_of_a_killed_user_is_adopted_and_stopped_by_the_next(tmp_path: Path, start: Start) -> None:
    killed, server_pid = start(tmp_path)
    killed.kill()
    killed.wait(WAIT_SECONDS)
    assert psutil.pid_exists(server_pid)
    with lite_server(tmp_path) as server:
        assert server.pid == server_pid
    assert not server.is_alive()


def test_a_server_that_nobody_uses_any_more_ends_by_itself(tmp_path: Path) -> None:
    program = (
        "import resources.vector_index.lite_process as p, sys, pathlib; p.ORPHAN_SECONDS = p._WATCH_SECONDS = 0.2;"
    )
    program += "p.serve(pathlib.Path(sys.argv[1]))"
    server = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    assert server.wait(WAIT_SECONDS) == 0
    assert (tmp_path / "server.json").exists()  # it did serve


def test_a_killed_server_is_replaced_also_while_others_use_the_folder(tmp_path: Path, start: Start) -> None:
    user, server_pid = start(tmp_path)
    with lite_server(tmp_path) as first:
        os.kill(server_pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(server_pid)] if psutil.pid_exists(server_pid) else [], WAIT_SECONDS)
        with lite_server(tmp_path) as second:
            assert second.pid != first.pid
            assert second.is_alive()
        leave(user)
        assert second.is_alive()
    assert not second.is_alive()


def test_a_pid_that_is_another_process_by_now_is_neither_trusted_nor_killed(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        created = psutil.Process(bystander.pid).create_time()
        state = {"pid": bystander.pid, "create_time": created, "port": 1}
        (tmp_path / "server.json").write_text(json.dumps(state))
        assert not LiteServer(tmp_path, **state).is_alive()
        with lite_server(tmp_path) as server:
            assert server.pid != bystander.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(WAIT_SECONDS)


def test_a_broken_state_file_is_as_none(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"pid": 1}', '{"pid": null, "create_time": 0, "port": 0}'):
        (tmp_path / "server.json").write_text(content)
        assert lite._running(tmp_path) is None


def test_secrets_of_the_environment_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVEC_INDEX_TOKEN", "geheim")
    with lite_server(tmp_path) as server:
        assert "MEDVEC_INDEX_TOKEN" not in psutil.Process(server.pid).environ()


def test_a_folder_that_somebody_else_has_open_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "LOCK").open("w") as foreign:
        fcntl.flock(foreign, fcntl.LOCK_EX)
        with pytest.raises(IndexUnavailable, match="locked by a process that medvec did not start") as error:
            ExitStack().enter_context(lite_server(tmp_path))
    assert "close the other" in error.value.remedy
    with lite_server(tmp_path) as server:  # and the failure left no lock behind
        assert server.is_alive()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(IndexUnavailable, match=r"did not start.*FileExistsError|FileExistsError"):
        ExitStack().enter_context(lite_server(tmp_path))


def test_a_file_as_index_folder_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "index.db").touch()
    with pytest.raises(ConfigError, match="is a file"):
        ExitStack().enter_context(lite_server(tmp_path / "index.db"))


def test_a_forked_child_does_not_stop_its_parents_server(tmp_path: Path) -> None:
    with lite_server(tmp_path) as server:
        child = os.fork()
        if child == 0:
            with lite_server(tmp_path) as again:
                os._exit(0 if again.pid == server.pid else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert server.is_alive()
