"""BERT from torch's own encoder layers, with weights as Hugging Face names them.

Belongs here: the network and the names of its weights. Does not belong here: tokens, pooling (text), which weights.

Not transformers' BertModel: importing it takes 5 s of processor time, which each `medvec search` would wait for, and the
vectors are the same to 3e-7 (ADR 0012).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# A layer's parts in torch's names, and in Hugging Face's.
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
_EMBEDDINGS = {
    "word.weight": "word_embeddings.weight",
    "position.weight": "position_embeddings.weight",
    "kind.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}


class Bert(nn.Module):
    """Token ids, int64 [batch, tokens], to the last layer's states, float32 [batch, tokens, hidden].

    `config` is the config.json of a BERT. ValueError if it is another model's.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        kind, places = config.get("model_type", "bert"), config.get("position_embedding_type", "absolute")
        if (kind, places) != ("bert", "absolute"):
            raise ValueError(f"a {kind} with {places} positions is no BERT that is known here")
        hidden, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        self.word = nn.Embedding(config["vocab_size"], hidden)
        self.position = nn.Embedding(config["max_position_embeddings"], hidden)
        self.kind = nn.Embedding(config["type_vocab_size"], hidden)
        self.norm = nn.LayerNorm(hidden, epsilon)
        layer = nn.TransformerEncoderLayer(
            hidden,
            config["num_attention_heads"],
            config["intermediate_size"],
            activation=config["hidden_act"],
            layer_norm_eps=epsilon,
            batch_first=True,
        )
        # Nested tensors, torch's default, take three times as long on a CPU.
        self.encoder = nn.TransformerEncoder(layer, config["num_hidden_layers"], enable_nested_tensor=False)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        """`padding`: bool like `ids`, True where there is no token; the states there mean nothing."""
        embedded = self.word(ids) + self.position.weight[: ids.shape[1]] + self.kind.weight[0]
        states: Tensor = self.encoder(self.norm(embedded), src_key_padding_mask=padding)
        return states

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """`weights` by Hugging Face's names. KeyError or RuntimeError if they are not this config's."""
        given = dict(weights)
        named = {ours: given.pop(f"embeddings.{theirs}") for ours, theirs in _EMBEDDINGS.items()}
        for number in range(len(self.encoder.layers)):
            ours, theirs = f"encoder.layers.{number}", f"encoder.layer.{number}"
            for kind in ("weight", "bias"):
                three = [given.pop(f"{theirs}.attention.self.{part}.{kind}") for part in ("query", "key", "value")]
                named[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(three)
                for part, source in _PARTS.items():
                    named[f"{ours}.{part}.{kind}"] = given.pop(f"{theirs}.{source}.{kind}")
        if given:
            raise RuntimeError(f"{len(given)} weights have no place in the network, such as {min(given)}")
        self.load_state_dict(named)
