"""Planting into NIfTI files: the text fields of their header, and an extension with a comment.

Belongs here: both versions of single files (`.nii`, gzipped or not). Does not belong here: pairs of files, voxels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from medvec_assets.scorer.planting import Planted, Subject

# field -> (offset, bytes, kind), by the header's length. NIfTI-2 has no db_name.
_FIELDS = {
    348: {
        "data_type": (4, 10, "mrn"),
        "db_name": (14, 18, "name"),
        "descrip": (148, 80, "name"),
        "aux_file": (228, 24, "file_name"),
        "intent_name": (328, 16, "accession"),
    },
    540: {"descrip": (240, 80, "name"), "aux_file": (320, 24, "file_name"), "intent_name": (508, 16, "accession")},
}
_COMMENT = 6  # the registered code of an extension that holds text


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The volume with every text field filled; and one that ends within its voxels."""
    for order in "<>":
        length = struct.unpack_from(f"{order}i", data)[0] if len(data) > 352 else 0
        if length in _FIELDS:
            whole = _planted(data, subject, order, length)
            yield Planted(whole)
            yield Planted(whole[: -len(data) // 4], damaged=True)
            return


def _planted(data: bytes, subject: Subject, order: str, length: int) -> bytes:
    head = bytearray(data[:length])
    for name, (offset, room, kind) in _FIELDS[length].items():
        value = subject.mint.plant(kind, f"NIfTI {name}", room)
        if value is not None:
            head[offset : offset + room] = value.encode().ljust(room, b"\0")
    place, form = (108, "f") if length == 348 else (168, "q")
    voxels = int(struct.unpack_from(f"{order}{form}", head, place)[0])
    if voxels < length + 4:  # a pair of files: the voxels are elsewhere
        return bytes(head) + data[length:]
    text = subject.mint.sentence("NIfTI extension").encode()
    size = -(-(8 + len(text)) // 16) * 16
    extension = struct.pack(f"{order}2i", size, _COMMENT) + text.ljust(size - 8, b"\0")
    struct.pack_into(f"{order}{form}", head, place, voxels + size)
    kept = data[length + 4 : voxels]  # the extensions that there are
    return bytes(head) + b"\1\0\0\0" + extension + kept + data[voxels:]
