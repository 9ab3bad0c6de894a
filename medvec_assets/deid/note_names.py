"""Names of persons in notes: where a cue, the census's lists or the language model says that one stands.

Belongs here: cues in clinical spelling, how far a name goes. Does not belong here: judging a word (lexicon), places
(note_places), identifiers that have a form (note_rules), replacing (notes).

What a strong cue names (a title, a label, a signature) is looked for in the whole note, and hidden wherever it stands bare.
Not found: a name in lower case without a cue, and a rare one without a cue that the model overlooks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from medvec_assets.deid import lexicon
from medvec_assets.deid.clinical_terms import EPONYM_HEADS, terms
from medvec_assets.deid.lexicon import plain
from resources.language_model import Entity

Span = tuple[int, int, str]
"""(start, end, kind) in the text."""

_LETTER = r"[^\W\d_]"
# From a word's beginning, and no longer than words are: a run of a million letters is looked at once.
CAPITALISED = rf"(?<!{_LETTER})(?-i:[A-ZÀ-ÖØ-Þ]){_LETTER}{{0,40}}(?:['\u2019-]{_LETTER}{{1,40}}){{0,4}}"
_WORD_AT = re.compile(rf"{_LETTER}{{1,60}}(?:['\u2019-]{_LETTER}{{1,40}}){{0,4}}")
_CAPITALISED = re.compile(rf"(?<![\w['\u2019-]){CAPITALISED}(?![\w\]])")
_BETWEEN = re.compile(r"\.?[ \t]{1,2}|\.(?=[A-Z])|\.?[ \t]?\n[ \t]*|-(?=[A-Z])")
_COMMA = re.compile(r",[ \t]{0,2}(?=[A-Z])")
_PARTICLES = terms("van von de der den la le del della di da dos du bin ibn al el ter st")
MAX_WORDS = 6  # of one name, particles and initials counted
MIN_CERTAIN_CHARS = 3  # of a word that is looked for in the whole note
_STOPS = terms(
    """
    a address age an and any are as at be by cell date dob dos email fax female for from had has have he her his i if in is it
    its male mrn name no none not of on or our per phone same self sex she ssn tel that the their them then they this time to
    unknown was we were who will with would yes you your md rn do np pa phd dr drs mr mrs ms mx miss prof doctor
    """
)
_TITLE = re.compile(
    r"\b(?:(?:[Dd]r|[Mm]rs?|[Mm]s|Mx|Drs|Messrs|Prof|Rev|Sgt|Capt|Hon|DR|MR|MRS|MS|PROF)\.|(?:[Dd]rs?|Mr|mr|[Mm]rs|Ms|Miss|Mx|Prof|"
    r"Professor|[Dd]octor|Reverend|Rabbi|Imam|Officer|Judge|Señora?|MRS|MISS)(?=[ \t\n]))[ \t]{0,2}\n?[ \t]*"
)
_ROLES = (
    r"(?:patient|pt|attending|attending physician|(?:primary )?physician|pcp|primary care(?: physician| provider)?|"
    r"provider|surgeon|"
    r"assistant|anesthesiologist|radiologist|pathologist|resident|fellow|intern|nurse|author|referring(?: physician| "
    r"provider| md)?|"
    r"consultant|cc|emergency contact|next of kin|nok|hcp|health ?care proxy|guardian|spouse|wife|husband|mother|father|daughter|"
    r"son|sister|brother|partner|caregiver|interpreter|witness|case manager|social worker|contact|re|to|from|staff|operator|"
    r"(?:requested|ordered|reported|read|interpreted|entered) by|guarantor|subscriber|alias)"
)
_LABEL = re.compile(
    rf"\b(?:{_ROLES}(?:'s)?[ -])?(?:(?:legal|full|maiden|first|last|middle|preferred|family|given|nick)[ -]?)?name"
    r"(?:[ \t]*[:=][ \t]*|d[ \t]+| (?:is|was) | changed to )"
    rf"|(?:^|(?<=\n)|(?<=[;.(] )|(?<=  ))[ \t]*{_ROLES}[ \t]{{0,3}}[:=][ \t]*"
    r"|\b(?:goes by|known as|a\.?k\.?a\.?|n[ée]e|dear|called himself|called herself)[ \t]+"
    r"|\b(?:(?:electronically |digitally )?(?:signed|dictated|transcribed|authenticated|co-?signed|verified|approved|authored|"
    r"completed|finali[sz]ed|reviewed)(?: electronically)?(?: and \w{3,12})? by|signature|signed(?=:)|/s/)[ \t]*:?[ "
    r"\t]*\n?[ \t]*",
    re.IGNORECASE,
)
_RELATION = re.compile(
    r"\b(?:(?:grand|step|god|half-?)?(?:daughter|son|mother|father|sister|brother)(?:-in-law)?|dtr|wife|husband|mom|dad|aunt|uncle|niece|nephew|cousin|"
    r"partner|fianc[ée]e?|girlfriend|boyfriend|spouse|guardian|friend|neighbou?r|roommate|caregiver|proxy|hcp|pcp|nok|contact|"
    r"attending|physician|cardiologist|oncologist|surgeon|resident|fellow|intern|nurse|rn|np|therapist|interpreter|pharmacist|"
    r"dietitian|chaplain|manager|worker|family|parents|children|siblings|kids|sons|daughters|radiologist|pathologist|neurologist|nephrologist|psychiatrist|patient|pt)\b"
    r"(?:'s)?(?:[ \t]?[,:(-]{1,2}[ \t]?|[ \t](?:is[ \t]|was[ \t]|named[ \t])?|[ \t]?\n[ \t]*)",
    re.IGNORECASE,
)
_DOER = re.compile(
    r"\b(?:(?:seen|evaluated|examined|reviewed|discussed|conveyed|communicated|telephoned|staffed|spoken?|spoke|accompanied|"
    r"witnessed|served|signed|lives?|living|resides|met|confirmed)[ \t](?:by|with|to)|d/w|attn:?|by|thank you,|thanks,"
    r"|sincerely,?|"
    r"regards,?|met|report called to|handoff to|introduces?|introduced)[ \t]*\n{0,3}[ \t]*",
    re.IGNORECASE,
)
_PERHAPS = re.compile(
    r"\b(?:per|called|paged|notified|informed|told|asked|c/o|contact(?:ed)?(?: with)?|with|and|to|from)[ \t]+"
    r"|(?:^|(?<=\n))[ \t]*(?:--|—|~)[ \t]?|(?<=[.;)] )(?:--|—)[ \t]?",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(
    rf"({CAPITALISED}(?:[ .]{{1,2}}{CAPITALISED}){{0,3}})(?:,[ \t]?\n?|[ \t])(?:(?:M\.?D\.?|R\.?N\.?|D\.O\.|N\.?P\.?|"
    rf"Ph\.?D\.?|PA-C|APRN|"
    r"FNP|LI?CSW|PharmD|CRNA|DPM|CNM|DDS|RPh|MBBS|FACS|FACC|LPN|DNP|RRT|MPH)(?!\w)|(?:DO|PA|PT|OT|MA|RD|SLP)(?=[ "
    r"\t]*[,;\n)]|\.|$))"
)
_ROLE_BEHIND = re.compile(
    rf"({CAPITALISED}(?:[ .]{{1,2}}{CAPITALISED}){{0,2}})(?i:(?:[ \t]?\(|,?[ \t](?:his|her|their|the|pt'?s?|patient'?s|"
    rf"who is)[ \t](?:\w{{2,9}}'?s?[ "
    r"\t])?)(?:(?:grand|step)?(?:daughter|son|mother|father|sister|brother)|wife|husband|mom|dad|aunt|uncle|niece|nephew|cousin|partner|"
    r"fianc[ée]e?|girlfriend|boyfriend|spouse|guardian|friend|neighbou?r|hcp|nok|proxy|health ?care proxy|pcp|next of "
    r"kin|caregiver)(?!\w))"
)
_AND = re.compile(r"(?:,? (?:and|&|or|with)|/|,) ?")
# What follows a drug: an unknown word before one of these is taken for a new drug and not for a person.
_DOSE = re.compile(
    r"[ \t]*(?:\(\d|-?\d|\.\d|(?:mg|mcg|tabs?|tablets?|caps?|po|iv|sc|sq|im|drip|gtt|daily|bid|tid|qid|qhs|prn|"
    r"inhaler|patch|cream|"
    r"ointment|drops|spray|therapy|infusion|injections?|suspension|solution|level|dose[sd]?|xr|er|cr|sr|xl|hcl|"
    r"load(?:ing)?|(?:was|were|is|has been) (?:given|started|held|stopped|continued|added|increased|decreased|"
    r"discontinued|resumed))\b)",
    re.IGNORECASE,
)
_TREATMENT = re.compile(
    r"\b(?:given|gave|gets?|start(?:s|ed|ing)?|on|tak(?:es?|ing|en)|took|continu(?:e[sd]?|ing)|hold(?:ing)?|held|stop(?:ped|ping)?|refill(?:s|ed)?|"
    r"resum(?:e[sd]?|ing)|trial of|meds?:?|medications?:?|rx:?|allerg(?:ic|y) to|allergies:?|prescribed?|switch(?:ed)"
    r"? to|increased?|"
    r"decreased?|doses? of|received?|tolerat(?:es?|ed|ing)|load(?:ed)?(?: with)?|use[sd]?|add(?:ed)?|discontinued?|"
    r"d/c|wean(?:ed)?(?: off)?|"
    r"course of|home|treated with|replac(?:es|ed|ing)|rash (?:with|from|to)|incl(?:uding|\.)?|hives after|reaction to|"
    r"off|restart(?:ed)?|via|s/p)[ \t\n]+"
    rf"(?:{CAPITALISED}(?:[ \t](?:\d[\w.]*|[a-z]{{2,8}})){{0,4}}(?:,? (?:and|or) |, ?|/ ?|; )){{0,8}}$",
    re.IGNORECASE,
)
_LISTED_BEFORE = re.compile(rf"({CAPITALISED})(?:,? (?:and|or) |, ?|/| / |; )$")
_LISTED_AFTER = re.compile(rf"(?:,? (?:and|or) |, ?|/| / |; )({CAPITALISED})")
MIN_UNKNOWN_CHARS = 5  # shorter ones are abbreviations: Hgb, Abd, Resp
_NEXT = re.compile(rf"[ \t](?:[A-Z]\.?[ \t])?((?-i:[A-Z])(?:{_LETTER}*[a-z]{_LETTER}*)(?:['\u2019-]{_LETTER}+)*)(?!\w)")
_PREVIOUS = re.compile(rf"(?<![\w-])((?-i:[A-Z])[a-z]{_LETTER}+)[ \t](?:[A-Z]\.?[ \t])?$")
_THINGS = frozenset(
    [
        "foley",
        "hickman",
        "holter",
        "bovie",
        "yankauer",
        "penrose",
        "jackson-pratt",
        "swan-ganz",
        "fogarty",
        "doppler",
        "heimlich",
    ]
)
_INITIALS = re.compile(
    r"\b(?:[A-Z]\. ?){2,3}(?=[A-Z][a-z]+\b)|\b[Ii]nitials?[ \t]?:?[ \t]?([A-Z]\.?[A-Z]\.?(?:[A-Z]\.?)?)(?!\w)"
    r"|\b[A-Z]{2,3}[:/][a-z]{2,3}(?=[ \t]*(?:D:|T:|DD:|\n|$))"
)


def cued(text: str) -> list[Span]:
    """Names behind cues, and pairs and single names of the census; every further mention of what is certain."""
    spans: list[Span] = []
    for cue, titled in ((_TITLE, True), (_LABEL, False)):
        for match in cue.finditer(text):
            spans.extend(_after(text, match.end(), trusted=True, titled=titled, labelled=not titled))
    for match in (*_CREDENTIALS.finditer(text), *_ROLE_BEHIND.finditer(text)):
        spans.extend(_before(match))
    spans.extend(_pairs(text))
    certain = {text[start:end] for start, end, _ in spans}
    for match in _RELATION.finditer(text):
        spans.extend(_after(text, match.end(), trusted=True))
    for match in _DOER.finditer(text):
        spans.extend(span for span in _after(text, match.end(), trusted=True) if not _stands_for(text, span))
    for match in _PERHAPS.finditer(text):
        spans.extend(_after(text, match.end(), trusted=False))
    for match in _INITIALS.finditer(text):
        spans.append((*match.span(1 if match[1] else 0), "name"))
    spans.extend(_beside(text, spans))
    spans.extend(_again(text, certain))
    return spans


def modelled(text: str, entities: Iterable[Entity]) -> Iterator[Span]:
    """The words of the model's persons that the allow list and the lexicon let pass as names."""
    for entity in entities:
        if entity.label != "PERSON":
            continue
        words = [found for found in _WORD_AT.finditer(text, entity.start, entity.end) if _could_be(found[0])]
        for found in words:
            alone = len(words) == 1
            if alone and (lexicon.is_eponym(found[0]) or plain(found[0]) in lexicon.WORDS_FIRST):
                continue
            is_drug = _is_unknown(found[0]) and among_drugs(text, found.start(), found.end())
            if not before_eponym_head(text, found.end()) and not is_drug:
                yield found.start(), found.end(), "name"


def before_eponym_head(text: str, end: int) -> bool:
    """Whether the word that ends here names a disease, a sign, a catheter: Crohn's disease, Fournier gangrene."""
    following = _WORD_AT.match(text, end + 1)
    if following is None or text[end] not in " -":
        return False
    word = following[0]
    return word.lower() in EPONYM_HEADS or (word.islower() and len(word) > 4 and lexicon.is_clinical(word))


def among_drugs(text: str, start: int, end: int) -> bool:
    """Whether a word that no list knows stands where a drug does: behind a word of treatment, before a dose, in a list of
    drugs."""
    return bool(
        _DOSE.match(text, end) or _TREATMENT.search(text, max(0, start - 120), start) or _listed(text, start, end)
    )


def _listed(text: str, start: int, end: int) -> bool:
    before = _LISTED_BEFORE.search(text, max(0, start - 40), start)
    after = _LISTED_AFTER.match(text, end)
    return any(found is not None and lexicon.is_clinical(found[1]) for found in (before, after))


def _could_be(word: str) -> bool:
    """A word written like a name that may be one. In capitals, which tests and wards have, only the census's."""
    if not word[0].isupper() or word.lower() in _STOPS or len(word) < 2:
        return False
    if word.isupper() and not (lexicon.is_first_name(word) or lexicon.is_surname(word)):
        return False
    return lexicon.may_be_name(word)


def _after(text: str, at: int, *, trusted: bool, titled: bool = False, labelled: bool = False) -> list[Span]:
    """The words of a name that begins at `at`. `trusted`: a word that is English too may be a name here; `titled`: the first
    word is one whatever it is, and may stand in lower case; `labelled`: the name may stand in capitals."""
    found: list[Span] = []
    full = 0  # words that are neither particles nor initials
    while len(found) < MAX_WORDS:
        match = _WORD_AT.match(text, at)
        if match is None:
            break
        word = match[0]
        if _is_name_word(word, titled and not full) or (trusted and _is_trusted(word, labelled)):
            full += 1
        elif not ((len(word) == 1 and word.isupper()) or plain(word) in _PARTICLES):
            break
        found.append((match.start(), match.end(), "name"))
        between = _BETWEEN.match(text, match.end()) or (_COMMA.match(text, match.end()) if full == 1 else None)
        if between is None or ("\n" in between[0] and not _continues(text, between.end())):
            break
        if between[0].startswith(".") and len(word) > 1 and plain(word) not in _PARTICLES:  # the sentence ends here
            break
        at = between.end()
    while found and plain(text[found[-1][0] : found[-1][1]]) in _PARTICLES:
        found.pop()
    if not full or not found or (full == 1 and not trusted and _is_word_first(text, found)):
        return []
    unknown = full == 1 and not trusted and _is_unknown(text[found[0][0] : found[0][1]])
    return [] if unknown and among_drugs(text, found[0][0], found[0][1]) else found


def _is_name_word(word: str, titled: bool) -> bool:
    if word.lower() in _STOPS or len(word) == 1:
        return False
    if _could_be(word):
        return True
    if titled and word[0].isupper() and not word.isupper():  # Dr. Hand: a title makes any word a name
        return not lexicon.is_clinical(word)
    return titled and word.islower() and not lexicon.is_clinical(word) and _is_known_name(word)


def _is_trusted(word: str, labelled: bool) -> bool:
    """Of words that are no name by themselves, those that are one behind a cue."""
    if not word[0].isupper() or word.lower() in _STOPS or len(word) < 2:
        return False
    if word.isupper():
        return labelled and len(word) > 2 and (lexicon.may_be_name(word) or lexicon.is_bare_noun(word))
    return lexicon.is_bare_noun(word)


def _is_known_name(word: str) -> bool:
    bare = plain(word)
    listed = lexicon.is_first_name(bare) or lexicon.is_surname(bare)
    return (listed and bare not in lexicon.WORDS_FIRST) or not lexicon.is_english(bare)


def _is_word_first(text: str, found: list[Span]) -> bool:
    words = [text[start:end] for start, end, _ in found]
    return any(plain(word) in lexicon.WORDS_FIRST or lexicon.is_eponym(word) for word in words)


def _continues(text: str, at: int) -> bool:
    """A name is carried over a line's end only by a surname that is no word of its own."""
    following = _WORD_AT.match(text, at)
    return following is not None and lexicon.is_surname(following[0]) and lexicon.is_name_alone(following[0])


def _before(match: re.Match[str]) -> list[Span]:
    """The words of a name that credentials follow, from them backwards as long as they may be a name's."""
    found: list[Span] = []
    for word in reversed(list(_WORD_AT.finditer(match.string, *match.span(1)))):
        initial = len(word[0]) == 1 and found
        if not (_could_be(word[0]) or initial or (word[0].istitle() and lexicon.is_bare_noun(word[0]))):
            break
        found.append((word.start(), word.end(), "name"))
    return found


def _pairs(text: str) -> Iterator[Span]:
    """First name and surname side by side (or `Surname, First`), single words that are names and nothing else, and words
    written like a name that no list knows: deny by default."""
    words = list(_CAPITALISED.finditer(text))
    for number, word in enumerate(words):
        if len(word[0]) < 2:
            continue
        if lexicon.is_name_alone(word[0]) and (len(word[0]) > 4 or not word[0].isupper()):
            if not before_eponym_head(text, word.end()):
                yield word.start(), word.end(), "name"
        elif _is_unknown(word[0]) and not _is_medicine(text, word.start(), word.end()):
            yield word.start(), word.end(), "name"
        follower = words[number + 1] if number + 1 < len(words) else None
        if follower is not None and len(follower[0]) == 1 and number + 2 < len(words):  # an initial between
            follower = words[number + 2] if words[number + 2].start() - word.end() <= 5 else follower
        if follower is not None and _is_pair(text, word, follower):
            yield word.start(), follower.end(), "name"


def _is_unknown(word: str) -> bool:
    if len(word) < MIN_UNKNOWN_CHARS or not re.fullmatch(r"[^\W\d_][^\W\d_A-Z]+(?:['\u2019-][^\W\d_]+)*", word):
        return False  # camel case and capitals are laboratories' and wards'
    known = lexicon.is_english(word) or lexicon.is_clinical(word) or lexicon.is_eponym(word) or lexicon.is_state(word)
    return not known and plain(word) not in lexicon.TOWNS


def _is_pair(text: str, word: re.Match[str], follower: re.Match[str]) -> bool:
    between = text[word.end() : follower.start()]
    if len(between) > 5 or "\n" in between or len(follower[0]) < 2:
        return False
    if between.startswith(","):
        turned = lexicon.is_surname(word[0]) and lexicon.is_first_name(follower[0])
        turned = turned and not (lexicon.is_eponym(word[0]) or lexicon.is_eponym(follower[0]))
        return turned and not {plain(word[0]), plain(follower[0])} & lexicon.WORDS_FIRST
    if not re.fullmatch(r" (?:[A-Z]\.? )?", between) or not lexicon.is_first_name(word[0]):
        return False
    if before_eponym_head(text, follower.end()) and lexicon.is_eponym(follower[0]):
        return False
    if plain(word[0]) in lexicon.WORDS_FIRST:
        return lexicon.is_surname(follower[0]) and not lexicon.is_english(follower[0])
    return _could_be(follower[0]) and not (follower[0].isupper() and not word[0].isupper())


def _beside(text: str, spans: list[Span]) -> Iterator[Span]:
    """Words that only their neighbours make names: `Uma Thornton`, `Aleksandra Young`, `Nkechi and Rose`."""
    for start, end, _ in list(spans):
        if joined := _AND.match(text, end):
            yield from _after(text, joined.end(), trusted=joined[0].strip() in ("and", "&"))
        following = _NEXT.match(text, end)
        if following and _is_surname_here(text, following):
            yield following.start(1), following.end(1), "name"
        before = _PREVIOUS.search(text, max(0, start - 24), start)
        if (
            before
            and (lexicon.is_first_name(before[1]) or lexicon.is_bare_noun(before[1]))
            and not lexicon.is_clinical(before[1])
        ):
            yield before.start(1), before.end(1), "name"


def _is_surname_here(text: str, following: re.Match[str]) -> bool:
    """Whether the word behind a name is the rest of it."""
    word = following[1]
    if before_eponym_head(text, following.end()) or word.lower() in EPONYM_HEADS:
        return False
    return _could_be(word) or lexicon.is_bare_noun(word)


def _is_medicine(text: str, start: int, end: int) -> bool:
    return before_eponym_head(text, end) or among_drugs(text, start, end)


def _stands_for(text: str, span: Span) -> bool:
    """An eponym behind `by` or `with` is what it names: drained by Foley."""
    return lexicon.is_eponym(text[span[0] : span[1]]) and plain(text[span[0] : span[1]]) in _THINGS


def _again(text: str, certain: set[str]) -> Iterator[Span]:
    """Further mentions of words that are certainly names in this note, unless the note has them as words too."""
    words = {part for name in certain for part in re.split(r"[^\w'\u2019-]+", name) if len(part) >= MIN_CERTAIN_CHARS}
    named = {plain(word) for word in words if not lexicon.is_clinical(word) and _is_named(word)}
    if not named:
        return
    lower = set(re.findall(r"[a-z][a-z'\u2019-]+", text))
    for word in _CAPITALISED.finditer(text):
        bare = plain(word[0])
        if bare in named and bare not in lower and not before_eponym_head(text, word.end()):
            yield word.start(), word.end(), "name"


def _is_named(word: str) -> bool:
    """Not a plain word that only a title made a name: Dr. Hand must not hide every Hand."""
    return lexicon.is_first_name(word) or lexicon.is_surname(word) or not lexicon.is_english(word)
