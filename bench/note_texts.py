"""Labelled notes for bench.notes: invented identifiers in sentences that the rules were not written on.

Belongs here: the templates and lists that a figure is measured on. They are written apart from the sample of mimic_notes:
other styles (nursing, social work, letters, operative and clinic notes), names of other origins, drugs and diseases picked
without a look at the allow list. The rules have learnt from the misses of both hands since their first figures, which are
the honest ones: the FIRST hand's recall .909 and precision .882, then, the rules mended, the SECOND hand's .962 and .919.
What is measured now flatters the rules; a new figure needs a new hand.

A template marks an identifier {kind}; {TERM} is a clinical term that must stay.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Hand:
    """One writer: templates, and what fills them."""

    names: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    drugs: tuple[str, ...]
    diseases: tuple[str, ...]
    templates: tuple[str, ...]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(one.split()) for one in text.split(";"))


NAMES = _listed(
    """
    Abigail Thornton; Ahmed El-Sayed; Aiko Tanaka; Aleksandra Nowak; Amara Chukwu; Beatriz Figueroa; Bjorn Halvorsen;
    Brendan Gallagher; Chantal Dubois; Cheng Liu; Chidinma Eze; Clarence Whitfield; Dmitri Volkov; Eleanor Pruitt;
    Emeka Okafor; Fatima Al-Rashid; Francisco Delgado; Giovanni Ricci; Hannah Goldberg; Harpreet Singh; Hyun-Woo Park;
    Ibrahim Diallo; Imelda Bautista; Jamal Washington; Joaquin Herrera; Kofi Mensah; Lakshmi Venkataraman; Leila
    Haddad; Luz Maldonado; Margaret Sullivan; Marcus Bell; Minh Tran; Nadia Petrova; Nkechi Adeyemi; Olga Kuznetsova;
    Omar Farouk; Patrick Donnelly; Priyanka Chatterjee; Rafael Quintero; Rashida Muhammad; Rose Kimball; Ruth Bader;
    Sadia Hussain; Siobhan Kearney; Sven Lindqvist; Tariq Mansour; Thandiwe Nkosi; Uma Krishnan; Violet Ashworth;
    Walter Pennington; William Young; Xiomara Vega; Yael Shapiro; Yusuf Demir; Zbigniew Kowalczyk; Zainab Bello; Dawn
    Field; Mark Hill; James Brown; Linda Green
    """
)
VALUES: dict[str, tuple[str, ...]] = {
    "date": _listed(
        "08/17/2019; 8-17-19; 2020-12-01; 17 August 2019; Aug 17, 2019; August 17th; Sept. 9, 2021; 12/1/20; "
        "9 Oct 2022; June 2018; 07/2021; Thursday; the 21st of May; Jan 5th, 2020; 1/5/2020; 05.01.2020; "
        "3-Feb-22; Christmas Eve"
    ),
    "age": _listed("93; 97; 101; 90; 95"),
    "phone": _listed(
        "(415) 555-0133; 212.555.0178; 617 555 0199; 555-0142; +44 20 7946 0958; 1-800-555-0123; 646-555-0101 x442"
    ),
    "email": _listed("athornton@example.edu; k.mensah+clinic@mail.example.com; NKOSI_T@example.net"),
    "ssn": _listed("219-09-9999; 457 55 5462; xxx-xx-6789"),
    "mrn": _listed("10388412; A-774-221; 0044-91-72; E1930022"),
    "account": _listed("7734-1120-88; HMO8812345; W20019933401; 4111 1111 1111 1111; XR-22-90817"),
    "license": _listed("D5512-8890-31; 1487650023; G77190442; AB1234563"),
    "vehicle": _listed("1FTFW1ET5DFC10312; 7ABC912"),
    "device": _listed("SN-20933-KX; GTX8841029; 0441-22-918"),
    "url": _listed("https://portal.example.org/u/9912; www.kofimensah.example; gofundme.com/f/help-uma"),
    "ip": _listed("192.0.2.44; 2001:db8::8a2e:370:7334"),
    "address": _listed(
        "2214 Maple Avenue; 77 W. 14th Street, Apt 9; Rural Route 3, Box 41; 900 Ocean Blvd Unit 12; P.O. Box "
        "3311; Duluth, MN 55802; 41 Kingsway Terrace"
    ),
    "location": _listed("Duluth; Fresno; Accra; Gloucester; Wichita; San Rafael; Krakow; Chennai; Fall River"),
    "organization": _listed(
        "Cedar Valley Hospital; St. Aloysius Medical Center; Riverbend Nursing Home; Northgate Clinic; Tufts; "
        "Kaiser; Sunrise Assisted Living; Walgreens; Beth Israel; Roosevelt High School; Boeing; Holy Family "
        "Hospital"
    ),
    "biometric": _listed("FPX-20931; RS0091827"),
    "photo": _listed("wound_left_heel.jpg; DSC00912.png"),
}
DRUGS = _listed(
    """
    Xyzal; Linzess; Trintellix; Vyvanse; Skyrizi; Otezla; Stelara; Cosentyx; Rybelsus; Nurtec; Tagrisso; Keytruda;
    Opdivo; Imbruvica; Ibrance; Xtandi; Jakafi; Revlimid; Biktarvy; Descovy; Epclusa; Paxlovid; Toujeo; Tresiba;
    Basaglar; Bydureon; Invokana; Steglatro; Repatha; Praluent; Multaq; Tikosyn; Bystolic; Benicar; Edarbi; Caduet;
    Dulera; Breo; Anoro; Trelegy; Nucala; Fasenra; Xolair; Orencia; Actemra; Xeljanz; Rinvoq; Uloric; Krystexxa;
    Forteo; Prolia; Evenity; Latuda; Rexulti; Vraylar; Saphris; Fanapt; Belsomra; Rozerem; Gralise; Horizant;
    Metoprolol; Lisinopril; Furosemide; Warfarin; Vancomycin; Piperacillin; Cefepime; Ceftriaxone; Levetiracetam;
    Gabapentin; Atorvastatin; Apixaban; Enoxaparin; Ondansetron; Pantoprazole; Insulin; Tacrolimus; Mycophenolate;
    Lasix; Coumadin; Zosyn; Lovenox; Plavix; Protonix; Zofran; Ativan; Haldol; Seroquel; Dilaudid; Percocet
    """
)
DISEASES = _listed(
    """
    Sjogren syndrome; Takotsubo cardiomyopathy; Wegener granulomatosis; Guillain-Barre syndrome; Crohn's disease;
    Hodgkin lymphoma; Parkinson's disease; Graves disease; Hashimoto thyroiditis; Barrett's esophagus; Paget's
    disease; Kaposi sarcoma; Bell's palsy; Charcot foot; Dupuytren contracture; Marfan syndrome; Sweet syndrome;
    Whipple disease; Budd-Chiari syndrome; Raynaud phenomenon; Addison's disease; Meniere disease; Kawasaki disease;
    Tourette syndrome; Alzheimer dementia; Mallory-Weiss tear; Zenker diverticulum; Merkel cell carcinoma; Ludwig
    angina; Fournier gangrene; Osler nodes; Cheyne-Stokes respirations; Kussmaul breathing; Babinski sign; Murphy
    sign; Homans sign; Romberg test; Glasgow Coma Scale; Foley catheter; Hickman line; Swan-Ganz catheter; Whipple
    procedure; Hartmann pouch; Jackson-Pratt drain; Ommaya reservoir; Pneumonia; Sepsis; Cellulitis; Hyponatremia;
    Atrial Fibrillation; Pancreatitis; Cholecystitis; Osteomyelitis; Encephalopathy; Thrombocytopenia; Pulmonary
    Embolism; Diverticulitis; Pyelonephritis; Rhabdomyolysis; Clostridium difficile; Staph Aureus
    """
)

TEMPLATES = (
    "NURSING PROGRESS NOTE\nReceived pt from {first}, RN at change of shift. {title} {last} alert, oriented x3. "
    "Given {DRUG} 40 mg and {DRUG} as ordered. "
    "BP 132/78, HR 88, sats 96% on 2L. Family ({first} and {first}) at bedside, updated by Dr {last}. Will hold "
    "{DRUG} per protocol. "
    "Pt states he was last here {on_date} for {DISEASE}. {first} {last}, RN, pager {pager}",
    "SOCIAL WORK CONSULT {date}\nReferred by {doctor} for discharge planning. Patient is a {age} year-old widow "
    "living alone at {address}. "
    "Daughter {first} ({phone}) is the health care proxy; son {first} lives in {location}. Insurance: member ID {account}. "
    "SS# {ssn}. She worked for {organization} until retirement and attends church in {location}. Email on file {email}. "
    "Hx of {DISEASE} and {DISEASE}; takes {DRUG}.",
    "{date}\n\nRE: {name}\nDOB: {date}\nMRN {mrn}\n\nDear Dr. {last},\n\nThank you for referring this pleasant "
    "{age}-year-old gentleman, whom I saw in "
    "clinic {on_date}. {title} {last} has {DISEASE}, treated with {DRUG} since {date}. On exam there is a {DISEASE}. "
    "I have suggested a trial of "
    "{DRUG} 10 mg nightly and will see him again in three months. My office can be reached at {phone}.\n\nSincerely,"
    "\n\n{name}, MD, FACP\n"
    "cc: {name}\n{address}",
    "OPERATIVE REPORT\nPATIENT: {upper}\nMED REC #: {mrn}\nSURGEON: {name}, M.D.\nASSISTANT: {name}, PA-C\nDATE OF "
    "OPERATION: {date}\n"
    "ANESTHESIA: General, by Dr. {last}\nIMPLANTS: stem, serial no. {device}\nPROCEDURE: The patient was brought "
    "from {organization} and after "
    "{DRUG} was given the abdomen was explored. There was evidence of {DISEASE}. Estimated blood loss 250 ml. Counts correct x2. "
    "Dictated but not read. {initials}/mq D: {date} T: {date}",
    "ED TRIAGE: {first} {last}, {age} yo F, BIBA from {organization} after fall {on_date}. Hit by truck plate "
    "{vehicle} per EMS. Lives {in_town}. "
    "Emergency contact: {first} {last} (niece) cell {phone}. PCP {last} at {organization}. Allergic to {DRUG}, on "
    "{DRUG} for {DISEASE}. "
    "FSBG 142, temp 98.2, SpO2 99%. Driver's license {license}. Seen and examined with {last}; plan CT head.",
    "Discharge Planning\nPt {last} accepted at {organization}, bed available {date}. Report called to {first} at "
    "{phone}. Fax {phone}. Auth number "
    "{account}. Transport booked for {date} 14:00. Follow up: Dr. {name}, {address}, on {date} at 9:30 am. Rx sent "
    "to {organization}. Portal "
    "{url} set up, login from {ip}. Continue {DRUG} 5 mg daily, {DRUG} 20 mg BID; stop {DRUG}. {DISEASE} stable.",
    "PODIATRY\nWound photo {photo} uploaded {date} by {first}. Charting reviewed with {name}, DPM. Pt reports "
    "wearing shoes from {organization}. "
    "{title} {last} denies fever. {DISEASE} with no change; {DISEASE} ruled out. Biometric consent: fingerprint ID {biometric}. "
    "Refill {DRUG}. Next visit {date}. Signed: {name}",
    'PSYCH INTAKE {date}. "I came here from {location} with my wife {first}," he says. Born in {location}, raised by aunt '
    "{first} {last}. Served with {first} {last}, who visits. Formerly employed at {organization}. Therapist: {name}, LICSW, "
    "{phone}. Meds: {DRUG}, {DRUG}, {DRUG}. PMH {DISEASE}. NPI {license}. Patient's brother {last} called {on_date}. His "
    "neighbor, {first}, found him. Turned {age} last week.",
    "Telephone encounter {date} 4:15 PM: Spoke with {first} {last}, mother of patient. {first} has had hives after "
    "{DRUG}. Advised per {doctor} to stop "
    "{DRUG} and start {DRUG}. Callback {phone}. Acct {account}. {first} verbalized understanding. Also asked about "
    "{DISEASE}. -- {name} RN",
    "CARDIAC CATH\nReferring MD: {last}\nOperator: {name}\nFellow: {last}, {first}\nAccession: "
    "{account}\nIndication: {age}F w/ {DISEASE}. Access "
    "right radial 6 Fr. LAD 80% mid. {DRUG} load, {DRUG} 81 mg. Pacemaker model L331 S/N {device}. Discussed with "
    "{title} {last} and family "
    "{on_date}. {DISEASE} noted on prior study from {organization} dated {date}.",
)


FIRST = Hand(NAMES, VALUES, DRUGS, DISEASES, TEMPLATES)
SECOND = Hand(
    names=_listed(
        """
        Agnes Mbeki; Aldous Crane; Anneliese Vogt; Arjun Malhotra; Bettina Orlov; Cormac Brennan; Dolores Ybarra; Ebony Jefferson;
        Elif Yilmaz; Esperanza Cuevas; Farid Nazari; Gareth Llewellyn; Gwendolyn Pryce; Haruki Sato; Inés Carrasco; Ivan Horvat;
        Jolene Tidwell; Kamala Reddy; Khadija Warsame; Lars Mikkelsen; Leroy Gaines; Lourdes Santiago; Mahmoud Sabry;
        Mei-Hua Chang;
        Milagros Peña; Nell Fairweather; Ngozi Umeh; Oksana Bondarenko; Percival Stokes; Quan Pham; Ramón Ibáñez; Rhonda Sykes;
        Rukmini Pillai; Sheila Doyle; Solomon Tesfaye; Tamika Rollins; Tomás Aguirre; Ursula Becker; Vernon
        Strickland; Wanda Jarvis;
        Wen Zhao; Yolanda Barros; Zeynep Aksoy; Art Long; Hope Rivers; Grace Park; Earl Woods; June Marsh; Frank Stone; May Bishop
        """
    ),
    values={
        "date": _listed(
            "02/29/2020; 2-9-21; 2021-06-30; 30 June 2021; Jun 30, 2021; June 30th, 2021; 6/30; Oct. 12; 30-JUN-2021; 11/2019; "
            "Wednesday; October 2020; 30.06.2021; New Year's Day; 2021/06/30; September"
        ),
        "age": _listed("91; 92; 96; 99; 103"),
        "phone": _listed(
            "(303) 555-0164; 303-555-0190; 303.555.0122 ext 17; +49 30 901820; 1 (866) 555-0111; 3035550188"
        ),
        "email": _listed("vogt.a@clinic.example.org; rhonda_sykes77@example.com"),
        "ssn": _listed("001-23-4567; 987 65 4320; ***-**-4321"),
        "mrn": _listed("55120937; MX-00291-7; 8812-0045; H1200938"),
        "account": _listed("5512-00-9931; PPO77120045; 1EG4-TE5-MK73; S21-004417; 5500 0000 0000 0004"),
        "license": _listed("W120-4471-9902; 1811920034; FD4471932"),
        "vehicle": _listed("2HGFC2F59KH512345; CO 4KX-992"),
        "device": _listed("BIO-22-88731; 8800219947; VVI-44K20"),
        "url": _listed(
            "http://patients.example.net/me?id=4417; www.rhondafights.example; caringbridge.org/visit/wenzhao"
        ),
        "ip": _listed("198.51.100.23; 2001:db8:0:42::7"),
        "address": _listed(
            "5501 N Federal Blvd; 12 Birchwood Lane, Unit 4; 310 3rd Ave Apt 2B; PO Box 77; Pueblo, CO 81003; 8 Quarry Court; "
            "1200 Lincoln St"
        ),
        "location": _listed(
            "Pueblo; Durango; Nairobi; Bergen; Colorado Springs; Tulsa; Izmir; Saint Paul; Boulder; Ogden"
        ),
        "organization": _listed(
            "Mile High Medical Center; St. Columba Hospital; Aspen Ridge Care Center; Rocky Flats Clinic; Denver Health; Costco; "
            "King Soopers; Boulder High School; Craig Hospital; Mount Carmel Infirmary; Front Range Hospice"
        ),
        "biometric": _listed("RET-55-0021; VP88120"),
        "photo": _listed("IMG-2021-0630.jpeg; left_forearm.heic"),
    },
    drugs=_listed(
        """
        Aimovig; Ajovy; Aubagio; Austedo; Brukinsa; Calquence; Camzyos; Cibinqo; Cimzia; Corlanor; Dovato; Duavee; Emgality;
        Entyvio; Erleada; Evrysdi; Fycompa; Gilenya; Imfinzi; Inlyta; Isentress; Kerendia; Kesimpta; Lenvima; Lynparza; Mavenclad;
        Mayzent; Nexletol; Nubeqa; Nuplazid; Ocrevus; Ofev; Olumiant; Onfi; Orilissa; Qulipta; Reyvow; Savaysa; Simponi; Spravato;
        Sunosi; Symdeko; Taltz; Tecfidera; Trikafta; Tymlos; Vascepa; Verquvo; Verzenio; Xcopri; Zejula; Zeposia; Amlodipine;
        Losartan; Carvedilol; Torsemide; Rivaroxaban; Dabigatran; Meropenem; Linezolid; Daptomycin; Lamotrigine; Oxcarbazepine;
        Sertraline; Quetiapine; Rosuvastatin; Hydralazine; Azathioprine; Rituximab; Infliximab; Heparin; Digoxin; Norvasc; Cozaar;
        Eliquis; Xarelto; Keppra; Lexapro; Humira
        """
    ),
    diseases=_listed(
        """
        Behcet disease; Brugada syndrome; Cushing syndrome; Dressler syndrome; Eisenmenger physiology; Fabry disease; Felty
        syndrome; Goodpasture disease; Horner syndrome; Huntington chorea; Kallmann syndrome; Lambert-Eaton syndrome; Lemierre
        syndrome; Loeffler endocarditis; Lyme arthritis; Mirizzi syndrome; Nelson syndrome; Ogilvie syndrome; Pott disease;
        Prinzmetal angina; Rett syndrome; Sheehan syndrome; Still's disease; Tetralogy of Fallot; Turner syndrome; Waldenstrom
        macroglobulinemia; Wilson's disease; Wolff-Parkinson-White; Kernig sign; Phalen test; Lachman test; Apgar score; Wells
        score; Tenckhoff catheter; Penrose drain; Greenfield filter; Holter monitor; Hoffmann reflex; Trendelenburg position;
        Valsalva maneuver; Bronchiectasis; Hydronephrosis; Appendicitis; Hypokalemia; Gout; Stroke; Myocardial Infarction; Deep
        Vein Thrombosis; Acute Kidney Injury; Urinary Tract Infection; Candida; Pseudomonas; Escherichia Coli
        """
    ),
    templates=(
        "HOSPICE INTAKE\nName of patient: {name}   Age: {age}   SSN: {ssn}\nPrimary caregiver: {name} (spouse)  Tel: {phone}\n"
        "Residence: {address}\nReferred from {organization} {on_date} by Dr. {first} {last}. Dx {DISEASE}. Comfort meds incl. "
        "{DRUG}. {title} {last} was born in {location} and worked for {organization}. Dtr {first} visits from {location}.",
        "EMS RUN SHEET {date}: Unit responded to {address} for {age}M found down by neighbor {first} {last}. Vehicle "
        "VIN {vehicle} "
        "on scene. Hx per wife {first}: {DISEASE}, {DISEASE}. Takes {DRUG}, {DRUG} and {DRUG}. Transported to {organization}, "
        "report to {last}, RN.",
        "GENETICS LETTER\n{date}\nTo: Dr. {last}, {organization}\nRe: {last}, {first} (DOB {date}; chart # {mrn})\nI "
        "met {first} and "
        "her mother {first} on {date}. There is a family history of {DISEASE}: her uncle {first} died at {age} years old. We "
        "discussed {DRUG}. Samples were sent under requisition no. {account}. Best regards, {name}, PhD\nEmail: {email}",
        "PHARMACY NOTE: Clarified with {doctor} ({phone}) that {DRUG} replaces {DRUG}. Pt {last} had rash with "
        "{DRUG} in {month}. "
        "Member # {account}. Prescriber DEA {license}. Counselled {title} {last}; {first} (sister) present. Levels "
        "fine; {DISEASE} "
        "controlled on {DRUG} 100 mg BID.",
        "WOUND CLINIC {date}: Images saved as {photo}. {first} {last} seen with {doctor}. {title} {last} moved from "
        "{location} to "
        "{location} last year. Stimulator serial number {device}. Logged in from {ip}; records at {url}. Retinal scan ID "
        "{biometric}. Cover with {DRUG}. R/o {DISEASE}.",
        "CODE NOTE\nCalled to bedside at 02:14. Present: {name} MD, {name} RN, {last} RRT, chaplain {first} {last}. "
        "{DRUG} 1 mg x3 "
        "given, {DISEASE} suspected. Family, incl. son {first} and daughter-in-law {first}, informed by Dr. {last}. "
        "Time of death "
        "02:51 on {date}. ME case no. {account}. Signed {name}, MD {date}",
    ),
)


@dataclass(frozen=True)
class Labelled:
    """A text; `identifiers` and `terms` are (start, end, kind) of what must go and of what must stay."""

    text: str
    identifiers: tuple[tuple[int, int, str], ...]
    terms: tuple[tuple[int, int, str], ...]


def labelled(hand: Hand, count: int, seed: int = 20_261) -> list[Labelled]:
    """`count` notes, the templates in turn; equal seeds give equal notes."""
    dice = random.Random(seed)
    return [_filled(hand, hand.templates[number % len(hand.templates)], dice) for number in range(count)]


def _filled(hand: Hand, template: str, dice: random.Random) -> Labelled:
    pieces: list[str] = []
    found: list[tuple[int, int, str]] = []
    terms: list[tuple[int, int, str]] = []
    at = 0
    for part in re.split(r"(\{\w+\})", template):
        before, value, kind = _value(hand, part[1:-1], dice) if part.startswith("{") else (part, "", "")
        pieces += [before, value]
        at += len(before)
        if value:
            (terms if kind in ("drug", "disease") else found).append((at, at + len(value), kind))
        at += len(value)
    return Labelled("".join(pieces), tuple(found), tuple(terms))


def _value(hand: Hand, slot: str, dice: random.Random) -> tuple[str, str, str]:
    """(what stands before, the identifier or term, its kind) for a slot of a template."""
    first, last = dice.choice(hand.names).split()[0], dice.choice(hand.names).split()[-1]
    names = {
        "first": ("", first),
        "last": ("", last),
        "name": ("", dice.choice((f"{first} {last}", f"{first} {dice.choice('ABJKMRT')}. {last}"))),
        "upper": ("", f"{last}, {first}".upper()),
        "doctor": ("Dr. ", dice.choice((last, f"{first} {last}"))),
        "initials": ("", f"{first[0]}{last[0]}".upper()),
    }
    if slot == "title":
        return dice.choice(("Mr.", "Mrs.", "Ms.", "Miss")), "", ""
    if slot in names:
        return (*names[slot], "name")
    if slot == "DRUG":
        return "", dice.choice(hand.drugs), "drug"
    if slot == "DISEASE":
        return "", dice.choice(hand.diseases), "disease"
    if slot == "on_date":
        value = dice.choice(("8/17", "the 21st", *hand.values["date"]))
        return ("on the " if value.startswith("the ") else "on "), value.removeprefix("the "), "date"
    if slot == "month":
        return "", dice.choice(("March", "June 2019", "November", "Sept")), "date"
    if slot == "pager":
        return "", dice.choice(("31882", "9-4471", "x5-2210")), "phone"
    if slot == "in_town":
        return "in ", dice.choice(hand.values["location"]), "location"
    value = dice.choice(hand.values[slot])
    article = "the " if value.startswith("the ") else ""  # tells nobody
    return article, value.removeprefix("the "), slot
