"""The rules for notes against labelled texts and against bare presidio.

    python -m bench.notes [--notes N] [--rounds N] [--json] [--missed]

Quality: over bench.note_texts, per kind the share of identifiers of which no letter or digit is left (recall), the share of
replaced places that held an identifier (precision), the share of clinical terms that were touched, for drugs and for
diseases, signs and devices named after persons. Speed: notes a second of `deidentify` against presidio's AnalyzerEngine with
its own recognisers and the whole pipeline of the same model; the sides alternate and the ratio is of medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.note_texts import FIRST, SECOND, Labelled, labelled
from medvec_assets.deid.notes import deidentify, identifiers
from resources.encoders.weights import package_folder
from resources.language_model import FOLDER, PACKAGE

Place = tuple[int, int, str]


def quality(notes: list[Labelled], missed: list[str]) -> dict[str, Any]:
    """The figures of the module's docstring; what was not hidden is appended to `missed`, with some context."""
    total, hidden, terms, touched = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    replaced = right = 0
    for note in notes:
        found = list(identifiers(note.text))
        covered = {at for start, end, _ in found for at in range(start, end)}
        for start, end, kind in note.identifiers:
            total[kind] += 1
            gone = all(at in covered for at in range(start, end) if note.text[at].isalnum())
            hidden[kind] += gone
            if not gone:
                missed.append(f"{kind}: {note.text[max(0, start - 30) : start]!r} >> {note.text[start:end]!r}")
        for start, end, kind in note.terms:
            terms[kind] += 1
            is_touched = any(at in covered for at in range(start, end))
            touched[kind] += is_touched
            if is_touched:
                missed.append(f"wrongly {kind}: {note.text[max(0, start - 30) : end]!r}")
        replaced += len(found)
        right += sum(any(a < end and start < b for a, b, _ in note.identifiers) for start, end, _ in found)
    return {
        "notes": len(notes),
        "identifiers": sum(total.values()),
        "recall": round(sum(hidden.values()) / sum(total.values()), 4),
        "recall_by_kind": {kind: [hidden[kind], total[kind]] for kind in sorted(total)},
        "precision": round(right / replaced, 4),
        "terms_touched": {kind: [touched[kind], terms[kind]] for kind in sorted(terms)},
    }


def bare_presidio() -> Callable[[str], str]:
    """Presidio as it comes: every recogniser for English, the whole pipeline, each finding replaced."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "en_core_web_sm"}])
    engine.nlp = {"en": spacy.load(package_folder(PACKAGE, FOLDER))}
    analyzer = AnalyzerEngine(nlp_engine=engine)

    def clean(text: str) -> str:
        for found in sorted(analyzer.analyze(text, language="en"), key=lambda one: -one.start):
            text = f"{text[: found.start]}[{found.entity_type}]{text[found.end :]}"
        return text

    return clean


def speed(texts: list[str], rounds: int) -> dict[str, float]:
    """Rates of both sides over `texts`, interleaved."""
    sides: list[tuple[str, Callable[[str], Any]]] = [("bare", bare_presidio()), ("medvec", deidentify)]
    seconds: dict[str, list[float]] = {name: [] for name, _ in sides}
    for _, side in sides:
        side(texts[0])  # loads what it needs
    for _ in range(rounds):
        sides.reverse()
        for name, side in sides:
            start = time.perf_counter()
            for text in texts:
                side(text)
            seconds[name].append(time.perf_counter() - start)
    bare, ours = statistics.median(seconds["bare"]), statistics.median(seconds["medvec"])
    return {
        "characters": sum(map(len, texts)),
        "bare_notes_per_second": round(len(texts) / bare, 1),
        "medvec_notes_per_second": round(len(texts) / ours, 1),
        "ratio": round(bare / ours, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The rules for notes against labelled texts and bare presidio")
    parser.add_argument("--notes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--missed", action="store_true", help="print what was not hidden, and what was hidden wrongly")
    options = parser.parse_args()
    missed: list[str] = []
    notes, others = labelled(FIRST, options.notes), labelled(SECOND, options.notes)
    results: dict[str, Any] = {"first_hand": quality(notes, missed), "second_hand": quality(others, missed)}
    if options.rounds:
        # Texts of about 2,500 characters, the size of a radiology report
        texts = [
            "\n\n".join(note.text for note in notes[start : start + 6]) for start in range(0, min(120, len(notes)), 6)
        ]
        results["speed"] = speed(texts, options.rounds)
    print(json.dumps(results, indent=None if options.json else 1))
    if options.missed:
        print("\n".join(sorted(missed)))


if __name__ == "__main__":
    main()
