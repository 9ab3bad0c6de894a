"""VCF files of a few samples at the panel's sites, right or wrong, for the tests of genotypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pysam

from medvec_assets.modalities.genotypes.reference import CONTIG_LENGTHS, Site, reference

NAME = "ALL.chr22.phase3_shapeit2_mvncall_integrated_v5b.20130502.genotypes.vcf.gz"
WHOLE = NAME.replace("chr22", "wgs")
PANEL = "integrated_call_samples_v3.20130502.ALL.panel"
SAMPLES = ("HG00096", "HG00097", "NA18525")
SITES = reference().sites
LAST = SITES[-1]  # the one on chromosome 22

Call = Callable[[int, int], str]
"""The sample column of (site's number, sample's number)."""


def balanced(site: int, sample: int) -> str:
    """Genotypes that differ from sample to sample, all of them called."""
    return ("0|0", "0|1", "1|0", "1|1")[(site * (sample + 2) + sample) % 4]


def header(samples: Sequence[str] = SAMPLES, *, lengths: dict[str, int] | None = None, prefix: str = "") -> list[str]:
    contigs = CONTIG_LENGTHS if lengths is None else lengths
    lines = ["##fileformat=VCFv4.1", "##reference=ftp://ftp.1000genomes.ebi.ac.uk/(...)/hs37d5.fa.gz"]
    lines += [f"##contig=<ID={prefix}{name},assembly=b37,length={length}>" for name, length in contigs.items()]
    lines.append('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">')
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    return [*lines, "\t".join([*fixed, *samples] if samples else fixed[:-1])]


def record(
    site: Site, calls: Iterable[str], *, ref: str = "", alt: str = "", form: str = "GT", prefix: str = ""
) -> str:
    fixed = [f"{prefix}{site.chromosome}", str(site.position), ".", ref or site.ref, alt or site.alt]
    return "\t".join([*fixed, "100", "PASS", ".", form, *calls])


def records(sites: Sequence[Site] = SITES, call: Call = balanced, samples: int = len(SAMPLES)) -> list[str]:
    return [record(site, [call(row, sample) for sample in range(samples)]) for row, site in enumerate(sites)]


def put_vcf(path: Path, head: Sequence[str], rows: Sequence[str], *, index: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("")
    plain.write_text("".join(f"{line}\n" for line in [*head, *rows]))
    pysam.tabix_compress(str(plain), str(path), force=True)
    plain.unlink()
    if index:
        pysam.tabix_index(str(path), preset="vcf", force=True)
    return path


def put_panel(folder: Path, samples: Iterable[str] = SAMPLES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PANEL
    rows = [f"{sample}\tGBR\tEUR\t{('male', 'female')[number % 2]}\n" for number, sample in enumerate(samples)]
    path.write_text("sample\tpop\tsuper_pop\tgender\t\t\n" + "".join(rows))
    (folder / "LICENSE").write_text("IGSR open data\n")
    return path


def release(folder: Path, call: Call = balanced) -> Path:
    """A folder with the panel, a file of chromosome 22 and one of all chromosomes; returns it."""
    put_panel(folder)
    put_vcf(folder / NAME, header(), records([LAST], call))
    put_vcf(folder / WHOLE, header(), records(SITES, call))
    return folder
