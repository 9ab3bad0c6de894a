"""Encoders: what turns a model input into a unit vector, at one version, with weights of a known digest.

    protocol    EncoderCard (what is known without torch), Encoder (encode), the check of every output
    registry    card(ref), load(ref): the only way in
    runtime     device, precision, threads, the allocator
    weights     reading weight files, from a package, a path or s3://, and refusing those of another digest
    text, image, projection  the families of encoders; efficientnet_lite is the definition of one network
    fitted/     frozen transforms that medvec has fitted itself, each with its card
    custom      weights that a deployment brings itself; cards: the card that must stand beside them

Does not belong here: making a model input of a record (modalities), fingerprints, batching over a partition (stages).
Importing this package imports no torch: planning asks only for cards.
"""

from __future__ import annotations

import os

from resources.encoders.protocol import Encoder, EncoderCard
from resources.encoders.registry import card, load, precision

__all__ = ["Encoder", "EncoderCard", "card", "load", "precision"]

# A thread that waits for the other spins at first. libgomp's default burns a core that decoding or the index needs: on 2
# busy cores this setting is 2-3 times as fast, on idle ones equal. libgomp reads it once, when torch is first imported by
# anybody (a modality, an encoder), which is why it is set here and not where an encoder is placed.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
