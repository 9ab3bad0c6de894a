"""FASTQ: the first reads of a file, as arrays.

Belongs here: unpacking within bounds, the format's rules, what makes a file unusable. Does not belong here: what is made
of the reads (sketch), where files are (connectors).

No read becomes a Python object: 20,000 reads are three arrays, made by one pass over each.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resources.errors import ObjectRejected

MAX_READS = 20_000  # of a file that are used: 3 million bases of Illumina's
MAX_TEXT_BYTES = 16 << 20  # of unpacked text that are looked at, whatever the file unpacks to
MIN_READS = 100  # fewer say nothing about a sample
NO_BASE = 4  # the code of N, of IUPAC's letters for "one of several", and of the gap behind a read
_NEWLINE, _AT, _PLUS = 10, ord("@"), ord("+")
_ARCHIVE = b"NCBI.sra"
_COLOUR, _OTHER = 5, 6
# What a letter is, in either case: A, C, G, T are 0 to 3, and U is RNA's T.
_KINDS = np.full(256, _OTHER, np.uint8)
for _letters, _kind in (("A", 0), ("C", 1), ("G", 2), ("TU", 3), ("NRYKMSWBDHV.\n", NO_BASE), ("0123", _COLOUR)):
    _KINDS[np.frombuffer((_letters + _letters.lower()).encode(), np.uint8)] = _kind
_REMEDIES = {
    "empty_object": "the file holds nothing: fetch it again",
    "truncated_gzip": "the file ends too early, or its checksum is wrong: fetch it again",
    "message_page": "a web page stands where the reads should: the run was withdrawn, or the host asks for a login; look at "
    "the run at NCBI",
    "sra_archive": "an .sra archive: make FASTQ of it with sra-tools (fasterq-dump --split-files RUN)",
    "not_fastq": "the file is no FASTQ: compare it with the run at NCBI",
    "fastq_layout": "a read has no four lines, or its bases and qualities differ in number: fetch it again; FASTQ with "
    "wrapped lines must be unwrapped first",
    "wrong_alphabet": "the reads hold letters that are no bases (proteins?): the run is of something else",
    "colour_space": "the reads are in SOLiD's colours and not in bases: leave the run out, or convert it",
    "bad_quality": "a quality is no printable character: fetch the file again",
    "too_few_reads": f"fewer than {MIN_READS} reads say nothing about a sample: nothing to do",
}


@dataclass(frozen=True)
class Reads:
    """The first reads of a file behind one another, each followed by a gap of one: `codes` uint8 [bases + reads] (0 to 3
    for A, C, G, T, else NO_BASE), `qualities` uint8 of the same length (Phred + 33; less in a gap), `lengths` int64 [reads]."""

    codes: NDArray[np.uint8]
    qualities: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where the gap behind each read is."""
        return np.cumsum(self.lengths + 1) - 1


def refused(code: str) -> ObjectRejected:
    """The refusal with this code. No message quotes a read or its name."""
    return ObjectRejected(f"a file of reads is refused ({code})", code=code, remedy=_REMEDIES[code])


def read_fastq(data: bytes, *, is_head: bool = False) -> Reads:
    """At most MAX_READS reads of a FASTQ file, plain or gzip in one or many members. `is_head`: `data` is the beginning of
    a file, so that it may end anywhere; otherwise an end within a member, or within the last read, is refused."""
    text, is_complete = _unpacked(data, is_head)
    if not text.strip():
        raise refused("empty_object")
    if text.lstrip()[:1] == b"<":
        raise refused("message_page")
    if text.startswith(_ARCHIVE):
        raise refused("sra_archive")
    if not text.startswith(b"@"):
        raise refused("not_fastq")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    reads = _split(text, is_complete)
    if len(reads.lengths) < MIN_READS:
        raise refused("too_few_reads")
    return reads


def _unpacked(data: bytes, is_head: bool) -> tuple[bytes, bool]:
    """The text, at most MAX_TEXT_BYTES of it, and whether it ends where the file does."""
    if not data.startswith(b"\x1f\x8b"):
        return data[:MAX_TEXT_BYTES], not is_head and len(data) <= MAX_TEXT_BYTES
    text = bytearray()
    while data and len(text) < MAX_TEXT_BYTES:
        if not data.startswith(b"\x1f\x8b"):
            if data.strip(b"\0"):  # some writers pad with zeros
                raise refused("truncated_gzip")
            break
        member = zlib.decompressobj(wbits=31)
        try:
            text += member.decompress(data, MAX_TEXT_BYTES - len(text))
        except zlib.error:
            if is_head and member.unused_data == b"" and text:
                break
            raise refused("truncated_gzip") from None
        if not member.eof:
            if len(text) < MAX_TEXT_BYTES and not is_head:
                raise refused("truncated_gzip")
            return bytes(text), False
        data = member.unused_data
    return bytes(text), not is_head and len(text) < MAX_TEXT_BYTES


def _split(text: bytes, is_complete: bool) -> Reads:
    if is_complete and not text.endswith(b"\n"):
        text += b"\n"
    buffer = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(buffer == _NEWLINE)
    while is_complete and len(ends) > 4 and _ends_empty(ends):
        ends = ends[:-1]
    whole = len(ends) // 4
    if is_complete and len(ends) % 4:
        raise refused("fastq_layout")
    lines = ends[: min(whole, MAX_READS) * 4].reshape(-1, 4)
    if not len(lines):
        raise refused("fastq_layout" if is_complete else "too_few_reads")
    names = np.concatenate([[0], lines[:-1, 3] + 1])
    starts, quality_starts = lines[:, 0] + 1, lines[:, 2] + 1
    lengths = lines[:, 1] - starts
    same = lengths == lines[:, 3] - quality_starts
    if not (same.all() and (buffer[names] == _AT).all() and (buffer[lines[:, 1] + 1] == _PLUS).all()):
        raise refused("fastq_layout")
    begins = np.cumsum(lengths + 1) - (lengths + 1)
    positions = np.arange(begins[-1] + lengths[-1] + 1)
    # The gap is the newline behind each line.
    kinds = _KINDS[buffer[positions + np.repeat(starts - begins, lengths + 1)]]
    qualities = buffer[positions + np.repeat(quality_starts - begins, lengths + 1)]
    _check(kinds, qualities, len(lengths))
    return Reads(kinds, qualities, lengths)


def _ends_empty(ends: NDArray[np.int64]) -> bool:
    """Whether the last line is an empty one behind the reads: the last read's qualities may be empty too."""
    return bool(ends[-1] == ends[-2] + 1 and (len(ends) % 4 or ends[-1] == ends[-5] + 4))


def _check(kinds: NDArray[np.uint8], qualities: NDArray[np.uint8], reads: int) -> None:
    if kinds.max() > NO_BASE:
        colours = np.count_nonzero(kinds == _COLOUR)
        raise refused("colour_space" if 2 * colours > len(kinds) else "wrong_alphabet")
    if np.count_nonzero(qualities < 33) > reads or qualities.max() > 126:
        raise refused("bad_quality")
