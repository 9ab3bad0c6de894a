"""Signatures under what medvec reports: Ed25519, one key per deployment, made at first use.

A signed file F has F.sig beside it (JSON: algorithm, key_id, sha256, signature) and KEY_ID.pub.pem, the public key. Who can
change a report can put another key beside it: what proves who signed is the key's id, made known some other way (`pinned`).

Belongs here: key, signing, checking. Does not belong here: what is in a report.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import ConfigError, IntegrityError
from resources.settings import secret_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM = "Ed25519"
SIGNATURE = ".sig"
MAX_BYTES = 1 << 30  # of a report that is checked


class Signer:
    """Signs with HOME/keys/report.key: 32 random bytes, mode 0600."""

    def __init__(self, home: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret_file(_key_file(home))))
        except ValueError:
            raise ConfigError(
                "the report key is not 64 hex digits",
                remedy=f"restore {_key_file(home)} from a backup, or remove it: another key is made, with another id",
            ) from None
        self.key_id = key_id(self._key.public_key())

    def public_key(self) -> bytes:
        """PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        """The content of the signature's file."""
        made = {
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "sha256": hashlib.sha256(data).hexdigest(),
            "signature": base64.b64encode(self._key.sign(data)).decode(),
        }
        return (json.dumps(made, indent=1) + "\n").encode()


def check(report: Path, pinned: Path | None = None, home: Path | None = None) -> dict[str, Any]:
    """Check `report` against the signature beside it: key_id, sha256 and by which key (`pinned`, the deployment's own in
    `home`, or the one beside it, which proves no more than that nobody changed the one file alone).

    Raises IntegrityError where it does not hold, ConfigError where a file is missing."""
    from cryptography.exceptions import InvalidSignature

    data, told = _read(report), _told(report)
    key, which = _key(report, told, pinned, home)
    if key_id(key) != told["key_id"]:
        raise _broken(report, f"it names key {told['key_id']}, and the {which} key is {key_id(key)}")
    try:
        key.verify(base64.b64decode(str(told["signature"]), validate=True), data)
    except (InvalidSignature, ValueError):
        raise _broken(report, "its bytes are not the ones that were signed") from None
    return {"report": str(report), "key_id": told["key_id"], "key": which, "sha256": hashlib.sha256(data).hexdigest()}


def key_id(key: Ed25519PublicKey) -> str:
    """16 hex digits of the SHA-256 of the key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_name(key: str) -> str:
    return f"{key}.pub.pem"


def _key_file(home: Path) -> Path:
    return home / "keys" / "report.key"


def _told(report: Path) -> dict[str, str]:
    try:
        told = json.loads(_read(report.with_name(report.name + SIGNATURE)))
        wanted = {name: str(told[name]) for name in ("algorithm", "key_id", "signature")}
    except (ValueError, KeyError, TypeError):
        raise _broken(report, "its signature file is not one that medvec writes") from None
    if wanted["algorithm"] != ALGORITHM or not wanted["key_id"].isalnum():
        raise _broken(report, f"it is not signed with {ALGORITHM}")
    return wanted


def _key(report: Path, told: dict[str, str], pinned: Path | None, home: Path | None) -> tuple[Ed25519PublicKey, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if pinned is None and home is not None and _key_file(home).exists():
        own = Signer(home)
        if own.key_id == told["key_id"]:
            return own._key.public_key(), "deployment's own"
    which = "pinned" if pinned is not None else "enclosed"
    path = pinned or report.with_name(public_name(told["key_id"]))
    try:
        found = load_pem_public_key(_read(path))
    except ValueError:
        found = None
    if not isinstance(found, Ed25519PublicKey):
        raise ConfigError(f"{path} is no {ALGORITHM} public key in PEM", remedy="give the .pub.pem beside the report")
    return found, which


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than a report", remedy="give a file that medvec wrote")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", remedy="keep the report, its .sig and the .pub.pem together"
        ) from None


def _broken(report: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"report {report.name} does not stand: {why}",
        remedy="get the report again from whom it was made by, with the id of their key by another way",
        code="signature_invalid",
    )
