"""Planting into what a media type does not tell: gzip files, ZIP archives, plain text. Their content does.

Belongs here: telling formats by their first bytes, archives and the names of their members. Does not belong here: the formats.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

from medvec_assets.scorer.planting import (
    MAX_PLANTED_BYTES,
    Planted,
    Planter,
    Subject,
    notes,
    sequences,
    tables,
    unpacked,
    volumes,
)


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The copies of whatever format `data` (out of a gzip file already) is in; text of no format is a note."""
    if data[:4] == b"PK\x03\x04":
        yield from _archive(data, subject)
        return
    found = _planter(data)
    if found is not None:
        yield from found(data, subject)


def _planter(data: bytes) -> Planter | None:
    if data.startswith(b"##fileformat=VCF") or (data.startswith(b"@") and data.count(b"\n+", 0, 4_096)):
        return sequences.plant
    if data[344:347] == b"n+1" or data[4:7] == b"n+2":
        return volumes.plant
    if data[:1] in (b"{", b"["):
        return tables.plant
    return notes.plant if data and b"\0" not in data[:4_096] else None


def _archive(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The archive with its first plantable member planted, a member that is called after somebody, and a comment."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_PLANTED_BYTES:
                return
            members = [(info.filename, archive.read(info)) for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error):
        return
    for place, (name, content) in enumerate(members):
        copies = list(unpacked(plant, content, subject))
        for copy in copies:
            yield Planted(_packed([*members[:place], (name, copy.data), *members[place + 1 :]], subject), copy.damaged)
        if copies:
            return


def _packed(members: list[tuple[str, bytes]], subject: Subject) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        archive.writestr(f"{subject.mint.plant('file_name', 'ZIP member name')}.txt", b"")
        archive.comment = subject.mint.sentence("ZIP comment").encode()
    return out.getvalue()
