"""How one value of a DICOM element is kept, cleaned or replaced: bytes in, bytes out, None where it is not as it must be.

Belongs here: dates, ages, UIDs, numbers, terms, words. Does not belong here: which element gets which of them (rules).

A function gets the element's value as it stands in a little-endian file, padding included, and returns it unpadded.
What it returns was either matched whole by a pattern of this file, looked up in a list, or computed: nothing passes
because nobody thought of forbidding it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Container
from datetime import date, timedelta
from uuid import UUID

from medvec_assets.deid.pseudonyms import Pseudonyms

Keep = Callable[[bytes], bytes | None]

MAX_SHIFT_DAYS = 3_653  # ten years: a season or a decade tells nothing, and no date comes to lie in the future
OLDEST_AGE_YEARS = 90  # HIPAA's Safe Harbor: ages of 90 and over are one
MAX_DIGITS = 5  # before a number's point: six are a record number
LARGE = 9  # of a dose or a count
MAX_DECIMAL_BYTES = 16  # of one decimal string (PS3.5); a longer one is written anew

_DATE = re.compile(rb"(\d{4})(\d\d)(\d\d)")
_TIME = re.compile(rb"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?)?|([01]\d|2[0-3])[0-5]\d([0-5]\d|60)\.\d{1,6}")
_DATETIME = re.compile(rb"(\d{8})((?:([01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)?(?:\.\d{1,6})?(?:[+-]\d{4})?)")
_AGE = re.compile(rb"(\d{3})([DWMY])")
_AGES_PER_YEAR = {b"D": 365.25, b"W": 52.18, b"M": 12.0, b"Y": 1.0}
_WORD = re.compile(r"[A-Za-z0-9]+")
_PADDING = b" \0"


class UidMap:
    """UIDs to keyed UIDs: the same everywhere in a deployment, so that references resolve within and across files.

    A UID that the standard registers (a class, a transfer syntax) names no instance and stays. `known`: UIDs in a file
    that this deployment wrote stay too, where they have the form that it writes."""

    def __init__(self, pseudonyms: Pseudonyms, known: bool = False) -> None:
        self._pseudonyms = pseudonyms
        self._known = known
        self._mapped: dict[str, str] = {}

    def of(self, uid: str) -> str:
        if uid not in self._mapped:
            stays = not uid or is_registered(uid) or (self._known and uid.startswith("2.25."))
            self._mapped[uid] = uid if stays else _uuid_uid(self._pseudonyms.digest("uid", uid))
        return self._mapped[uid]

    def values(self, value: bytes) -> bytes:
        """One or more UIDs, separated by backslashes."""
        parts = value.decode("latin-1").split("\\")
        return "\\".join([self.of(part.strip(" \0")) for part in parts]).encode("ascii")


def is_registered(uid: str) -> bool:
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    return bool(UID(uid, IGNORE).type)  # any other mode warns, and quotes the value


def _uuid_uid(digest: bytes) -> str:
    """A UID of PS3.5 B.2: 2.25. and the integer of a UUID (version 8, RFC 9562: whoever makes it says how)."""
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{UUID(int=number).int}"


def shift_days(pseudonyms: Pseudonyms, subject: str) -> int:
    """By how many days a subject's dates move into the past: the same for all of them, so intervals are kept."""
    return 1 + int.from_bytes(pseudonyms.digest("date shift", subject)[:8]) % MAX_SHIFT_DAYS


def shifted_dates(value: bytes, days: int) -> bytes | None:
    """DA: YYYYMMDD and nothing else, each value of several."""
    return _each(value, lambda part: _shifted(part, days))


def shifted_datetimes(value: bytes, days: int) -> bytes | None:
    """DT with at least a day; its time of day and its offset from UTC stay."""

    def one(part: bytes) -> bytes | None:
        found = _DATETIME.fullmatch(part)
        moved = _shifted(found[1], days) if found else None
        return None if found is None or moved is None else moved + found[2]

    return _each(value, one)


def times(value: bytes) -> bytes | None:
    """TM. Dates move by whole days, so that a time of day keeps every interval as it is."""
    return _each(value, lambda part: part if _TIME.fullmatch(part) else None)


def _shifted(day: bytes, days: int) -> bytes | None:
    found = _DATE.fullmatch(day)
    try:
        moved = date(*(int(group) for group in found.groups())) - timedelta(days) if found else None
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved:%m%d}".encode() if moved else None


def age(value: bytes) -> bytes | None:
    found = _AGE.fullmatch(value.strip(_PADDING))
    if found is None:
        return None
    years = int(found[1]) / _AGES_PER_YEAR[found[2]]
    return b"%03dY" % OLDEST_AGE_YEARS if years >= OLDEST_AGE_YEARS else found[0]


def integers(digits: int) -> Keep:
    """IS of at most so many digits."""
    one = rb" *[+-]?\d{1,%d} *" % digits
    return _matching(re.compile(rb"(?:%s)?(?:\\(?:%s)?)*\0?" % (one, one)))


def decimals(digits: int) -> Keep:
    """DS with at most so many digits before the point."""
    one = rb" *[+-]?(?:\d{1,%d}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})? *" % digits
    matching = _matching(re.compile(rb"(?:%s)?(?:\\(?:%s)?)*\0?" % (one, one)))

    def kept(value: bytes) -> bytes | None:
        found = matching(value)
        if found is None or len(found) <= MAX_DECIMAL_BYTES:
            return found
        return b"\\".join([_short(part) for part in found.split(b"\\")])

    return kept


def _short(decimal: bytes) -> bytes:
    return decimal if len(decimal) <= MAX_DECIMAL_BYTES else f"{float(decimal):.9g}".encode()


def within(low: float, high: float) -> Keep:
    """One decimal between two bounds, neither included."""
    decimal = decimals(MAX_DIGITS)

    def kept(value: bytes) -> bytes | None:
        found = decimal(value)
        try:
            return found if found is not None and (not found.strip() or low < float(found) < high) else None
        except ValueError:  # several values
            return None

    return kept


def matching(pattern: str) -> Keep:
    """A value that this pattern matches whole."""
    return _matching(re.compile(rb"(?:%s)?[ \0]*" % pattern.encode()))


def _matching(pattern: re.Pattern[bytes]) -> Keep:
    def kept(value: bytes) -> bytes | None:
        return value.rstrip(_PADDING) if pattern.fullmatch(value) else None

    return kept


def binary(width: int, vm: str, floating: bool) -> Keep:
    """Numbers of `width` bytes, as many as the dictionary's multiplicity says; floats of a size that anything measures.
    Eight letters are a float as well, but of 1e-150 or 1e200."""
    low, high, step = _multiplicity(vm)
    form = {4: "f", 8: "d"}[width] if floating else ""

    def kept(value: bytes) -> bytes | None:
        count, rest = divmod(len(value), width)
        if rest or (count and not low <= count <= high) or (step > 1 and count % step):
            return None
        if floating and not all(x == 0 or 1e-30 < abs(x) < 1e30 for x in struct.unpack(f"<{count}{form}", value)):
            return None
        return value

    return kept


def _multiplicity(vm: str) -> tuple[int, int, int]:
    """(least, most, step) of a dictionary's VM such as 1, 1-3, 1-n, 3-3n."""
    first, _, last = vm.partition("-")
    low = int(first)
    if not last:
        return low, low, 1
    return low, 1 << 40 if last.endswith("n") else int(last), int(last.rstrip("n") or 1) if last.endswith("n") else 1


def tags(known: Callable[[int], bool]) -> Keep:
    """AT: tags that the standard's dictionary holds."""

    def kept(value: bytes) -> bytes | None:
        if len(value) % 4:
            return None
        halves = struct.unpack(f"<{len(value) // 2}H", value)
        pairs = zip(halves[::2], halves[1::2], strict=True)
        return value if all(known(group << 16 | element) for group, element in pairs) else None

    return kept


def terms(known: Container[str]) -> Keep:
    """CS, and other strings that are one of a list: an unknown one of several values is left empty, a single one fails."""

    def kept(value: bytes) -> bytes | None:
        parts = [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
        found = [part if part in known else "" for part in parts]
        if not any(found) and any(parts):
            return None
        return "\\".join(found).encode("latin-1")

    return kept


def words(known: Container[str], most: int) -> Keep:
    """Free text: the words of it that are in a vocabulary, in their order, `most` bytes at the most; fails if none is."""

    def kept(value: bytes) -> bytes | None:
        found = [word for word in _WORD.findall(value.decode("ascii", "replace")) if word.upper() in known]
        while found and sum(map(len, found)) + len(found) - 1 > most:
            found.pop()
        return " ".join(found).encode() if found or not value.strip(b" \0") else None

    return kept


def _each(value: bytes, one: Keep) -> bytes | None:
    """`one` of every value of several; None if it is of any. An empty value stays empty."""
    parts = [part.strip(_PADDING) for part in value.split(b"\\")]
    found = [one(part) if part else b"" for part in parts]
    return None if any(part is None for part in found) else b"\\".join([part for part in found if part is not None])
