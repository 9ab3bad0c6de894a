"""Fits encoder kgp_pca@1 and writes the list of its features: the principal axes of 1000 Genomes phase 3 at 55 SNPs.

    python -m bench.fit_kgp_pca

Dosages are centred by 2p and divided by sqrt(2p(1-p)), p the counted allele's frequency (Patterson et al. 2006), over the
2,504 samples of the release's panel. Labels are not used. A re-fit gives the same map within 1e-5: axes are ordered by
variance and pointed so that their largest loading is positive. Another panel, site or order is another version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysam
import safetensors.numpy
from numpy.typing import NDArray

from medvec_assets.connectors import sample_folder
from medvec_assets.modalities.genotypes import reference
from resources.encoders import cards

DIM = 10  # the customary number; p@10 by superpopulation is .93 for any from 4 to 16
GRID = 1024  # means stand in model inputs: a multiple of 1/1024 is exact in float32 on every machine
_ROOT = Path(__file__).parents[1]
ENCODER = _ROOT / "resources" / "encoders" / "fitted" / "kgp_pca_1.safetensors"
FEATURES = Path(reference.__file__).with_name(f"{reference.NAME}.tsv")


def panel_dosages(folder: Path) -> tuple[list[tuple[str, str]], NDArray[np.float64]]:
    """(feature, rsid) of every record of the sample's VCF, and the dosages [samples, features] of the panel's samples."""
    (panel,) = folder.glob("*.panel")
    members = {line.split("\t")[0] for line in panel.read_text().splitlines()[1:]}
    (path,) = folder.glob("*.vcf.gz")
    features, columns = [], []
    with pysam.VariantFile(str(path)) as file:
        samples = [sample for sample in file.header.samples if sample in members]
        for record in file:
            (alt,) = record.alts or ()
            features.append((f"{record.chrom}:{record.pos}:{record.ref}:{alt}", record.id or "."))
            columns.append([sum(record.samples[sample]["GT"]) for sample in samples])
    return features, np.array(columns, np.float64).T


def fitted(dosages: NDArray[np.float64], dim: int = DIM) -> dict[str, NDArray[np.float32]]:
    """The arrays of a projection (resources/encoders/projection.py): mean, scale and components [dim, features]."""
    frequency = dosages.mean(0) / 2
    mean = np.round(2 * frequency * GRID) / GRID
    scale = 1 / np.sqrt(2 * frequency * (1 - frequency))
    _, _, axes = np.linalg.svd((dosages - mean) * scale, full_matrices=False)
    axes = axes[:dim]
    largest = axes[np.arange(dim), np.abs(axes).argmax(1)]
    components = axes * np.sign(largest)[:, None]
    return {"mean": mean.astype("f4"), "scale": scale.astype("f4"), "components": components.astype("f4")}


def main() -> None:
    features, dosages = panel_dosages(sample_folder("kgp_genotypes"))
    arrays = fitted(dosages)
    rows = [f"{name}\t{rsid}\t{float(mean)}" for (name, rsid), mean in zip(features, arrays["mean"], strict=True)]
    title = "# 1000 Genomes phase 3, GRCh37: 55 ancestry-informative SNPs, doi:10.1016/j.fsigen.2014.01.002\n"
    FEATURES.write_text(title + "feature\trsid\tmean\n" + "\n".join(rows) + "\n")
    ENCODER.parent.mkdir(exist_ok=True)
    ENCODER.write_bytes(safetensors.numpy.save(arrays))
    cards.write_card(
        ENCODER,
        name="kgp_pca",
        version=1,
        dim=DIM,
        input_kind="features",
        license="IGSR open data",
        medical=False,
        note=f"principal axes of {len(dosages)} samples of 1000 Genomes phase 3 at 55 SNPs: ancestry, nothing clinical",
    )


if __name__ == "__main__":
    main()
