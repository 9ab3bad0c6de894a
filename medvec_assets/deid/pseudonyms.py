"""Keyed pseudonyms: the same identifier gives the same key within one deployment and tells nothing outside it."""

from __future__ import annotations

import hashlib
import hmac


class Pseudonyms:
    """HMAC-SHA256 pseudonyms under one secret; every pseudonym names its key by id, so keys can be rotated."""

    def __init__(self, secret: bytes, source: str) -> None:
        self._secret = secret
        self._source = source
        self.key_id = hashlib.sha256(b"medvec key id" + secret).hexdigest()[:6]

    def of(self, kind: str, identifier: str) -> str:
        """A pseudonym of `identifier`; `kind` (subject, series, ...) keeps equal strings of two kinds apart."""
        return f"k{self.key_id}-{self.digest(kind, identifier).hex()[:32]}"

    def subject(self, subject_ref: str) -> str:
        """`subject_key` of every Delta layer from records on: the handle of erasure."""
        return self.of("subject", subject_ref)

    def digest(self, kind: str, identifier: str) -> bytes:
        """32 keyed bytes, for pseudonyms of another shape: UIDs, days of a date shift."""
        message = "\x1f".join((self._source, kind, identifier)).encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, message, "sha256")
