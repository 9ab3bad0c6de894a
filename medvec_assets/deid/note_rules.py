"""Identifiers of notes that have a form: dates, ages, numbers, addresses, as patterns in their clinical spellings.

Belongs here: which pattern is which of HIPAA's identifiers. Does not belong here: names of persons and places (note_names),
replacing (notes).

A pattern hides what its group `id` matched, or all of it. Every quantifier is bounded or runs over one character class, so
that no text makes a pattern slow. Patterns are read without regard to case; `(?-i:...)` minds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_FULL_MONTH = r"(?:january|february|april|june|july|august|september|october|november|december|(?-i:March|May))"
_YEAR = r"(?:1[89]|2[0-2])\d\d"  # MIMIC-IV's shifted years go to 2212
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_ORDINAL = r"(?:st|nd|rd|th)"
_DAY_WORD = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth|fourteenth|fifteenth"
    r"|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|twenty[- ][a-z]{4,7}|thirtieth|thirty[- ]first)"
)
_DATE_CUE = (
    r"(?:on|since|until|till|from|to|through|thru|before|after|by|as of|dated?|admitted|discharged|seen|visit|last|next|f/u|appt|"
    r"performed|drawn|collected|expires?|started|scheduled|ending|beginning|between|and|starting|d/c'?d|dob)"
)
# "the 3rd rib" is anatomy, "the 2nd day" counts: neither is a day of a month.
_COUNTED = (
    r"(?! ?(?:day|week|month|year|hour|time|rib|metatarsal|metacarpal|toe|finger|digit|nerve|floor|ventricle|degree|percentile|"
    r"intercostal|lumbar|thoracic|cervical|vertebra|line|dose|round|cycle|trimester|cranial|stage|grade|attempt|set|mtp|pip))"
)
_NUMBER_WORD = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_OLD = r"(?:9\d|1[0-2]\d)"
_OLD_WORD = rf"(?:ninety(?:[- ]{_NUMBER_WORD})?|(?:one |a )?hundred(?:[- ](?:and )?{_NUMBER_WORD})?)"
_YEARS_OLD = r"[- ]?(?:years?|yrs?|y)\.?(?:[- ]{0,2}|/)(?:olds?|o)\b"
# A value that follows a word for it: has a digit, may be cut by dashes, and is long enough to tell somebody.
_LINK = r"(?: ?(?:id|no|num|number|nbr|code|#)\b\.?){0,2}(?: is| was)?[ \t]*[:#=]{0,2}[ \t]*(?:\n[ \t]*)?"
_VALUE = r"(?P<id>(?=[A-Z./-]{0,9}\d)[A-Z0-9](?:[A-Z0-9]|[-/.](?=[A-Z0-9])){2,30})"
_HARD_LINK = r"(?:[ \t]*(?:id|no|num|number|nbr|code)\b\.?[ \t]*[:#=]{0,2}|[ \t]*[:#=]{1,2})[ \t]*#?[ \t]*"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd|Court|Ct|Place|Pl|Way|Terrace|Ter|Circle|Cir|Highway|Hwy|"
    r"Parkway|Pkwy|Square|Sq|Trail|Trl|Turnpike|Pike|Row|Alley|Crescent|Close|Loop|Route|Rte|Plaza|Mews|Broadway)"
)
_FLAT = r"(?:,?[ \n](?:apt|apartment|unit|suite|ste|room|rm|floor|fl|lot|#)\b\.? ?#?[\w-]{1,8})?"
_STATE_CODE = (
    r"(?-i:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]|"
    r"W[AIVY])"
)
# These are also credentials, wards or words: a state only before a ZIP code.
_PLAIN_STATE_CODE = r"(?-i:A[KRZ]|CA|CT|FL|GA|I[AL]|K[SY]|M[AINT]|N[CDEHJMVY]|OH|RI|SC|SD|T[NX]|UT|VT|VA|W[AVY])"
_CAPITALISED = r"(?-i:[A-Z][a-z]+(?:[-'\u2019][A-Z]?[a-z]+)?)"
_UNITS = r"(?:mg|ml|mcg|ug|meq|iu|units?|cc|kg|g|mm|cm|hz|cgy|kcal|cal|ng|pg|mmol|l|k|m|u)"


@dataclass(frozen=True)
class Rule:
    """One kind of identifier: `kind` is its placeholder ([DATE]) in lower case and its key in deid_actions."""

    kind: str
    patterns: tuple[re.Pattern[str], ...]


def _rule(kind: str, *patterns: str) -> Rule:
    return Rule(kind, tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns))


def _numbered(words: str, link: str = _LINK) -> str:
    return rf"\b(?:{words})\b{link}{_VALUE}"


RULES = (
    _rule(
        "date",
        rf"\b{_YEAR}[-/.]{_MONTH_NUMBER}[-/.]{_DAY}(?!\d)",
        rf"(?<![\d.]){_DAY}[-/]{_DAY}[-/](?:{_YEAR}|'?\d\d)(?![\d/])",
        rf"(?<![\d.]){_DAY}\.{_DAY}\.{_YEAR}(?!\d)",
        rf"(?<![\d/.]){_MONTH_NUMBER}[-/]{_YEAR}(?![\d/])",
        rf"\b(?-i:(?!may|march|mar\b|dec\b)){_MONTH}\.? ?{_DAY}{_ORDINAL}?\b(?!:\d|[/%]|\.\d)(?:,? {{0,2}}(?:of )"
        rf"?(?:{_YEAR}|'\d\d))?",
        rf"\b{_DAY}{_ORDINAL}?(?: of|-|/)? ?{_MONTH}\b(?:\.?[ ,-]{{0,2}}(?:{_YEAR}|'?\d\d(?!\d| ?{_UNITS}\b)))?",
        rf"(?<![\d.]){_DAY}{_MONTH}(?:{_YEAR}|\d\d)(?!\d)",
        rf"\b{_MONTH}\.?,? (?:of )?(?:{_YEAR}|'\d\d)\b",
        rf"\b(?:{_MONTH} (?:the )?{_DAY_WORD}|the {_DAY_WORD} (?:day )?of {_MONTH})\b(?:,? {_YEAR})?",
        rf"\b(?:in|since|until|last|next|this past|this|early|late|mid|by|during|from|through|of|before|after)[ -]"
        rf"(?P<id>{_FULL_MONTH})\b",
        rf"\b{_DATE_CUE}:?(?: the)? (?P<id>{_MONTH_NUMBER}[/-]{_DAY})(?![\d/%]|[-.]\d| (?:strength|murmur|pain|systolic|in))",
        rf"(?:^|(?<=\n))[ \t]*(?P<id>{_MONTH_NUMBER}/{_DAY})(?=:| -)",
        rf"\b(?:on|since|until|by|of) the (?P<id>{_DAY}{_ORDINAL})\b{_COUNTED}",
        r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?-i:January|February|August|September|October|November|December))\b",
        r"\b(?:christmas|thanksgiving|easter|new year'?s|hanukkah|passover|ramadan|diwali|halloween|(?:labor|memorial|"
        r"independence|"
        r"veterans|valentine'?s|mother'?s|father'?s|mlk|columbus|presidents'?) day|(?:4th|fourth) of july)\b"
        r"(?: (?:eve|day))?(?! (?:disease|factor|tree))",
        rf"\b(?:spring|summer|autumn|fall|winter),? (?:of )?(?:{_YEAR}|'\d\d)\b",
        rf"\b(?:born(?: in)?|b\.|birth ?year:?|year of birth:?|dob:?) (?P<id>{_YEAR})\b",
    ),
    _rule(
        "age",
        rf"\b(?P<id>{_OLD}|{_OLD_WORD}){_YEARS_OLD}",
        rf"\b(?:aged?|turned|turning|over|past)(?: of| is)?:? (?P<id>{_OLD}|{_OLD_WORD})\b(?!%|[./]\d| ?{_UNITS}\b)",
        r"(?<![.\d°])\b(?P<id>9\d|1[01]\d)[ -]?(?-i:[MF])\b(?!\.)",
        rf"\b(?P<id>(?:{_OLD}(?:st|nd|rd|th)|ninetieth|ninety[- ]\w{{5,7}}|hundredth)) birthday",
        r"\b(?:his|her|their) (?:early |mid[- ]?|late )?(?P<id>90s|nineties|hundreds)\b",
        r"\b(?P<id>nonagenarian|centenarian)\b",
    ),
    _rule(
        "phone",
        r"(?<![\d.-])(?:\+?1[-. ]{1,2})?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. /]{1,2})\d{3}[-. ]{1,2}\d{4}(?!\d)(?:,? ?(?:x|"
        r"ext\.?|extension) ?#?\d{1,6})?",
        r"(?<![\w+])\+\d{1,3}(?:[ .-]?(?:\(\d{1,5}\)|\d{1,5})){2,6}(?!\w)",
        r"\b1[- ]8\d\d[- ][A-Z0-9]{3}[- ]?[A-Z0-9]{4}\b",
        r"\b(?:phone|tel|telephone|call(?:ed)?|cell|mobile|home|work|fax|facsimile|contact|pager|beeper|reached|number|at|ph|clinic|"
        r"line|office)\b(?: at| is| number| no\.?| #)?[ :#.]{0,3}(?P<id>\d{3}[-. ]\d{4})(?!\d)",
        r"\b(?:pager|pgr|beeper|bpr|bleep|ext|extension|voicemail|fax)\b(?: number| no\.?| is)?[ .:#]{0,"
        r"3}(?P<id>[px]?(?:\d{1,2}-)?\d{3,7})\b",
        r"\b(?-i:[xp])(?P<id>[2-9]\d{3,4})\b",
    ),
    _rule(
        "email",
        r"[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}",
        r"\b[\w.+-]{1,64} ?[\[(]?(?:\bat\b|@)[\])]? ?[\w-]{1,63} ?[\[(]?(?:\bdot\b|\.)[\])]? ?(?:com|org|net|edu|gov)\b",
        r"\b(?:twitter|instagram|facebook|tiktok|skype|telegram|handle|user ?name|screen name)\b(?: is)?[: ]{1,"
        r"2}(?P<id>@?[\w.]{3,40})",
    ),
    _rule(
        "ssn",
        r"(?<![\d-])(?:\d{3}|[x*]{3})[- ](?:\d\d|[x*]{2})[- ]\d{4}(?![\d-])",
        r"\b(?:ssn|social security)\b(?: (?:number|no\.?|#))?[^\d\n]{0,24}(?P<id>\d(?:[- ]?\d){3,8})\b",
        r"\blast (?:four|4)(?: digits)?(?: of)?(?: the| his| her)?(?: ssn| social)?[^\d\n]{0,10}(?P<id>\d{4})\b",
    ),
    _rule(
        "mrn",
        _numbered(
            r"mrn?(?= ?#| ?no\b| ?number)|mrn|m\.r\.n\.?|med(?:ical)?\.? ?rec(?:ord)?|unit(?= no\b| number| #)|"
            r"hospital(?= no\b| number|"
            r" id)|patient(?= id| no\b| number| identifier)(?: identifier)?|pt(?= id| #| no\b)|chart(?= no\b| number| "
            r"#|:)|cmrn|emr(?= #|"
            r" id)|record(?= no\b| number| #|:)|jacket(?= no\b| #)|nhs(?= no| number)|empi|epi(?= id)"
        ),
    ),
    _rule(
        "account",
        _numbered(
            r"acc(?:oun)?t|policy|member|subscriber|beneficiary|medicare|medicaid|mbi|hicn|health ?plan|insurance|"
            r"group|plan|claim|"
            r"invoice|encounter|visit|csn|har|fin|accession|acc|order|specimen|requisition|authori[sz]ation|auth|referral|reference|"
            r"confirmation|voucher|card|case|study|request|tracking|episode|clip",
            _HARD_LINK,
        ),
        _numbered(r"routing|iban|bank account|credit card|mbi|hicn|csn|accession"),
    ),
    _rule(
        "license",
        _numbered(
            r"(?:driver'?s?'? |medical |nursing |state |pilot )?licen[sc]e|lic|dl|npi|dea|upin|cert(?:ificate|"
            r"ification)?|passport|"
            r"visa|green card|badge|employee|student|military|veteran|dod|inmate|alien|registration|pharmacy license",
        ),
    ),
    _rule(
        "vehicle",
        r"\b(?=[A-HJ-NPR-Z0-9]{0,16}\d)(?=[A-HJ-NPR-Z0-9]{0,16}[A-Z])(?-i:[A-HJ-NPR-Z0-9]{17})\b",
        r"\bvin\b[^\w\n]{0,4}(?:number|no\.?|is)?[^\w\n]{0,3}(?P<id>[A-Z0-9]{6,17})\b",
        r"\b(?:licen[sc]e|number|vehicle|car|truck|tag)[ -](?:plate|tag|reg(?:istration)?)s?\b(?: (?:number|no\.?|#|"
        r"is|was))?[ :#]{0,3}"
        rf"(?P<id>(?:{_STATE_CODE}[ -])?(?=[A-Z -]{{0,8}}\d)[A-Z0-9]{{1,8}}(?:[ -][A-Z0-9]{{1,5}}){{0,2}})",
        rf"\bplates?[ :#]{{1,3}}(?P<id>{_STATE_CODE}[ -](?=[A-Z -]{{0,8}}\d)[A-Z0-9]{{1,8}}(?:[ -][A-Z0-9]{{1,5}})?)",
    ),
    _rule(
        "device",
        _numbered(
            r"serial|s/n|ser|sn(?=[:#])|lot(?= ?(?:no|number|#|:))|imei|udi|mac address|(?:device|implant|model|"
            r"generator|lead|pump|"
            r"pacemaker|icd|catalog|ref)(?= ?(?:id|no|number|#|:|serial|model))(?: (?:serial|model))?"
        ),
        r"\(01\)\d{14}(?:\(\d\d\)[\w-]{1,20}){0,5}",
        r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b",
    ),
    _rule(
        "url",
        r"\b(?:https?|ftp)://[^\s<>\"]{2,2048}(?<![.,;:)])",
        r"\bwww\.[^\s<>\"]{3,2048}(?<![.,;:)])",
        r"\b(?:[a-z0-9-]{2,63}\.){1,4}(?:com|org|net|edu|gov|io|info|co\.uk|us|me|health)\b(?:/[^\s<>\"]{0,2048}(?<![.,;:)]))?",
    ),
    _rule(
        "ip",
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)",
        r"(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}(?::?[0-9a-f]{1,4}){1,4}(?![\w:])",
        r"(?<![\w:])(?:[0-9a-f]{1,4}:){1,6}:(?:[0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4}(?![\w:])",
    ),
    _rule(
        "address",
        rf"\b\d{{1,6}}[A-Z]?(?:-\d{{1,4}})? (?:[NSEW]\.? |(?:north|south|east|west) )?(?-i:(?:{_CAPITALISED}|[A-Z]\.?|\d{{1,3}}"
        rf"(?:st|nd|rd|th)|[A-Z]{{2,12}})(?: (?:{_CAPITALISED}|[A-Z]{{2,12}})){{0,3}} (?:{_STREET}|{_STREET.upper()}))"
        rf"\b\.?{_FLAT}",
        rf"\b(?-i:{_CAPITALISED} (?:Street|Avenue|Road|Lane|Boulevard|Drive|Terrace))\b{_FLAT}",
        r"\b(?:p\.? ?o\.? ?box #?\d{1,6}|(?:rural route|rr|rfd) #?\d{1,4},? box #?\d{1,6}|rural route #?\d{1,4})\b",
        rf"\b(?-i:{_CAPITALISED}(?: {_CAPITALISED}){{0,2}}),? {_STATE_CODE}\.?,? \d{{5}}(?:-\d{{4}})?\b",
        rf"\b(?P<id>(?-i:{_CAPITALISED}(?: {_CAPITALISED}){{0,2}})), {_PLAIN_STATE_CODE}\b",
        rf"\b{_STATE_CODE}\.?,? (?P<id>\d{{5}}(?:-\d{{4}})?)(?![\d.])",
        r"\bzip(?:[ -]?code)?\b[^\d\n]{0,6}(?P<id>\d{5}(?:-\d{4})?)\b",
        r"(?<![\d-])\d{5}-\d{4}(?![\d-])",
    ),
    _rule(
        "biometric",
        r"\b(?:finger ?print|palm ?print|voice ?print|foot ?print|retinal? scan|iris (?:scan|code)|face ?id|facial "
        r"(?:scan|recognition)|"
        r"biometric)s?\b(?: (?:id|template|record|file|number|no|hash|code|on file|stored|as)){0,3}[ .:#]{0,3}"
        r"(?P<id>(?=[A-Z-]{0,12}\d)[\w-]{3,64})",
    ),
    _rule(
        "photo",
        r"[\w-]{1,80}\.(?:jpe?g|png|heic|tiff?|bmp|gif|dcm|mp4|mov|avi|wav|mp3)\b",
        r"\b(?:photo(?:graph)?|picture|image|video|selfie)s?\b (?:id|no|number|file|#)[^\w\n]{0,3}(?P<id>(?=[A-Z_-]{0,"
        r"12}\d)[\w-]{3,64})",
    ),
    # What is long and has digits is somebody's number until somebody says what else it is: deny by default.
    _rule(
        "number",
        rf"(?<![\d.])\d{{7,}}(?![\d.]*\d)(?! ?{_UNITS}\b)",
        rf"(?<![\w.-])(?=[A-Z/-]{{0,12}}\d)(?!\d{{1,5}}(?:-\d{{1,5}})? ?{_UNITS}\b)(?=(?:[A-Z/-]{{0,12}}\d){{4}})"
        rf"(?=[\d/-]{{0,30}}[A-Z])"
        r"(?-i:[A-Z0-9](?:[A-Z0-9]|[-/](?=[A-Z0-9])){5,30})(?![\w-])",
        r"(?<![\w.-])(?=(?:-?\d){7})\d{2,8}(?:-\d{2,8}){1,4}(?![\w-]|\.\d)",
    ),
)
KINDS = (*(rule.kind for rule in RULES[:-1]), "organization", "name", "location", RULES[-1].kind)
"""Every kind there is; where several overlap, the one that stands first here names the span."""
