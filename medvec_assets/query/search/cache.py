"""Answers kept for who asks the same again: bounded in number, bytes and age.

Belongs here: the store. Does not belong here: what makes two questions the same and an answer old (engine builds keys of
what the lake tells, so that an older answer is no longer reached).

A key is a digest under a secret of this process: no question can be read from, or tried against, what is kept.
"""

from __future__ import annotations

import hashlib
import pickle
import secrets
import threading
import time
from collections import OrderedDict

from medvec_assets.query.search.question import Answer

MAX_ENTRIES = 2_048
MAX_BYTES = 64 << 20
# What a sync wrote is seen by searches seconds after its receipt at the latest; whatever was missed heals in a minute.
SECONDS = 60.0


class AnswerCache:
    """Safe between threads."""

    def __init__(self, entries: int = MAX_ENTRIES, size_bytes: int = MAX_BYTES, seconds: float = SECONDS) -> None:
        self._bounds = (entries, size_bytes)
        self._seconds = seconds
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, tuple[float, int, Answer]] = OrderedDict()
        self._bytes = 0

    def key(self, *parts: str) -> bytes:
        digest = hashlib.blake2b(digest_size=32, key=self._secret)
        for part in parts:
            digest.update(len(part.encode()).to_bytes(8) + part.encode())
        return digest.digest()

    def get(self, key: bytes) -> Answer | None:
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            if time.monotonic() - found[0] > self._seconds:
                self._remove(key)
                return None
            self._held.move_to_end(key)
            return found[2]

    def put(self, key: bytes, answer: Answer) -> None:
        size = len(pickle.dumps(answer))  # near enough: strings are the most of it
        entries, size_bytes = self._bounds
        if size > size_bytes // 8:
            return
        with self._lock:
            self._remove(key)
            self._held[key] = (time.monotonic(), size, answer)
            self._bytes += size
            while len(self._held) > entries or self._bytes > size_bytes:
                self._remove(next(iter(self._held)))

    def _remove(self, key: bytes) -> None:
        found = self._held.pop(key, None)
        self._bytes -= found[1] if found else 0
