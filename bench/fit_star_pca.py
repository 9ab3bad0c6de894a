"""Fits star_pca@1, the projection of space `rna_seq`, and its gene list, on the synthetic sample of gdc_rna_seq.

    python -m bench.fit_star_pca [FOLDER]

A stand-in: the sample's counts are invented, because no package holds real ones. Before real use, fit it again on real STAR
counts: give the folder that gdc-client has left, and raise the version of what comes out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import pca
from medvec_assets.connectors import Connector, open_connector
from medvec_assets.modalities.expression.normalise import on_grid, scaled
from medvec_assets.modalities.expression.tables import GDC_COLUMNS, SampleTable, read_table
from resources.errors import ObjectRejected
from resources.settings import Settings

SAMPLE = Path("tests/datasets/gdc_rna_seq/in")
DIM = 12  # of the 23 that 24 samples span
MOST_GENES = 5_000  # those that vary most
HEAD = {
    "scale": "log2_cpm",
    "floor": "0",
    "fitted_on": "24 synthetic aliquots, medvec's own sample of gdc_rna_seq: a stand-in, fit it again on real data before use",
}
NOTE = (
    "a stand-in: principal components of 24 synthetic STAR-counts files invented by medvec. Fit it again on real data before "
    "use (bench/fit_star_pca.py)"
)


def tables(source: Connector) -> list[SampleTable]:
    """Every good open table of GDC's. All have the same genes in the same order, or ValueError."""
    found: list[SampleTable] = []
    objects = pl.concat([listing.objects for listing in source.listings(pl.DataFrame())])
    for uri in objects.filter(pl.col("access_tier") == "open", pl.col("cohort") != "synthetic_broken").sort(
        "object_id"
    )["uri"]:
        try:
            found.append(read_table(source.read(uri, max_bytes=1 << 30)))
        except ObjectRejected as refusal:
            print(f"left out: {refusal.code}", file=sys.stderr)
    if any(not table.features.equals(found[0].features) for table in found):
        raise ValueError("the files are of more than one gene model: fit on one of them")
    return found


def model_inputs(found: list[SampleTable]) -> tuple[list[int], NDArray[np.float32]]:
    """(places of the MOST_GENES that vary most, in the file's order; values [samples, genes])."""
    whole = np.stack([scaled(t.values["counts"], t.values["counts"], "log2_cpm", 0.0) for t in found])
    chosen = sorted(np.argsort(-whole.var(axis=0), kind="stable")[:MOST_GENES].tolist())
    return chosen, on_grid(whole[:, chosen])


def symbols(source: Connector, uri: str) -> dict[str, str]:
    """Gene id -> symbol, of one file; a symbol of two genes is nobody's."""
    data = source.read(uri, max_bytes=1 << 30)
    rows = pl.read_csv(data, separator="\t", comment_prefix="#", columns=list(GDC_COLUMNS[:2]), quote_char=None)
    rows = rows.filter(~pl.col("gene_name").is_duplicated()).drop_nulls()
    return dict(rows.with_columns(pl.col("gene_id").str.replace(r"\.[0-9]+", "")).iter_rows())


def main(folder: Path = SAMPLE) -> None:
    source = open_connector("gdc", Settings(sources={"gdc_rna_seq": str(folder)}), "gdc_rna_seq")
    found = tables(source)
    chosen, inputs = model_inputs(found)
    features = found[0].features.gather(chosen).str.replace(r"\.[0-9]+", "").to_list()
    objects = next(iter(source.listings(pl.DataFrame()))).objects
    first = objects.filter(pl.col("cohort") != "synthetic_broken").sort("object_id")["uri"][0]
    named = symbols(source, first)
    genes = pca.gene_table(features, [named.get(feature, "") for feature in features], inputs)
    pca.write("rna_seq", "star_pca", HEAD, genes, pca.fit(inputs, DIM), NOTE)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
