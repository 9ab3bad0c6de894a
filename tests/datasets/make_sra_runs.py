"""Makes the sample bundle of sra_runs: synthetic reads of three random genomes, in the layout of a mirror of SRA.

    python tests/datasets/make_sra_runs.py

Nothing in it is real: accessions of SRA's form that SRA has not given (SRP9000000..), organism "synthetic construct". Two
studies, of two genomes each, so that one genome stands in both; some runs are broken on purpose, as their library's name
says, and one has a dbGaP consent. The reads are the same whenever this runs.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medvec_assets.connectors.sra_metadata import HEADER

FOLDER = Path(__file__).parent / "sra_runs" / "in"
GENOME_BASES, READ_BASES, READS = 4_000, 100, 400
GENOMES = "ABC"
GC_SHARES = {"A": 0.35, "B": 0.5, "C": 0.62}
ERROR_RATE = 0.005
ADAPTER = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"
STUDIES = {"SRP900000001": "AB", "SRP900000002": "BC"}
_LETTERS = np.frombuffer(b"ACGT", np.uint8)

Spoil = Callable[[bytes], bytes]


def genome(name: str) -> NDArray[np.int64]:
    """Random bases 0-3, the same for a name."""
    share = GC_SHARES[name] / 2
    return np.random.default_rng(ord(name)).choice(4, GENOME_BASES, p=[0.5 - share, share, share, 0.5 - share])


def fastq(run: str, bases: NDArray[np.int64], mate: int, seed: int, reads: int = READS, quality: int = 35) -> bytes:
    """`reads` reads of `bases`, from either strand, with errors; SRA's own spelling of names."""
    random = np.random.default_rng(seed)
    lines = []
    for number in range(1, reads + 1):
        start = random.integers(0, len(bases) - READ_BASES + 1)
        read = bases[start : start + READ_BASES]
        if random.random() < 0.5:
            read = 3 - read[::-1]
        wrong = random.random(READ_BASES) < ERROR_RATE
        read = np.where(wrong, (read + random.integers(1, 4, READ_BASES)) % 4, read)
        # An error is doubted in half of the cases, and the end of a read more than its beginning.
        phred = np.where(wrong & (random.random(READ_BASES) < 0.5), 8, quality) - (np.arange(READ_BASES) > 90) * 3
        name = f"{run}.{number} {number}/{mate} length={READ_BASES}"
        lines += [
            f"@{name}",
            _LETTERS[read].tobytes().decode(),
            f"+{name}",
            (phred + 33).astype(np.uint8).tobytes().decode(),
        ]
    return ("\n".join(lines) + "\n").encode()


def packed(text: bytes) -> bytes:
    """Two gzip members, as bgzip and SRA's tools write many; no time in their headers."""
    half = text.index(b"\n@", len(text) // 2) + 1
    return b"".join(gzip.compress(part, mtime=0) for part in (text[:half], text[half:]))


def _truncated(text: bytes) -> bytes:
    return packed(text)[:-2_000]


def _adapters_only(text: bytes) -> bytes:
    lines = text.decode().split("\n")
    lines[1::4] = [(ADAPTER + "G" * READ_BASES)[:READ_BASES] for _ in lines[1::4]]
    return packed("\n".join(lines).encode())


def _proteins(text: bytes) -> bytes:
    lines = text.decode().split("\n")
    lines[1::4] = [line.replace("A", "E").replace("G", "L") for line in lines[1::4]]
    return packed("\n".join(lines).encode())


def _message_page(text: bytes) -> bytes:
    return b"<!DOCTYPE html>\n<html><body><p>Run has been removed at the submitter's request.</p></body></html>\n"


def _archive(text: bytes) -> bytes:
    return b"NCBI.sra" + bytes(64)


BROKEN: dict[str, Spoil] = {
    "synthetic, broken: truncated gzip": _truncated,
    "synthetic, broken: adapters only": _adapters_only,
    "synthetic, broken: protein letters": _proteins,
    "synthetic, broken: message page of a withdrawn run": _message_page,
    "synthetic, broken: sra archive only": _archive,
    "synthetic, broken: too few reads": lambda text: packed(b"\n".join(text.split(b"\n")[:40]) + b"\n"),
    "synthetic, broken: low quality": lambda text: packed(_with_quality(text, "#")),
    "synthetic, broken: shifted lines": lambda text: packed(text.split(b"\n", 2)[2]),
}


def _with_quality(text: bytes, character: str) -> bytes:
    lines = text.decode().split("\n")
    lines[3::4] = [character * len(line) for line in lines[3::4]]
    return "\n".join(lines).encode()


def row(run: str, study: str, name: str, library: str, layout: str, consent: str = "public") -> dict[str, str]:
    """One row of a RunInfo table."""
    number = run[3:]
    digest = hashlib.md5(run.encode(), usedforsecurity=False).hexdigest().upper()
    reads = READS * (2 if layout == "PAIRED" else 1)
    return dict.fromkeys(HEADER.split(","), "") | {
        "Run": run,
        "ReleaseDate": "2026-01-01 00:00:00",
        "LoadDate": "2026-01-01 00:00:00",
        "spots": str(READS),
        "bases": str(reads * READ_BASES),
        "spots_with_mates": str(READS if layout == "PAIRED" else 0),
        "avgLength": str(READ_BASES * reads // READS),
        "size_MB": "0",
        "Experiment": f"SRX{number}",
        "LibraryName": library,
        "LibraryStrategy": "WGS",
        "LibrarySelection": "RANDOM",
        "LibrarySource": "GENOMIC",
        "LibraryLayout": layout,
        "InsertSize": "0",
        "InsertDev": "0",
        "Platform": "ILLUMINA",
        "Model": "Illumina NovaSeq 6000",
        "SRAStudy": study,
        "BioProject": f"PRJNA{study[3:]}",
        "ProjectID": study[3:],
        "Sample": f"SRS{number}",
        "BioSample": f"SAMN{number}",
        "SampleType": "simple",
        "TaxID": "32630",
        "ScientificName": "synthetic construct",
        "SampleName": f"synthetic_genome_{name}",
        "Tumor": "no",
        "CenterName": "MEDVEC",
        "Submission": f"SRA{study[3:]}",
        "dbgap_study_accession": "" if consent == "public" else "phs900001",
        "Consent": consent,
        "RunHash": digest,
        "ReadHash": digest[::-1],
    }


def contents() -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file of the bundle."""
    number = 900_000_000
    for study, genomes in STUDIES.items():
        rows = []
        for name in genomes:
            for copy in range(6):
                number += 1
                run, layout = f"SRR{number}", "PAIRED" if copy == 0 else "SINGLE"
                rows.append(row(run, study, name, f"synthetic genome {name}, library {copy + 1}", layout))
                for mate in (1, 2) if layout == "PAIRED" else (1,):
                    suffix = f"_{mate}" if layout == "PAIRED" else ""
                    reads = READS // 2 if layout == "PAIRED" else READS
                    text = fastq(run, genome(name), mate, number * 2 + mate, reads)
                    yield f"{study}/{run}/{run}{suffix}.fastq.gz", packed(text)
        for library, spoil in (
            list(BROKEN.items())[: len(BROKEN) // 2] if study.endswith("1") else list(BROKEN.items())[4:]
        ):
            number += 1
            run = f"SRR{number}"
            rows.append(row(run, study, genomes[0], library, "SINGLE"))
            data = spoil(fastq(run, genome(genomes[0]), 1, number * 2, 150))
            yield f"{study}/{run}/{run}" + ("" if data.startswith(b"NCBI.sra") else ".fastq.gz"), data
        if study.endswith("2"):
            number += 1
            rows.append(row(f"SRR{number}", study, "C", "synthetic, under a dbGaP consent", "PAIRED", "GRU"))
        table = io.StringIO()
        writer = csv.DictWriter(table, HEADER.split(","), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        yield f"{study}/SraRunInfo.csv", table.getvalue().encode()


def main() -> None:
    for path, data in contents():
        target = FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


if __name__ == "__main__":
    main()
