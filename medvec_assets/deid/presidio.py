"""Presidio's interfaces around our recognisers and our model, made when they are asked for: importing presidio takes seconds.

Belongs here: adapters. Does not belong here: what is looked for (note_rules, note_names, note_places).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from medvec_assets.deid.note_names import Span
from resources.language_model import Entity, EntityModel, entity_model

Find = Callable[[str, Sequence[Entity]], Iterable[Span]]
"""What a recogniser finds in a text, given the model's entities in it."""

# Presidio's own recognisers that check more than a form (digits that add up, every spelling of an address), by our kinds.
_OF_PRESIDIO = {"CREDIT_CARD": "account", "IBAN_CODE": "account", "IP_ADDRESS": "ip", "MAC_ADDRESS": "device"}
_MIN_SCORE = 0.5  # below it presidio asks for words beside a pattern, which our rules do better
_SCORE = 1.0  # of our own findings: a rule finds or does not


class Analyzer:
    """Presidio's engine over `finders`. One text at a time."""

    def __init__(self, finders: dict[str, Find], kinds: Sequence[str]) -> None:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer import predefined_recognizers as theirs

        own = [_recogniser_type()(list(kinds), find, name) for name, find in finders.items()]
        others = [
            theirs.CreditCardRecognizer(),
            theirs.IbanRecognizer(),
            theirs.IpRecognizer(),
            theirs.MacAddressRecognizer(),
        ]
        registry = RecognizerRegistry(recognizers=[*own, *others], supported_languages=["en"])
        language = _language_engine_type()(entity_model())
        self._engine = AnalyzerEngine(registry, language, context_aware_enhancer=_enhancer_type()())
        self._entities = [*kinds, *_OF_PRESIDIO]
        self._lock = threading.Lock()

    def spans(self, text: str) -> list[Span]:
        """What every recogniser finds in `text`, overlapping as it may."""
        with self._lock:
            found = self._engine.analyze(text, language="en", entities=self._entities, score_threshold=_MIN_SCORE)
        return [(one.start, one.end, _OF_PRESIDIO.get(one.entity_type, one.entity_type)) for one in found]


@cache
def _recogniser_type() -> Any:
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class Finder(EntityRecognizer):
        def __init__(self, kinds: list[str], find: Find, name: str) -> None:
            self._find = find
            super().__init__(supported_entities=kinds, name=name)

        def load(self) -> None:
            """Nothing: what it needs is loaded where it is used."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: Any) -> list[Any]:
            found = self._find(text, nlp_artifacts.entities)
            return [RecognizerResult(kind, start, end, _SCORE) for start, end, kind in found]

    return Finder


@cache
def _language_engine_type() -> Any:
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class LanguageEngine(NlpEngine):
        """The verified model as presidio's language engine: entities only, no lemmas."""

        def __init__(self, model: EntityModel) -> None:
            self._model = model

        def load(self) -> None:
            """Nothing: it is made with a model."""

        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> Any:
            found: Any = self._model.entities(text)  # what our recognisers read, where spaCy's would be
            no_tokens: Any = []
            return NlpArtifacts(found, no_tokens, [], [], self, language)

        def process_batch(self, texts: Iterable[str], language: str, *args: Any, **kwargs: Any) -> Any:
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            return False

        def is_punct(self, word: str, language: str) -> bool:
            return False

        def get_supported_entities(self) -> list[str]:
            return []

        def get_supported_languages(self) -> list[str]:
            return ["en"]

    return LanguageEngine


@cache
def _enhancer_type() -> Any:
    from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer

    class NoEnhancer(ContextAwareEnhancer):
        """Our rules mind what stands around a pattern themselves; presidio's would copy every finding."""

        def __init__(self) -> None:
            super().__init__(0, 0, 0, 0)

        def enhance_using_context(self, text: str, raw_results: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
            return raw_results

    return NoEnhancer
