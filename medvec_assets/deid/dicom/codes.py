"""Code sequence items: a code that the standard's dictionaries hold is written with the meaning they give it.

Belongs here: which codes are known, and an item of one. Does not belong here: other items (walk). A code that is not
known may be a hospital's own, or no code at all: its item is removed, and so is the meaning that a site typed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_VALUE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
_SNOMED_SCHEMES = ("SRT", "SNM3", "99SDM")  # older designators of SNOMED, with codes of another form
_MAX_VALUE, _MAX_MEANING = 16, 64


@cache
def known() -> dict[tuple[str, str], str]:
    """(coding scheme designator, code value) -> meaning, of every code that pydicom's dictionaries list (18,735)."""
    from pydicom.sr.codedict import codes

    found: dict[tuple[str, str], str] = {}
    for scheme in codes.schemes():
        for code in getattr(codes, scheme).concepts.values():
            if len(code.value) <= _MAX_VALUE:
                found[scheme, code.value] = code.meaning.encode("ascii", "ignore").decode()[:_MAX_MEANING]
    return found


@cache
def _snomed() -> dict[str, str]:
    """Codes of older SNOMED editions -> SNOMED CT's."""
    from pydicom.sr._snomed_dict import mapping

    return dict(mapping["SRT"])


def encoded(item: Dataset) -> bytes | None:
    """The elements of a code item; None if its code is not known."""
    scheme, value = _text(item, _SCHEME), _text(item, _VALUE)
    meaning = known().get((scheme, value))
    if meaning is None and scheme in _SNOMED_SCHEMES:
        meaning = known().get(("SCT", _snomed().get(value, "")))
    return None if meaning is None else item_of(value, scheme, meaning)


def item_of(value: str, scheme: str, meaning: str) -> bytes:
    from medvec_assets.deid.dicom.walk import element

    return (
        element(_VALUE, "SH", value.encode())
        + element(_SCHEME, "SH", scheme.encode())
        + element(_MEANING, "LO", meaning.encode())
    )


def _text(item: Dataset, tag: int) -> str:
    raw: Any = item.get_item(tag)
    value = getattr(raw, "value", None)
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else ""
