"""Who walks through a whole dataset, told from the access log.

Belongs here: which subjects a dataset has, for the rules of resources.access_log.alerts. Does not belong here: the rules.
A subject's pseudonym leaves this module in no alert: only counts do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from medvec_assets.query.rows import read
from resources import tables
from resources.access_log.alerts import WINDOW, Alert, alerts
from resources.access_log.keys import Keys
from resources.access_log.places import Place
from resources.access_log.reading import events
from resources.access_log.sealing import archive
from resources.lakehouse import Lakehouse
from resources.settings import Settings

LOOK_BACK = timedelta(days=7)


def harvesting(settings: Settings, lake: Lakehouse, since: datetime | None = None) -> list[Alert]:
    """Alerts of windows that end after `since` (a week ago)."""
    now = datetime.now(UTC)
    begin = since or now - LOOK_BACK
    lines = events(archive(settings), Place.of(settings), Keys.of(settings), begin - WINDOW, now + WINDOW)
    return alerts(lines, _subjects_of(lake), settings.harvest_share, begin)


def _subjects_of(lake: Lakehouse) -> Callable[[str], frozenset[str]]:
    def subjects(dataset: str) -> frozenset[str]:
        return frozenset(read(lake, tables.records(dataset), ["subject_key"])["subject_key"].unique())

    return subjects
