"""Clinical notes: a note's row to a de-identified text, and of it the part that a text encoder with 256 tokens can read.

Belongs here: what is a note and what is none, which sections a note's vector is made of. Does not belong here: finding
identifiers (deid.notes), where notes are (connectors).

MiniLM reads 256 tokens, about 1,000 characters, and a discharge summary has 10,000. The mean over its many pieces would say
"hospital stay", and the first thousand characters are allergies and headings. So one vector is made of the sections in which
the writer has already told what matters (SECTIONS, in this order), each cut to its share, without the source's masks and our
placeholders, which mean nothing and take three tokens each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from medvec_assets.deid.notes import PLACEHOLDER, PROFILE, deidentify
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import text_digest
from medvec_assets.modalities import OPEN, RECORD_FRAME, LandPayload, ReadObject, Rejected
from resources.errors import ObjectRejected

INPUT_VERSION = "note-head-1"
MAX_HEAD_CHARS = 1_000  # 256 tokens of clinical prose are 900 to 1,100 characters
MIN_WORDS = 3  # fewer say nothing that could be searched
# A section's name in the attributes, the headings it goes under, and the characters of the head that are its share.
SECTIONS: dict[str, tuple[str, int]] = {
    "examination": (r"examination|exam|study|procedure", 150),
    "chief_complaint": (r"chief complaint|reason for admission|presenting complaint", 150),
    "indication": (r"indication|clinical (?:information|history|indication)|reason for exam(?:ination)?|history", 200),
    "discharge_diagnosis": (r"(?:final |principal |primary )?(?:discharge )?diagnos[ei]s", 350),
    "impression": (r"impression|conclusions?", 500),
    "major_procedure": (r"major surgical or invasive procedures?|procedures?(?: performed)?", 150),
    "history_of_present_illness": (r"history of (?:the )?present illness|hpi|present illness", 400),
    "hospital_course": (r"brief hospital course|hospital course|summary of hospital course", 300),
    "findings": (r"findings", 500),
}
_OTHER = (
    r"name|unit no|admission date|discharge date|date of birth|sex|service|allergies|attending|past medical history|"
    r"social history|"
    r"family history|physical exam|pertinent results|medications on admission|discharge medications|discharge disposition|"
    r"discharge condition|discharge instructions|followup instructions|facility|technique|comparison|notification|"
    r"recommendations?|wet read|addendum|review of systems"
)
_HEADING = re.compile(
    r"(?:^|(?<=\n))[ \t]*(?:"
    + "|".join(f"(?P<{name}>{words})" for name, (words, _) in SECTIONS.items())
    + rf"|{_OTHER})[ \t]*:",
    re.IGNORECASE,
)
_MASKS = re.compile(rf"_{{2,}}|{PLACEHOLDER.pattern}")
# MIMIC-IV-Note's types, and the lengths of notes in characters that a search may be narrowed to.
NOTE_TYPES = {"DS": "discharge", "AD": "discharge_addendum", "RR": "radiology", "AR": "radiology_addendum"}
LENGTHS = {500: "under_500", 2_000: "500_to_2000", 10_000: "2000_to_10000"}
_LONGEST = "over_10000"
_REMEDIES = {
    "note_encoding": "the note's bytes are no UTF-8; ask the source to write the table again",
    "note_malformed": "the note's row is not what the connector mimic_notes writes; refresh the manifest",
    "note_type_unknown": f"a note's type is one of {', '.join(NOTE_TYPES)}; ask the source, or teach "
    "modalities/notes.py the new one",
    "note_too_short": f"the note has fewer than {MIN_WORDS} words; nothing can be made of it",
}


class Notes:
    """The modality `notes` (medvec_assets.modalities.PayloadModality). One object is one note and one record."""

    version = "notes-2"
    deid_profile = PROFILE
    input_versions: dict[str, str] = {"text": INPUT_VERSION}  # noqa: RUF012  (the protocol's attribute)
    piece_objects = 64
    payload_media_type = "text/plain"  # the clean text in UTF-8

    def records(
        self, objects: pl.DataFrame, read: ReadObject, pseudonyms: Pseudonyms, land: LandPayload | None = None
    ) -> tuple[pl.DataFrame, list[Rejected]]:
        """A record for each note, or the reason why there is none: the keys of _REMEDIES, those of deid.notes, or why it
        was not read. A reason quotes nothing."""
        rows, rejected = [], []
        for one in objects.iter_rows(named=True):
            try:
                note_type, text, actions = _understood(read(one["uri"]))
            except ObjectRejected as refusal:
                rejected.append(Rejected(one["object_id"], refusal.code, refusal.remedy, refusal.disposition))
                continue
            head = embedded_text(text)
            if len(re.findall(r"\w+", head)) < MIN_WORDS:
                rejected.append(Rejected(one["object_id"], "note_too_short", _REMEDIES["note_too_short"]))
                continue
            landed = land(text.encode()) if land is not None and one["access_tier"] != OPEN else None
            rows.append(
                {
                    "record_id": one["object_id"],
                    "subject_key": pseudonyms.subject(one["subject_ref"]),
                    "object_ids": [one["object_id"]],
                    "cohort": one["cohort"],
                    "modality": "NOTE",
                    "license": one["license"],
                    "access_tier": one["access_tier"],
                    "text": text,
                    "attributes": _json(attributes(note_type, text)),
                    "payload_uri": landed or f"object:{one['object_id']}",
                    "deid_profile": self.deid_profile,
                    "deid_actions": _json(actions),
                    "content_digests": _json({"text": text_digest(head)}),
                }
            )
        return pl.DataFrame(rows, schema=RECORD_FRAME), rejected

    def model_inputs(self, records: pl.DataFrame, space: str, read: ReadObject) -> Sequence[str]:
        """What of each record's text is embedded (`embedded_text`), in order; `read` is not used."""
        return [embedded_text(text) for text in records["text"]]


def _understood(data: bytes) -> tuple[str, str, dict[str, int]]:
    """(note_type, clean text, actions) of a note's canonical bytes."""
    try:
        row = json.loads(data.decode())
    except UnicodeDecodeError:
        raise _refused("note_encoding") from None
    except ValueError:
        raise _refused("note_malformed") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise _refused("note_malformed")
    if row.get("note_type") not in NOTE_TYPES:
        raise _refused("note_type_unknown")
    text, actions = deidentify(row["text"])
    return NOTE_TYPES[row["note_type"]], text, actions


def _refused(code: str) -> ObjectRejected:
    return ObjectRejected("a note cannot be used", code=code, remedy=_REMEDIES[code])


def attributes(note_type: str, text: str) -> dict[str, Any]:
    """What of a note may stand in an index entity: nothing that anybody wrote, only which of our lists it fits."""
    length = next((name for limit, name in LENGTHS.items() if len(text) < limit), _LONGEST)
    return {"note_type": note_type, "length": length, "sections": sorted({name for name, _ in sections(text)})}


def sections(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of each section of SECTIONS in the text, as it stands; a body ends where any known heading follows."""
    headings = list(_HEADING.finditer(text))
    for number, heading in enumerate(headings):
        if heading.lastgroup is not None:
            end = headings[number + 1].start() if number + 1 < len(headings) else len(text)
            yield heading.lastgroup, text[heading.end() : end]


def embedded_text(text: str) -> str:
    """The text that is encoded and digested: the telling sections, each cut to its share at a word, in the order of SECTIONS;
    the beginning of a note that has none of them. At most MAX_HEAD_CHARS characters."""
    bodies: dict[str, str] = {}
    for name, body in sections(text):
        if plain := _plain(body):
            bodies.setdefault(name, plain)
    if not bodies:
        return _cut(_plain(text), MAX_HEAD_CHARS)
    pieces = [
        f"{name.replace('_', ' ')}: {_cut(bodies[name], share)}"
        for name, (_, share) in SECTIONS.items()
        if name in bodies
    ]
    return _cut(" ".join(pieces), MAX_HEAD_CHARS)


def _plain(text: str) -> str:
    """Without masks and placeholders, white space collapsed."""
    return " ".join(_MASKS.sub(" ", text).split())


def _cut(text: str, chars: int) -> str:
    if len(text) <= chars:
        return text
    return text[:chars].rsplit(" ", 1)[0]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


MODALITY = Notes()
