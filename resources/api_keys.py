"""API keys of the query service: made, rotated and ended here, kept as hashes in the table audit/api_keys.

    medvec_<key id>_<secret>     what a caller sends; shown once, kept nowhere

A table of the lake, not a file of HOME: every worker and replica reads the same lake and has a HOME of its own. Rows are
only appended, and a key's end is the earliest that any of its rows tells: concurrent changes need no lock, and nothing
can bring a revoked key back. A secret is 32 random bytes, which no dictionary holds: SHA-256 is enough, and bcrypt's
slowness would be paid by every request.

Belongs here: what a key is. Does not belong here: what a role may do, or checking a request (api).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

from resources import tables
from resources.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

MAX_DAYS = 730  # no key for ever
MAX_OVERLAP_HOURS = 24 * 30
_SHAPE = re.compile(r"medvec_([0-9a-f]{16})_([0-9a-f]{64})")


class Role(StrEnum):
    READER = "reader"  # asks and follows lineage
    STEWARD = "steward"  # a reader who answers for datasets
    AUDITOR = "auditor"  # reads who asked what; sees no data by it
    ADMIN = "admin"  # all of these
    METRICS = "metrics"  # a scraper


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. `datasets` None: all that the deployment may show. `event` is its latest change."""

    id: str
    owner: str
    roles: frozenset[Role]
    datasets: frozenset[str] | None
    secret_sha256: str
    created_at: datetime
    expires_at: datetime
    event: str = "created"


def roles_named(names: Collection[str]) -> frozenset[Role]:
    """The roles among `names`; a name that is none, such as a later release's, gives nothing."""
    return frozenset(role for role in Role if role in names)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def split(given: str) -> tuple[str, str]:
    """(key id, secret) of what a caller sent; an id that no key has where it is no key's shape."""
    match = _SHAPE.fullmatch(given)
    return (match[1], match[2]) if match else ("", given)


def read_keys(lake: Lakehouse) -> dict[str, ApiKey]:
    """Every key there ever was, by id; ended ones too."""
    snapshot = lake.snapshot(tables.api_keys())
    rows = snapshot.read().sort("recorded_at", maintain_order=True).to_dicts() if snapshot is not None else []
    found: dict[str, ApiKey] = {}
    for row in rows:
        known = found.get(row["key_id"]) or ApiKey(
            id=row["key_id"],
            owner=row["owner"],
            roles=roles_named(row["roles"]),
            datasets=None if row["datasets"] is None else frozenset(row["datasets"]),
            secret_sha256=row["secret_sha256"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )
        ends = min(known.expires_at, row["expires_at"])
        found[known.id] = replace(known, expires_at=ends, event=row["event"])
    return found


def create_key(
    lake: Lakehouse, owner: str, roles: Sequence[Role], datasets: Sequence[str] | None, days: int
) -> tuple[ApiKey, str]:
    """A new key, and what its caller sends: the only time that it can be seen."""
    if not owner.strip() or not roles:
        raise ConfigError("a key needs an owner and a role", remedy="name the person or service that will hold it")
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"a key cannot live {days} days", remedy=f"choose 1 to {MAX_DAYS}, and rotate it")
    now = datetime.now(UTC)
    granted = None if datasets is None else frozenset(datasets)
    return _made(lake, owner.strip(), frozenset(roles), granted, now, now + timedelta(days=days))


def rotate_key(lake: Lakehouse, key_id: str, overlap: timedelta) -> tuple[ApiKey, ApiKey, str]:
    """(the old key, which ends after `overlap`, the new one, what its caller sends): same rights, same length of life."""
    if not timedelta(0) <= overlap <= timedelta(hours=MAX_OVERLAP_HOURS):
        raise ConfigError("the overlap is out of bounds", remedy=f"choose 0 to {MAX_OVERLAP_HOURS} hours")
    now, old = datetime.now(UTC), _living(lake, key_id)
    made, secret = _made(lake, old.owner, old.roles, old.datasets, now, now + (old.expires_at - old.created_at))
    return _ended(lake, old, now + overlap, "rotated"), made, secret


def revoke_key(lake: Lakehouse, key_id: str) -> ApiKey:
    """The key, which ends now."""
    return _ended(lake, _living(lake, key_id), datetime.now(UTC), "revoked")


def _made(
    lake: Lakehouse,
    owner: str,
    roles: frozenset[Role],
    datasets: frozenset[str] | None,
    now: datetime,
    expires_at: datetime,
) -> tuple[ApiKey, str]:
    secret = secrets.token_hex(32)
    key = ApiKey(secrets.token_hex(8), owner, roles, datasets, hash_of(secret), now, expires_at)
    _append(lake, key)
    return key, f"medvec_{key.id}_{secret}"


def _ended(lake: Lakehouse, key: ApiKey, at: datetime, event: str) -> ApiKey:
    ended = replace(key, expires_at=min(key.expires_at, at), event=event)
    _append(lake, ended)
    return ended


def _living(lake: Lakehouse, key_id: str) -> ApiKey:
    key = read_keys(lake).get(key_id)
    if key is None or key.expires_at <= datetime.now(UTC):
        raise NotFound(f"no key {key_id!r} is in force", remedy="list the keys: medvec keys list")
    return key


def _append(lake: Lakehouse, key: ApiKey) -> None:
    row = {
        "key_id": key.id,
        "event": key.event,
        "owner": key.owner,
        "roles": sorted(key.roles),
        "datasets": None if key.datasets is None else sorted(key.datasets),
        "secret_sha256": key.secret_sha256,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "recorded_at": datetime.now(UTC),
    }
    rows = pa.Table.from_pylist([row], schema=tables.API_KEYS)
    lake.append(tables.api_keys(), rows, {"asset": "api_keys", "event": key.event})
