"""Planting: identifiers into a copy of real bytes, in as many kinds of place as their format has.

Belongs here: which planter a media type has, and what planters share; one module per family of formats. Does not belong
here: tokens (plants), which objects are taken and what is done with the copies (score).

A planter gives the copy that a parser should accept and, where the format allows, one that makes it stumble over an
identifier: what a parser says then must not stand in quarantine or in a log. The rules that clean a format are not used
and not known here: both sides read the format's standard.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module

from medvec_assets.scorer.plants import Mint

GZIP = b"\x1f\x8b"
MAX_PLANTED_BYTES = 16 << 20  # of one object; larger ones get their manifest row planted only


@dataclass
class Subject:
    """Somebody made up who stands for one real subject: the same in all planted copies of that subject's objects."""

    mint: Mint
    real_ref: str
    ref: str
    given: str
    family: str
    uids: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)
    """Unique ids of the copies planted so far, for the later ones to refer to."""

    @classmethod
    def like(cls, mint: Mint, real_ref: str) -> Subject:
        """Somebody new whose id looks like `real_ref`."""
        given, family = mint.person("the subject's name")
        return cls(mint, real_ref, mint.like(real_ref, "mrn", "the subject's id"), given, family)

    def uid(self, real: str, place: str) -> str:
        """The UID that stands for `real` in all copies of this subject."""
        if real not in self.uids:
            planted = self.mint.plant("uid", place)
            assert planted is not None  # a UID's room is what it needs
            self.uids[real] = planted
        return self.uids[real]

    def alias(self, real: str, place: str) -> str:
        """The token that stands for `real`, an id of a visit or a note, in all copies of this subject."""
        if real not in self.aliases:
            self.aliases[real] = self.mint.like(real, "accession", place)
        return self.aliases[real]


@dataclass(frozen=True)
class Planted:
    """One copy. A `damaged` one is expected to be refused."""

    data: bytes
    damaged: bool = False


Planter = Callable[[bytes, Subject], Iterator[Planted]]
"""Copies of an object's bytes with identifiers of the subject's mint in them; none if the bytes are not of the format."""

_PLANTERS = {
    "application/dicom": "dicom",
    "application/fhir+json": "tables",
    "application/fastq": "sequences",
    "application/gzip": "packed",
    "application/json": "tables",
    "application/nifti": "volumes",
    "application/vcf": "sequences",
    "application/vnd.apache.parquet": "tables",
    "application/x-gzip": "packed",
    "application/x-ndjson": "tables",
    "application/x-nifti": "volumes",
    "application/x-vcf": "sequences",
    "application/zip": "packed",
    "chemical/seq-na-fastq": "sequences",
    "image/jpeg": "pictures",
    "image/nii": "volumes",
    "image/png": "pictures",
    "image/x.nifti": "volumes",
    "text/csv": "tables",
    "text/fastq": "sequences",
    "text/plain": "packed",
    "text/tab-separated-values": "tables",
    "text/tsv": "tables",
    "text/vcf": "sequences",
    "text/x-fastq": "sequences",
    "text/x-vcf": "sequences",
}


def planter(media_type: str) -> Planter | None:
    """The planter of a media type, with or without parameters (`text/csv; charset=utf-8`); None for an unknown one."""
    name = _PLANTERS.get(media_type.partition(";")[0].strip().lower().removesuffix("+gzip"))
    if name is None:
        return None
    found: Planter = import_module(f"{__name__}.{name}").plant
    return lambda data, subject: unpacked(found, data, subject)


def unpacked(plant: Planter, data: bytes, subject: Subject) -> Iterator[Planted]:
    """The copies of what is in a gzip file are gzip files."""
    if len(data) > MAX_PLANTED_BYTES:
        return
    if data[:2] != GZIP:
        yield from plant(data, subject)
        return
    try:
        plain = gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        return
    if len(plain) <= MAX_PLANTED_BYTES:
        for copy in plant(plain, subject):
            yield Planted(gzip.compress(copy.data, 1, mtime=0), copy.damaged)
