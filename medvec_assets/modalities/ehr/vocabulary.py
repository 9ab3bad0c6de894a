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
    surg surgery surgical thoracic transplant trauma tsicu unit unknown vascular well
    """
)
_ROUTES = terms(
    """
    ad as au az bid bolus both bu buccal by dialys drip dwell ear ears ed enteral epidural et ex eye eyes feeding flush g
    gt id ih im in inhalation inj intra intradermal intrapericardial intrapleural intraventricular io ip irrigation it iv
    ivpb ivpca ivt j jt left lock logy mouth mucous nare nas nasal nd neb ng nu ob od og oral os ot ou patch pb pca po pr
    pump rectal right sc scalp sl sq subcut subcutaneous swish td tp transdermal tt tube urethral vaginal vg via vivo
    """
)
_UNITS = terms(
    """
    a1c apl at b c cells cfu cm copies cu cubic deg dl e e3 e6 e9 eu f feu fg fl g gm gpl h h2o hg hour hours hpf hr i iu
    k kg kiu kpa ku l log log10 lpf m m2 mcg mcl mcmol meq mg min minute minutes miu ml mm mm2 mm3 mmhg mmol mol mom mosm
    mpl ng ngal nm nmol per percent pg ph pmol ratio rbc s score sec seconds smu sqm squared titer u ug uiu ukat ul um
    umol unit units wbc x x10
    """
)
# Beside those that clinical words, the list of drugs and the endings of generic names tell (deid.lexicon).
_DRUG_WORDS = terms(
    """
    a abatacept acamprosate acarbose acetate acetylcysteine acid activated additive adult aerosol air alcohol aldesleukin
    alfa alfentanil alginate aliskiren alprostadil aluminum ambrisentan amifostine amikacin amiloride amino aminocaproic
    amphetamine amphotericin ampule anagrelide and angiotensin anidulafungin antacid antivenom aprepitant aq argatroban
    arsenic artemether artificial asenapine asparaginase atovaquone azathioprine aztreonam b bacitracin bag balanced base
    belladonna benzoate benztropine besylate bethanechol bexarotene bicalutamide bicarbonate bismuth bisulfate bitartrate
    bivalirudin blood blue bortezomib bosentan bottle botulinum brimonidine bromide bromocriptine buffered bulk bumetanide
    buprenorphine bupropion buspirone busulfan butalbital butter c cabergoline caffeine calamine calcipotriene calcitonin
    camphor cangrelor caplet capsaicin capsule capsules carbamazepine carbamide carbidopa carbonate carfilzomib
    carisoprodol caspofungin cefaclor cefazolin cefdinir cefepime cefixime cefotaxime cefotetan cefoxitin cefpodoxime
    ceftaroline ceftazidime ceftriaxone cefuroxime celecoxib cepacol cephalexin charcoal chewable chlorambucil
    chloramphenicol chlordiazepoxide chloride chlorpheniramine chlorpropamide cholecalciferol cholestyramine chorionic
    cinacalcet cisatracurium citalopram citrate cladribine clavulanate clobazam clobetasol clofarabine clomiphene
    clorazepate clozapine coated cobalamin cobicistat codeine colesevelam colestipol colistimethate colistin collagenase
    concentrate conivaptan corticotropin cosyntropin cream crm cromolyn cup cyanocobalamin cyclobenzaprine cyclopentolate
    cyclosporine cytarabine d d10w d2 d20w d3 d5 d50 d50w d5lr d5ns d5w dabigatran dalbavancin danazol dantrolene
    decanoate deferasirox deferoxamine degarelix delayed desflurane desmopressin desvenlafaxine dexmedetomidine
    dexmethylphenidate dexrazoxane dextroamphetamine dextromethorphan diatrizoate dicyclomine didanosine dihydrate
    dihydroergotamine diluent dimenhydrinate diphenhydramine diphenoxylate dipropionate dipyridamole disintegrating diskus
    disodium disopyramide disulfiram divalproex dobutamine dornase dose doxepin doxercalciferol dressing dronabinol
    dronedarone drop droperidol drops dry ds duplex dutasteride dwell e ec edaravone efavirenz elements elixir eltrombopag
    emulsion enema enfuvirtide entacapone enteric ephedrine epoetin epoprostenol eptifibatide ergocalciferol ergotamine
    eribulin escitalopram eslicarbazepine estrogens eszopiclone etanercept ethacrynate ethacrynic ethambutol ethosuximide
    ethyl etomidate etravirine exemestane exenatide extra eye ezetimibe ezogabine factor fat febuxostat felbamate
    fenoldopam fesoterodine fexofenadine fingolimod flavored flavoxate flecainide flucytosine fludarabine flumazenil
    flunisolide fluoride flush flutamide fluvoxamine foam fomepizole fondaparinux for formula fosaprepitant foscarnet
    fosphenytoin frozen fulvestrant fumarate furoate galantamine gel gemfibrozil glargine glimepiride globulin gluconate
    glulisine glyburide glycerin glycol glycopyrrolate gr granules griseofulvin guanfacine gum hbr hcl hs human
    hyaluronidase hyclate hydrate hydrobromide hydrochloride hydroxide hydroxocobalamin hydroxyprogesterone hydroxyurea
    hyoscyamine ibuprofen icosapent ifosfamide immediate immune immunoglobulin in indapamide indomethacin infant infusion
    inhalations inhaler injection iodide iodine iodixanol iohexol iopamidol irinotecan iron isavuconazonium iso isoflurane
    isoniazid isoproterenol isotonic iv ivabradine ivermectin ixabepilone k kaolin ketamine ketoprofen ketorolac ketotifen
    kit lacosamide lactated lactic lactobacillus lamotrigine lanreotide lanthanum leflunomide letrozole leucovorin
    leuprolide levocarnitine levodopa levoleucovorin levomilnacipran levonorgestrel liothyronine liposome liquid
    lisdexamfetamine lispro lock lodoxamide long loop loperamide losartan loteprednol lotion loxapine lozenge lr lubricant
    lung magaldrate malate malathion maleate maraviroc mb mcg meal mechlorethamine meclofenamate medroxyprogesterone
    megestrol meloxicam melphalan memantine menthol meperidine meq mercaptopurine mesalamine mesna mesylate metaxalone
    methenamine methocarbamol methohexital methoxsalen methscopolamine methyldopa methylene methylergonovine
    methylnaltrexone methylphenidate metoclopramide metyrosine mg micafungin micro milk mineral mini minoxidil mirabegron
    misoprostol mitotane mitoxantrone mix ml modafinil mofetil moisturizing monohydrate mouth mouthwash multivitamin
    multivitamins mupirocin mycophenolic nabumetone nalbuphine naloxegol naloxone naltrexone nasal nateglinide natural neb
    nebulizer nefazodone nelarabine neostigmine nesiritide neutra nevirapine nf nitazoxanide nitrate nitrofurantoin
    norepinephrine norethindrone normal ns nusinersen of oil ointment olanzapine only ophth ophthalmic oral oritavancin
    orlistat orphenadrine oxcarbazepine oxide oxymorphone oxytocin pack packet palbociclib palmitate pancrelipase
    pancuronium pantothenic papaverine paricalcitol patch pca pedi pegaspargase pegylated pemetrexed pen penicillamine
    pentamidine pentosan pentoxifylline peppermint perampanel permethrin peroxide petroleum phenazopyridine phenol
    phentolamine phenylephrine phosphate physostigmine phytonadione piggyback pilocarpine pimavanserin plain plasma
    plerixafor plus polycarbophil polyethylene polymyxin powder pralidoxime pramipexole pramoxine praziquantel pre
    prefilled pregabalin premix premixed preservative probenecid procainamide progesterone propafenone propantheline
    propionate propylene propylthiouracil protamine pseudoephedrine psyllium pump purified pyrantel pyrazinamide
    pyridostigmine pyridoxine pyrimethamine quadrivalent quetiapine quick quinidine quinupristin racepinephrine raloxifene
    ramelteon rapid rasagiline rasburicase ready rectal regadenoson release remifentanil repaglinide replacement respules
    retention retinol ribavirin ribociclib riboflavin rifabutin rifampin rifapentine rifaximin rilpivirine riluzole ringer
    ringers rinse rivastigmine rocuronium roflumilast romidepsin romiplostim ropinirole rotigotine rufinamide saccharate
    sacubitril safinamide salicylate salicylic saline salsalate salt sarna scopolamine scored sebelipase selegiline
    selenium selexipag sertraline shampoo short silver single sl sliding sodium soln soluble solution somatropin sorbitol
    sore spray sr sterile streptokinase streptozocin subcut succ succinate succinylcholine sucralfate sucrose sufentanil
    sugammadex sugar sulf sulfacetamide sulfameth sulfate sulindac suppository susp suspension sustained suvorexant
    syringe syrup tab tablet tablets tapentadol tartrate tbo tears telavancin temozolomide tenecteplase terbinafine
    terbutaline teriflunomide teriparatide testosterone tetanus thalidomide thickener thioguanine thiotepa thiothixene
    throat thrombin thyroid tiagabine ticlopidine tirofiban tizanidine tolterodine tolvaptan topiramate topotecan tpn
    trace tranexamic tranylcypromine treprostinil tretinoin triamterene trifluridine trihexyphenidyl trimethobenzamide
    trimethoprim trioxide trospium tube tuberculin umeclidinium units ursodiol vaccine valerate valproate valproic
    varenicline vecuronium venetoclax venlafaxine vial vigabatrin vilazodone vincristine vinorelbine viscous vorapaxar
    wash water wax with xl xr zaleplon zileuton zoledronic zolpidem zonisamide
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
