"""Projections: a fitted linear map from features to a vector, frozen in one safetensors file.

Belongs here: reading and applying such a map. Does not belong here: fitting one, or which features a record has
(modalities; they hold the list whose order the map expects).

    mean        float32 [features], optional   taken from each row first
    scale       float32 [features], optional   then multiplied
    components  float32 [dim, features], optional   then projected on; without it dim = features
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resources.encoders.protocol import EncoderCard, check_features, check_vectors


class Projection:
    """`((x - mean) * scale) @ components.T`, unit norm. On the CPU in fp32: it is one product a row."""

    device, precision = "cpu", "fp32"

    def __init__(self, card: EncoderCard, data: bytes) -> None:
        """`data`: the verified file. ValueError if the arrays do not fit one another and the card."""
        import safetensors
        import safetensors.numpy

        try:
            arrays = safetensors.numpy.load(data)
        except safetensors.SafetensorError as error:
            raise ValueError("not a safetensors file") from error
        self.card = card
        self._mean, self._scale, self._components = (arrays.get(name) for name in ("mean", "scale", "components"))
        self.features = card.dim if self._components is None else self._components.shape[1]
        wanted = {"mean": (self.features,), "scale": (self.features,), "components": (card.dim, self.features)}
        for name, array in arrays.items():
            if array.dtype != np.float32 or array.shape != wanted.get(name):
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {wanted.get(name)}")

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """See `Encoder.encode`; items are float32 [features]."""
        rows = check_features(self.card, batch, self.features)
        if not len(batch):
            return np.empty((0, self.card.dim), np.float32)
        if self._mean is not None:
            rows = rows - self._mean
        if self._scale is not None:
            rows = rows * self._scale
        if self._components is not None:
            rows = rows @ self._components.T
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # a row of zeros has no direction: check_vectors refuses it
            vectors = (rows / norms).astype(np.float32)
        return check_vectors(self.card, vectors, len(batch))
