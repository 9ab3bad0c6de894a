"""What the files of a table's log say, one by one.

Belongs here: reading `_delta_log`. Does not belong here: whatever deltalake can be asked instead.

deltalake's history numbers commits by counting back from the version it opened, and counts in what others have committed
since: beside a writer every number may be too low. The name of a log's file is never wrong.
"""

from __future__ import annotations

import json
import os
from typing import Any

from resources.errors import ObjectRejected
from resources.object_store import ObjectStore

_MAX_BYTES = 1 << 30  # a commit that replaces a table of thousands of files is some megabytes

Entry = tuple[object, ...]
"""What tells a log's file from another of the same name: of a table that was deleted and made again."""


def newest_entry(root: ObjectStore, table_path: str, version: int) -> Entry | None:
    """What made `version`, if no commit came after it: then there is no entry of the next number, as Delta's protocol
    has them without gaps. None if one did.

    It is asked instead of opening a table, which lists its log and reads what follows its checkpoint. On S3 it is one
    request, a listing from this entry on.
    """
    made, following = (f"{table_path}/_delta_log/{number:020d}.json" for number in (version, version + 1))
    if root.folder is not None:
        return _newest_file(f"{root.folder}/{made}", f"{root.folder}/{following}")
    entry: Entry | None = None
    for found in root.list(f"{table_path}/_delta_log", after=made.removesuffix(".json")):
        if found.key == following:
            return None
        if found.key == made:
            entry = (found.etag, found.modified, found.size_bytes)
    return entry


def _newest_file(made: str, following: str) -> Entry | None:
    try:
        facts = os.stat(made)  # noqa: PTH116 - a query asks for five tables, and pathlib takes as long again
    except OSError:
        return None
    is_newest = not os.path.exists(following)  # noqa: PTH110 - the same
    return (facts.st_ino, facts.st_mtime_ns, facts.st_size) if is_newest else None


def is_absent(root: ObjectStore, table_path: str) -> bool:
    """Whether a folder has no log of the table, hence no table: what opening it would find out in three times as long at
    the least. False where only opening tells, as in a bucket, or where the folder cannot be looked into."""
    if root.folder is None:
        return False
    try:
        os.stat(f"{root.folder}/{table_path}/_delta_log")  # noqa: PTH116 - as above
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


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
