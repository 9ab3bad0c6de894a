"""What the files of a table's log say, one by one.

Belongs here: reading `_delta_log`. Does not belong here: whatever deltalake can be asked instead.

deltalake's history numbers commits by counting back from the version it opened, and counts in what others have committed
since: beside a writer every number may be too low. The name of a log's file is never wrong.
"""

from __future__ import annotations

import json
from typing import Any

from resources.errors import ObjectRejected
from resources.object_store import ObjectStore

_MAX_BYTES = 1 << 30  # a commit that replaces a table of thousands of files is some megabytes


def commit_info(table_uri: str, version: int) -> dict[str, Any] | None:
    """What the commit of `version` says of itself; None if the log does not tell of it any more."""
    try:
        entry = ObjectStore(table_uri).get(f"_delta_log/{version:020d}.json", _MAX_BYTES)
    except ObjectRejected:
        return None
    actions = (json.loads(line) for line in entry.splitlines() if b'"commitInfo"' in line)
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def last_checkpoint(table_uri: str) -> int:
    """The version of the newest checkpoint; -1 if there is none yet."""
    try:
        found = ObjectStore(table_uri).get("_delta_log/_last_checkpoint", _MAX_BYTES)
    except ObjectRejected:
        return -1
    return int(json.loads(found)["version"])
