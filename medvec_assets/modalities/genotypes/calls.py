"""One sample's genotypes in one canonical spelling: what a VCF becomes object by object, and back to dosages.

Belongs here: the spelling, both ways. Does not belong here: VCF (connectors.vcf_file), what of it is accepted (the
modality), records.

Three lines of ASCII, so that equal genotypes are equal bytes whatever file they came from:

    GRCh37 genome                                   the build, and the block: `genome`, or one chromosome, `chr22`
    1:101709563:T:C 1:151122489:C:G,T               the records at the panel's sites: chromosome:position:REF:ALT[,ALT]
    0/1 ./2                                         the sample's alleles, smaller first; . missing, ?/? unreadable

Phase is dropped: no dosage depends on it, and a release that is phased anew changes no object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medvec_assets.modalities.genotypes.reference import Mismatch, Site, reference

BUILD = "GRCh37"
MISSING, UNREADABLE = -1, -2
_DIPLOID = re.compile(r"(\.|\d{1,4})[/|](\.|\d{1,4})")
_NO_ALLELE = 1 << 14  # no genotype's number: those have four digits at most
_TOKEN_BYTES = 3  # of `0/1`: alleles of ten and more, which make it longer, are rare and read one by one
_ZERO, _DOT, _NINE = b"0.9"
_NUMBERS = np.full(256, UNREADABLE, np.int16)
"""Of a character: the number of the allele that it spells."""
_NUMBERS[_DOT] = MISSING
_NUMBERS[_ZERO : _NINE + 1] = np.arange(10)
_IS_ALLELE = _NUMBERS != UNREADABLE


@dataclass(frozen=True)
class SiteRecord:
    """A VCF record at a panel site: everything of it but the genotypes."""

    chromosome: str
    position: int
    ref: str
    alts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.chromosome}:{self.position}:{self.ref}:{','.join(self.alts) or '.'}"


@dataclass(frozen=True)
class Dosages:
    """What objects tell, row by row in their order. A row that is refused holds nothing to be used."""

    values: NDArray[np.float32]
    """float32 [objects, features], copies of the counted allele, 0 to 2; the panel's mean where the call is missing"""
    called: NDArray[np.int64]
    """[objects]: features of the block with a call"""
    sites: NDArray[np.int64]
    """[objects]: features of the block"""
    other_alleles: NDArray[np.int64]
    """[objects]: features at which an allele is carried that is neither REF nor the counted one"""
    blocks: list[str]
    refusals: list[str | None]
    """a code: `calls_unreadable`, `bad_genotype`, `strand_mismatch`, `allele_mismatch`"""


def spelled_head(block: str, records: Iterable[SiteRecord]) -> str:
    """The two lines that all samples of a file share, each with its line end."""
    return f"{BUILD} {block}\n{' '.join(map(str, records))}\n"


@lru_cache(maxsize=4_096)
def spelled_call(genotype: str) -> str:
    """A VCF genotype in the canonical spelling: `1|0` is `0/1`. What is not of two alleles is `?/?`."""
    if genotype == ".":
        return "./."
    found = _DIPLOID.fullmatch(genotype)
    if found is None:
        return "?/?"
    return "/".join(sorted(found.groups(), key=lambda allele: -1 if allele == "." else int(allele)))


def spelled_calls(columns: str, samples: int) -> NDArray[np.bytes_] | None:
    """[samples] of spelled calls from a VCF line's sample columns, if they hold GT alone; None if there are not so many.

    Columns of three characters each, nearly all, are spelled as one array: 30 us per 2,504 samples instead of 350.
    """
    data = np.frombuffer(f"{columns}\t".encode("latin-1"), np.uint8)
    if data.size == samples * (_TOKEN_BYTES + 1):
        # In rows of their own: comparing every fourth byte takes three times as long.
        first, bar, second, tab = np.ascontiguousarray(data.reshape(samples, _TOKEN_BYTES + 1).T)
        # . sorts before 0, as in `spelled_call`
        if _IS_ALLELE[first].all() and _IS_ALLELE[second].all() and ((bar == ord("|")) | (bar == ord("/"))).all():
            if not (tab == ord("\t")).all():
                return None
            calls = np.full((samples, _TOKEN_BYTES), ord("/"), np.uint8)
            np.minimum(first, second, out=calls[:, 0])
            np.maximum(first, second, out=calls[:, 2])
            return calls.view("S3")[:, 0]
    tokens = columns.split("\t")
    return np.array([spelled_call(token) for token in tokens], "S") if len(tokens) == samples else None


# ---------------------------------------------------------------- back to dosages


@dataclass(frozen=True)
class _Plan:
    """How the calls below one head become features: k of them have a record."""

    block: str
    records: int
    columns: NDArray[np.int64]  # [k] the record that is counted
    features: NDArray[np.int64]  # [k]
    counted: NDArray[np.int16]  # [k] number of the counted allele in its record; _NO_ALLELE where it is not named
    alleles: NDArray[np.int16]  # [k] how many alleles the record names
    sites: int
    mismatch: Mismatch | None


def decode(objects: Sequence[bytes]) -> Dosages:
    """The dosages of `objects`, many at a time: those of one file share their head and are one array."""
    panel, size = reference(), len(objects)
    found = Dosages(
        values=np.tile(panel.means, (size, 1)),
        called=np.zeros(size, np.int64),
        sites=np.zeros(size, np.int64),
        other_alleles=np.zeros(size, np.int64),
        blocks=[""] * size,
        refusals=["calls_unreadable"] * size,
    )
    heads: dict[bytes, tuple[list[int], list[bytes]]] = {}
    head, end = b"\n\n", 0  # no object's: it has a word before each line's end
    for row, data in enumerate(objects):
        if not end or not data.startswith(head):  # nearly all have the head of the one before
            end = data.find(b"\n", data.find(b"\n") + 1) + 1
            head = data[:end]
            rows, calls = heads.setdefault(head, ([], []))
        rows.append(row)
        calls.append(data[end:])
    for head, (rows, calls) in heads.items():
        plan = _plan(head)
        if plan is not None:
            _fill(found, plan, rows, _alleles(calls, plan.records)[:, plan.columns], panel.means)
    return found


def _fill(found: Dosages, plan: _Plan, rows: list[int], numbers: NDArray[np.int16], means: NDArray[np.float32]) -> None:
    """`numbers`: [rows, k, 2], the two alleles that each of `rows` has at the plan's features."""
    first, second = numbers[:, :, 0], numbers[:, :, 1]  # reducing an axis of two takes ten times as long
    missing = np.minimum(first, second) == MISSING
    is_first, is_second = first == plan.counted, second == plan.counted
    others = ((first > 0) & ~is_first) | ((second > 0) & ~is_second)
    unfit = (np.minimum(first, second) == UNREADABLE) | (np.maximum(first, second) >= plan.alleles)
    index = np.array(rows)
    copies = is_first.astype(np.float32) + is_second
    found.values[index[:, None], plan.features] = np.where(missing, means[plan.features], copies)
    found.called[index] = missing.shape[1] - missing.sum(1)
    found.sites[index] = plan.sites
    found.other_alleles[index] = (others & ~missing).sum(1)
    for row, is_bad in zip(rows, unfit.any(1).tolist(), strict=True):
        found.blocks[row] = plan.block
        found.refusals[row] = plan.mismatch or ("bad_genotype" if is_bad else None)


def _alleles(calls: Sequence[bytes], records: int) -> NDArray[np.int16]:
    """[objects, records, 2] allele numbers, MISSING or UNREADABLE; a line of another length is UNREADABLE throughout."""
    width = records * (_TOKEN_BYTES + 1)
    data = b"".join(calls)
    if records and all(len(line) == width for line in calls):
        grid = np.frombuffer(data, np.uint8).reshape(len(calls), records, _TOKEN_BYTES + 1)
        if (
            (grid[:, :, 1] == ord("/")).all()
            and (grid[:, :-1, 3] == ord(" ")).all()
            and (grid[:, -1, 3] == ord("\n")).all()
        ):
            return _NUMBERS[grid[:, :, 0:3:2]]
    found = np.full((len(calls), records, 2), UNREADABLE, np.int16)
    for row, line in enumerate(calls):
        tokens = line.decode("latin-1").removesuffix("\n").split(" ") if line.strip() else []
        if len(tokens) == records:
            found[row] = [_pair(token) for token in tokens]
    return found


def _pair(token: str) -> tuple[int, int]:
    found = _DIPLOID.fullmatch(token)
    if found is None:
        return UNREADABLE, UNREADABLE
    first, second = (MISSING if allele == "." else int(allele) for allele in found.groups())
    return first, second


@lru_cache(maxsize=64)
def _plan(head: bytes) -> _Plan | None:
    """The plan of an object's first two lines; None if they are not spelled as `spelled_head` does."""
    lines = head.decode("latin-1").splitlines()
    if len(lines) != 2 or not lines[0].startswith(f"{BUILD} "):
        return None
    block = lines[0].removeprefix(f"{BUILD} ")
    records = [_record(word) for word in lines[1].split()]
    panel = reference()
    if None in records or not panel.in_block(block).any():
        return None
    known = [record for record in records if record is not None]
    found = [(feature, *_counted(site, known)) for feature, site in enumerate(panel.sites)]
    usable = np.array([row for row in found if row[1] is not None], np.int64).reshape(-1, 4)
    by_place = {(site.chromosome, site.position): site for site in panel.sites}
    mismatches = (
        site.mismatch(record.ref, record.alts)
        for record in known
        if (site := by_place.get((record.chromosome, record.position)))
    )
    return _Plan(
        block=block,
        records=len(known),
        features=usable[:, 0],
        columns=usable[:, 1],
        counted=usable[:, 2].astype(np.int16),
        alleles=usable[:, 3].astype(np.int16),
        sites=int(panel.in_block(block).sum()),
        mismatch=next(filter(None, mismatches), None),
    )


def _counted(site: Site, records: Sequence[SiteRecord]) -> tuple[int | None, int, int]:
    """Which record tells of `site`, the number in it of the allele that is counted, and how many alleles it names.

    Of a multi-allelic site in several records it is the one that names the counted allele. One that names only other
    bases, or none, still tells that the counted one is not there; a deletion or an insertion at the place does not.
    """
    here = [
        (column, record)
        for column, record in enumerate(records)
        if (record.chromosome, record.position, record.ref) == (site.chromosome, site.position, site.ref)
    ]
    for column, record in here:
        if site.alt in record.alts:
            return column, record.alts.index(site.alt) + 1, len(record.alts) + 1
    for column, record in here:
        if all(len(alt) == 1 for alt in record.alts):
            return column, _NO_ALLELE, len(record.alts) + 1
    return None, 0, 0


def _record(word: str) -> SiteRecord | None:
    fields = word.split(":", 3)
    if len(fields) != 4 or not fields[1].isdecimal():
        return None
    chromosome, position, ref, alts = fields
    return SiteRecord(chromosome, int(position), ref, () if alts == "." else tuple(alts.split(",")))
