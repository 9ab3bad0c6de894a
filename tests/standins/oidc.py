"""A stand-in of an OpenID provider: discovery, a key set with real keys, and the tokens it would issue.

Belongs here: what OpenID Connect Discovery 1.0 and RFC 7517 say. Does not belong here: a login.
"""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from standins.scripted import Answer, Request, Scripted

AUDIENCE = "medvec"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"


def _private(algorithm: str) -> Any:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


class Issuer(Scripted):
    """One key per algorithm at first, `kid` = `<algorithm>-0`."""

    root = "/realms/hospital"

    def __init__(self, *algorithms: str) -> None:
        super().__init__()
        self.keys: dict[str, tuple[str, Any]] = {}  # published, by key id
        for algorithm in algorithms or ("ES256",):
            self.add_key(algorithm)

    def add_key(self, algorithm: str) -> str:
        key_id = f"{algorithm}-{len(self.keys)}"
        self.keys[key_id] = (algorithm, _private(algorithm))
        return key_id

    def answer(self, request: Request) -> Answer:
        told = {
            self.root + DISCOVERY: {"issuer": self.base, "jwks_uri": f"{self.base}{KEYS}"},
            self.root + KEYS: {"keys": [self._public(key_id) for key_id in self.keys]},
        }.get(request.path)
        return Answer(status=404) if told is None else Answer(json.dumps(told).encode())

    def _public(self, key_id: str) -> dict[str, Any]:
        algorithm, private = self.keys[key_id]
        public = get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
        return public | {"kid": key_id, "alg": algorithm, "use": "sig"}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """What it says of one user for ten minutes; None takes a claim away."""
        now = int(time.time())
        said = {
            "iss": self.base,
            "aud": AUDIENCE,
            "sub": "jane",
            "iat": now,
            "exp": now + 600,
            "roles": ["reader"],
            "datasets": ["tcia_catalog"],
        }
        return {name: value for name, value in (said | changed).items() if value is not None}

    def token(self, key_id: str = "", **changed: Any) -> str:
        key_id = key_id or next(iter(self.keys))
        algorithm, private = self.keys[key_id]
        return jwt.encode(self.claims(**changed), private, algorithm, headers={"kid": key_id})
