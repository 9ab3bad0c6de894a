"""The clinical allow list: capitalised words of notes that a name finder takes for persons or places.

Belongs here: drugs, the syllables drugs and diseases end in, eponyms, words of headings and tests. Does not belong here:
who uses them (note_names), English at large (resources.language_model), names.

Written by hand from what small language models mistake in discharge summaries and radiology reports. A name that is on
no list here and in no English lexicon may be hidden as a person: that loses a word of the text, and leaks nobody.
"""

from __future__ import annotations


def terms(text: str) -> frozenset[str]:
    """The words of `text`, as a list is written in these modules."""
    return frozenset(text.split())


# Generic and brand names that no syllable of _DRUG_ENDINGS tells.
DRUGS = terms(
    """
    abilify acetaminophen actos adderall adenosine advair advil albumin albuterol aldactone aleve allegra allopurinol
    alteplase amaryl ambien amiodarone amoxil anastrozole ancef apap apixaban aricept arimidex ascorbic aspirin atarax
    ativan atrovent atropine augmentin avastin avelox avodart azulfidine bactrim bactroban baclofen benadryl bentyl
    benzonatate biaxin bisacodyl boniva botox brilinta bumex buspar byetta calcitriol calcium carafate carboplatin
    cardizem cardura carvedilol catapres ceclor ceftin celebrex celexa cellcept chantix chlorhexidine cialis cilostazol
    cipro cisplatin claritin cleocin clonidine clozaril cogentin colace colchicine combivent compazine concerta copaxone
    coreg cortisone cosopt coumadin cozaar crestor cubicin cyclophosphamide cymbalta cytoxan dapsone daptomycin decadron
    demerol depakote desyrel detrol dextrose diamox diazepam diflucan digoxin dilantin dilaudid diltiazem diovan ditropan
    docusate dopamine doxorubicin duoneb duragesic dyazide effexor elavil eliquis emend enbrel ensure entresto epinephrine
    epogen eplerenone ertapenem estradiol etoposide euthyrox exelon famvir fentanyl ferrous finasteride flagyl flexeril
    flolan flomax flonase flovent fluorouracil folate folic fosamax gabapentin gemzar gentamicin geodon gleevec glucagon
    glucophage glucotrol guaifenesin haldol haloperidol heparin herceptin humalog humira humulin hydralazine hydrodiuril
    hydrocodone hydromorphone hytrin hyzaar imdur imitrex imodium imuran inderal insulin invega ipratropium isordil
    isosorbide januvia jardiance kayexalate keflex keppra klonopin klor lactulose lamictal lanoxin lantus lasix levaquin
    levemir levetiracetam levophed levothyroxine levoxyl lexapro librium lidocaine lidoderm linezolid lipitor lithium
    lomotil lopid lopressor lotrel lovenox lunesta lupron lyrica maalox macrobid magnesium mannitol maxipime meclizine
    medrol megace melatonin meropenem merrem mestinon metamucil methadone methotrexate metolazone mevacor micardis
    midodrine milrinone miralax mirapex mirtazapine mobic morphine motrin mucinex mucomyst mycophenolate namenda naproxen
    naprosyn narcan nasonex nephrocaps neulasta neupogen neurontin nexium niacin nicotine nicoderm nifedipine nitroglycerin
    nitroprusside nizoral norco norvasc novolin novolog nystatin octreotide omnicef ondansetron orapred oxycodone
    oxycontin oxybutynin pamelor paxil pepcid percocet peridex persantine phenergan phenobarbital phenytoin plaquenil
    plavix pletal potassium pradaxa pravachol prednisone premarin prevacid prilosec primaxin prinivil procardia procrit
    prograf prolixin propofol proscar protonix provigil prozac pulmicort pyridium questran ranexa rapamune reglan remeron
    remicade renagel renvela requip restoril retrovir revatio risperdal ritalin rituxan robaxin robitussin rocephin
    roxicet sandimmune senna sennosides seroquel sevelamer simethicone sinemet singulair sirolimus skelaxin solumedrol
    spiriva spironolactone suboxone sudafed symbicort synthroid tacrolimus tagamet tamiflu tamoxifen tapazole taxol
    taxotere tegretol tenormin terazosin tessalon theophylline thiamine thorazine ticagrelor timoptic tobramycin topamax
    toprol toradol torsemide tramadol trazodone trental tricor trileptal tums tylenol ultram unasyn valium valtrex
    vancomycin vanco vasopressin vasotec ventolin verapamil versed vesicare viagra vicodin vitamin voltaren warfarin
    wellbutrin xalatan xanax xarelto xopenex zantac zaroxolyn zebeta zestril zetia zinc ziac zithromax zocor zofran
    zoloft zometa zosyn zovirax zyloprim zyprexa zyrtec zyvox pantoprazole trulicity ozempic farxiga mounjaro dupixent
    """
)
# Endings of generic drug names (the stems of the USAN council) and of the words for diseases, findings, procedures.
_DRUG_ENDINGS = terms(
    "afil alol asone astine azepam azine azole azosin barbital bactam bicin caine calci cillin citabine conazole cort cycline "
    "dipine dronate droxil etine fenac feron fibrate floxacin flozin formin gliptin glitazone glutide grastim grel iclovir idone "
    "ilide imus lamide lukast mab methasone micin mustine mycin nacin navir nib nidazole nitrate nitrin olol olone onide osin "
    "oxacin oxetine oxin parin penem pezil phylline platin poetin pramine prazole pril prost quine rubicin sartan semide setron "
    "sone statin tadine taxel terol thiazide thyroxine tidine tinib triptan triptyline tropium tyline vastatin vir vudine xaban "
    "xetine zepam zide zine zolam zolid zoline zoxin"
)
_DISEASE_ENDINGS = terms(
    "aemia algia cele centesis cemia clasia crine cyte cytic cytosis dema desis dynia ectasis ectomy emia emic enia esthesia "
    "genesis gram graph graphic graphy iasis iatric iatry itic itis kalemia kinesia lepsy logy lysis lytic malacia megaly metry "
    "natremia oma opathy opia orrhea osis ostomy otic otomy oxia paresis pathy penia penic pepsia phagia phasia philia phobia "
    "plasia plasty plegia pnea poiesis ptosis ptysis rrhage rrhagia rrhaphy rrhea rrhosis sclerosis scope scopy spasm stasis "
    "stenosis stomy therapy thorax tomy trophic trophy tropic uresis uria uric vascular ical ular inal iform itious"
)
ENDINGS = tuple(sorted({*_DRUG_ENDINGS, *_DISEASE_ENDINGS}))
MIN_STEM_CHARS = 3  # before an ending: "mab" ends trastuzumab, and is not the whole of a word

# Persons whose names are words of medicine. One of them alone is no person; "Dr. Foley" and "Mary Foley" are.
EPONYMS = terms(
    """
    addison adson allen alzheimer apgar argyll arnold asperger babinski baker bankart barrett bartholin bartter bazin
    behcet bell bence berger billroth binet bishop blalock bohr bowen braden brooke broca brudzinski bruce budd buerger
    burkitt calot chagas charcot cheyne chiari child chvostek cobb colles coombs crohn cullen cushing dandy devic doppler
    down dressler duchenne dupuytren ebstein edwards ehlers eisenmenger epley epstein ewing fallot fanconi fick finkelstein
    fogarty foley fontan fowler french friedreich gardner gaucher gilbert gleason glasgow glisson graham gram grave graves
    greenfield guillain hallpike hamman harrington hartmann hartnup hashimoto heberden heimlich henoch hickman hirschsprung
    hodgkin hoffmann hoffman holter homan homans horner howell huntington hutchinson jackson janeway jones kaposi karnofsky
    kartagener kawasaki kehr kerley kernig kelly klebsiella klinefelter kocher korsakoff krukenberg kussmaul lachman
    langerhans leber legg lewy lhermitte lisfranc ludwig lyme mallory marfan marshall maylard mcburney mcmurray meckel
    meigs meniere merkel mobitz monteggia moro morton murphy nissen noonan norton osgood osler paget pancoast pap
    parkinson patau penrose perthes peyer peyronie phalen pick plummer potter pott prader quincke ramsay ranson raynaud
    reiter reynolds reye richter rickett ringer rinne roth roux romberg rovsing rovsings salter schatzki schiller schilling
    seldinger sengstaken shiley sjogren spurling starling stevens still stokes sturge swan sydenham sylvian takayasu tanner tinel
    todd tourette tourettes trendelenburg trousseau turner valsalva virchow wallenberg weber wegener weil wells wenckebach
    wernicke whipple willebrand williams wilms wilson wolff wood yankauer yates willis zenker zollinger ziehl bentall bernard
    bosworth chopart crigler dubin eisenberg galeazzi gerdy hill jefferson jerne maisonneuve pavlik sachs sever smith
    jackson-pratt swan-ganz guillain-barre stevens-johnson ehlers-danlos wolff-parkinson-white
    """
)
# What follows an eponym: before one of these a name is a word of medicine.
EPONYM_HEADS = terms(
    "disease diseases syndrome sign signs lymphoma catheter score scale test tube cyst palsy fracture reflex maneuver "
    "manoeuvre criteria class classification esophagus ulcer abscess tumor tumour sarcoma phenomenon contracture procedure "
    "operation anastomosis lines line nodes node body bodies cells stain filter drain pouch node angle law rule point "
    "chorea dementia dystrophy encephalopathy hernia lobectomy mass murmur nodule nodules respirations sounds stage "
    "thyroiditis triad deformity duct gland ligament membrane space triangle factor virus agar solution lactate valve "
    "reservoir gangrene tear cell pouches fissure fissures stent monitor traction splint brace position incision "
    "retractor forceps jejunostomy gastrectomy repair shunt"
)

# Words of headings, wards and tests that stand capitalised and are in no general lexicon.
CLINICAL_WORDS = terms(
    """
    abd abg admission afebrile afib aicd anicteric anion anteroposterior anxiety apgars apnea appt arousable ascites aspirin
    attending atelectasis auscultation avnrt axial axilla basename basophils bibasilar biopsy bipap bmi bnp bradycardia brief
    cabg calcification cardiac cardiology cardiomegaly cath cbc chemistry chief chol chronic cirrhosis clear clinic cmp coags
    colonoscopy complaint consult contrast copd coronal course covid cpap creat creatinine csf ctab cta culture cultures cxr
    cystic daily data ddx dermatology diagnosis diagnoses dialysis discharge disposition doppler dyspnea echo echocardiogram
    edema effusion effusions egd ekg electrolytes endocrine endo eomi eosinophils ercp erythema esrd examination exam exudate
    family fev fibrillation findings focal followup foley ft gastroenterology general genitourinary gerd gout gravid gtt
    hct heent hematology hemodialysis hemodynamically hemoglobin hepatic hepatology hgb hilar history hiv home hospital hpi hsm
    htn icd icu ileus impression inbound indication infiltrate infiltrates inpatient instructions interventional intubated
    intubation ischemia ischemic jvd jvp kub labs laboratory lad lactate laminectomy left leukocytosis lipase lisinopril liver
    lobectomy lobar lymph lymphocytes lytes major mca medications medicine mediastinum metastatic micu microbiology midline
    monocytes mri msk murmurs musculoskeletal nasogastric nausea neck neoplasm nephrology neuro neurology neurosurgery
    neutrophils nkda nodule nondistended normocephalic nontender nph nsclc nstemi obgyn oncology ophthalmology opacities opacity
    orthopedics osteoarthritis osteopenia otolaryngology outpatient pain palpation pancreas parenchyma pathology pcn perrl
    perrla pertinent peripheral petechiae pft phos physical picc plan platelet platelets pleural plt pneumonia pneumothorax
    podiatry pod pod1 pod2 portable postop potassium preop procedure procedures prophylaxis prostate psa psych psychiatry
    pulmonary pulmonology radiology rbc recommendation regimen rehab rehabilitation renal respiratory results rhythm rle rll
    rlq rml rrr rul ruq sagittal saturation secondary sepsis septic serum service sexual sicu sinus skin social sputum stable
    stat stemi stenosis stent subcutaneous supine surgery surgical tachycardia technique telemetry temp tmax thoracic thrombus
    tia tracheostomy transaminases transplant tropon troponin trops tte tee ultrasound unit upper urinalysis urine urology uti
    ventricle ventricular vitals vitamin voiding wbc wnl wound xray yeast neg pos npo prn bid tid qid qhs qam qpm neut alkphos
    totbili albumin glucose urean hco3 mcv mch mchc rdw inr ptt alt ast ldh cpk ck-mb ctropnt hepatitis influenza strep staph
    candida pseudomonas enterococcus escherichia coli clostridium difficile mrsa vre esbl sars-cov-2 covid-19 cmv ebv hsv vzv
    aureus epidermidis pneumoniae faecalis faecium aspergillus enterobacter proteus mirabilis serratia marcescens acinetobacter
    baumannii stenotrophomonas maltophilia bacteroides fragilis moraxella catarrhalis haemophilus influenzae legionella listeria
    mycobacterium avium cryptococcus albicans glabrata citrobacter streptococcus staphylococcus
    comparison clip reason wet read medical condition underlying provisional final report addendum sex allergies
    adverse drug reactions discharged deceased extended care facility worst worsening ambulatory coherent alert interactive
    lethargic level consciousness mental status activity independent requires assistance dear weigh mr mra ct cat pet spect
    fluoro mammogram tomosynthesis dexa vq hida gi gu cv pulm ext heme id fen ppx dispo dnr dni polst molst ed er or pacu ccu
    tsicu cvicu nicu picu osh snf ltac vna pt ot slp rn md np pa do crna msw
    """
)

STATES = terms(
    """
    alabama alaska arizona arkansas california colorado connecticut delaware florida georgia hawaii idaho illinois indiana
    iowa kansas kentucky louisiana maine maryland massachusetts michigan minnesota mississippi missouri montana nebraska
    nevada ohio oklahoma oregon pennsylvania tennessee texas utah vermont virginia washington wisconsin wyoming hampshire
    jersey mexico carolina dakota england america usa us u.s. puerto rico
    """
)
"""Parts of the names of states and of regions beyond them, which Safe Harbor lets stand."""
