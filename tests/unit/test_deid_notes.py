"""Rules for notes: every kind of identifier goes, medicine stays, nothing is quoted, no text is too odd or too slow."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.deid import note_names, note_places, notes
from medvec_assets.deid.note_rules import KINDS, RULES
from medvec_assets.deid.notes import MAX_NOTE_CHARS, deidentify
from resources import language_model
from resources.errors import IntegrityError, ObjectRejected

# kind -> a text in which this rule alone finds what must not be in the clean one
PLANTED = {
    "date": ("Seen on 3/14/2150 and in March", "14"),
    "age": ("A 94 year old woman", "94"),
    "phone": ("Call pager 31742", "31742"),
    "email": ("Write to h.vance@example.org", "vance"),
    "ssn": ("SSN ending 4471", "4471"),
    "mrn": ("MRN: 44718", "44718"),
    "account": ("Policy No: XK441", "XK441"),
    "license": ("DEA BD447", "BD447"),
    "vehicle": ("license plate 4TRK 228", "4TRK"),
    "device": ("serial number 77A44", "77A44"),
    "url": ("see www.example.org/hv", "example"),
    "ip": ("login from 203.0.113.77", "113"),
    "address": ("mail to P.O. Box 118", "118"),
    "biometric": ("fingerprint record FP-77", "FP-77"),
    "photo": ("see wound_left.jpg", "wound_left"),
    "number": ("code 44719028", "44719028"),
    "organization": ("at Pine Hill Pharmacy today", "Pine"),
    "name": ("Seen by Dr. Vance today", "Vance"),
    "location": ("She lives in Fall River", "River"),
}
KEPT = (
    "Started Metoprolol 25 mg PO BID, Lasix, Coumadin, Zosyn and Augmentin; continue Vancomycin.",
    "Crohn's disease, Hodgkin lymphoma, Parkinson's, s/p Foley, Graves disease, Bell's palsy, Babinski sign.",
    "T 98.6 HR 90 BP 142/84 RR 18 O2 94% RA. Strength 5/5, murmur 2/6, pain 7/10.",
    "BLOOD WBC-9.1 RBC-4.21* Hgb-12.9 Plt 212 Glucose-110* UreaN-18 Na-140 K-4.1 HCO3-24",
    "MR BRAIN W/O CONTRAST. CT of the Abdomen. No St. Jude valve. Cardiology and Pain Clinic follow up.",
    "Brief Hospital Course: 89 year old, on 2L NC, 1-2 tabs q4-6h PRN, 3 days, 12 hours, at 3:40 pm.",
    "Name:  ___      Unit No:   ___   Admission Date:  ___  Attending: ___.",
)
WORDS = st.sampled_from(
    [
        *(text for text, _ in PLANTED.values()),
        *KEPT,
        "___",
        "[NAME]",
        "Mr.",
        "Dr. ",
        "\n",
        "Oluwaseun Brown",
        "é",
        "\u200b",
        "1",
        "x",
    ]
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_finds_its_kind_and_is_missed_when_it_is_off(kind: str) -> None:
    text, secret = PLANTED[kind]
    clean, actions = deidentify(text)
    assert secret not in clean and f"[{kind.upper()}]" in clean
    assert actions[kind] == clean.count(f"[{kind.upper()}]")
    without, _ = deidentify(text, without={kind})
    assert secret in without


@pytest.mark.parametrize("text", KEPT)
def test_medicine_and_the_sources_own_masks_stay(text: str) -> None:
    assert deidentify(text) == (text, {})


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    clean, actions = deidentify(text)
    again, further = deidentify(clean)
    assert (again, further) == (clean, {})
    assert clean.count("___") == notes.normalised(text).count("___")
    assert sum(actions.values()) == len(notes.PLACEHOLDER.findall(clean)) - len(notes.PLACEHOLDER.findall(text))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_cleaned_or_refused_without_a_quote(text: str) -> None:
    try:
        clean, _ = deidentify(text)
    except ObjectRejected as refusal:
        assert refusal.code in ("note_not_text", "note_too_long")
    else:
        assert re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", clean) is None


@pytest.mark.parametrize(
    "text",
    [
        "J\u200bohn Sm\u00adith, MD",  # characters without width
        "Dr. \uff33mith called",  # full width
        "Patient:\u00a0Oluwaseun\u00a0Brown",
        "dr. nguyen and mr o'brien",
        "VANCE, HAROLD was admitted. Patient: ADEYEMI, BRENDAN",
        "Priya, the patient's daughter, called. Spoke with Ana-Maria Lopez-Ruiz RN.",
    ],
)
def test_odd_spellings_of_names_are_found(text: str) -> None:
    clean, actions = deidentify(text)
    assert actions["name"] >= 1
    assert not re.search(
        r"(?i)john|smith|nguyen|brien|vance|harold|adeyemi|brendan|priya|lopez|ruiz|oluwaseun|brown", clean
    )


@pytest.mark.parametrize("text", ["Seen by Dr. Della", "Patient: Al", "son Van", "Dr. de la", "by St", "Name: A"])
def test_a_name_of_a_particle_alone_breaks_nothing(text: str) -> None:
    deidentify(text)


def test_a_name_that_is_certain_once_is_hidden_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "CHUNK_CHARS", 1_000)
    far = "The lungs are clear. " * 100
    clean, actions = deidentify(f"Patient: Harold Vance\n{far}\nVance denies pain. VANCE agrees.")
    assert "vance" not in clean.lower() and actions == {"name": 3}


def test_a_name_that_is_a_word_here_is_not_hidden_as_a_word() -> None:
    assert deidentify("Dr. Young saw a young man. Young men heal.")[0] == "Dr. [NAME] saw a young man. Young men heal."


def test_an_identifier_on_the_edge_of_a_chunk_is_found_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "CHUNK_CHARS", 400)
    for pad in range(330, 405, 5):
        clean, _ = deidentify(
            "lung " * (pad // 5) + "Call (617) 555-0142 or write to h.vance@example.org today. " + "clear " * 50
        )
        assert "vance" not in clean and "0142" not in clean


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a" * (MAX_NOTE_CHARS + 1), "note_too_long"),
        ("PK\x03\x04\0\0 Harold Vance", "note_not_text"),
        ("\x01\x02Vance" * 9, "note_not_text"),
    ],
)
def test_what_is_no_note_is_refused_and_not_quoted(text: str, code: str) -> None:
    with pytest.raises(ObjectRejected) as refusal:
        deidentify(text)
    assert refusal.value.code == code
    assert "Vance" not in str(refusal.value)


def test_nothing_of_a_note_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        deidentify("Patient: Harold Vance, MRN: 4471882, at 18 Alder Street")
    assert not re.search("Vance|4471882|Alder", caplog.text)


PATTERNS = [
    *(pattern for rule in RULES for pattern in rule.patterns),
    *(
        found
        for module in (note_names, note_places)
        for found in vars(module).values()
        if isinstance(found, re.Pattern)
    ),
]


@pytest.mark.parametrize(
    "piece",
    [
        "A",
        "a ",
        "1",
        "1-",
        "1 ",
        "Aa ",
        "Aa, ",
        "a@",
        "a.",
        "(",
        "Dr. ",
        ":1",
        "St. ",
        "\n",
        "on ",
        "1/",
        "Aa-",
        "by ",
        "A. ",
    ],
)
def test_no_text_makes_a_pattern_slow(piece: str) -> None:
    """Repetition is what backtracking feeds on: over 50,000 characters work that grows with the square takes minutes."""
    text = piece * (50_000 // len(piece))
    for pattern in PATTERNS:
        assert sum(1 for _ in pattern.finditer(text)) <= len(text)


def test_a_model_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dict.fromkeys(language_model._RECOGNISER, "0" * 64)
    monkeypatch.setattr(language_model, "_RECOGNISER", changed)
    with pytest.raises(IntegrityError, match="en_core_web_sm"):
        language_model.EntityModel()
