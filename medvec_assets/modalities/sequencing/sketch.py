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

from medvec_assets.modalities.sequencing.fastq import Reads
from resources.errors import ObjectRejected

K = 21
SCALED = 16  # one hash in so many is kept
BINS = 1_024
MIN_QUALITY = 20  # Phred: one wrong base in a hundred
MIN_HASHES = 64  # fewer make no direction: the cosine's deviation would be that of chance
MIN_USABLE = 0.05  # of all k-mers
MAX_ADAPTERS = 0.8  # of reads that begin with one
REPEATED = (
    0.5  # of all kept occurrences that stand more than once: then the sample is covered, and single ones are errors
)
_SEED = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64, whose finaliser hashes here
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_CODES = np.full(256, 4, np.uint8)
for _letters, _number in ((b"Aa", 0), (b"Cc", 1), (b"Gg", 2), (b"TtUu", 3)):
    _CODES[np.frombuffer(_letters, np.uint8)] = _number
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
    reads, adapters = sum(len(one.starts) for one in files), sum(one.adapters for one in found)
    if adapters > MAX_ADAPTERS * reads:
        raise _refused("adapters_only")
    if not windows or usable < MIN_USABLE * windows:
        raise _refused("low_quality" if windows else "low_complexity")
    hashes, times = np.unique(np.concatenate([one.hashes for one in found]), return_counts=True)
    if times[times > 1].sum() > REPEATED * times.sum():
        hashes = hashes[times > 1]
    if len(hashes) < MIN_HASHES:
        raise _refused("low_complexity")
    counts = np.sum([one.bases for one in found], axis=0)
    return Sketch(hashes, float(counts[1] + counts[2]) / float(counts.sum()))


def features(found: Sketch) -> NDArray[np.float32]:
    """The model input: float32 [BINS], whole numbers. A second hash chooses bin and sign: the first one's low bits are
    what the sketch was chosen by."""
    again = mixed(found.hashes + _SEED)
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
    codes, bad, ends = _bases(reads)
    windows = int(np.maximum(reads.lengths - K + 1, 0).sum())
    bases = np.bincount(codes[codes < 4], minlength=4)
    codes[codes == 4] = 0
    size = len(codes) - K + 1
    if size <= 0:
        return _Found(np.empty(0, np.uint64), windows, 0, 0, bases)
    forward, probes = _windows(codes)
    adapters = _mark_adapters(bad, probes, ends, reads)
    outside = np.concatenate([[0], np.cumsum(bad, dtype=np.int32)])
    good = outside[K:] == outside[:-K]
    forward = forward[good]
    hashes = mixed(np.minimum(forward, _reverse_complement(forward)) + _SEED)
    kept = hashes[hashes < np.uint64((1 << 64) // SCALED)]
    return _Found(kept, windows, len(hashes), adapters, bases)


def _bases(reads: Reads) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """All reads behind one another with a gap of one between them: codes (0-3, 4 for N and gaps), which positions break a
    k-mer, and where each read ends."""
    lengths = reads.lengths
    ends = np.cumsum(lengths + 1) - 1
    shift = np.repeat(reads.starts - (ends - lengths), lengths + 1)
    positions = np.arange(ends[-1] + 1) + shift
    codes = _CODES[reads.text[positions]]
    codes[ends] = 4
    qualities = reads.text[
        np.minimum(positions + np.repeat(reads.quality_starts - reads.starts, lengths + 1), len(reads.text) - 1)
    ]
    bad = (codes == 4) | (qualities < 33 + MIN_QUALITY)
    return codes, bad, ends


def _windows(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Codes of every K-mer and of every 12-mer, two bits a base, by doubling: 1, 2, 4, 8, 16 and then 16 + 4 + 1."""
    one = codes.astype(np.uint64)
    two = _joined(one, one, 1)
    four = _joined(two, two, 2)
    eight = _joined(four, four, 4)
    sixteen = _joined(eight, eight, 8)
    return _joined(_joined(sixteen, four, 16, 4), one, 20, 1), _joined(eight, four, 8, 4)


def _joined(
    left: NDArray[np.uint64], right: NDArray[np.uint64], bases: int, added: int | None = None
) -> NDArray[np.uint64]:
    """Windows of `left` (of `bases` bases) with those of `right` (of `added`) that follow them."""
    size = min(len(left), len(right) - bases)
    return (left[:size] << np.uint64(2 * (added or bases))) | right[bases : bases + size]


def _reverse_complement(kmers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Two bits a base: complement all, reverse the pairs of the word, and shift the K in use down."""
    turned = ~kmers
    for bits, mask in ((2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        low = np.uint64(mask)
        turned = ((turned >> np.uint64(bits)) & low) | ((turned & low) << np.uint64(bits))
    return turned.byteswap() >> np.uint64(64 - 2 * K)


def _mark_adapters(bad: NDArray[np.bool_], probes: NDArray[np.uint64], ends: NDArray[np.int64], reads: Reads) -> int:
    """Marks every read as bad from the start of an adapter on; the number of reads that begin with one."""
    wanted = [_code(adapter) for adapter in ADAPTERS]
    hits = np.flatnonzero(np.isin(probes, np.array(wanted, np.uint64)))
    read = np.searchsorted(ends, hits)
    within = hits + _ADAPTER_BASES <= ends[read]  # otherwise it reaches over a gap
    hits, read = hits[within], read[within]
    read, first = np.unique(read, return_index=True)
    hits = hits[first]
    for start, end in zip(hits.tolist(), ends[read].tolist(), strict=True):
        bad[start:end] = True
    return int((hits - (ends[read] - reads.lengths[read]) < K).sum())


def _code(bases: str) -> int:
    code = 0
    for base in bases:
        code = code << 2 | int(_CODES[ord(base)])
    return code


def _refused(code: str) -> ObjectRejected:
    return ObjectRejected(f"a run's reads are refused ({code})", code=code, remedy=_REMEDIES[code])
