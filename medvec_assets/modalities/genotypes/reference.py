"""The reference panel: the sites that are counted, on which genome build, and what stands for a missing call.

Belongs here: the frozen list of features (the file beside this module) and how a file's build and alleles are compared
with it. Does not belong here: reading VCF (connectors.vcf_file), the projection fitted on it (resources/encoders/fitted).

The list names each feature `chromosome:position:REF:ALT`; ALT is the allele that is counted, by its name and not by its
number. Sites, order and means are those that encoder kgp_pca@1 was fitted with (bench/fit_kgp_pca.py writes both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NAME = "kgp_kidd55_1"
GENOME = "genome"  # the block of a file that holds several chromosomes
# GRCh37, as ##contig lines of 1000 Genomes phase 3 say; GRCh38 differs in every one of them.
CONTIG_LENGTHS = {
    "1": 249250621,
    "2": 243199373,
    "3": 198022430,
    "4": 191154276,
    "5": 180915260,
    "6": 171115067,
    "7": 159138663,
    "8": 146364022,
    "9": 141213431,
    "10": 135534747,
    "11": 135006516,
    "12": 133851895,
    "13": 115169878,
    "14": 107349540,
    "15": 102531392,
    "16": 90354753,
    "17": 81195210,
    "18": 78077248,
    "19": 59128983,
    "20": 63025520,
    "21": 48129895,
    "22": 51304566,
}
_BUILD_NAMES = ("grch37", "hg19", "b37", "hs37d5", "human_g1k_v37")
_COMPLEMENT = str.maketrans("ACGT", "TGCA")

Mismatch = Literal["strand_mismatch", "allele_mismatch"]


@dataclass(frozen=True)
class Site:
    """One feature. `mean`: of the dosage (0 to 2) over the reference's samples, on a grid of 1/1024."""

    chromosome: str
    position: int
    ref: str
    alt: str
    mean: float

    @property
    def name(self) -> str:
        return f"{self.chromosome}:{self.position}:{self.ref}:{self.alt}"

    def mismatch(self, ref: str, alts: Collection[str]) -> Mismatch | None:
        """Why a VCF record at this position cannot be of this site on the forward strand of this build; None if it can.

        REF decides: the build gives it. So a swap of a palindromic site (A/T, C/G) is seen, unless a tool has swapped the
        record's REF back without its genotypes, which no allele can tell.
        """
        if ref[:1] == self.ref:
            return None
        flipped = ref.translate(_COMPLEMENT) == self.ref and self.alt.translate(_COMPLEMENT) in alts
        return "strand_mismatch" if flipped else "allele_mismatch"


@dataclass(frozen=True)
class Reference:
    """The panel's sites in the order of the features. `digest` is of the file that lists them."""

    sites: tuple[Site, ...]
    digest: str

    @property
    def chromosomes(self) -> frozenset[str]:
        return frozenset(site.chromosome for site in self.sites)

    @property
    def means(self) -> NDArray[np.float32]:
        """float32 [features]"""
        return np.array([site.mean for site in self.sites], np.float32)

    def in_block(self, block: str) -> NDArray[np.bool_]:
        """bool [features]: the features that a file of `block` (`genome`, `chr22`) tells of."""
        return np.array([block in (GENOME, f"chr{site.chromosome}") for site in self.sites])


@cache
def reference() -> Reference:
    """The panel as it is shipped."""
    data = Path(__file__).with_name(f"{NAME}.tsv").read_bytes()
    rows = [line.split("\t") for line in data.decode().splitlines() if not line.startswith("#")]
    return Reference(tuple(_site(name, mean) for name, _, mean in rows[1:]), hashlib.sha256(data).hexdigest())


def _site(name: str, mean: str) -> Site:
    chromosome, position, ref, alt = name.split(":")
    return Site(chromosome, int(position), ref, alt, float(mean))


def chromosome_of(contig: str) -> str:
    """`22` of both spellings of a contig's name, `22` and `chr22`."""
    return contig[3:] if contig[:3].lower() == "chr" else contig


def is_build(lengths: Mapping[str, int | None], references: Collection[str]) -> bool | None:
    """Whether a VCF's header tells of GRCh37: by the lengths of its contigs, else by its ##reference; None if neither
    says anything."""
    known = {chromosome_of(name): length for name, length in lengths.items() if length}
    stated = [known[name] == length for name, length in CONTIG_LENGTHS.items() if name in known]
    if stated:
        return all(stated)
    named = " ".join(references).lower()
    return any(name in named for name in _BUILD_NAMES) if named else None
