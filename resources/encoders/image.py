"""Image encoders: any network that maps a scaled image batch to features.

Belongs here: scaling, batching, pooling, normalising. Does not belong here: which network (registry, custom), making
the 224 x 224 image of a record (modalities).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resources.encoders.protocol import EncoderCard, check_images, check_vectors
from resources.encoders.runtime import Placement

if TYPE_CHECKING:
    import torch

BATCH = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class Scaling:
    """How a uint8 image becomes a network's input: (x - mean) / std, in `channels` channels (1: mean of RGB)."""

    mean: float = 0.0
    std: float = 255.0
    channels: int = 3


class ImageEncoder:
    """A network in eval mode over uint8 images [224, 224, 3]; spatial axes of its output are averaged away."""

    def __init__(self, card: EncoderCard, network: torch.nn.Module, scaling: Scaling, placement: Placement) -> None:
        import torch

        self.card = card
        self.device, self.precision = placement.device, placement.precision
        self._placement = placement
        self._scaling = scaling
        self._network = network.eval().to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """See `Encoder.encode`; items are uint8 arrays [224, 224, 3]."""
        import torch

        check_images(self.card, batch)
        if not len(batch):
            return np.empty((0, self.card.dim), dtype=np.float32)
        step = BATCH[self.device]
        with torch.inference_mode(), self._placement.autocast():
            pieces = [self._forward(batch[start : start + step]) for start in range(0, len(batch), step)]
            vectors = torch.cat(pieces).cpu().numpy()  # one copy back, so that a GPU is never waited for in between
        return check_vectors(self.card, vectors, len(batch))

    def _forward(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Unit vectors, float32 [len(images), dim] on the encoder's device."""
        import torch

        pixels = torch.from_numpy(np.stack(images))
        if self.device != "cpu":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)  # one byte a value over the bus, not four
        inputs = pixels.permute(0, 3, 1, 2).to(torch.float32)  # the strides are channels_last already: no copy
        if self._scaling.channels == 1:
            inputs = inputs.mean(dim=1, keepdim=True)
        features = self._network(inputs.sub_(self._scaling.mean).div_(self._scaling.std)).to(torch.float32)
        if features.ndim > 2:
            features = features.flatten(2).mean(dim=2)
        return torch.nn.functional.normalize(features, dim=1)
