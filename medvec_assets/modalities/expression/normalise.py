"""Scales: from counts, TPM and intensities to the log2 values that a space compares, on one grid.

Belongs here: arithmetic of one sample. Does not belong here: parsing (tables), which genes are wanted (genes).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.expression.tables import Quantity

Scale = Literal["log2_cpm", "log2_tpm", "log2_intensity"]
QUANTITY_OF: dict[Scale, Quantity] = {"log2_cpm": "counts", "log2_tpm": "tpm", "log2_intensity": "intensity"}
GRID = (
    1024  # values are multiples of 1/1024: the last bits of a logarithm differ between machines, and with them digests
)
Values = NDArray[np.float64]


def scaled(wanted: Values, whole: Values, scale: Scale, floor: float) -> Values:
    """`wanted` values of a sample in `scale`; `whole`: all its values, for the library size or the kind of scale.

    log2_cpm        log2(1 + counts per million of `whole`)
    log2_tpm        log2(1 + TPM)
    log2_intensity  log2 of intensities not lower than `floor`; what is logarithmic already is taken as it is
    NaN stays NaN.
    """
    if scale == "log2_cpm":
        return np.log2(wanted * (1e6 / np.nansum(whole)) + 1)
    if scale == "log2_tpm":
        return np.log2(wanted + 1)
    low = np.log2(floor)
    # fmax and fmin would drop NaN; maximum keeps it.
    return np.maximum(wanted, low) if is_logarithmic(whole) else np.log2(np.maximum(wanted, floor))


def is_logarithmic(values: Values) -> bool:
    """Whether intensities are logarithms: the rule of GEO's own GEO2R, by quantiles.

    They are linear where the 99th percentile is over 100, or where they span over 50 and the lower quartile is positive.
    """
    lowest, quarter, high, highest = np.nanquantile(values, (0.0, 0.25, 0.99, 1.0))
    return not (high > 100 or (highest - lowest > 50 and quarter > 0))


def on_grid(values: Values) -> NDArray[np.float32]:
    """`values` rounded to 1/GRID, exact in float32."""
    return (np.rint(values * GRID) / GRID).astype(np.float32)
