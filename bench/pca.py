"""Principal components as a frozen projection: what bench.fit_golub_pca and bench.fit_star_pca share.

Belongs here: the fit and the writing of list, projection and card. Does not belong here: which samples (the two modules),
applying a projection (resources.encoders.projection).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

import resources.encoders
from medvec_assets.modalities.expression.genes import LISTS, write_list
from medvec_assets.modalities.expression.normalise import on_grid
from resources.encoders.cards import write_card

FITTED = Path(resources.encoders.__file__).parent / "fitted"
Values = NDArray[np.float32]


def fit(inputs: Values, dim: int) -> dict[str, Values]:
    """`mean` [features] and the first `dim` principal `components` [dim, features] of model inputs [samples, features].

    A component's sign is free: the one with its largest loading positive is taken, so that a re-fit gives the same map.
    """
    mean = inputs.astype(np.float64).mean(axis=0)
    _, _, axes = np.linalg.svd(inputs - mean, full_matrices=False)
    components = axes[:dim]
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    return {"mean": mean.astype(np.float32), "components": components.astype(np.float32)}


def gene_table(features: list[str], symbols: list[str], inputs: Values) -> pl.DataFrame:
    """The gene list that belongs to a fit (medvec_assets.modalities.expression.genes)."""
    typical = on_grid(np.median(inputs.astype(np.float64), axis=0))
    columns = {"feature": features, "symbol": symbols, "typical": typical.astype(np.float64)}
    return pl.DataFrame(columns)


def write(
    space: str, name: str, head: Mapping[str, str], genes: pl.DataFrame, arrays: Mapping[str, Values], note: str
) -> None:
    """Gene list, projection and card, where medvec ships them from. Raise the version before writing another map."""
    write_list(LISTS / f"{space}.tsv", head, genes)
    FITTED.mkdir(exist_ok=True)
    path = FITTED / f"{name}_1.safetensors"
    path.write_bytes(safetensors.numpy.save(dict(arrays)))
    write_card(
        path,
        name=name,
        version=1,
        dim=len(arrays["components"]),
        input_kind="features",
        license="Apache-2.0",
        medical=False,
        note=note,
    )
