"""What may stand in the columns of EHR tables into which people type: closed lists, and the words of names of things.

Belongs here: terms, written by hand from MIMIC-IV's and OMOP's documentation. Does not belong here: which column has which
(mimic, omop), how a word is told from others (deid.tables).

A word that is missing here is lost to a code, as are the names that are to be: add it if no person is called so.
"""

from __future__ import annotations

from medvec_assets.deid.clinical_terms import terms
from medvec_assets.deid.lexicon import is_clinical

ADMISSION_TYPES = frozenset(
    {
        "AMBULATORY OBSERVATION",
        "DIRECT EMER.",
        "DIRECT OBSERVATION",
        "ELECTIVE",
        "EU OBSERVATION",
        "EW EMER.",
        "OBSERVATION ADMIT",
        "SURGICAL SAME DAY ADMISSION",
        "URGENT",
    }
)
TRANSFERS = frozenset({"ED", "admit", "discharge", "transfer"})
# Of Athena, as All of Us loads it.
VOCABULARIES = frozenset(
    {
        "CMS Place of Service",
        "CPT4",
        "CVX",
        "Gender",
        "HCPCS",
        "HemOnc",
        "ICD10CM",
        "ICD10PCS",
        "ICD9CM",
        "ICD9Proc",
        "LOINC",
        "NDC",
        "None",
        "OMOP Extension",
        "OMOP Genomic",
        "PPI",
        "RxNorm",
        "RxNorm Extension",
        "SNOMED",
        "UCUM",
        "Visit",
    }
)
SEXES = {"female": "F", "male": "M"}
"""OMOP's names of the two that a record tells, in lower case."""

_CARE_UNITS = terms(
    """
    and antepartum babies bariatric biliary cardiac cardiology care ccu coronary csru cvicu delivery department discharge
    emergency gyn gynecology hematology icu intensive intermediate labor lounge med medical medicine micu neonatal neuro
    neurology nicu nursery observation obstetrics oncology pacu pancreatic postpartum psychiatry scn sicu special stepdown
    surgery surgical thoracic transplant trauma tsicu unit unknown vascular well
    """
)
_ROUTES = terms(
    """
    ad as au az bid both bu buccal by dialys drip dwell ear ears ed enteral epidural ex eye eyes feeding flush g gt ih im
    in inhalation inj intra intradermal intrapericardial intrapleural intraventricular irrigation it iv ivpb ivpca j jt left
    logy mouth mucous nare nasal nas ng nu ob od og oral os ot ou patch pb pca po pr pump rectal right sc scalp sl sq
    subcut subcutaneous swish td tp transdermal tt tube urethral vg via vaginal
    """
)
_UNITS = terms(
    """
    10e3 10e6 10e9 a1c apl at b c cells cfu cm copies cu cubic dl e eu f feu fg fl g gm gpl h hg hour hours hpf hr i iu k kg
    kpa kiu l lpf m m2 mcg mcl mcmol meq mg min minute minutes miu ml mm mm3 mm2 mmhg mmol mol mosm mpl ng ngal nmol per
    percent pg ph pmol ratio rbc s score sec seconds smu sqm squared titer u ug uiu ukat ul um umol unit units wbc x
    """
)
# Beside those that clinical words, the list of drugs and the endings of generic names tell (deid.lexicon).
_DRUG_WORDS = terms(
    """
    acid acetate activated additive adult aerosol air alcohol aluminum amino ampule and antacid antibiotic artificial aq bag
    balanced base benzoate besylate bicarbonate bisulfate bitartrate blood bottle bromide buffered bulk butter caplet capsule
    capsules carbonate chewable chloride citrate clavulanate coated concentrate cream crm cup d10w d2 d20w d3 d50 d50w d5 d5lr
    d5ns d5w decanoate delayed dihydrate diluent dipropionate disintegrating disodium docusate dose dressing drop drops dry
    duplex dwell elixir emulsion enema enteric ephedrine er ethyl extended extra eye fat flavored flush foam for formula
    frozen fumarate fluoride furoate gel gluconate glycerin glycol gr granules gum hbr hcl hs human hydrate hydrobromide
    hydrochloride hydroxide immediate immune in infant infusion inhaler injection insulin iodide iron iso isotonic iv kit
    lactate lactated liquid liposome lispro lock long loop lotion lozenge lr lubricant lung maalox magnesium maleate malate mb
    meal mcg medroxyprogesterone meq mesylate mg micro mini mix ml moisturizing mononitrate monohydrate mouth mouthwash
    multivitamin multivitamins mupirocin nasal natural neb nebulizer nf norepinephrine normal ns nitrate of oil ointment only
    ophthalmic or oral osmotic oxide pack packet palmitate patch pca pediatric pedi pen penicillin peppermint peroxide petroleum
    phenylephrine phosphate piggyback plain plus polyethylene polymyxin potassium powder pre premix premixed preservative
    prefilled propionate pump purified quick rapid ready rectal regular release respules retention ringer rinse rocuronium
    saccharate saline salt scored sertraline shampoo short single sliding sodium soln soluble solution sorbitol spray sr
    sterile subcut succinate sucralfate sucrose sugar sulf sulfadiazine sulfamethoxazole sulfate suppository susp suspension
    sustained syringe syrup tab tablet tablets tartrate tears thickener topical tpn trimethoprim tube units unit vaccine vial
    vitamin viscous wash water wax with xl xr zinc
    """
)


def is_care_unit_word(word: str) -> bool:
    return word in _CARE_UNITS


def is_route_word(word: str) -> bool:
    return word in _ROUTES


def is_unit_word(word: str) -> bool:
    return word in _UNITS


def is_drug_word(word: str) -> bool:
    return word in _DRUG_WORDS or is_clinical(word)
