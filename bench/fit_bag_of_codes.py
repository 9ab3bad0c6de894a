"""Writes resources/encoders/fitted/bag_of_codes_1.safetensors and its card.

    python -m bench.fit_bag_of_codes [FOLDER]

Nothing is fitted: features are scaled by one and brought to unit norm. No inverse document frequency, because that would
be fitted on a release whose terms keep it, and on the synthetic sample it would say nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from medvec_assets.modalities.ehr.bag import FEATURES
from resources.encoders.cards import write_card

FITTED = Path(__file__).parents[1] / "resources" / "encoders" / "fitted"


def fit(folder: Path) -> Path:
    """The map's file in `folder`; its card is beside it."""
    path = folder / "bag_of_codes_1.safetensors"
    path.write_bytes(safetensors.numpy.save({"scale": np.ones(FEATURES, np.float32)}))
    write_card(
        path,
        name="bag_of_codes",
        version=1,
        dim=FEATURES,
        input_kind="features",
        license="Apache-2.0",
        medical=False,
        note="counts of codes, hashed and scaled by log1p, brought to unit norm: no learning, no knowledge of what a code "
        "means or which codes are akin; not evaluated on clinical data",
    )
    return path


if __name__ == "__main__":
    print(fit(Path(sys.argv[1]) if len(sys.argv) > 1 else FITTED))
