"""Sealing: closed segments go, signed, to Delta `audit/access`, and then from the folder.

Belongs here: what a seal says, which segments may be sealed, one commit a writer. Does not belong here: checking seals
(verifying), when to seal (keeping).

A seal holds the segment's bytes as they are, what they should hold, and in `follows` the seals that nobody had followed
when it was made: of any writer on any machine. So a row that is taken out of the table later leaves a hole. Object lock is
the bucket's own property (a default retention), set where MEDVEC_ACCESS_URI points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from resources import tables
from resources.access_log.chains import Segment
from resources.access_log.events import GENESIS
from resources.access_log.keys import Keys
from resources.access_log.places import Place
from resources.errors import IntegrityError
from resources.lakehouse import Lakehouse
from resources.lakehouse.lake import S3_OPTIONS
from resources.settings import Settings

FACTS = [name for name in tables.ACCESS.names if name not in ("seal_hash", "signature", "lines")]
CLOSED, KILLED = "closed", "killed"


@dataclass(frozen=True)
class Sealed:
    """What one round put into the lake."""

    writer: str
    segments: int
    events: int
    torn_bytes: int
    ended: str


def archive(settings: Settings) -> Lakehouse:
    """Where the log is sealed: MEDVEC_ACCESS_URI, or the lake."""
    uri = settings.access_uri or settings.lake
    return Lakehouse(uri, S3_OPTIONS if uri.startswith("s3://") else {})


def seal(lake: Lakehouse, place: Place, keys: Keys, own: tuple[str, int] | None = None) -> list[Sealed]:
    """Seal what is closed at `place`: of `own` (this process' writer) the segments before that number, of each writer
    that does not live any more all. Those of other living writers are theirs to seal."""
    done = []
    for writer in place.writers():
        if own is not None and writer == own[0]:
            closed = {number: path for number, path in place.segments(writer).items() if number < own[1]}
            done += _seal_writer(lake, place, keys, writer, closed, ended=False)
        elif place.segments(writer):
            with place.held(writer) as held:
                if held:
                    done += _seal_writer(lake, place, keys, writer, place.segments(writer), ended=True)
    return done


def _seal_writer(
    lake: Lakehouse, place: Place, keys: Keys, writer: str, closed: Mapping[int, Path], ended: bool
) -> list[Sealed]:
    if not closed:
        return []
    before = sealed_before(lake)
    known = {row["segment"]: row for row in before.filter(pl.col("writer") == writer).iter_rows(named=True)}
    rows: list[dict[str, Any]] = []
    tips = _tips(before)
    last = known[max(known)] if known else {"last_hash": GENESIS, "last_sequence": -1}
    for number, path in closed.items():
        data = path.read_bytes()
        if number in known:  # killed after the commit and before the file went
            _require_same(known[number], data)
            continue
        row = _facts(data, place, keys, writer, number, last) | {"follows": tips, "public_key": keys.public_key}
        if ended and number == max(closed):
            row["ended"] = CLOSED if _ends_closed(data, keys) else KILLED
        last = row = signed(row, keys)
        tips = [name_of(row)]
        rows.append(row)
    if rows:
        table = pa.Table.from_pylist(rows, schema=tables.ACCESS)
        lake.append(tables.access(), table, {"asset": "access", "writer": writer})
    for path in closed.values():
        path.unlink()
    events, torn = sum(row["events"] for row in rows), sum(row["torn_bytes"] for row in rows)
    return [Sealed(writer, len(rows), events, torn, rows[-1]["ended"])] if rows else []


def sealed_before(lake: Lakehouse) -> pl.DataFrame:
    """Every seal, without its lines."""
    snapshot = lake.snapshot(tables.access())
    names = [name for name in tables.ACCESS.names if name != "lines"]
    if snapshot is None:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Null))
    return snapshot.read(names).sort("writer", "segment")


def _tips(before: pl.DataFrame) -> list[str]:
    if before.is_empty():
        return []
    followed = set(before["follows"].explode().drop_nulls())
    return sorted({name_of(row) for row in before.iter_rows(named=True)} - followed)


def name_of(seal: Mapping[str, Any]) -> str:
    """How one seal names another that it follows."""
    return f"{seal['writer']}/{seal['segment']}/{seal['seal_hash']}"


def _facts(data: bytes, place: Place, keys: Keys, writer: str, number: int, last: Mapping[str, Any]) -> dict[str, Any]:
    segment = Segment.read(data, keys)
    times = segment.times() or [datetime.now(UTC)]
    intact = segment.intact
    head = place.head(writer, keys)
    return {
        "writer": writer,
        "place": place.id,
        "segment": number,
        "first_sequence": last["last_sequence"] + 1,
        "last_sequence": max([last["last_sequence"], *(line.sequence for line in intact)]),
        "events": len(segment.lines),
        "first_at": min(times),
        "last_at": max(times),
        "previous_hash": last["last_hash"],
        "last_hash": intact[-1].hash if intact else last["last_hash"],
        "head_sequence": head.sequence,
        "torn_bytes": len(segment.torn),
        "ended": "",
        "lines_digest": hashlib.sha256(data).hexdigest(),
        "sealed_at": datetime.now(UTC),
        "lines": data,
    }


def _ends_closed(data: bytes, keys: Keys) -> bool:
    intact = Segment.read(data, keys).intact
    return bool(intact) and intact[-1].facts.get("kind") == "closed"


def _require_same(row: Mapping[str, Any], data: bytes) -> None:
    if row["lines_digest"] != hashlib.sha256(data).hexdigest():
        raise IntegrityError(
            f"segment {row['segment']} of {row['writer']} is sealed in the lake and differs here",
            remedy="medvec audit verify says which of the two was changed; keep both",
        )


def statement(row: Mapping[str, Any]) -> bytes:
    """What is signed: every fact of the seal, the lines by their digest. Times to the microsecond, as Delta keeps them."""
    facts = {name: _plain(row[name]) for name in FACTS}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def signed(row: dict[str, Any], keys: Keys) -> dict[str, Any]:
    said = statement(row)
    return row | {"seal_hash": hashlib.sha256(said).hexdigest(), "signature": keys.sign(said)}
