"""Writes the encoder of space `kmer`: the identity, for a k-mer sketch is a vector already.

    python -m bench.fit_kmer_sketch

Nothing is fitted: the file holds no array, so that Projection only brings a sketch's features to unit norm. It exists because
every vector is made by an encoder with a version and a digest; another way of sketching is another version.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.numpy

from medvec_assets.modalities.sequencing.sketch import BINS, SCALED, K
from resources.encoders import cards

FOLDER = Path(cards.__file__).parent / "fitted"
NAME, VERSION = "kmer_sketch", 1


def write(folder: Path = FOLDER) -> Path:
    """Writes file and card below `folder`; returns the file's path. The same bytes on every machine."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}_{VERSION}.safetensors"
    path.write_bytes(safetensors.numpy.save({}))
    cards.write_card(
        path,
        name=NAME,
        version=VERSION,
        dim=BINS,
        input_kind="features",
        license="CC0-1.0",
        medical=False,
        note=f"signed feature hashing of canonical {K}-mers (FracMinHash, one in {SCALED}) into {BINS} bins; nothing was learnt. "
        "The cosine follows what two runs' reads share, and says nothing of a person's health",
    )
    return path


if __name__ == "__main__":
    print(write())
