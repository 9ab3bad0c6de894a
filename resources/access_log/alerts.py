"""Harvesting: a caller who walks through the neighbours of a whole dataset.

Two rules, over the events of one caller and one dataset within 24 hours:
- share: the distinct subjects that surfaced are a fifth of the dataset's or more, and at least 50.
- walk: 500 distinct questions or more, of which four in five brought a subject that this caller had not seen before. Who
  works on a question sees the same neighbours again; who walks does not. It finds walks through datasets too large for
  the first rule.

Belongs here: the rules. Does not belong here: whose subjects are in a dataset (query.harvesting), what is done about it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from resources.access_log.events import Line

WINDOW = timedelta(hours=24)
MIN_SUBJECTS = 50
WALK_QUESTIONS = 500
WALK_FRESH = 0.8
RULES = ("share", "walk")


@dataclass(frozen=True)
class Alert:
    """The first moment at which a caller met a rule, and how far they had come in the window that ended there."""

    who: str
    dataset: str
    rule: str
    since: datetime
    until: datetime
    subjects: int
    share: float
    questions: int


def alerts(
    lines: Iterable[Line], subjects_of: Callable[[str], frozenset[str]], share: float, since: datetime
) -> list[Alert]:
    """At most one alert for each caller, dataset and rule, of windows that end at `since` or later.

    `subjects_of` tells a dataset's subjects by their pseudonyms: of several datasets in one answer each is charged with
    its own.
    """
    seen: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        facts = line.facts
        if facts.get("outcome") == "answered" and facts.get("subjects"):
            for dataset in facts.get("datasets", []):
                seen.setdefault((facts.get("who", ""), dataset), []).append(line)
    found: list[Alert] = []
    for (who, dataset), looks in sorted(seen.items()):
        found += _of_one(who, dataset, sorted(looks, key=lambda line: line.at), subjects_of(dataset), share, since)
    return found


def _of_one(
    who: str, dataset: str, looks: list[Line], everyone: frozenset[str], share: float, since: datetime
) -> Iterator[Alert]:
    window: deque[tuple[Line, frozenset[str], bool]] = deque()
    subjects: Counter[str] = Counter()
    questions: Counter[str] = Counter()
    known: set[str] = set()
    told: set[str] = set()
    fresh = 0
    for line in looks:
        surfaced = everyone.intersection(line.facts["subjects"])
        is_fresh = bool(surfaced - known)
        known |= surfaced
        window.append((line, surfaced, is_fresh))
        subjects.update(surfaced)
        questions[_asked(line)] += 1
        fresh += is_fresh
        while window[0][0].at <= line.at - WINDOW:
            old, left, was_fresh = window.popleft()
            _take_away(subjects, left)
            _take_away(questions, [_asked(old)])
            fresh -= was_fresh
        part = len(subjects) / len(everyone) if everyone else 0.0
        met = {
            "share": part >= share and len(subjects) >= MIN_SUBJECTS,
            "walk": len(questions) >= WALK_QUESTIONS and fresh >= WALK_FRESH * len(window),
        }
        for rule in sorted(rule for rule, is_met in met.items() if is_met and line.at >= since and rule not in told):
            told.add(rule)
            yield Alert(who, dataset, rule, window[0][0].at, line.at, len(subjects), round(part, 4), len(questions))


def _take_away(counts: Counter[str], gone: Iterable[str]) -> None:
    for name in gone:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]


def _asked(line: Line) -> str:
    return str(line.facts.get("question") or line.facts["request"])
