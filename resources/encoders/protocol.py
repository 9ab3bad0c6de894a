"""What an encoder is, and what every encoder's output must satisfy before anybody stores it.

Belongs here: the card, the protocol, the checks of inputs and outputs. Does not belong here: torch, weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resources.errors import IntegrityError

InputKind = Literal["text", "image", "features"]
IMAGE_SHAPE = (224, 224, 3)  # height, width, RGB: the one model input of every image encoder
UNIT_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class EncoderCard:
    """Everything about an encoder that planning needs, known without loading torch or reading its weights."""

    name: str
    version: int
    dim: int
    metric: str
    weights_digest: str
    """SHA-256 in hex: of the weights file; for a folder, of its file list (`cards.folder_digest`)."""
    input_kind: InputKind
    license: str
    medical: bool
    """True only where the weights' own publisher evaluated them on medical data."""
    note: str

    @property
    def ref(self) -> str:
        """How specs and rows name this encoder: `minilm@1`."""
        return f"{self.name}@{self.version}"


class Encoder(Protocol):
    """One loaded encoder. Safe to share between threads: encoding changes no state."""

    @property
    def card(self) -> EncoderCard: ...
    @property
    def precision(self) -> str:
        """`fp32` or `bf16`: part of every fingerprint, because it moves the vectors."""
        ...

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        ...

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """`batch` (str, uint8 arrays [224, 224, 3], or float32 arrays [features]) to float32 [n, dim], unit norm, in the
        order given; n may be 0.

        Give it a few thousand items at a time: it batches by itself, and sorts texts by length over the whole call.
        Raises IntegrityError (code `encoder_input` or `encoder_output`) if any one item is unfit or any one vector is
        not finite and of unit norm. It never returns a part: to find the one bad item, encode one by one.
        """
        ...


def check_texts(card: EncoderCard, batch: Sequence[Any]) -> None:
    """Raises IntegrityError `encoder_input` unless every item is a str."""
    for position, item in enumerate(batch):
        if not isinstance(item, str):
            raise _unfit(card, position, f"is {type(item).__name__}, not str")


def check_images(card: EncoderCard, batch: Sequence[Any]) -> None:
    """Raises IntegrityError `encoder_input` unless every item is a uint8 array of IMAGE_SHAPE."""
    for position, item in enumerate(batch):
        if not isinstance(item, np.ndarray):
            raise _unfit(card, position, f"is {type(item).__name__}, not an array")
        if item.dtype != np.uint8 or item.shape != IMAGE_SHAPE:
            raise _unfit(card, position, f"is {item.dtype} {list(item.shape)}, not uint8 {list(IMAGE_SHAPE)}")


def check_features(card: EncoderCard, batch: Sequence[Any], features: int) -> NDArray[np.float32]:
    """`batch` as float32 [n, features]. Raises IntegrityError `encoder_input` unless every item is a finite float32 array
    [features]."""
    dtype, shape = np.dtype(np.float32), (features,)  # of a row of 55, naming the type anew is a third of the work
    for position, item in enumerate(batch):
        if not isinstance(item, np.ndarray):
            raise _unfit(card, position, f"is {type(item).__name__}, not an array")
        if item.dtype != dtype or item.shape != shape:
            raise _unfit(card, position, f"is {item.dtype} {list(item.shape)}, not float32 [{features}]")
    # A third of np.stack's time, which makes a view of each row first.
    rows = np.concatenate(batch).reshape(-1, features) if len(batch) else np.empty((0, features), np.float32)
    finite = np.isfinite(rows)  # asked of all at once: item by item it took longer than a projection
    if not finite.all():
        raise _unfit(card, int(finite.all(1).argmin()), "holds numbers that are not finite")
    return rows


def check_vectors(card: EncoderCard, vectors: NDArray[np.float32], expected: int) -> NDArray[np.float32]:
    """`vectors` itself if it is float32 [expected, dim], finite, unit norm; else IntegrityError `encoder_output`."""
    if vectors.dtype != np.float32 or vectors.shape != (expected, card.dim):
        found = f"{vectors.dtype} {list(vectors.shape)}"
        raise IntegrityError(
            f"encoder {card.ref} gave {found} where its card promises float32 [{expected}, {card.dim}]",
            remedy="correct `dim` in the weights' card, or name the layer that is the feature",
            code="encoder_output",
        )
    off = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) <= UNIT_NORM_TOLERANCE)  # written so that NaN counts as off
    if off.any():
        raise IntegrityError(
            f"encoder {card.ref} gave {int(off.sum())} of {expected} vectors that are not finite and of unit norm, "
            f"the first at position {int(off.argmax())}",
            remedy="encode the items one by one to find the bad one; if all are bad, the weights or the precision are",
            code="encoder_output",
        )
    return vectors


def _unfit(card: EncoderCard, position: int, what: str) -> IntegrityError:
    return IntegrityError(
        f"encoder {card.ref} takes {card.input_kind}: the item at position {position} {what}",
        remedy="give it what the modality's model_inputs returns for this space",
        code="encoder_input",
    )
