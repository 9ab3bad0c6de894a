"""From reads to a k-mer sketch and its features: what two runs have in common, in 1,024 numbers.

Belongs here: which k-mers count, hashing, the sketch, its features. Does not belong here: FASTQ (fastq), similarity search.

- k = 21: 4^21 k-mers are 1,000 times a human genome's, so that one shared by chance is rare, and one fits in 42 bits; longer
  ones are lost to the errors of long reads (at 1 % a base 19 % of 21-mers hold one).
- Canonical: a k-mer and its reverse complement are one, as a read comes from either strand.
- A k-mer with a base below Q20, an N, or after the start of an adapter does not count.
- FracMinHash: of all hashes those in the lowest 1/16 are kept. Unlike the s smallest, that share is the same for runs of
  any depth, so that what two sketches share says what the runs share; MAX_READS bounds it.
- Where a sample is covered several times, a k-mer seen once is an error of the machine and is left out.
- Features: each hash adds +1 or -1 to one of 1,024 bins (signed feature hashing). The cosine of two such vectors is, in
  expectation, shared / sqrt(kept of one x kept of the other) with a deviation of 1/sqrt(1024) = .03: it rises with Jaccard
  and containment. Sums of integers, so the same on every machine.

What it cannot tell: 20,000 reads cover a bacterium or virus, and a thousandth of a human genome. Of large genomes two runs
share little but repeats, mitochondria and what the library prepares for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.sequencing.fastq import NO_BASE, Reads
from resources.errors import ObjectRejected

K = 21
SCALED = 16  # one hash in so many is kept
BINS = 1_024
KEPT_BELOW = np.uint64((1 << 64) // SCALED)
MIN_QUALITY = 20  # Phred: one wrong base in a hundred
MIN_HASHES = 64  # fewer make no direction: the cosine's deviation would be that of chance
MIN_USABLE = 0.05  # of all k-mers
MAX_ADAPTERS = 0.8  # of reads that begin with one
REPEATED = (
    0.5  # of all kept occurrences that stand more than once: then the sample is covered, and single ones are errors
)
_SEED = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64, whose finaliser hashes here
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# The first 12 bases of TruSeq's, Nextera's and small RNA's adapters: chance puts one in 1 of 100,000 reads.
ADAPTERS = ("AGATCGGAAGAG", "CTGTCTCTTATA", "TGGAATTCTCGG")
_ADAPTER_BASES = 12
_REMEDIES = {
    "low_quality": f"fewer than {MIN_USABLE:.0%} of the k-mers are free of N and of bases below Q{MIN_QUALITY}: the run "
    "failed; leave it out",
    "adapters_only": f"more than {MAX_ADAPTERS:.0%} of the reads begin with an adapter: the library is empty; leave it out",
    "low_complexity": f"fewer than {MIN_HASHES} distinct k-mers are left: reads of one repeat, or too short ones; leave it out",
}


@dataclass(frozen=True)
class Sketch:
    """`hashes` [n] uint64, distinct and sorted: the kept canonical k-mers; `gc_share` of all bases A, C, G, T."""

    hashes: NDArray[np.uint64]
    gc_share: float


def sketch(files: list[Reads]) -> Sketch:
    """The sketch of one run's reads, of all its files. Raises ObjectRejected with one of the codes above."""
    found = [_kept_hashes(reads) for reads in files]
    windows, usable = sum(one.windows for one in found), sum(one.usable for one in found)
    reads, adapters = sum(len(one.lengths) for one in files), sum(one.adapters for one in found)
    if adapters > MAX_ADAPTERS * reads:
        raise _refused("adapters_only")
    if not windows or usable < MIN_USABLE * windows:
        raise _refused("low_quality" if windows else "low_complexity")
    hashes = distinct(np.concatenate([one.hashes for one in found]))
    if len(hashes) < MIN_HASHES:
        raise _refused("low_complexity")
    counts = np.sum([one.bases for one in found], axis=0)
    return Sketch(hashes, float(counts[1] + counts[2]) / float(counts.sum()))


def distinct(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each hash once, sorted; those that stand once left out where most stand more often."""
    found, times = np.unique(hashes, return_counts=True)
    repeated = times > 1
    return found[repeated] if times[repeated].sum() > REPEATED * times.sum() else found


def features(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The model input of a sketch's hashes: float32 [BINS], whole numbers. A second hash chooses bin and sign, as the
    sketch was chosen by the first."""
    again = mixed(hashes + _SEED)
    bins = (again >> np.uint64(32)) % np.uint64(BINS)
    signs = np.where(again & np.uint64(1), 1.0, -1.0)
    return np.bincount(bins.astype(np.int64), weights=signs, minlength=BINS).astype(np.float32)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: a bijection of 64 bits in which every bit of the input moves half of the output's."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _MIX[0]
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX[1]
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class _Found:
    hashes: NDArray[np.uint64]  # not distinct
    windows: int  # k-mers of the reads
    usable: int  # of these, the ones that count
    adapters: int  # reads that begin with one
    bases: NDArray[np.int64]  # numbers of A, C, G, T


def _kept_hashes(reads: Reads) -> _Found:
    bases = np.array([np.count_nonzero(reads.codes == base) for base in range(NO_BASE)])
    windows = int(np.maximum(reads.lengths - K + 1, 0).sum())
    if len(reads.codes) < K:
        return _Found(np.empty(0, np.uint64), windows, 0, 0, bases)
    kmers, probes = kmer_codes(reads.codes)
    bad = (reads.codes == NO_BASE) | (reads.qualities < 33 + MIN_QUALITY)
    adapters = _mark_adapters(bad, probes, reads)
    before = np.zeros(len(bad) + 1, np.int32)
    np.cumsum(bad, out=before[1:])
    hashes = canonical_hashes(kmers[before[K:] == before[:-K]])
    return _Found(hashes[hashes < KEPT_BELOW], windows, len(hashes), adapters, bases)


def kmer_codes(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Every K-mer of `codes` (uint64, two bits a base) and every 12-mer. What stands over a code of 4 is no k-mer.

    By doubling, in the smallest integers that hold them: 1, 2, 4, 8, 16 and then 16 + 4 + 1."""
    one = codes & np.uint8(3)
    two = (one[:-1] << 2) | one[1:]
    four = (two[:-2] << 4) | two[2:]
    eight = (four[:-4].astype(np.uint16) << 8) | four[4:]
    sixteen = (eight[:-8].astype(np.uint32) << 16) | eight[8:]
    size = len(codes) - K + 1
    tail = (four[16 : 16 + size].astype(np.uint16) << 2) | one[20 : 20 + size]
    kmers: NDArray[np.uint64] = np.bitwise_or(sixteen[:size].astype(np.uint64) << np.uint64(10), tail)
    twelve: NDArray[np.uint32] = np.bitwise_or(eight[:-4].astype(np.uint32) << np.uint32(8), four[8:])
    return kmers, twelve


def canonical_hashes(kmers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hash of each k-mer, which its reverse complement has too."""
    return mixed(np.minimum(kmers, _reverse_complement(kmers)) + _SEED)


def _reverse_complement(kmers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Two bits a base: complement all, reverse the pairs of the word, and shift the K in use down."""
    turned = ~kmers
    for bits, mask in ((2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        low = np.uint64(mask)
        turned = ((turned >> np.uint64(bits)) & low) | ((turned & low) << np.uint64(bits))
    return turned.byteswap() >> np.uint64(64 - 2 * K)


def _mark_adapters(bad: NDArray[np.bool_], probes: NDArray[np.uint32], reads: Reads) -> int:
    """Marks every read as bad from the start of an adapter on; the number of reads that begin with one."""
    first, *others = (probes == _code(adapter) for adapter in ADAPTERS)
    for other in others:
        first |= other
    hits, ends = np.flatnonzero(first), reads.ends
    read = np.searchsorted(ends, hits)
    within = hits + _ADAPTER_BASES <= ends[read]  # otherwise it reaches over a gap
    read, place = np.unique(read[within], return_index=True)
    hits = hits[within][place]
    for start, end in zip(hits.tolist(), ends[read].tolist(), strict=True):
        bad[start:end] = True
    return int((hits - (ends[read] - reads.lengths[read]) < K).sum())


def _code(bases: str) -> np.uint32:
    code = 0
    for base in bases:
        code = code << 2 | "ACGT".index(base)
    return np.uint32(code)


def _refused(code: str) -> ObjectRejected:
    return ObjectRejected(f"a run's reads are refused ({code})", code=code, remedy=_REMEDIES[code])
