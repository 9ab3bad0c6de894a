"""`medvec serve`: the Dagster UI and daemon and the REST service as child processes, ended together.

Belongs here: starting, watching and stopping them. Does not belong here: what they do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from medvec_assets.runner import dagster_home, settle_runs
from resources.errors import ConfigError
from resources.settings import Settings
from resources.vector_index import open_index

STOP_SECONDS = 20  # a run in progress gets this long to finish its step before it is killed; it converges anyway
DAGSTER_HOST = "127.0.0.1"
Children = Mapping[str, subprocess.Popen[bytes]]


def serve(settings: Settings) -> int:
    """Run until Ctrl-C or SIGTERM, or until one of the services ends by itself; the exit code.

    Raises ConfigError if a port is taken.
    """
    _require_free(DAGSTER_HOST, settings.dagster_port, "MEDVEC_DAGSTER_PORT")
    _require_free(settings.api_host, settings.api_port, "MEDVEC_API_PORT")
    settle_runs(settings)
    environment = os.environ | {"DAGSTER_HOME": str(dagster_home(settings)), "MEDVEC_HOME": str(settings.home)}
    environment.setdefault("DAGSTER_EVENT_BATCH_SIZE", "50")  # fewer commits (ADR 0004)
    commands = {
        "Dagster UI": [
            *(sys.executable, "-m", "dagster", "dev", "-m", "medvec_assets.definitions"),
            *("-h", DAGSTER_HOST, "-p", str(settings.dagster_port)),
        ],
        "query service": [sys.executable, "-m", "api"],
    }
    # Both end as Ctrl-C does. Said for SIGINT too: a shell's background job inherits that it is ignored, and would hand
    # that on to the children.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        # One embedded index server for all of them, as long as this lives.
        with open_index(settings), _started(commands, environment) as children:
            print(f"Dagster UI     http://{DAGSTER_HOST}:{settings.dagster_port}", file=sys.stderr)
            scheme = "https" if settings.api_tls_cert else "http"
            print(f"query service  {scheme}://{settings.api_host}:{settings.api_port}/", file=sys.stderr)
            key = settings.home / "keys" / "api.key" if settings.api_is_local else "of `medvec keys create`"
            print(f"API key        {key}", file=sys.stderr)
            return _wait(children)
    except KeyboardInterrupt:
        return 0


def _require_free(host: str, port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} on {host} cannot be used ({error.strerror})",
                remedy=f"end the program that listens there (another `medvec serve`?), or set {setting} to another port",
            ) from None


@contextmanager
def _started(commands: Mapping[str, list[str]], environment: Mapping[str, str]) -> Iterator[Children]:
    """The commands as children, each in a process group of its own, ended together with all that they started."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            children[name] = subprocess.Popen(command, env=environment, start_new_session=True)
        yield children
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them running
        _stop(children)


def _stop(children: Children) -> None:
    for process in children.values():
        _signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in children.values():
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    for process in children.values():
        _signal_group(process, signal.SIGKILL)  # also what a child that ended by itself left in its group
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # nobody of the group is left


def _wait(children: Children) -> int:
    while True:
        for name, process in children.items():
            if (code := process.poll()) is not None:
                print(f"medvec: the {name} ended with code {code}; its last lines say why", file=sys.stderr)
                return 1
        time.sleep(0.5)
