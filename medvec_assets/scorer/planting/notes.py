"""Planting into clinical notes, laid out as those of MIMIC-IV-Note: a header of labelled fields, sections, blanks of `___`.

Belongs here: where a note holds identifiers. Does not belong here: tables of notes (tables).
"""

from __future__ import annotations

from collections.abc import Iterator

from medvec_assets.scorer.planting import Planted, Subject

BLANK = "___"  # what MIMIC-IV-Note has where an identifier was
OLD = "107-year-old"
_BLANK_KINDS = ("name", "institution", "phone", "mrn", "address", "email", "account", "url", "ip", "license")


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """The note with a header, its blanks filled and sentences between its lines; and one that is no valid UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    yield Planted(planted_text(text, subject).encode())
    mint = subject.mint
    accented = mint.plant("accented_name", "note that is not UTF-8") or ""
    yield Planted(f"{_header(subject)}Attending: Dr. {accented}\n".encode("latin-1") + data, damaged=True)


def planted_text(text: str, subject: Subject) -> str:
    mint, kinds = subject.mint, iter(_BLANK_KINDS)
    while BLANK in text and (kind := next(kinds, None)) is not None:
        text = text.replace(BLANK, mint.plant(kind, f"note, blank filled with a {kind}") or "", 1)
    lines = text.splitlines(keepends=True) or [""]
    middle = len(lines) // 2
    lines.insert(middle, f"\n{mint.sentence('note, between its lines')}\n")
    return f"{_header(subject)}{''.join(lines)}\n{_history(subject)}{_signature(subject)}"


def _header(subject: Subject) -> str:
    mint = subject.mint
    dates = [mint.date("note, header", number) for number in (2, 3, 0)]
    return (
        f"Name:  {subject.family}, {subject.given}          Unit No:   {subject.ref}\n \n"
        f"Admission Date:  {dates[0]:%Y-%m-%d}              Discharge Date:   {dates[1]:%Y-%m-%d}\n \n"
        f"Date of Birth:  {dates[2]:%Y-%m-%d}             Sex:   F\n \n"
        f"Service: MEDICINE\n \nAttending: Dr. {mint.plant('name', 'note, header')}\n\n"
    )


def _history(subject: Subject) -> str:
    """Who somebody is, beside a name: each identifier under the words that notes have for it."""
    mint = subject.mint

    def told(kind: str, what: str) -> str:
        return mint.plant(kind, f"note, {what}") or ""

    town = mint.family()
    mint.remember("address", "note, town", town)
    mint.remember("age", "note, age", OLD)
    return (
        f"Social History:\nThis {OLD} veteran lives in {town}, zip code {told('zip', 'ZIP code')}. "
        f"Driver's license number {told('license', 'licence')}; license plate {told('plate', 'licence plate')}.\n"
        f"Policy number: {told('health_plan', 'policy')}. Pacemaker serial number {told('device_serial', 'device')}.\n"
        f"Fingerprint ID {told('accession', 'fingerprint')}; photo in {told('file_name', 'photo')}.jpg.\n"
        f"Portal: {told('url', 'portal')} from {told('ip', 'IPv4')} and {told('ipv6', 'IPv6')}. "
        f"Outside specimen: {told('sample', 'number without a word for it')}.\n\n"
    )


def _signature(subject: Subject) -> str:
    mint = subject.mint
    return (
        f"Dictated by {mint.plant('name', 'note, signature')}, {mint.plant('institution', 'note, signature')}\n"
        f"Account number {mint.plant('account', 'note, signature')}; device {mint.plant('device_serial', 'note, signature')}\n"
    )
