"""Through a data set, element by element, into the bytes of its de-identified copy.

Belongs here: the order of things, sequences, private blocks, byte order, counting what was done. Does not belong here:
what is done with which element (rules) and how (values), pixels (pixels), the file around it (file).

The copy is written in explicit little endian with defined lengths whatever the original was in. It is made of what the
rules return and of nothing else: no byte of the original's structure, padding or gaps is copied.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medvec_assets.deid.dicom import codes, values
from medvec_assets.deid.dicom.private import SAFE
from medvec_assets.deid.dicom.rules import DUMMIES, LONG_VRS, TEXT_VRS, Options, Rule, rule_of, table
from medvec_assets.modalities.imaging.dicom_file import rejected, truncated

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_NESTED_ELEMENTS = 2_000_000  # of a whole file: an enhanced object of 10,000 frames has about a million
_UNDEFINED = 0xFFFFFFFF
_NUMERIC_TEXT = frozenset({"IS", "DS"})
_SWAPPED = {"US": 2, "SS": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4, "AT": 2} | dict.fromkeys(
    ("FD", "OD", "OV", "SV", "UV"), 8
)
_CODE_VALUES = (0x00080100, 0x00080119, 0x00080120)  # CodeValue, LongCodeValue, URNCodeValue


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element in explicit little endian, its value padded to an even length."""
    if len(value) & 1:
        value += b" " if vr in TEXT_VRS or vr in _NUMERIC_TEXT or vr in ("AS", "DA", "DT", "TM") else b"\0"
    if vr not in LONG_VRS and len(value) > 0xFFFE:
        vr = "UN"  # PS3.5 6.2.2: a value too long for its own VR, such as a contour's points
    if vr in LONG_VRS:
        return struct.pack("<2H2s2xI", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value
    return struct.pack("<2H2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def items(datasets: Iterable[bytes]) -> bytes:
    """A sequence's value from its items' encoded elements."""
    return b"".join([struct.pack("<2HI", 0xFFFE, 0xE000, len(one)) + one for one in datasets])


@dataclass
class Walk:
    """One file on its way. `subject` is the pseudonym that stands for its patient, `days` the date shift."""

    options: Options
    uids: values.UidMap
    subject: bytes
    days: int
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)  # (action, keyword)
    _rules: dict[int, Rule] = field(init=False)
    _elements: int = 0
    _signed: bool = False

    def __post_init__(self) -> None:
        self._rules = table(self.options)

    def elements(self, raws: Mapping[int, Any]) -> dict[int, bytes]:
        """tag -> encoded element of everything that stays, pixel data left out. `raws`: a data set's items as they were
        before anybody asked for a value, which makes pydicom replace the bytes."""
        kept: dict[int, bytes] = {}
        creators: dict[int, str] = {}
        last = -1
        self._elements += len(raws)
        if self._elements > MAX_NESTED_ELEMENTS:
            raise rejected("header_invalid", f"has more than {MAX_NESTED_ELEMENTS} elements", "split the object")
        for tag, raw in raws.items():
            number = int(tag)
            if number <= last:  # the parser lost its way in a length that is not true
                raise rejected("header_invalid", "has elements out of order", "mend or re-export the object")
            last = number
            length = getattr(raw, "length", None)
            if length is not None and length != _UNDEFINED and len(raw.value or b"") != length:
                raise truncated()
            if number >> 16 & 1:
                self._private(number, raw, creators, kept)
                continue
            rule = self._rules.get(number)
            if rule is None:
                rule = self._rules[number] = rule_of(number, self.options)
            if rule.kind == "pixels":  # of the object itself they are written last, and an item has none
                continue
            found = self._treated(rule, raw)
            if found is not None:
                kept[number] = element(number, *found)
        return kept

    def encoded(self, dataset: Dataset) -> bytes:
        """The elements of an item, in order."""
        kept = self.elements(dict(dataset.items()))
        return b"".join([kept[tag] for tag in sorted(kept)])

    def _treated(self, rule: Rule, raw: Any) -> tuple[str, bytes] | None:
        """(VR, value) of an element of the copy; None where there is none."""
        if rule.kind == "drop":
            return self._otherwise(rule)
        if rule.kind == "sequence":
            return self._sequence(rule, raw)
        value = self._bytes(rule, raw)
        if value is None:
            return self._otherwise(rule)
        vr = _one_vr(rule.vr, raw.VR, self._signed)
        if rule.kind == "value":
            assert rule.keep is not None
            found = rule.keep(value)
            if found is None:
                return self._otherwise(rule)
            if rule.keyword == "PixelRepresentation":
                self._signed = found == b"\1\0"
            unchanged = found == value or found == value.rstrip(b" \0")
            self.actions["kept" if unchanged else "cleaned", rule.keyword] += 1
            return vr, found
        if rule.kind == "uid":
            mapped = self.uids.values(value)
            self.actions["kept" if mapped == value.rstrip(b" \0") else "uids_mapped", rule.keyword] += 1
            return vr, mapped
        if rule.kind == "subject":
            self.actions["pseudonymised", rule.keyword] += 1
            return vr, self.subject
        if rule.kind == "bulk":
            self.actions["kept", rule.keyword] += 1
            return vr, value
        return self._moment(rule, vr, value)

    def _moment(self, rule: Rule, vr: str, value: bytes) -> tuple[str, bytes] | None:
        if rule.kind == "time":
            found = values.times(value)
        else:
            shifted = values.shifted_dates if rule.kind == "date" else values.shifted_datetimes
            found = shifted(value, self.days)
        if found is None:
            return self._otherwise(rule)
        self.actions["dates_shifted", rule.keyword] += 1
        return vr, found

    def _otherwise(self, rule: Rule) -> tuple[str, bytes] | None:
        """What table E.1-1 says of an element that is not kept."""
        if rule.otherwise == "D" and rule.vr in DUMMIES:
            self.actions["replaced", rule.keyword] += 1
            return rule.vr, DUMMIES[rule.vr]
        if rule.otherwise in ("Z", "D") and rule.vr:
            self.actions["emptied", rule.keyword] += 1
            return _one_vr(rule.vr, None, self._signed), b""
        self.actions["removed", rule.keyword] += 1
        return None

    def _bytes(self, rule: Rule, raw: Any) -> bytes | None:
        """An element's value in little endian; None if it stands under a VR that does not fit its keyword."""
        value = raw.value
        if not isinstance(value, bytes):
            return b"" if value is None else None
        vr = raw.VR
        if vr == "UN" and raw.is_little_endian:  # written by somebody who did not know the keyword
            return value
        if vr is None or vr in rule.vr or (vr in TEXT_VRS and rule.vr in TEXT_VRS):
            width = 0 if raw.is_little_endian else _SWAPPED.get(_one_vr(rule.vr, vr, False), 0)
            return value if not width else swapped(value, width)
        return value if {vr, rule.vr} == _NUMERIC_TEXT else None

    def _sequence(self, rule: Rule, raw: Any) -> tuple[str, bytes] | None:
        if raw.VR not in (None, "SQ", "UN"):
            return self._otherwise(rule)
        encoded = []
        signed = self._signed
        for item in _items(raw):
            self._signed = signed
            if any(tag in item for tag in _CODE_VALUES):
                known = codes.encoded(item)
                self.actions["kept" if known else "removed", "CodeSequenceItem"] += 1
                encoded += [known] if known else []
            else:
                encoded.append(self.encoded(item))
        self._signed = signed
        self.actions["kept", rule.keyword] += 1
        return "SQ", items(encoded)

    def _private(self, tag: int, raw: Any, creators: dict[int, str], kept: dict[int, bytes]) -> None:
        """Keeps what is on the list of safe private elements, with its block's creator as the list spells it."""
        group, number = tag >> 16, tag & 0xFFFF
        if 0x10 <= number <= 0xFF and isinstance(raw.value, bytes):
            creators[tag] = raw.value.decode("latin-1").strip(" \0")
        block = group << 16 | number >> 8
        rule = SAFE.get((creators.get(block, ""), group, number & 0xFF)) if number > 0xFF else None
        if rule is None or not self.options.safe_private:
            self.actions["removed", "PrivateElements"] += 1
            return
        found = self._treated(rule, raw)
        if found is not None:
            kept[tag] = element(tag, *found)
            kept[block] = element(block, "LO", creators[block].encode("latin-1"))


def _items(raw: Any) -> Iterable[Dataset]:
    from pydicom.filereader import read_sequence
    from pydicom.sequence import Sequence

    if isinstance(raw.value, Sequence):
        return raw.value
    value = raw.value or b""
    return read_sequence(
        BytesIO(value), raw.is_implicit_VR or raw.VR == "UN", raw.is_little_endian, len(value), "iso8859"
    )


def swapped(value: bytes, width: int) -> bytes:
    """Words of so many bytes in the other byte order."""
    import numpy as np

    whole = len(value) // width * width
    return np.frombuffer(value[:whole], f"V{width}").view(f">u{width}").byteswap().tobytes() + value[whole:]


def _one_vr(vr: str, stated: str | None, signed: bool) -> str:
    """One VR where the dictionary leaves a choice: the stated one if it is among them, else by the pixels' sign."""
    if " or " not in vr:
        return vr
    if stated is not None and stated in vr.split(" or "):
        return stated
    if "SS" in vr and "OW" not in vr:
        return "SS" if signed else "US"
    return "OW"
