"""The genes of each space: which ones, in which order, known by which names, and what to take for one that was not measured.

Belongs here: reading the frozen lists (`<space>.tsv` beside this module) and finding a sample's values by them. Does not
belong here: fitting them (bench.fit_golub_pca, bench.fit_star_pca write list and projection together).

A list's columns: `feature` (an Ensembl id without version, or an Affymetrix probe), `symbol` (HGNC; empty where not known) and
`typical` (the median over the samples it was fitted on, in the list's scale). Its comment lines give `scale` and `floor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.modalities.expression.normalise import QUANTITY_OF, Scale, on_grid, scaled
from medvec_assets.modalities.expression.tables import Quantity, SampleTable
from resources.errors import ObjectRejected

MIN_OVERLAP = 0.9  # of a list's features that a sample must have measured: the rest is filled with typical values
LISTS = Path(__file__).parent
# ENSG00000000003.15 is ENSG00000000003. ENSG00000002586.20_PAR_Y, the copy on Y of a gene on X and Y, is another gene.
_VERSION = r"^(ENS[A-Z]*G[0-9]+)\.[0-9]+"
Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(position in the list, row of the sample) of every row that is one of the list's features."""


@dataclass(frozen=True)
class GeneList:
    """`index`: columns `name` and `position`, a row for each name of each feature; `typical`: float32 [features]."""

    space: str
    scale: Scale
    floor: float
    features: int
    index: pl.DataFrame
    typical: NDArray[np.float32]
    _last: list[tuple[pl.Series, Places]] = field(default_factory=list)

    @property
    def quantity(self) -> Quantity:
        """What a sample must have measured."""
        return QUANTITY_OF[self.scale]

    def model_input(self, table: SampleTable) -> NDArray[np.float32]:
        """float32 [features] on the grid. ObjectRejected `gene_set_mismatch` if the sample's quantity is not the list's,
        or if fewer than MIN_OVERLAP of the features were measured; `duplicate_genes` if two rows are one feature."""
        whole = table.values.get(self.quantity)
        if whole is None:
            raise self._mismatch()
        positions, rows = self._found(table.features)
        if np.unique(positions).size != positions.size:
            raise ObjectRejected(
                "two rows of a sample are the same gene under two names",
                code="duplicate_genes",
                remedy="give each gene once, by Ensembl id, symbol or probe",
            )
        values = scaled(whole[rows], whole, self.scale, self.floor)
        measured = ~np.isnan(values)
        if measured.sum() < MIN_OVERLAP * self.features:
            raise self._mismatch()
        result = self.typical.copy()
        result[positions[measured]] = on_grid(values[measured])
        return result

    def _found(self, features: pl.Series) -> Places:
        """Looked up once for samples in a row that have the same features, as GDC's have (8 ms)."""
        for known, places in self._last:
            if known is features or known.equals(features):
                return places
        names = features.str.replace(_VERSION, "$1").rename("name").to_frame().with_row_index("row")
        found = self.index.join(names, on="name", how="inner", maintain_order="left")
        position, row = (found[column].cast(pl.Int64).to_numpy() for column in ("position", "row"))
        places = (position, row)
        self._last[:] = [(features, places)]  # as in tables: one assignment
        return places

    def _mismatch(self) -> ObjectRejected:
        return ObjectRejected(
            f"a sample has not measured {MIN_OVERLAP:.0%} of the {self.features} features of space {self.space}",
            code="gene_set_mismatch",
            remedy="the sample is of another platform or gene model, or truncated: it belongs into a space fitted on "
            "such samples (bench.fit_golub_pca and bench.fit_star_pca show how)",
        )


@cache
def gene_lists() -> Mapping[str, GeneList]:
    """space -> its list."""
    return {path.stem: _read(path) for path in sorted(LISTS.glob("*.tsv"))}


def _read(path: Path) -> GeneList:
    lines = path.read_text().splitlines()
    head = dict(line[1:].strip().split(": ", 1) for line in lines if line.startswith("#"))
    table = pl.read_csv(path, separator="\t", comment_prefix="#", quote_char=None)
    numbered = table.with_row_index("position")
    names = [numbered.select(pl.col(column).alias("name"), "position") for column in ("feature", "symbol")]
    index = pl.concat(names).drop_nulls()
    repeated = index["name"].n_unique() != index.height
    if head["scale"] not in get_args(Scale) or repeated:
        raise ValueError(f"{path.name}: its scale is none, or a name stands twice")
    scale: Scale = head["scale"]  # type: ignore[assignment]  # it is one of them
    typical = table["typical"].cast(pl.Float64).to_numpy()
    return GeneList(path.stem, scale, float(head["floor"]), table.height, index, on_grid(typical))


def write_list(path: Path, head: Mapping[str, str], table: pl.DataFrame) -> None:
    """A list as `gene_lists` reads it; `table` has the columns feature, symbol, typical."""
    comments = "".join(f"# {key}: {value}\n" for key, value in head.items())
    path.write_text(
        comments + table.select("feature", "symbol", "typical").write_csv(separator="\t", quote_style="never")
    )
