"""One VCF file with its index: whether it is what it says, and its samples' calls at the panel's sites.

Belongs here: everything that knows VCF, BGZF and tabix. Does not belong here: where files are, panels of samples, licences
(vcf_objects), what a sample's calls mean (modalities.genotypes).

What is wrong with the file as a whole is a SourceError: nothing of it is to be trusted. What is wrong in one sample's column
is spelled as it is, and the modality refuses that sample alone.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medvec_assets.modalities.genotypes.calls import SiteRecord, spelled_calls, spelled_head
from medvec_assets.modalities.genotypes.reference import GENOME, Reference, Site, chromosome_of, is_build
from resources.errors import SourceError

# Up to here a file is read from end to end (some seconds: 4 MB hold 400 MB of text), which shows for certain that it is
# sorted and whole. A larger one is read by region, 40,000 records of 2,504 samples 500 times as fast: tabix makes no index
# of an unsorted file, and a damaged block is found where it is read.
WHOLE_BYTES = 4 << 20
HEAD = b"head"  # key of a table's metadata: the two lines that its samples share
TABLE = pa.schema(
    [("sample", pa.string()), ("calls", pa.binary()), ("size_bytes", pa.int64()), ("sha256", pa.string())]
)
_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_TABIX_MAGIC, _TABIX_HEADER = b"TBI\x01", struct.Struct("<4s8i")
_REF = re.compile(r"[ACGTN]+", re.IGNORECASE)
_ALT = re.compile(r"[!-~]+")
_REMEDIES = {
    "vcf_no_index": "put the .tbi that tabix makes beside it, or fetch it again: one of another file does not serve",
    "vcf_truncated": "it breaks off, its blocks are damaged, or its index is of another file: fetch both again",
    "vcf_header": "it is not a bgzipped VCF with a header of its own: fetch it again, or compress it with bgzip",
    "vcf_malformed": "a record does not have the columns that its header names, with GT first: ask the source to correct it",
    "vcf_unsorted": "sort it (bcftools sort), compress it with bgzip and index it again",
    "vcf_wrong_build": "the panel is of GRCh37: name a release on that build (1000 Genomes phase 3, release/20130502)",
    "strand_mismatch": "its alleles are of the other strand: read a file that is aligned to the forward strand of GRCh37",
    "allele_mismatch": "REF is not GRCh37's at a panel site: read a file of that build",
}


def block_of(index: bytes, name: str, panel: Reference) -> str | None:
    """The block of a file by its .tbi: `chr22` if it holds one chromosome, `genome` if several, None if none of the panel's.

    So a file that holds nothing wanted (a sex chromosome, the mitochondrion) is never fetched.
    """
    try:
        data = gzip.decompress(index)
        magic, *numbers = _TABIX_HEADER.unpack_from(data)
    except (OSError, EOFError, zlib.error, struct.error):
        raise _refused(name, "vcf_no_index", "has an index that cannot be read") from None
    if magic != _TABIX_MAGIC:
        raise _refused(name, "vcf_no_index", "has an index that is not of tabix")
    names = data[_TABIX_HEADER.size :][: numbers[-1]].split(b"\0")[:-1]
    chromosomes = {chromosome_of(one.decode("latin-1")) for one in names}
    if not chromosomes & panel.chromosomes:
        return None
    return f"chr{chromosomes.pop()}" if len(chromosomes) == 1 else GENOME


def read_calls(vcf: Path, index: Path, name: str, block: str, panel: Reference) -> pa.Table:
    """TABLE, one row per sample column in the file's order; none for a file without samples. Memory: 4 bytes per sample and
    site. `name` is what messages call the file."""
    import pysam

    pysam.set_verbosity(0)  # htslib's own messages quote the line that they are about
    _check_end(vcf, name)
    with _told_apart(name, "vcf_header"), pysam.VariantFile(str(vcf), index_filename=str(index)) as file:
        if file.format != "VCF" or file.compression != "BGZF":
            raise _refused(name, "vcf_header", "is not a bgzipped VCF")
        samples = list(file.header.samples)
        lengths = {str(contig): facts.length for contig, facts in file.header.contigs.items()}
        references = [line.value for line in file.header.records if line.key == "reference" and line.value]
    built = is_build(lengths, references)
    if not built:
        said = "is of another genome build" if built is False else "does not say of which genome build it is"
        raise _refused(name, "vcf_wrong_build", f"{said} (##contig, ##reference)")
    found: list[tuple[SiteRecord, NDArray[np.bytes_]]] = []
    if samples:
        with _told_apart(name, "vcf_truncated"), pysam.TabixFile(str(vcf), index=str(index)) as lines:
            wanted = {(site.chromosome, site.position): site for site in panel.sites}
            for site, line in _at_sites(lines, wanted, name, whole=vcf.stat().st_size <= WHOLE_BYTES):
                found.append(_record(site, line, len(samples), name))
    return _table(samples, block, found)


def _check_end(vcf: Path, name: str) -> None:
    """BGZF ends with an empty block. htslib reads on without it; a copy that broke off between two blocks looks whole then."""
    with vcf.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_EOF)))
        if file.read() != _EOF:
            raise _refused(name, "vcf_truncated", "lacks the block that ends a bgzipped file")


def _at_sites(file: Any, wanted: dict[tuple[str, int], Site], name: str, whole: bool) -> Iterator[tuple[Site, str]]:
    """Every record at a panel's site, with the site, in the file's order."""
    places = _whole(file, name) if whole else _regions(file, wanted)
    for chromosome, position, line in places:
        site = wanted.get((chromosome, position))
        if site is not None:
            yield site, line


def _whole(file: Any, name: str) -> Iterator[tuple[str, int, str]]:
    """(chromosome, position, line) of every record. SourceError `vcf_unsorted` at the first that is out of order."""
    seen: set[str] = set()
    last, before = "", 0
    for line in file.fetch():
        contig, position = _place(line, name)
        if contig != last:
            if contig in seen:
                raise _refused(name, "vcf_unsorted", "comes back to a chromosome that it had left")
            seen.add(contig)
            last, before = contig, 0
        if position < before:
            raise _refused(name, "vcf_unsorted", "is not sorted by position")
        before = position
        yield chromosome_of(contig), position, line


def _regions(file: Any, wanted: dict[tuple[str, int], Site]) -> Iterator[tuple[str, int, str]]:
    """The records that overlap the wanted places, found by the index."""
    contigs = {chromosome_of(contig): contig for contig in file.contigs}
    for chromosome, position in wanted:
        if chromosome in contigs:
            for line in file.fetch(contigs[chromosome], position - 1, position):
                yield chromosome, int(line.split("\t", 2)[1]), line


def _place(line: str, name: str) -> tuple[str, int]:
    fields = line.split("\t", 2)
    if len(fields) != 3 or not fields[1].isdecimal():
        raise _refused(name, "vcf_malformed", "holds a record without a position")
    return fields[0], int(fields[1])


def _record(site: Site, line: str, samples: int, name: str) -> tuple[SiteRecord, NDArray[np.bytes_]]:
    """A record at `site` and its [samples] spelled calls."""
    fields = line.split("\t", 9)
    if len(fields) != 10:
        raise _refused(name, "vcf_malformed", f"lacks columns at {site.chromosome}:{site.position}")
    _, _, _, ref, alt, _, _, _, form, columns = fields
    alts = () if alt == "." else tuple(alt.upper().split(","))
    if not _REF.fullmatch(ref) or not all(_ALT.fullmatch(one) for one in alts) or form.split(":")[0] != "GT":
        raise _refused(name, "vcf_malformed", f"has no alleles or no genotypes at {site.chromosome}:{site.position}")
    mismatch = site.mismatch(ref.upper(), alts)
    if mismatch is not None:
        raise _refused(name, mismatch, f"does not have the reference's alleles at {site.chromosome}:{site.position}")
    if form != "GT":
        columns = "\t".join(column.partition(":")[0] for column in columns.split("\t"))
    calls = spelled_calls(columns, samples)
    if calls is None:
        raise _refused(name, "vcf_malformed", f"does not have a column per sample at {site.chromosome}:{site.position}")
    return SiteRecord(site.chromosome, site.position, ref.upper(), alts), calls


def _table(samples: list[str], block: str, found: list[tuple[SiteRecord, NDArray[np.bytes_]]]) -> pa.Table:
    """In the one order of the panel's sites, so that files that differ in their order of chromosomes spell alike."""
    found.sort(key=lambda one: (int(one[0].chromosome), one[0].position, one[0].ref, one[0].alts))
    head = spelled_head(block, (record for record, _ in found)).encode()
    calls = _lines([column for _, column in found], len(samples))
    start = hashlib.sha256(head)
    digests = []
    for line in calls:
        digest = start.copy()
        digest.update(line)
        digests.append(digest.hexdigest())
    sizes = [len(head) + len(line) for line in calls]
    return pa.table([samples, calls, sizes, digests], schema=TABLE.with_metadata({HEAD: head}))


def _lines(columns: list[NDArray[np.bytes_]], samples: int) -> list[bytes]:
    """Per sample, its calls joined by spaces, with the line's end."""
    if columns and all(column.dtype == np.dtype("S3") for column in columns):
        grid = np.full((samples, len(columns), 4), ord(" "), np.uint8)
        grid[:, :, :3] = np.stack(columns, axis=1).view(np.uint8).reshape(samples, len(columns), 3)
        grid[:, -1, 3] = ord("\n")
        return [row.tobytes() for row in grid]
    listed = [column.tolist() for column in columns]
    return [b" ".join(column[row] for column in listed) + b"\n" for row in range(samples)]


@contextmanager
def _told_apart(name: str, code: str) -> Iterator[None]:
    """pysam's failures as ours: it tells them by general ones, with the file's path or content in the text."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError):
        raise _refused(name, code, "cannot be read") from None


def _refused(name: str, code: str, what: str) -> SourceError:
    return SourceError(f"the VCF {name} {what}", code=code, remedy=_REMEDIES[code])
