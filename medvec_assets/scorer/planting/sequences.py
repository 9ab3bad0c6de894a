"""Planting into VCF and FASTQ files: sample names, header lines, read names.

Belongs here: text files of either kind. Does not belong here: BCF, BAM (nothing lists them as objects).
"""

from __future__ import annotations

from collections.abc import Iterator

from medvec_assets.scorer.planting import Planted, Subject

READS = 8  # whose names are planted: the first ones tell enough


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The file with identifiers, and one with a name in a line that a parser cannot read."""
    if data.startswith(b"##fileformat=VCF"):
        form = _vcf
    elif data.startswith(b"@"):
        form = _fastq
    else:
        return
    try:
        lines = data.decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return
    yield Planted("".join(form(lines, subject)).encode())
    broken = f"{subject.mint.plant('name', 'line that a parser refuses')}\tchr?\tnot a number\n"
    yield Planted("".join([*form(lines, subject), broken]).encode(), damaged=True)


def _vcf(lines: list[str], subject: Subject) -> list[str]:
    mint = subject.mint
    head = [line for line in lines if line.startswith("##")]
    columns = next(line for line in lines if line.startswith("#CHROM")).rstrip("\n").split("\t")
    samples = [subject.ref, *(mint.plant("sample", "VCF sample name") for _ in columns[10:])]
    added = [
        f"##reference=file:///home/{mint.plant('file_name', 'VCF header, reference')}/hs37d5.fa\n",
        f"##sampleOwner={mint.sentence('VCF header, free text')}\n",
        f'##SAMPLE=<ID={subject.ref},Description="{mint.plant("name", "VCF header, SAMPLE")}">\n',
        f"##bcftools_viewCommand=view -s {subject.ref} {mint.plant('file_name', 'VCF header, command')}.vcf.gz\n",
    ]
    names = "\t".join([*columns[:9], *(name or "" for name in samples)][: len(columns)])
    return [*head, *added, f"{names}\n", *(line for line in lines if not line.startswith("#"))]


def _fastq(lines: list[str], subject: Subject) -> list[str]:
    """Read names as instruments write them, with what people add behind them."""
    mint, made = subject.mint, list(lines)
    for start in range(0, min(len(lines), READS * 4), 4):
        machine, person = mint.plant("device_serial", "FASTQ read name"), mint.plant("name", "FASTQ read comment")
        made[start] = f"@{machine}:1:FC:1:1:{start}:1 {subject.ref} {person}\n"
        if start + 2 < len(lines):
            made[start + 2] = f"+{mint.plant('sample', 'FASTQ separator line')}\n"
    return made
