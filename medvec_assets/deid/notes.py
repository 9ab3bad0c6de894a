"""De-identification of free text: HIPAA's 18 identifiers in their clinical spellings, each replaced by its kind.

Belongs here: the one function `deidentify`, its limits, how overlapping findings become placeholders. Does not belong here:
what identifiers look like (note_rules, note_names, note_places, lexicon), reading notes (connectors, modalities).

Findings come from presidio-analyzer with recognisers of our own over a small language model (resources.language_model).
A name in lower case without a cue, a rare name that neither a cue nor the model tells, and what identifies by its story
alone are not found: an independent scorer stands between the cleaned text and any vector.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from operator import itemgetter

from medvec_assets.deid import note_names, note_places
from medvec_assets.deid.note_names import Span
from medvec_assets.deid.note_rules import KINDS, RULES
from medvec_assets.deid.presidio import Analyzer, Find
from resources.errors import ObjectRejected

PROFILE = "note-rules-1"
MAX_NOTE_CHARS = 1_000_000  # MIMIC-IV's longest has about 60,000; a million take some 20 s of one core
CHUNK_CHARS = 20_000  # what is searched at once: bounds memory at about 100 MB a note
MAX_CONTROL_SHARE = 0.01  # of a text's characters; more means bytes of something else
PLACEHOLDER = re.compile(r"\[(?:" + "|".join(kind.upper() for kind in KINDS) + r")\]")
# What stands in no text of words: control characters, and characters without width that would cut a name in two.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_WIDTHLESS = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_JOINT = re.compile(r"[ \t.,]{0,2}|[ \t.]?\n[ \t]{0,2}|-")
_PRIORITY = {kind: rank for rank, kind in enumerate(KINDS)}


def deidentify(text: str, *, without: Collection[str] = ()) -> tuple[str, dict[str, int]]:
    """The text with every identifier replaced by its kind ([NAME], [DATE], ...), and how many of each kind there were.

    Unicode is normalised (NFKC), line ends become \\n, characters without width go. The source's own masks (`___`) stay, and
    a text that is clean already comes back as it is. `without`: kinds that are not looked for; tests alone use it.
    Raises ObjectRejected, which quotes nothing: `note_too_long`, `note_not_text`.
    """
    text = normalised(text)
    pieces, at = [], 0
    actions: Counter[str] = Counter()
    for start, end, kind in identifiers(text, without):
        pieces += [text[at:start], f"[{kind.upper()}]"]
        actions[kind] += 1
        at = end
    return "".join([*pieces, text[at:]]), dict(sorted(actions.items()))


def identifiers(text: str, without: Collection[str] = ()) -> Iterator[Span]:
    """Where identifiers stand in a `normalised` text, disjoint and in order."""
    return merged(text, [span for span in _found(text) if span[2] not in without])


def normalised(text: str) -> str:
    """One spelling of equal texts; see `deidentify` for what it does and raises."""
    if len(text) > MAX_NOTE_CHARS:
        raise ObjectRejected(
            f"a note has {len(text)} characters, more than the {MAX_NOTE_CHARS} allowed",
            code="note_too_long",
            remedy="it is probably several notes in one field: split it at its source",
        )
    if "\0" in text or len(_CONTROL.findall(text)) > MAX_CONTROL_SHARE * len(text):
        raise ObjectRejected(
            "a note holds control characters, as binary data in a text field do",
            code="note_not_text",
            remedy="ask the source to correct the field; a scan or a document must be made text first",
        )
    text = unicodedata.normalize("NFKC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _WIDTHLESS.sub("", _CONTROL.sub(" ", text))


def merged(text: str, spans: list[Span]) -> Iterator[Span]:
    """Disjoint spans in order: what overlaps is hidden whole, under the kind that KINDS names first; parts of one name that
    only a space, a point or a line's end cuts are one."""
    held: Span | None = None
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if held is None:
            held = (start, end, kind)
        elif start < held[1]:
            held = (held[0], max(end, held[1]), min(held[2], kind, key=_PRIORITY.__getitem__))
        elif (
            kind == held[2] and _JOINT.fullmatch(text, held[1], start) and kind in ("name", "organization", "location")
        ):
            held = (held[0], end, kind)
        else:
            yield held
            held = (start, end, kind)
    if held is not None:
        yield held


def _found(text: str) -> Iterator[Span]:
    """Every finding outside placeholders, chunk by chunk. Names are also looked for over the whole text: a cue on one page
    makes a name certain on another."""
    masked = [match.span() for match in PLACEHOLDER.finditer(text)]
    spans = note_names.cued(text)
    for start, end in _chunks(text):
        spans.extend((at + start, to + start, kind) for at, to, kind in _analyzer().spans(text[start:end]))
    for span in spans:
        before = bisect(masked, span[0], key=itemgetter(0))
        if not any(start < span[1] and span[0] < end for start, end in masked[max(0, before - 1) : before + 1]):
            yield span


def _chunks(text: str) -> Iterator[tuple[int, int]]:
    """Pieces of at most CHUNK_CHARS that end with a line, or a word where lines are longer."""
    start = 0
    while start < len(text):
        end = min(start + CHUNK_CHARS, len(text))
        if end < len(text):
            cut = max(text.rfind("\n", start, end), text.rfind(" ", end - 200, end))
            end = cut + 1 if cut > start else end
        yield start, end
        start = end


@cache
def _analyzer() -> Analyzer:
    finders: dict[str, Find] = {
        "patterns": _patterns,
        "persons": note_names.modelled,
        "towns": note_places.modelled,
        "institutions": lambda text, entities: note_places.placed(text),
    }
    return Analyzer(finders, KINDS)


def _patterns(text: str, entities: object) -> Iterator[Span]:
    for rule in RULES:
        for pattern in rule.patterns:
            group = "id" if "id" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                yield (*match.span(group), rule.kind)
