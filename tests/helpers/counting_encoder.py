"""Encoders that need no weights: a text's hash as a unit vector, every encode counted, failures on request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources.encoders import EncoderCard
from resources.errors import ConfigError, IntegrityError
from resources.settings import Settings

DIM = 8


class Killed(BaseException):
    """A process that ends here: nothing in the code under test may catch it."""


@dataclass
class CountingEncoders:
    """Stands in for `resources.encoders`: `tiny@N` exists in every version."""

    encoded: list[str] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    die_at: int | None = None
    """Raise Killed instead of the encode call of this number, counted from 0."""
    calls: int = 0

    def card(self, ref: str, settings: Settings) -> EncoderCard:
        name, _, version = ref.partition("@")
        if name != "tiny":
            raise ConfigError(f"there is no encoder {ref!r}", remedy="use tiny@1")
        digest = self.weights.get(ref, hashlib.sha256(ref.encode()).hexdigest())
        return EncoderCard(name, int(version), DIM, "COSINE", digest, "text", "MIT", False, "for tests")

    def load(self, ref: str, settings: Settings) -> CountingEncoder:
        return CountingEncoder(self, self.card(ref, settings))

    def install(self, monkeypatch: Any) -> None:
        from resources import encoders

        monkeypatch.setattr(encoders, "card", self.card)
        monkeypatch.setattr(encoders, "load", self.load)


@dataclass
class CountingEncoder:
    owner: CountingEncoders
    card: EncoderCard
    precision: str = "fp32"
    device: str = "cpu"

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        owner = self.owner
        if owner.die_at is not None and owner.calls >= owner.die_at:
            raise Killed
        owner.calls += 1
        if owner.bad & set(batch):
            raise IntegrityError("one item is unfit", remedy="encode one by one", code="encoder_output")
        owner.encoded += batch
        return np.stack([vector_of(text, self.card.ref) for text in batch]) if batch else np.empty((0, DIM), np.float32)


def vector_of(text: str, ref: str = "tiny@1") -> NDArray[np.float32]:
    """float32 [DIM], unit norm: the vector of `text` under encoder `ref`."""
    digest = hashlib.sha256(f"{ref}\x1f{text}".encode()).digest()
    raw = np.frombuffer(digest[:DIM], np.uint8).astype(np.float32) - 127.5
    vector: NDArray[np.float32] = (raw / np.linalg.norm(raw)).astype(np.float32)
    return vector
