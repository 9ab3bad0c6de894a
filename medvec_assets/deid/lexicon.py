"""Which words may be names: the census's lists, English at large and the clinical allow list, as one judge of words.

Belongs here: judging one word. Does not belong here: where in a text names stand (note_names).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

from medvec_assets.deid.clinical_terms import (
    CLINICAL_WORDS,
    DRUGS,
    ENDINGS,
    EPONYMS,
    MIN_STEM_CHARS,
    STATES,
    terms,
)
from resources.language_model import english_words

CACHED_WORDS = 1 << 16  # the judgements that are kept: a text repeats its words
CENSUS_FILE = Path(__file__).with_name("census_names.txt")
# First names and surnames that are words of notes first: alone, without a title or a partner, they are no person.
WORDS_FIRST = terms(
    """
    alpha amber america april art asia august aura autumn basil belle berry bill black booker brain brandy bridge brook brown
    bud buddy burl buster candida candy carol chad chance chang charity chase cherry chi christian chuck clay cliff cole coral
    crystal cyst dale dallas daily dawn day deal dean deb dick dirk dolly don dong drew driver dusty earl early easter ebony
    eden era     eve faith fay fern field fields flora forest frank gale garland gay gene glen good grace grant gray
    green grove guy hall
    hand hazel head heart heath heather herb high hill holly homer hope hung hunt hunter india iris israel iva ivory ivy jack
    jade jan jay jean jewel jordan joy jude june july junior kenya king kip kitty lacy lake lance lane laurel lawn lea lee leo
    lily link little long love low lulu mac major marina mark marina max may mcburney mercy merry mild misty mona moon moral
    more moss nova novella numbers ola olive opal page pain pansy park parks pat patsy pearl penny pink poor pope precious
    price prince princess prudence queen rash ray read reed rich rob robin rocky rod roman rose royal ruby rusty salina sandy
    sang savannah sharp short sierra silva skip slaughter small son soon speed star starr stark sterling still stone strong
    summer sun sung sunny sunshine swan tad tanner terry tia tod toe tory trinidad troy tyler valencia van venus vesta victor
    viola violet virgil viva wade wally walk walker wall ward waters weak weeks weight west white wild will windy winter wise
    wood woods young
    """
)
# Large towns that the lexicon of English has too.
TOWNS = terms(
    """
    albany albuquerque amsterdam anaheim anchorage athens atlanta augusta austin baltimore bangor barcelona baghdad beijing
    berlin bermuda birmingham bogota boise bombay boston boulder bridgeport bristol brockton bronx brooklyn brussels buffalo
    burlington cairo calcutta cambridge charleston charlotte chelsea chicago cincinnati cleveland cologne columbus concord
    copenhagen dallas dayton delhi denver detroit dorchester dublin durham eugene framingham frankfurt fresno geneva hanoi
    hartford havana helsinki hilo hiroshima holyoke honolulu houston indianapolis istanbul jakarta jerusalem juneau karachi
    kingston kyoto lagos lansing lexington lima lincoln lisbon london louisville lowell lyon madison madrid malden manchester
    manhattan manila marseille medford melbourne memphis miami milan milwaukee minneapolis mobile montreal moscow mumbai munich
    nairobi nashville newark newport newton norfolk oakland odessa omaha orlando osaka oslo oxford paris peoria philadelphia
    phoenix pittsburgh portland prague providence queens quincy raleigh richmond rochester rome sacramento saigon salem
    savannah seattle seoul shanghai singapore somerville spokane springfield stockholm stockton sydney syracuse taipei tallahassee
    tampa tehran tokyo toledo topeka toronto trenton tucson tulsa utica vancouver venice vienna waltham warsaw wichita
    wilmington winnipeg worcester yonkers york zurich
    """
)
# Who a note speaks of without naming them.
ROLES = terms(
    """
    anesthesia anesthesiologist anesthesiology assistant attending aunt author baby boy brother cardiologist cardiology care
    caregiver child children clinician colleague consultant contact coordinator cousin dad daughter dentist department dietitian
    director doctor driver emergency family father fellow fiance fiancee friend gentleman girl girlfriend grandmother guardian
    home hospice hospital hospitalist house husband infant intern interpreter kin lady man manager md mom mother neighbor
    neighbour neonate nephew neurologist niece nurse nursing obstetrician oncologist operator pathologist patient pediatrician
    person pharmacist pharmacy physician practitioner precautions primary protocol provider proxy psychiatrist radiologist
    radiologist relative report resident residents room roommate sister sitter son spouse staff student supervisor surgeon team
    technician therapist transport uncle unit ward wife woman worker service services office center clinic
    """
)
_ENDINGS_OF_WORDS = ("'s", "s", "es", "ed", "d", "ing", "ly", "er", "est", "ies", "ally")


@cache
def census() -> tuple[frozenset[str], frozenset[str]]:
    """First names and surnames of census_names.txt, in lower case."""
    _, first, last = re.split(r"\n?\[(?:first|last)\]\n", CENSUS_FILE.read_text())
    return frozenset(first.split()), frozenset(last.split())


def plain(word: str) -> str:
    """The form that lists hold: lower case, no possessive, no point."""
    return word.lower().replace("\u2019", "'").removesuffix("'s").strip(".'")


def is_first_name(word: str) -> bool:
    return plain(word).replace("'", "") in census()[0]


def is_surname(word: str) -> bool:
    """A double name is one if a half of it is."""
    bare = plain(word).replace("'", "")  # the census writes OBRIEN
    return bare in census()[1] or ("-" in bare and any(part in census()[1] for part in bare.split("-")))


def is_eponym(word: str) -> bool:
    """A name that is a word of medicine, or a double one that begins with one (Mallory-Weiss)."""
    bare = plain(word)
    return bare in EPONYMS or bare.split("-")[0] in EPONYMS


def is_state(word: str) -> bool:
    return plain(word) in STATES


@lru_cache(maxsize=CACHED_WORDS)
def is_clinical(word: str) -> bool:
    """On the allow list, or spelled as drugs and diseases are."""
    bare = plain(word)
    if bare in CLINICAL_WORDS or bare in DRUGS:
        return True
    first, last = census()
    if bare in first or bare in last or not bare.endswith(ENDINGS):
        return False
    return any(len(bare) - len(ending) >= MIN_STEM_CHARS for ending in ENDINGS if bare.endswith(ending))


@lru_cache(maxsize=CACHED_WORDS)
def is_english(word: str) -> bool:
    """In the lexicon of English, or a form of a word that is. Many names are too."""
    bare, words = plain(word), english_words().all
    if bare in words or bare in CLINICAL_WORDS or bare in DRUGS:
        return True
    if "-" in bare:
        if re.search(r"-[A-Z][a-z]", word):  # Mei-Hua, though mei and hua are words
            return False
        return all(not part or part in words or is_clinical(part) for part in bare.split("-"))
    stems = {
        bare[: -len(ending)] for ending in _ENDINGS_OF_WORDS if bare.endswith(ending) and len(bare) > len(ending) + 2
    }
    doubled = {stem[:-1] for stem in stems if len(stem) > 3 and stem[-1] == stem[-2]}  # stopped
    return any(stem in words or f"{stem}e" in words or f"{stem}y" in words for stem in stems | doubled)


def is_listed(word: str) -> bool:
    """In the lexicon of English as it stands, not as a form of a word that is."""
    return plain(word) in english_words().all


@lru_cache(maxsize=CACHED_WORDS)
def may_be_name(word: str) -> bool:
    """In the census, or no word that is known: where something else says that a name stands here."""
    return not is_clinical(word) and (is_first_name(word) or is_surname(word) or not is_english(word))


@lru_cache(maxsize=CACHED_WORDS)
def is_name_alone(word: str) -> bool:
    """A name whatever stands around it: in the census and no word besides."""
    bare = plain(word)
    if bare in WORDS_FIRST or is_clinical(word) or bare in EPONYMS or bare in STATES:
        return False
    first, last = census()
    return bare in first or (bare in last and not is_english(bare))


@lru_cache(maxsize=CACHED_WORDS)
def is_bare_noun(word: str) -> bool:
    """An English noun that is no other kind of word, as all names in the lexicon are: a name where a cue says so."""
    bare = plain(word)
    return bare in english_words().nouns and not is_clinical(word) and bare not in WORDS_FIRST and bare not in ROLES


def is_town(word: str) -> bool:
    """A word that also names people or a large town (Lincoln, Boston): a place where a cue stands before it."""
    bare = plain(word)
    return bare in TOWNS or (is_surname(bare) and bare not in WORDS_FIRST)
