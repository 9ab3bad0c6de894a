"""Who walks through a whole dataset, told from the access log.

Belongs here: which subjects a dataset has, for the rules of resources.access_log.alerts; how many alerts a look found, kept
in the lake for who watches the service. Does not belong here: the rules. A subject's pseudonym leaves this module in no
alert: only counts do, and what is kept of a look names no caller either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

from medvec_assets.query.rows import read, read_of
from resources import tables
from resources.access_log.alerts import RULES, WINDOW, Alert, alerts
from resources.access_log.keys import Keys
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.access_log.sealing import archive
from resources.lakehouse import Lakehouse, Snapshot
from resources.settings import Settings

LOOK_BACK = timedelta(days=7)


@dataclass(frozen=True)
class Look:
    """When somebody looked, and how many alerts each rule gave for the LOOK_BACK before."""

    at: datetime
    alerts: Mapping[str, int]


def harvesting(settings: Settings, lake: Lakehouse, since: datetime | None = None) -> list[Alert]:
    """Alerts of windows that end after `since` (a week ago)."""
    now = datetime.now(UTC)
    begin = since or now - LOOK_BACK
    lines = events(archive(settings), Place.of(settings), Keys.of(settings), begin - WINDOW, now + WINDOW)
    return alerts(lines, _subjects_of(lake), settings.harvest_share, begin)


def keep(lake: Lakehouse, found: Sequence[Alert]) -> None:
    """Enter a look of LOOK_BACK that found these."""
    counted = Counter(one.rule for one in found)
    now = datetime.now(UTC)
    rows = [{"looked_at": now, "rule": rule, "alerts": counted[rule]} for rule in RULES]
    lake.append(tables.harvesting(), pa.Table.from_pylist(rows, schema=tables.HARVESTING), {"asset": "harvesting"})


def last_look(snapshot: Snapshot | None) -> Look | None:
    """The newest of a snapshot of the looks that were kept."""
    rows = read_of(snapshot, tables.harvesting())
    newest = rows.filter(pl.col("looked_at") == pl.col("looked_at").max())
    if newest.is_empty():
        return None
    return Look(newest["looked_at"][0], dict(newest.select("rule", "alerts").iter_rows()))


def _subjects_of(lake: Lakehouse) -> Callable[[str], frozenset[str]]:
    def subjects(dataset: str) -> frozenset[str]:
        return frozenset(read(lake, tables.records(dataset), ["subject_key"])["subject_key"].unique())

    return subjects
