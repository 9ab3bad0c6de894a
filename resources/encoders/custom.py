"""Encoders that a deployment brings: weights by path or s3://, with a card beside them.

Belongs here: the five layouts that can be loaded. Does not belong here: encoders medvec ships (registry), the card's
rules (cards).

    <weights>.medvec.json          the card, required: without it nobody knows what the vectors are
    model.pt | model.ts            TorchScript that returns the feature: images
    model.safetensors              state dict of the card's `architecture`: images
    folder/configs, models         MONAI bundle: `network_def` of configs/inference.json, models/model.pt: images
    folder/config.json, ...        BERT as sentence-transformers lays it out (text.BERT_FILES): text
    reference.safetensors          a fitted linear map (projection): features

Nothing in these files runs as Python: pickles are read with weights_only, a bundle's `$` expressions are refused, and
networks come from monai.networks.nets by name. Digests tell damage and exchange; who may write the card may exchange
both, so the place where weights lie must be as protected as the code.
"""

from __future__ import annotations

import io
import json
import pickle
import threading
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from resources.encoders.cards import CustomCard, read_card
from resources.encoders.projection import Projection
from resources.encoders.protocol import Encoder
from resources.encoders.runtime import place
from resources.encoders.text import BERT_FILES, TextEncoder
from resources.encoders.weights import read_weights
from resources.errors import ConfigError
from resources.settings import Settings

if TYPE_CHECKING:
    import torch

_BUNDLE_CONFIG, _BUNDLE_MODEL = "configs/inference.json", "models/model.pt"
_TORCHSCRIPT_SUFFIXES = (".pt", ".ts", ".torchscript")

Layout = Literal["torchscript", "safetensors", "monai_bundle", "bert", "projection"]


def load(ref: str, location: str, settings: Settings) -> Encoder:
    """The encoder `ref` with the weights at `location`. IntegrityError if a file is not what its card says."""
    card = read_card(ref, location)
    layout = _layout(card, location)
    folder, files = _folder_and_files(card, location)
    data = read_weights(ref, folder, files, settings)
    placement = place(settings)
    try:
        if layout == "bert":
            return TextEncoder(card.as_encoder_card(), data, placement)
        if layout == "projection":
            return Projection(card.as_encoder_card(), next(iter(data.values())))
        from resources.encoders.image import ImageEncoder, Scaling

        network = _tap(card, _NETWORKS[layout](card, data))
        scaling = Scaling(mean=card.mean, std=card.std, channels=card.channels)
        return ImageEncoder(card.as_encoder_card(), network, scaling, placement)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError) as error:
        # The bytes are those of the card, so what is wrong is the card, or a file that never was a model.
        raise ConfigError(
            f"the weights of encoder {ref} do not load as {layout} ({type(error).__name__})",
            remedy="correct architecture, args and feature in its card; export it again if the file itself is unusable",
        ) from error


def _layout(card: CustomCard, location: str) -> Layout:
    """Which of the layouts the card describes; ConfigError if none fits its input kind."""
    files, suffix = card.files or {}, PurePosixPath(location).suffix
    if card.input_kind == "text":
        if set(BERT_FILES) <= set(files):
            return "bert"
        remedy = f"text encoders are a folder with {', '.join(BERT_FILES)}"
    elif card.input_kind == "features":
        if not files and suffix == ".safetensors":
            return "projection"
        remedy = "encoders of features are one .safetensors file (resources/encoders/projection.py)"
    elif {_BUNDLE_CONFIG, _BUNDLE_MODEL} <= set(files):
        return "monai_bundle"
    elif not files and suffix == ".safetensors" and card.architecture is not None:
        return "safetensors"
    elif not files and suffix in _TORCHSCRIPT_SUFFIXES and card.feature is None:  # scripted modules take no hook
        return "torchscript"
    else:
        remedy = (
            f"image encoders are a MONAI bundle with {_BUNDLE_CONFIG} and {_BUNDLE_MODEL}, a .safetensors file whose "
            f"card names its architecture, or TorchScript ({', '.join(_TORCHSCRIPT_SUFFIXES)}) that returns the feature"
        )
    raise ConfigError(f"encoder {card.name}@{card.version} at {location} has no layout known here", remedy=remedy)


def _folder_and_files(card: CustomCard, location: str) -> tuple[str, dict[str, str]]:
    if card.files is not None:
        needed = (*BERT_FILES, _BUNDLE_CONFIG, _BUNDLE_MODEL)
        return location, {name: digest for name, digest in card.files.items() if name in needed}
    folder, _, name = location.rpartition("/")
    return folder or ".", {name: card.sha256 or ""}


def _torchscript(_card: CustomCard, data: Mapping[str, bytes]) -> torch.nn.Module:
    import torch

    (blob,) = data.values()
    network: torch.nn.Module = torch.jit.load(io.BytesIO(blob), map_location="cpu")  # type: ignore[no-untyped-call]
    return network


def _safetensors(card: CustomCard, data: Mapping[str, bytes]) -> torch.nn.Module:
    import safetensors
    import safetensors.torch

    (blob,) = data.values()
    assert card.architecture is not None  # _layout
    network = _network(card.architecture.name, card.architecture.args)
    try:
        network.load_state_dict(safetensors.torch.load(blob))
    except safetensors.SafetensorError as error:
        raise ValueError("not a safetensors file") from error
    return network


def _monai_bundle(_card: CustomCard, data: Mapping[str, bytes]) -> torch.nn.Module:
    import torch

    config = json.loads(data[_BUNDLE_CONFIG])
    definition = _resolve(config["network_def"], config)
    arguments = {key: value for key, value in definition.items() if not key.startswith("_")}
    network = _network(definition["_target_"].removeprefix("monai.networks.nets."), arguments)
    network.load_state_dict(torch.load(io.BytesIO(data[_BUNDLE_MODEL]), weights_only=True, map_location="cpu"))
    return network


_NETWORKS = {"torchscript": _torchscript, "safetensors": _safetensors, "monai_bundle": _monai_bundle}


def _network(name: str, args: Mapping[str, Any]) -> torch.nn.Module:
    """A network by name, from an allow list: a config must not be able to call anything else."""
    import torch

    if name == "efficientnet_lite0":
        from resources.encoders.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    from monai.networks import nets

    found = getattr(nets, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ValueError(f"{name} is no network of monai.networks.nets")
    network: torch.nn.Module = found(**args)
    return network


def _resolve(value: Any, config: Mapping[str, Any], depth: int = 0) -> Any:
    """`value` with a bundle's `@references` replaced. ValueError on `$`: MONAI's own parser would run it."""
    if depth > 32:
        raise ValueError("references too deep, or circular")
    if isinstance(value, dict):
        return {key: _resolve(item, config, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, config, depth + 1) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        raise ValueError("network_def holds a Python expression")
    if isinstance(value, str) and value.startswith("@"):
        target: Any = config
        for step in value[1:].replace("#", "::").split("::"):
            target = target[int(step)] if isinstance(target, list) else target[step]
        return _resolve(target, config, depth + 1)
    return value


def _tap(card: CustomCard, network: torch.nn.Module) -> torch.nn.Module:
    """`network`, or a module that returns what `card.feature`, one of its submodules, gave in the same thread."""
    if card.feature is None:
        return network
    import torch

    class Tap(torch.nn.Module):
        def __init__(self, submodule: torch.nn.Module) -> None:
            super().__init__()
            self.network = network
            self._seen = threading.local()
            submodule.register_forward_hook(self._keep)

        def _keep(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
            self._seen.output = output.clone()  # the layer after it may work in place, like DenseNet's ReLU

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.network(x)
            feature: torch.Tensor = self._seen.__dict__.pop("output")
            return feature

    return Tap(network.get_submodule(card.feature))
