"""`medvec serve`: the Dagster UI and daemon and the REST service as child processes, ended together.

Belongs here: starting, watching and stopping them. Does not belong here: what they do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

from medvec_assets.runner import dagster_home
from resources.settings import Settings
from resources.vector_index import open_index

STOP_SECONDS = 20  # a run in progress gets this long to finish its step before it is killed; it converges anyway


def serve(settings: Settings) -> int:
    """Run until Ctrl-C or SIGTERM, or until one of the services ends by itself; the exit code."""
    environment = os.environ | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "MEDVEC_HOME": str(settings.home),
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "50"),
    }
    commands = {
        "Dagster UI": [
            *(sys.executable, "-m", "dagster", "dev", "-m", "medvec_assets.definitions"),
            *("-h", "127.0.0.1", "-p", str(settings.dagster_port)),
        ],
        "query service": [sys.executable, "-m", "api"],
    }
    with ExitStack() as stack:
        stack.enter_context(open_index(settings))  # one embedded index server for all of them, as long as this lives
        children = {name: stack.enter_context(_child(command, environment)) for name, command in commands.items()}
        print(f"Dagster UI     http://127.0.0.1:{settings.dagster_port}", file=sys.stderr)
        print(f"query service  http://{settings.api_host}:{settings.api_port}/v1/datasets", file=sys.stderr)
        print(f"API key        {settings.home / 'keys' / 'api.key'}", file=sys.stderr)
        return _wait(children)


class _child:
    """A child in its own process group, ended with everything it started."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, environment

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(self._command, env=self._environment, start_new_session=True)
        return self._process

    def __exit__(self, *_: object) -> None:
        for stop in (signal.SIGINT, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            os.killpg(self._process.pid, stop)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def _wait(children: dict[str, subprocess.Popen[bytes]]) -> int:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            for name, process in children.items():
                if (code := process.poll()) is not None:
                    print(f"medvec: the {name} ended with code {code}; its last lines say why", file=sys.stderr)
                    return 1
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
