"""The command line. Every command takes --json: one JSON object on stdout and nothing else.

Belongs here: the way in and out of the process, exit codes (0 fine, 1 the job or a check failed, 2 bad usage or
configuration). Does not belong here: a command (pipeline, ask, keys, tools), what they share (shared).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from medvec_assets.cli import ask, keys, pipeline, tools  # noqa: F401  (each adds its commands to the app)
from medvec_assets.cli.shared import app
from resources.errors import ConfigError, MedvecError, StorageError


def main() -> None:
    """Entry point of the `medvec` script."""
    try:
        _main()
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            _leave(end.code or 0)
        raise
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart: a thread of Arrow's that has just read from a bucket through
    delta-rs may still let go of a Python object, and then the end is now and then a crash, or never comes."""
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):  # `medvec search ... | head -1`
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)  # its lines are in the UI; failures are told by ours
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except MedvecError as error:
        _fail(error, 1)
    except PermissionError as error:
        remedy = "check who owns the folder, or point MEDVEC_HOME at one that can be written"
        _fail(StorageError(f"no permission for {error.filename}", remedy=remedy, code="storage_denied"), 1)


def _fail(error: MedvecError, code: int) -> NoReturn:
    print(f"medvec: {error.message} [{error.code}]\n  What to do: {error.remedy}", file=sys.stderr)
    raise SystemExit(code)
