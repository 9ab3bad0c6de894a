"""Identifiers made up for one scored run: formatted as real ones of their kind, unique enough that a hit is no chance.

Belongs here: what a token of each kind looks like, and which part of it is distinctive. Does not belong here: where tokens
are planted (planting), how storage may spell them (spellings).

A family name is built of syllables, so that nobody has it; a number has at least eight digits; a date lies in six years
of the last century that no clock writes into a log and that lie further apart than a date shift moves. What is shorter,
such as a ZIP code of five digits or a time of day, proves nothing when it is found and is not planted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STARTS = _words(
    """
    Abern Bexley Brannig Calder Dravin Elding Farnou Gresh Halver Ingle Jorvel Kessel Lindqu Morvan Norrin Ostvel Pellic
    Quarten Rosvig Selwin Thorvel Ulverst Vander Wexfor Yarvin Zorvak
    """
)
_MIDDLES = _words("a e i o ar en il or ust ing am est ond elm ick arth")
_ENDS = _words("berg dahl fordt gaard hauser holm kova lingsen mann nescu ovich quist rington sworth thwait vick wald")
_GIVEN = _words("Agnes Bernard Clara Desmond Edith Gilbert Harriet Irving Johanna Leopold Mabel Oswald Phyllis Sybil")
_STREETS = ("Street", "Avenue", "Lane", "Crescent")
_LETTERS = "GHJKLMNPQRSTUVWXYZ"  # none that a hexadecimal digest has
DATE_YEARS = (1903, 1911, 1920, 1928, 1937, 1945)
"""The first is of birth; the others are of what happened later."""


@dataclass(frozen=True)
class Token:
    """One identifier as it was planted. `cores` are the parts by which alone it is still unmistakable."""

    value: str
    kind: str
    place: str
    cores: tuple[str, ...] = ()


class Mint:
    """Makes the tokens of one run and remembers them. Equal seeds, equal tokens."""

    def __init__(self, seed: bytes) -> None:
        self._random = Random(hashlib.sha256(seed).digest())
        self.seed_digest = hashlib.sha256(b"medvec scorer" + seed).hexdigest()[:16]
        self.tokens: list[Token] = []
        self.copies = 0
        self._families: set[str] = set()
        self._dates = tuple(date(year, 1, 1) + timedelta(days=self._random.randrange(365)) for year in DATE_YEARS)

    def plant(self, kind: str, place: str, room: int = 1_024) -> str | None:
        """A new token of `kind` for a field that holds `room` characters; None if no form of it fits there."""
        value, cores = _MAKERS[kind](self)
        if len(value) > room:
            value = next((core for core in cores if len(core) <= room), "")
        if not value:
            return None
        self.remember(kind, place, value, cores)
        return value

    def number(self) -> int:
        """The next copy's number: no identifier, but the same one is not given twice in a run."""
        self.copies += 1
        return self.copies

    def remember(self, kind: str, place: str, value: str, cores: tuple[str, ...] = ()) -> None:
        """Note a token that also stands in another place, or that somebody else has formatted."""
        self.tokens.append(Token(value, kind, place, cores))

    def date(self, place: str, number: int = -1) -> date:
        """One of the run's dates: 0 is of birth, the others are later. One set for all, lest a shifted date be another's."""
        chosen = self._dates[number if number >= 0 else self._random.randrange(1, len(self._dates))]
        self.remember("date", place, f"{chosen:%Y-%m-%d}")
        return chosen

    def digits(self, count: int, place: str, kind: str = "mrn") -> str:
        """A token of digits alone, for fields that hold numbers. ValueError below eight."""
        if count < 8:
            raise ValueError("fewer than eight digits are found by chance")
        value = self._digits(count)
        self.remember(kind, place, value)
        return value

    def like(self, example: str, kind: str, place: str) -> str:
        """A token in the shape of `example`: a letter for a letter, a digit for a digit; longer if that proves nothing."""
        if len(example) >= 8 and sum(map(str.isdigit, example)) >= 6:
            value = "".join(self._like(char) for char in example)
        elif example.isdigit():
            value = self._digits(10)
        else:
            value = f"{self._letters(2)}{self._digits(8)}"
        self.remember(kind, place, value)
        return value

    def person(self, place: str) -> tuple[str, str]:
        """(given, family) of somebody new."""
        given, family = self._random.choice(_GIVEN), self.family()
        self.remember("name", place, f"{given} {family}", (family,))
        return given, family

    def sentence(self, place: str) -> str:
        """Free text as people type it, with a name, a number, a date, a phone number, an address and an e-mail in it."""
        given, family = self.person(place)
        born = self.date(place, 0)
        parts = {kind: self.plant(kind, place) for kind in ("mrn", "phone", "address", "email", "ssn")}
        return (
            f"Patient {given} {family} (MRN {parts['mrn']}, born {born:%m/%d/%Y}, SSN {parts['ssn']}) lives at "
            f"{parts['address']}; call {parts['phone']} or write to {parts['email']}."
        )

    def family(self) -> str:
        while True:
            name = "".join(self._random.choice(part) for part in (_STARTS, _MIDDLES, _ENDS))
            if name not in self._families:
                self._families.add(name)
                return name

    def _like(self, char: str) -> str:
        if char.isdigit():
            return self._digits(1)
        if char.isalpha() and char.isascii():
            letter = self._random.choice(_LETTERS)
            return letter if char.isupper() else letter.lower()
        return char

    def _digits(self, count: int) -> str:
        first = self._random.choice("123456789")
        return first + "".join(self._random.choice("0123456789") for _ in range(count - 1))

    def _letters(self, count: int) -> str:
        return "".join(self._random.choice(_LETTERS) for _ in range(count))

    def _octets(self) -> str:
        return ".".join(str(self._random.randrange(101, 255)) for _ in range(4))

    def _hex(self, count: int) -> str:
        return "".join(self._random.choice("0123456789abcdef") for _ in range(count))


Made = tuple[str, tuple[str, ...]]


def _name(mint: Mint) -> Made:
    family = mint.family()
    return f"{mint._random.choice(_GIVEN)} {family}", (family,)


def _accented(mint: Mint) -> Made:
    family = mint.family()
    vowel = max((place for place, char in enumerate(family) if char in "aeou" and place > 2), default=3)
    family = f"{family[:vowel]}ü{family[vowel + 1 :]}"
    return f"{mint._random.choice(_GIVEN)} {family}", (family,)


def _email(mint: Mint) -> Made:
    family = mint.family().lower()
    return f"{family}.{mint._digits(3)}@{mint.family().lower()}.example", (family,)


def _address(mint: Mint) -> Made:
    street = mint.family()
    return f"{mint._digits(4)} {street} {mint._random.choice(_STREETS)}, Apt {mint._digits(2)}", (street,)


def _url(mint: Mint) -> Made:
    host = f"{mint.family().lower()}-portal.example"
    return f"https://{host}/patient/{mint._digits(9)}", (host,)


def _institution(mint: Mint) -> Made:
    saint = mint.family()
    return f"{saint} General Hospital", (saint,)


def _file_name(mint: Mint) -> Made:
    family = mint.family().lower()
    return f"{family}_{mint._digits(4)}", (family,)


def _only(make: Callable[[Mint], str]) -> Callable[[Mint], Made]:
    return lambda mint: (make(mint), ())


_MAKERS: dict[str, Callable[[Mint], Made]] = {
    "name": _name,
    "accented_name": _accented,
    "mrn": _only(lambda m: m._letters(1) + m._digits(9)),
    "ssn": _only(lambda m: f"9{m._digits(2)}-{m._digits(2)}-{m._digits(4)}"),
    "phone": _only(lambda m: f"({m._digits(3)}) {m._digits(3)}-{m._digits(4)}"),
    "email": _email,
    "address": _address,
    "zip": _only(lambda m: f"{m._digits(5)}-{m._digits(4)}"),
    "uid": _only(lambda m: f"2.25.{m._digits(38)}"),
    "accession": _only(lambda m: f"{m._letters(2)}{m._digits(10)}"),
    "device_serial": _only(lambda m: f"SN{m._letters(2)}-{m._digits(8)}"),
    "account": _only(lambda m: m._digits(12)),
    "health_plan": _only(lambda m: f"{m._letters(3)}{m._digits(9)}"),
    "license": _only(lambda m: f"{m._letters(1)}{m._digits(3)}-{m._digits(4)}-{m._digits(4)}"),
    "plate": _only(lambda m: f"{m._letters(3)} {m._digits(5)}"),
    "url": _url,
    "ip": _only(lambda m: m._octets()),
    "ipv6": _only(lambda m: f"2001:db8:{m._hex(4)}:{m._hex(4)}::{m._hex(4)}:{m._hex(4)}"),
    "ae_title": _only(lambda m: f"AE_{m._letters(11)}"),
    "file_name": _file_name,
    "institution": _institution,
    "sample": _only(lambda m: f"{m._letters(2)}{m._digits(7)}"),
    "age": _only(lambda m: f"09{m._random.randrange(1, 10)}Y"),
}
KINDS = (*_MAKERS, "date")
"""Every kind of token: HIPAA's identifiers as they occur in these formats, and DICOM's own."""
