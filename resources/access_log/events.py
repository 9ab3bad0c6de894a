"""One event, and the line that it becomes.

Belongs here: the fields of an event and their exact bytes. Does not belong here: where lines are kept (places, writer).

A line is one JSON object with sorted keys, the last of which in the line is `hash`: the keyed hash of all bytes before it.
It holds its writer, its number and its predecessor's hash, so each line can be judged alone and in its order. Nothing of it
is free text of a caller's: no question, no path, no header that was not checked against a pattern.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from resources.access_log.keys import Keys

GENESIS = "0" * 64
HASH_CHARS = 64
_BEFORE_HASH, _AFTER_HASH = b',"hash":"', b'"}'
_HASH_BYTES = len(_BEFORE_HASH) + HASH_CHARS + len(_AFTER_HASH)
RECEIPT_HASH_CHARS = 16


@dataclass(frozen=True)
class Event:
    """One answer or refusal. `kind` is answer, or for the writer's own: opened, resumed, closed."""

    kind: str = "answer"
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    who: str = ""
    key_id: str = ""
    roles: tuple[str, ...] = ()
    purpose: str = ""  # HL7 v3 PurposeOfUse code
    client: str = ""  # network address
    method: str = ""
    route: str = ""  # the template
    status: int = 0
    outcome: str = ""  # answered, refused, failed
    reason: str = ""  # the problem's code
    question: str = ""  # keyed hash of what was asked, word for word; equal for equal questions
    request: str = ""  # keyed hash of method, path, query string and the body as far as it was read
    versions: Mapping[str, int] = field(default_factory=dict)  # dataset/space -> Delta version
    datasets: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()  # keyed pseudonyms
    results: int = 0
    correlation: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)  # of the writer's own events


@dataclass(frozen=True)
class Receipt:
    """What a caller is given: it proves that an event was there."""

    writer: str
    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.writer}:{self.sequence}:{self.hash[:RECEIPT_HASH_CHARS]}"


@dataclass(frozen=True)
class Line:
    """One line read back. `facts` are the event's fields; `intact` says whether its hash is its own."""

    writer: str
    sequence: int
    previous: str
    hash: str
    facts: Mapping[str, Any]
    intact: bool

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.facts["at"])


def encode(event: Event, writer: str, sequence: int, previous: str, keys: Keys) -> tuple[bytes, Receipt]:
    """The line, newline included, and its receipt."""
    facts = {name: value for name, value in vars(event).items() if value}  # asdict would copy what is only read
    facts["at"] = event.at.astimezone(UTC).isoformat(timespec="microseconds")
    chained = facts | {"writer": writer, "sequence": sequence, "previous": previous}
    body = json.dumps(chained, sort_keys=True, separators=(",", ":")).encode()[:-1]
    link = keys.link(body)
    return body + _BEFORE_HASH + link.encode() + _AFTER_HASH + b"\n", Receipt(writer, sequence, link)


def decode(line: bytes, keys: Keys) -> Line:
    """The line, without its newline. What cannot be read has sequence -1 and is not intact."""
    try:
        facts = json.loads(line)
        read = Line(
            str(facts.pop("writer")),
            int(facts.pop("sequence")),
            str(facts.pop("previous")),
            str(facts.pop("hash")),
            facts,
            True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Line("", -1, "", "", {}, False)
    body = line[:-_HASH_BYTES]
    link = keys.link(body)
    intact = line[-_HASH_BYTES:] == _BEFORE_HASH + link.encode() + _AFTER_HASH
    return Line(read.writer, read.sequence, read.previous, read.hash, facts, intact)
