"""Processes of our own program: what they get of the environment, and what they are denied.

Belongs here: what all of them share. Does not belong here: starting, asking and ending one (whoever needs it).
"""

from __future__ import annotations

import os
from pathlib import Path

WITHHELD = ("MEDVEC_", "AWS_", "AZURE_", "GOOGLE_")  # variables that hold keys and tokens


def environment() -> dict[str, str]:
    """This process' variables but WITHHELD; the path finds a medvec that is a checkout and not installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(WITHHELD)}
    path = [str(Path(__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


def deny_files() -> None:
    """From now on this process writes no file and leaves no core, even by a defect: what it holds are identifiers."""
    import resource
    import tempfile

    tempfile.gettempdir()  # libraries ask for it as they are loaded, and to find it Python writes a file
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
