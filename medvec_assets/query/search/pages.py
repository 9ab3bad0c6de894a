"""Cursors: what says, sealed, which hits of an answer were given already.

Belongs here: sealing and opening. Does not belong here: choosing the hits of a page (engine).

A cursor holds no place in a ranking but the hits that were passed, 6 keyed bytes each: then no page repeats one and none
leaves one out, whatever the order in which the index tells of equal scores, and however widely it looks for more. It is
bound to the question, the caller's grants and the state of the collections, and it ends. Its key follows from the
deployment's secret, so that every worker and replica opens the others' cursors.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

from resources.errors import CursorGone, QueryInvalid

SECONDS = 3_600
MAX_DEPTH = 1_000  # hits of one question that can be paged through: 8 kB of cursor
_NONCE, _BOUND, _STATE, _ID, _MAC, _ENDS = 8, 16, 8, 6, 16, 6
_HEAD = _ENDS + _NONCE + _BOUND + _STATE
_AGAIN = "ask the question again, without a cursor"


@dataclass(frozen=True)
class Passed:
    """The hits of earlier pages. `mark` tells a hit or a group without saying who it is; it differs from answer to
    answer, so that marks of two cannot be compared."""

    key: bytes
    nonce: bytes
    marks: frozenset[bytes] = frozenset()

    def mark(self, name: str) -> bytes:
        return hashlib.blake2b(self.nonce + name.encode(), digest_size=_ID, key=self.key).digest()

    def __contains__(self, name: str) -> bool:
        return bool(self.marks) and self.mark(name) in self.marks


class Cursors:
    """Seals and opens the cursors of one deployment."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"medvec search cursor 1", "sha256")

    def first_page(self) -> Passed:
        return Passed(self._key, secrets.token_bytes(_NONCE))

    def sealed(self, passed: Passed, names: Iterable[str], question: str, state: str) -> str:
        """A cursor after `passed` and `names`. `question`: the request and grants; `state`: of the collections."""
        ends = int(time.time()) + SECONDS
        head = ends.to_bytes(_ENDS) + passed.nonce + self._digest(question, _BOUND) + self._digest(state, _STATE)
        body = head + b"".join(sorted(passed.marks | {passed.mark(name) for name in names}))
        return base64.urlsafe_b64encode(body + self._mac(body)).decode().rstrip("=")

    def opened(self, cursor: str, question: str, state: str) -> Passed:
        """What `cursor` says was passed. QueryInvalid if it is not one of this question and caller, CursorGone if it is
        too old or the collections changed."""
        try:
            sealed = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            sealed = b""
        body, mac = sealed[:-_MAC], sealed[-_MAC:]
        ours = len(body) >= _HEAD and hmac.compare_digest(mac, self._mac(body))
        if not ours or body[_ENDS + _NONCE : _HEAD - _STATE] != self._digest(question, _BOUND):
            raise QueryInvalid("the cursor is not one of this question", remedy=_AGAIN, code="cursor_invalid")
        if int.from_bytes(body[:_ENDS]) < time.time():
            raise CursorGone("the cursor has ended", remedy=_AGAIN)
        if body[_HEAD - _STATE : _HEAD] != self._digest(state, _STATE):
            raise CursorGone("what the cursor goes on with has changed since", remedy=_AGAIN)
        marks = (body[at : at + _ID] for at in range(_HEAD, len(body), _ID))
        return Passed(self._key, body[_ENDS : _ENDS + _NONCE], frozenset(marks))

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"cursor" + body, "sha256")[:_MAC]

    def _digest(self, text: str, size: int) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=size, key=self._key).digest()
