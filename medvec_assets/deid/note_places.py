"""Places and institutions in notes: hospitals, employers, towns, by the words around them and by the language model.

Belongs here: what is a name of an institution and what a kind of one ("Pain Clinic"). Does not belong here: street
addresses and ZIP codes (note_rules), persons (note_names).

States and countries stand, as Safe Harbor lets them. Not found: a town without a cue that is an English word as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from medvec_assets.deid import lexicon
from medvec_assets.deid.clinical_terms import terms
from medvec_assets.deid.lexicon import plain
from medvec_assets.deid.note_names import CAPITALISED, Span, among_drugs, before_eponym_head
from resources.language_model import Entity

_HEAD = (
    r"(?:Hospitals?|Medical Cent(?:er|re)|Med Center|Clinic|Infirmary|Health(?:care)? (?:System|Cent(?:er|re)|Network|"
    r"Services|Plan|"
    r"Partners|Alliance)|Healthcare|Nursing (?:Home|Center|Facility)|Rehab(?:ilitation)?(?: (?:Center|Hospital|"
    r"Facility|Institute))?|"
    r"Hospice|Medical (?:Group|Associates)|Pharmacy|University|College|Institute|Sanatorium|VAMC|VA|Care Center|"
    r"(?:Assisted|Senior) "
    r"Living|Manor|Cancer Center|Surg(?:ical|ery) Center|Urgent Care|(?:Elementary |High |Middle )?School|Church|Inc|LLC|"
    r"Corp(?:oration)?|Company|Laboratories|Associates|Physicians|Shelter|Prison|Village)"
)
_JOINER = r"(?:(?:of|the|and|&|for)[ \t]){0,2}"
_INSTITUTION = re.compile(
    rf"(?<![\w-])(?P<name>(?:(?:{CAPITALISED}|St\.|Mt\.)[ \t]{_JOINER}){{1,4}})(?P<head>{_HEAD}|{_HEAD.upper()})(?!\w)"
    r"(?![ \t]?(?i:course|day|stay|admission|visit|bed|discharge|medications?|instructions))"
)
_OF = re.compile(
    rf"\b(?:University|Hospital|Hospitals|College|Institute) (?:of|for) (?:the )?(?P<id>{CAPITALISED}(?: {CAPITALISED}){{0,2}})"
)
_SAINT = re.compile(
    rf"\b(?:St\.|Saint|Mt\.|Mount)[ \t]{CAPITALISED}(?!\w| (?i:wort|valve|mechanical|bileaflet|pacemaker|device|aortic|"
    rf"mitral|medical|avr|mvr))"
)
_EMPLOYER = re.compile(
    r"\b(?:[Ww]ork(?:s|ed|ing)?(?: as an? [a-z ]{2,30}?)?(?: at| for)|[Ee]mployed (?:at|by)|[Ee]mployer:?|[Rr]etired "
    r"from|[Cc]aller from|"
    rf"[Aa]ttend(?:s|ed)|[Gg]raduated from|[Ss]tud(?:ies|ied|ent) at) (?:the |an? )?(?P<id>{CAPITALISED}(?:[ "
    rf"\t]{CAPITALISED}){{0,3}})"
)
_SENT = re.compile(
    r"\b(?:from|[Rr]x sent to|[Aa]ccepted (?:at|by|to)|[Bb]rought (?:from|to)|[Pp]harmacy:|at|[Tt]ransfer(?:red)?(?: "
    r"from| to)|(?:[Aa]dmitted|[Pp]resented|[Rr]eferred|[Ss]een|[Tt]reated|[Hh]ospitali[sz]ed|[Dd]ischarged|"
    r"[Ff]ollowed|[Dd]one|[Pp]erformed|[Ee]valuated|[Cc]ared for)(?: from| to| at| in)|[Oo]utside hospital,?(?: at)?) "
    r"(?:the |an? )?"
    rf"(?P<id>{CAPITALISED}(?:[ \t]{CAPITALISED}){{0,3}})"
)
_TOWN = re.compile(
    r"\b(?:[Ll]iv(?:es?|ed|ing)|[Rr]esid(?:es?|ed|ing|ent)|[Bb]orn|[Rr]aised|[Gg]rew up|[Mm]oved|[Tt]ravel+(?:s|ed|"
    r"ing)?|[Tt]rips?|"
    r"[Vv]isit(?:s|ed|ing)?|[Vv]acation(?:ed|ing)?|[Rr]eturned|[Ff]lew|[Oo]riginally|[Nn]ative|[Ii]mmigrated|[Ff]ound|[Aa]ccident|"
    r"[Cc]ame|[Cc]omes?|[Hh]ails|[Hh]ouse|[Cc]ity|[Tt]own)[ \t\n](?:down[ \t]|up[ \t]|back[ \t]|"
    r"alone[ \t]|there[ \t]|here[ \t])?"
    rf"(?:in|to|from|near|of|at|outside|around)[ \t\n](?:the[ \t])?(?P<id>{CAPITALISED}(?:[ \t]{CAPITALISED}){{0,2}})"
)
_IN = re.compile(rf"\b(?:in|near|to)[ \t](?P<id>{CAPITALISED}(?:[ \t]{CAPITALISED})?)")
# Words that make a kind of institution and not the name of one.
_GENERIC = terms(
    """
    a acute an and anticoagulation at brief cancer care center children's childrens chronic clinic college community county
    coumadin course current day discharge eating elementary emergency extended facility family fertility follow follow-up foot
    for from general group health high his her home hospice hospital house in inpatient institute it local long long-term
    medical mental middle my nursing observation of our outpatient outside pain partial pharmacy post-acute primary prior
    private psychiatric public recent referring regional rehab rehabilitation retail senior short skilled sleep specialty spine
    state subacute teaching term the their this to travel university up urgent va vascular veterans walk-in weight with women's
    womens wound your assisted living step-down transitional infusion dialysis surgical surgery he she they patient pt
    january february march april may june july august september october november december monday tuesday wednesday thursday
    friday saturday sunday
    """
)
_WARDS = re.compile(r"[A-Z]{0,8}(?:ICU|CU|ED|OR|IR|ER|PACU|SNF|OSH|NH|LTAC|REHAB|FLOOR)")


_CUES = (
    (_EMPLOYER, "organization", True),
    (_SENT, "organization", False),
    (_OF, "organization", True),
    (_TOWN, "location", True),
    (_IN, "location", False),
)


def placed(text: str) -> list[Span]:
    """Institutions and towns that a word before or behind them tells."""
    spans: list[Span] = []
    for match in _INSTITUTION.finditer(text):
        for word in re.finditer(r"[^\s]+", match["name"]):
            if word[0].lower() not in _GENERIC and not lexicon.is_clinical(word[0]) and word[0] not in ("&",):
                spans.append((match.start() + word.start(), match.end(), "organization"))
                break
    spans.extend((*match.span(), "organization") for match in _SAINT.finditer(text))
    for pattern, kind, sure in _CUES:
        for match in pattern.finditer(text):
            spans.extend(_unusual(text, match.start("id"), match["id"], kind, sure=sure))
    return spans


def modelled(text: str, entities: Iterable[Entity]) -> Iterator[Span]:
    """The words of the model's towns and buildings that are no English, no clinical word and no state."""
    for entity in entities:
        if entity.label in ("GPE", "LOC", "FAC"):
            words = _unusual(text, entity.start, text[entity.start : entity.end], "location", cue=False)
            yield from (word for word in words if not text[word[0] : word[1]].isupper())


def _unusual(text: str, start: int, name: str, kind: str, *, cue: bool = True, sure: bool = False) -> Iterator[Span]:
    """The words of `name`, which stands at `start`, that say which place it is: those that are no English, a town or a
    surname (Boston, Lincoln); behind a `cue` bare nouns too, as most towns in the lexicon are (Krakow); behind one that is
    `sure` any that are no role or kind of place (Fall River)."""
    for word in re.finditer(CAPITALISED, name):
        at, found = start + word.start(), word[0]
        if len(found) < 3 or found.lower() in _GENERIC or lexicon.is_clinical(found):
            continue
        if lexicon.is_state(found) and not (sure and found != name):  # Colorado may stand, Colorado Springs may not
            continue
        if found.isupper() and _WARDS.fullmatch(found):
            continue
        known = lexicon.is_listed(found) if cue else lexicon.is_english(found)
        if not sure and known and not lexicon.is_town(found) and not (cue and lexicon.is_bare_noun(found)):
            continue
        if plain(found) in lexicon.ROLES or lexicon.is_eponym(found) or before_eponym_head(text, start + word.end()):
            continue
        if sure or not among_drugs(text, at, start + word.end()):
            yield at, start + word.end(), kind
