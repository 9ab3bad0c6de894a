"""Text encoders: a BERT with mean pooling, as sentence-transformers defines it.

Belongs here: tokenising, batching, pooling. Does not belong here: the network (bert), which weights (registry, custom),
making a text of a record (modalities).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resources.encoders.protocol import EncoderCard, check_texts, check_vectors
from resources.encoders.runtime import Placement

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

MAX_TOKENS = 256  # sentence_bert_config.json of all-MiniLM-L6-v2; a descriptor has 10 to 40
BATCH = {"cpu": 32, "cuda": 512}  # cpu: 256 runs at .68 of 32 on 2 cores, the activations leave the cache
BERT_FILES = ("config.json", "tokenizer.json", "model.safetensors")
# sentence-transformers' files also hold BERT's pooler and a constant buffer; mean pooling uses neither.
_UNUSED_KEYS = ("pooler.", "embeddings.position_ids")


class TextEncoder:
    """A BERT of sentence-transformers' layout: mean over the tokens, unit norm. Longer texts are cut at 256 tokens."""

    def __init__(self, card: EncoderCard, files: Mapping[str, bytes], placement: Placement) -> None:
        """`files`: the verified bytes of BERT_FILES. Raises what Bert raises if the weights are not this config's."""
        import safetensors.torch
        from tokenizers import Tokenizer

        from resources.encoders.bert import Bert

        self.card = card
        self.device, self.precision = placement.device, placement.precision
        self._placement = placement
        self._tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()  # the file pads every text to 128 tokens
        weights = safetensors.torch.load(files["model.safetensors"])
        model = Bert(json.loads(files["config.json"]))
        model.load({key: value for key, value in weights.items() if not key.startswith(_UNUSED_KEYS)})
        self._model = model.eval().to(placement.device)

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """See `Encoder.encode`; items are str."""
        import torch

        check_texts(self.card, batch)
        vectors = np.empty((len(batch), self.card.dim), dtype=np.float32)
        if not len(batch):
            return vectors
        encodings = self._tokenizer.encode_batch_fast(list(batch))
        # Longest first: batches of like length waste no padding, and the largest allocation comes first.
        order = sorted(range(len(encodings)), key=lambda row: -len(encodings[row].ids))
        step = BATCH[self.device]
        with torch.inference_mode(), self._placement.autocast():
            pieces = [
                self._forward([encodings[row] for row in order[start : start + step]])
                for start in range(0, len(order), step)
            ]
            found = torch.cat(pieces).cpu().numpy()  # one copy back, so that a GPU is never waited for in between
        if found.shape[1:] == vectors.shape[1:]:
            vectors[order] = found
            found = vectors
        return check_vectors(self.card, found, len(batch))

    def _forward(self, encodings: list[Encoding]) -> torch.Tensor:
        """Unit vectors, float32 [len(encodings), dim] on the encoder's device. `encodings` come longest first."""
        import torch

        lengths = [len(encoding.ids) for encoding in encodings]
        ids = np.zeros((len(encodings), lengths[0]), dtype=np.int64)  # 0 is BERT's [PAD]
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : lengths[row]] = encoding.ids
            mask[row, : lengths[row]] = 1
        token_mask = self._to_device(mask)
        hidden = self._model(self._to_device(ids), token_mask == 0)
        weight = token_mask.unsqueeze(-1).to(torch.float32)
        mean = (hidden.to(torch.float32) * weight).sum(dim=1) / weight.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1)

    def _to_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)
