"""Who looks at what in a request: filled by auth and the route, read by whoever records it before the answer leaves.

Belongs here: the facts of one look. Does not belong here: who may call (auth), how an event is made (recording) and kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request


@dataclass
class Look:
    """One request's evidence. `question` is what was asked, word for word: it is only ever written as a keyed hash.

    `who` is filled as soon as it is known, also of a caller who is refused then.
    """

    who: str = ""
    key_id: str = ""
    roles: set[str] = field(default_factory=set)
    purpose: str = ""  # HL7 v3 PurposeOfUse, where the credential says it; else the caller's X-Purpose-Of-Use counts
    question: str = field(default="", repr=False)
    versions: dict[str, int] = field(default_factory=dict)  # dataset/space -> Delta version the answer was given from
    subjects: set[str] = field(default_factory=set, repr=False)  # keyed pseudonyms of whoever surfaced
    results: int = 0
    refusal: str = ""  # why the caller was refused, which is never told to the caller


def look_of(request: Request) -> Look:
    """This request's look; the first who asks makes it."""
    if not hasattr(request.state, "look"):
        request.state.look = Look()
    return cast(Look, request.state.look)


Looking = Annotated[Look, Depends(look_of)]
