"""The card beside weights that a deployment brings: what must be known before they may be loaded.

Belongs here: the card's rules, reading and writing it. Does not belong here: loading weights (custom), encoders that
medvec ships (registry).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from resources.encoders.protocol import EncoderCard, InputKind
from resources.encoders.weights import is_remote, read_card_bytes
from resources.errors import ConfigError

CARD_SUFFIX = ".medvec.json"
_HEX_DIGEST = r"^[0-9a-f]{64}$"


class Architecture(BaseModel):
    """The network a bare state dict belongs to: `efficientnet_lite0`, or a class of monai.networks.nets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class CustomCard(BaseModel):
    """The JSON beside custom weights. Whoever writes it answers for it.

    Changing `feature`, `mean`, `std` or `channels` changes the vectors and not the weights: raise `version` with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    dim: int = Field(ge=1, le=32768)  # Milvus refuses longer vectors
    input_kind: InputKind
    license: str = Field(min_length=1)
    medical: bool = Field(description="did the weights' publisher evaluate them on medical data?")
    note: str = "declared by its operator; not evaluated by medvec"
    sha256: str | None = Field(default=None, pattern=_HEX_DIGEST, description="of the weights, if they are one file")
    files: dict[str, str] | None = Field(default=None, description="file -> SHA-256, if they are a folder")
    architecture: Architecture | None = None
    feature: str | None = Field(default=None, description="submodule whose output is the feature; empty: the network's")
    mean: float = 0.0
    std: float = Field(default=255.0, gt=0)
    channels: Literal[1, 3] = 3

    @field_validator("files")
    @classmethod
    def _inside(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, digest in (value or {}).items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"file {name!r} is not inside the folder")
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ValueError(f"file {name!r} has no SHA-256 in lower-case hex")
        return value

    @model_validator(mode="after")
    def _one_digest(self) -> CustomCard:
        if bool(self.sha256) == bool(self.files):
            raise ValueError("give sha256 for one file, or files for a folder, and not both")
        return self

    @property
    def digest(self) -> str:
        return self.sha256 or folder_digest(self.files or {})

    def as_encoder_card(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            version=self.version,
            dim=self.dim,
            metric="COSINE",
            weights_digest=self.digest,
            input_kind=self.input_kind,
            license=self.license,
            medical=self.medical,
            note=self.note,
        )


def folder_digest(files: Mapping[str, str]) -> str:
    """SHA-256 of `sha256sum`'s own listing of a folder, sorted by file name."""
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()


def write_card(weights: Path, **fields: Any) -> Path:
    """Writes the card beside `weights` (a file or a folder) with its digests computed; returns the card's path.

    `fields` are those of CustomCard without sha256 and files. Raises pydantic.ValidationError on a wrong one.
    """
    if weights.is_dir():
        found = sorted(path for path in weights.rglob("*") if path.is_file())
        fields["files"] = {path.relative_to(weights).as_posix(): _sha256(path) for path in found}
    else:
        fields["sha256"] = _sha256(weights)
    card = CustomCard.model_validate(fields)
    path = weights.with_name(weights.name + CARD_SUFFIX)
    path.write_text(card.model_dump_json(indent=2, exclude_none=True) + "\n")
    return path


@cache
def fitted() -> dict[str, str]:
    """ref -> path of the transforms that medvec has fitted and ships with their cards, in `fitted/` beside this module."""
    cards = (Path(__file__).parent / "fitted").glob(f"*{CARD_SUFFIX}")
    named = ((json.loads(path.read_text()), path) for path in cards)
    return {f"{card['name']}@{card['version']}": str(path).removesuffix(CARD_SUFFIX) for card, path in named}


def read_card(ref: str, location: str) -> CustomCard:
    """The card beside the weights at `location`. ConfigError if it is missing, invalid, or another encoder's.

    A card on s3:// is read once per process: planning asks for it again and again.
    """
    uri = location.rstrip("/") + CARD_SUFFIX
    return _read_remote_card(ref, uri) if is_remote(uri) else _parse_card(ref, uri)


@lru_cache(maxsize=64)
def _read_remote_card(ref: str, uri: str) -> CustomCard:
    return _parse_card(ref, uri)


def _parse_card(ref: str, uri: str) -> CustomCard:
    try:
        data = read_card_bytes(ref, uri)
    except ConfigError as error:
        raise ConfigError(
            f"encoder {ref} has no card {uri}",
            remedy="write it beside the weights, with resources.encoders.cards.write_card(path, name=..., ...)",
        ) from error
    try:
        card = CustomCard.model_validate_json(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"the card {uri} of encoder {ref} is not valid: {wrong}", remedy="correct it") from None
    if f"{card.name}@{card.version}" != ref:
        raise ConfigError(
            f"the card {uri} is of {card.name}@{card.version}, not of {ref}",
            remedy="correct the ref in MEDVEC_WEIGHTS, or name and version in the card",
        )
    return card


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
