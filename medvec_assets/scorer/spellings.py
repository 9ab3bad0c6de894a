"""How storage may spell an identifier: the byte patterns by which a token is recognised.

Belongs here: forms of dates and numbers, encodings, unkeyed digests. Does not belong here: looking for them (search).

Patterns are folded to lower case, and so is what is searched; base64 too, whose shortest pattern is still eight
characters of 36. A plain digest counts as a spelling: whoever knows the identifiers can make all of them and compare.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from urllib.parse import quote, quote_plus

from medvec_assets.scorer.plants import Token

MIN_BARE = 7  # characters of a form without its separators
MIN_SURE = 8  # characters with a letter beyond f that nothing shows by chance
MIN_SURE_DIGITS = 10  # fewer stand in one of a thousand runs' digests
DIGEST_CHARS = 16  # of a hexadecimal digest that are looked for: surrogates are often cut
_SEPARATORS = re.compile(r"[^0-9A-Za-z]")
_TEXTUAL = frozenset({"UTF-8", "Latin-1", "UTF-16LE", "UTF-16BE"})
_MONTHS = tuple(calendar.month_name)  # English: no locale is set


@dataclass(frozen=True)
class Spelling:
    """What a pattern means. A `bounded` one does not count between two hexadecimal digits: eight digits in a row occur in
    some digest by chance."""

    token: Token
    name: str
    bounded: bool


def patterns(tokens: Iterable[Token]) -> dict[bytes, Spelling]:
    """Every pattern of every token, in lower case."""
    found: dict[bytes, Spelling] = {}
    for token in _once(tokens):
        for form, text in texts(token):
            bounded = len(text) < (MIN_SURE_DIGITS if text.isdigit() else MIN_SURE)
            for encoding, pattern in encoded(text):
                found.setdefault(pattern, Spelling(token, f"{form}, {encoding}", bounded and encoding in _TEXTUAL))
        for name, pattern in _digests(token.value):
            found.setdefault(pattern, Spelling(token, name, False))
    return found


def _once(tokens: Iterable[Token]) -> Iterator[Token]:
    """One token per value: what was planted in several places cannot tell from which of them it comes."""
    held: dict[str, list[Token]] = {}
    for token in tokens:
        held.setdefault(token.value, []).append(token)
    for same in held.values():
        places = sorted({token.place for token in same})
        told = places[0] if len(places) == 1 else f"{places[0]} or {len(places) - 1} other places"
        yield replace(same[0], place=told)


def texts(token: Token) -> Iterator[tuple[str, str]]:
    """(name of the form, text) of every way to write a token, the planted one first."""
    if token.kind == "date":
        yield from _dates(date.fromisoformat(token.value))
        return
    yield "as planted", token.value
    for core in token.cores:
        yield "distinctive part", core
        plain = unicodedata.normalize("NFKD", core).encode("ascii", "ignore").decode()
        if plain != core:
            yield "without accents", plain
            yield "decomposed", unicodedata.normalize("NFD", core)
    bare = _SEPARATORS.sub("", token.value)
    if len(bare) >= MIN_BARE and bare != token.value:
        yield "without separators", bare
    if token.kind == "phone":
        yield "dashes", f"{bare[:3]}-{bare[3:6]}-{bare[6:]}"
        yield "dots", f"{bare[:3]}.{bare[3:6]}.{bare[6:]}"
        yield "blanks", f"{bare[:3]} {bare[3:6]} {bare[6:]}"
    if token.kind == "uid":
        yield "integer of the UUID", token.value.rpartition(".")[2]


def _dates(day: date) -> Iterator[tuple[str, str]]:
    month = _MONTHS[day.month]
    yield "ISO", f"{day:%Y-%m-%d}"
    yield "DICOM", f"{day:%Y%m%d}"
    yield "slashes", f"{day:%Y/%m/%d}"
    yield "US", f"{day:%m/%d/%Y}"
    yield "US, short", f"{day.month}/{day.day}/{day.year}"
    yield "European", f"{day:%d/%m/%Y}"
    yield "dots", f"{day:%d.%m.%Y}"
    yield "day first", f"{day:%d-%m-%Y}"
    yield "in words", f"{month} {day.day}, {day.year}"
    yield "in words, day first", f"{day.day} {month} {day.year}"
    yield "in words, short", f"{day:%d}-{month[:3]}-{day.year}"


def encoded(text: str) -> Iterator[tuple[str, bytes]]:
    """(name of the encoding, pattern in lower case) of every way to store a text."""
    plain = text.encode()
    for case in (text,) if text.isascii() else (text.lower(), text.upper()):
        yield "UTF-8", case.encode().lower()
        if not case.isascii():
            yield "Latin-1", case.encode("latin-1", "replace").lower()
        yield "UTF-16LE", case.encode("utf-16-le").lower()
        yield "UTF-16BE", case.encode("utf-16-be").lower()
    if len(plain) >= MIN_SURE:  # shorter, its digits stand in some digest
        yield "hexadecimal", plain.hex().encode()
    for case in {text, text.upper(), text.lower()}:
        for core in _base64_cores(case.encode()):
            yield "base64", core.lower()
    if not (text.isascii() and text.isalnum()):
        yield from _escaped(text)


def _escaped(text: str) -> Iterator[tuple[str, bytes]]:
    for name, other in (
        ("URL", quote(text, safe="")),
        ("URL form", quote_plus(text)),
        ("JSON", json.dumps(text)[1:-1]),
        ("JSON, slashes", json.dumps(text)[1:-1].replace("/", "\\/")),
        ("XML", text.encode("ascii", "xmlcharrefreplace").decode()),
    ):
        if other != text:
            yield name, other.encode().lower()


def _base64_cores(data: bytes) -> Iterator[bytes]:
    """What of the base64 of `data` is the same whatever stands around it, at each of the three places it may begin."""
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + data)
        first = (0, 2, 3)[shift]  # characters that the bytes before reach into
        whole = (shift + len(data)) * 8 // 6
        core = coded[first:whole]
        if len(core) >= 8:
            yield core
            yield core.replace(b"+", b"-").replace(b"/", b"_")


def _digests(value: str) -> Iterator[tuple[str, bytes]]:
    for case in {value, value.lower(), value.upper()}:
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, case.encode(), usedforsecurity=False).hexdigest()
            yield f"{name} without a key", digest[:DIGEST_CHARS].encode()
