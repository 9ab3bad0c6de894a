"""Every rule for notes holds back something that the scorer plants: switched off, it is a leak with a name.

Rules overlap on purpose (a record number is also a long number), so each is switched off together with those that would hide
the same: nothing comes through while it alone is at work, and its identifiers do without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, partial

import pytest

from medvec_assets.catalog.mimic_notes import MIMIC_NOTES
from medvec_assets.connectors import sample_folder
from medvec_assets.deid import note_names, note_places, notes
from medvec_assets.deid.note_rules import KINDS
from medvec_assets.deid.presidio import Analyzer, Find
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import notes as modality
from medvec_assets.scorer.score import Score, score
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Agreement, Settings

Patch = pytest.MonkeyPatch
PARTITION = "radiology"
RECORDS, PAYLOADS = f"silver/mimic_notes/records/partition={PARTITION}", "payload/mimic_notes"
FIND = notes._found


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """The dataset's fixture as records. What is found in a text is found once: the same notes are planted in every test."""
    dua = Agreement(id=MIMIC_NOTES.terms.agreement, holder="H", datasets={MIMIC_NOTES.id}, expires=date.max)
    settings = Settings(
        home=tmp_path_factory.mktemp("notes"),
        sources={MIMIC_NOTES.id: str(sample_folder(MIMIC_NOTES.id))},
        agreements=(dua,),
        pseudonym_key="11" * 32,
        device="cpu",
    )
    found = Context(settings, Lakehouse.open(settings), "scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notes, "_found", cache(lambda text: list(FIND(text))))
        manifest.refresh(found, MIMIC_NOTES)
        records.build(found, MIMIC_NOTES, PARTITION)
        yield found


def scored(context: Context) -> Score:
    return score(context, MIMIC_NOTES, PARTITION, b"the rules for notes")


@pytest.fixture(scope="module")
def leaks(context: Context) -> Callable[[frozenset[str]], set[tuple[str, str]]]:
    """(kind of token, where it was planted) of what comes through while some kinds are not looked for: once for each set."""

    @cache
    def found(without: frozenset[str]) -> set[tuple[str, str]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modality, "deidentify", partial(notes.deidentify, without=without))
            return named(scored(context))

    return found


def named(found: Score) -> set[tuple[str, str]]:
    assert found.passed == (not found.leaks)
    assert {leak.found for leak in found.leaks} <= {RECORDS, f"{RECORDS}: column text", PAYLOADS}, (
        "nowhere but in the text"
    )
    in_payloads = {(leak.kind, leak.planted) for leak in found.leaks if leak.found == PAYLOADS}
    assert in_payloads == {(leak.kind, leak.planted) for leak in found.leaks}, "what is landed is the text"
    return {(leak.kind, leak.planted) for leak in found.leaks}


def test_nothing_comes_through_while_every_rule_is_at_work(context: Context) -> None:
    found = scored(context)
    assert found.leaks == () and found.passed
    assert found.planted >= 200 and found.places >= 50 and found.kinds >= 20
    assert found.records == found.readable_copies == 6
    assert found.quarantined == 3, "a copy of each note has fields or bytes that no note has"


LINES, HEADER, SIGNATURE = "note, between its lines", "note, header", "note, signature"
RULES: dict[str, tuple[set[str], set[str]]] = {
    # kind: (kinds that would hide the same, places whose identifiers come through)
    "date": ({"number"}, {HEADER}),
    "age": (set(), {"note, age"}),
    "phone": ({"number"}, {LINES}),
    "email": (set(), {LINES}),
    "ssn": ({"number"}, {LINES}),
    "mrn": ({"number"}, {LINES, "the subject's id"}),
    "account": ({"number"}, {SIGNATURE, "note, policy"}),
    "license": ({"number"}, {"note, licence"}),
    "vehicle": (set(), {"note, licence plate"}),
    "device": ({"number"}, {"note, device"}),
    "url": (set(), {"note, portal"}),
    "ip": (set(), {"note, IPv4", "note, IPv6"}),
    "address": ({"number", "name"}, {LINES, "note, ZIP code"}),
    "biometric": ({"number"}, {"note, fingerprint"}),
    "photo": (set(), {"note, photo"}),
    "organization": ({"name"}, {SIGNATURE, "note, blank filled with a institution"}),
    "name": (set(), {"the subject's name", LINES, HEADER, SIGNATURE, "note, blank filled with a name"}),
    "location": ({"name"}, {"note, town"}),
    "number": (set(), {SIGNATURE}),
}


def test_every_kind_of_identifier_is_switched_off_here() -> None:
    assert set(RULES) == set(KINDS)


@pytest.mark.parametrize("kind", RULES)
def test_a_kind_that_is_not_looked_for_is_a_leak_that_is_named(
    leaks: Callable[[frozenset[str]], set[tuple[str, str]]], kind: str
) -> None:
    others, expected = RULES[kind]
    others_off = leaks(frozenset(others))
    all_off = leaks(frozenset(others | {kind}))
    assert expected <= {place for _, place in all_off - others_off}, sorted(all_off)


# ---------------------------------------------------------------- what finds names


def finders(context: Context, patch: Patch, *, cues: bool = True, model: bool = True) -> set[tuple[str, str]]:
    """What comes through while names are looked for without words beside them, or without the language model."""
    at_work: dict[str, Find] = {
        "patterns": notes._patterns,
        "towns": note_places.modelled,
        "institutions": lambda text, entities: note_places.placed(text),
    }
    analyzer = Analyzer(at_work | ({"persons": note_names.modelled} if model else {}), KINDS)
    patch.setattr(notes, "_analyzer", lambda: analyzer)
    patch.setattr(notes, "_found", FIND)
    if not cues:
        patch.setattr(note_names, "cued", lambda text: [])
    return named(scored(context))


def test_names_without_cues_are_leaks_and_without_the_model_too(context: Context, monkeypatch: Patch) -> None:
    without_cues = finders(context, monkeypatch, cues=False)
    assert ("name", LINES) in without_cues
    without_either = finders(context, monkeypatch, cues=False, model=False)
    assert {("name", HEADER), ("name", SIGNATURE)} <= without_either - without_cues


# ---------------------------------------------------------------- beside the text


def test_a_note_that_is_kept_as_it_is_is_a_leak_of_every_place(context: Context, monkeypatch: Patch) -> None:
    monkeypatch.setattr(modality, "deidentify", lambda text: (text, {}))
    shown = named(scored(context))
    assert {place for _, expected in RULES.values() for place in expected} <= {place for _, place in shown}


def test_a_patients_number_without_a_pseudonym_is_a_leak(context: Context, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Pseudonyms, "subject", lambda self, subject: subject)
    found = scored(context)
    assert ("the subject's id", f"{RECORDS}: column subject_key") in {
        (leak.planted, leak.found) for leak in found.leaks
    }


def test_a_text_in_the_attributes_is_a_leak_in_the_index(context: Context, monkeypatch: Patch) -> None:
    plain: list[str] = []
    monkeypatch.setattr(modality, "deidentify", lambda text: plain.append(text) or notes.deidentify(text))  # type: ignore[func-returns-value]
    monkeypatch.setattr(modality, "attributes", lambda note_type, text: {"note_type": plain[-1]})
    found = {leak.found for leak in scored(context).leaks}
    assert {f"{RECORDS}: column attributes", "index entities"} <= found
