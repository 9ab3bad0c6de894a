"""The keys of the access log, derived by HKDF-SHA256 from one secret (MEDVEC_AUDIT_KEY, or HOME/keys/audit.key).

Belongs here: which key is for what. Does not belong here: where the secret lies (settings).

A key of each purpose: who may compare questions need not be able to write events. Chains are keyed by HMAC, so that
whoever can write files cannot chain them anew; seals are signed with Ed25519, so that whoever holds only the public key
can check them.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cached_property

from resources.settings import Settings


class Keys:
    """Chain, question and seal keys of one deployment."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        return cls(settings.audit_secret)

    def _derived(self, purpose: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), 32, salt=None, info=f"medvec access log: {purpose}".encode()).derive(self._secret)

    @cached_property
    def _chain(self) -> bytes:
        return self._derived("chain")

    @cached_property
    def _question(self) -> bytes:
        return self._derived("question")

    @cached_property
    def _seal(self) -> bytes:
        return self._derived("seal")

    def link(self, body: bytes) -> str:
        """The hash of a line or head: HMAC-SHA256 in hex."""
        return hmac.digest(self._chain, body, "sha256").hex()

    def asked(self, question: bytes) -> str:
        """What was asked, so that equal questions can be told and none can be read or tried out without the key."""
        return hmac.digest(self._question, question, "sha256").hex()

    def asking(self) -> hmac.HMAC:
        """`asked` of what comes in pieces."""
        return hmac.new(self._question, digestmod=hashlib.sha256)

    def sign(self, statement: bytes) -> str:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seal).sign(statement).hex()

    @cached_property
    def public_key(self) -> str:
        """Ed25519, 32 bytes in hex: give it to whoever shall check seals."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seal).public_key().public_bytes_raw().hex()

    def signed(self, statement: bytes, signature: str) -> bool:
        """Whether this deployment's key signed `statement`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key)).verify(
                bytes.fromhex(signature), statement
            )
        except (InvalidSignature, ValueError):
            return False
        return True
