"""Makes the sample of mimic_notes: a small release in MIMIC-IV-Note's own layout, all of it invented.

    python tests/datasets/make_mimic_notes.py

Forty notes of six plain kinds, so that a neighbour of the same kind is expected. The source has masked its notes with ___;
here identifiers (IDENTIFIERS, made up) stand where its masks would, for the rules to find. Beside them one note for each way
in which a note can be wrong. Equal runs write equal tables.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import random
from pathlib import Path

RELEASE = Path(__file__).parent / "mimic_notes" / "in" / "physionet.org" / "files" / "mimic-iv-note" / "2.2"
LICENSE = """The PhysioNet Credentialed Health Data License
Version 1.5.0

This file stands in the place of the real release's licence. The tables beside it are SYNTHETIC: they were made by
tests/datasets/make_mimic_notes.py and hold nothing of MIMIC-IV-Note but its layout.
"""
COLUMNS = ("note_id", "subject_id", "hadm_id", "note_type", "note_seq", "charttime", "storetime", "text")
MARK = "SYNTHETIC NOTE, no person's."

IDENTIFIERS = {
    "patient": (
        "Harold Vance",
        "Miriam Oyelaran",
        "Tomasz Wierzbicki",
        "Grace Holloway",
        "LaToya Simmons",
        "Wei-Ling Zhou",
    ),
    "doctor": ("Anjali Deshmukh", "Peter O'Rourke", "Carlos Medina-Ruiz", "Ingrid van der Meer", "Samuel Brown"),
    "relative": ("Denise", "Oluwaseun", "Katarzyna", "Hector", "Mei"),
    "date": ("March 4, 2151", "2151-03-09", "11/23/2150", "Apr 2nd", "14-Feb-2149", "the 3rd of June"),
    "old": ("91 year old", "94 y/o", "102-year-old"),
    "phone": ("(617) 555-0142", "617-555-0187", "+1 508 555 0119", "pager 31742"),
    "email": ("h.vance@example.org", "moyelaran88@example.com"),
    "mrn": ("MRN: 4471-882", "Medical Record Number 00918273", "Unit No: 733-19-02"),
    "ssn": ("SSN 078-05-1120", "social security number ending in 4471"),
    "account": ("Account # 99-104482", "Policy No: XJK4419022", "Accession Number: RA-2150-88173"),
    "device": ("serial number PJN-448812H", "Lot #: 77A4410"),
    "address": ("18 Alder Street, Apt 4B", "P.O. Box 1187", "Winthrop, MA 02152"),
    "town": ("Chelsea", "Somerville", "Ouagadougou"),
    "hospital": ("Mercy Ridge Hospital", "St. Brendan's", "Lakeview Nursing Home", "Harborside Medical Center"),
    "web": ("https://www.example.org/patients/hvance", "www.caringpage.example.com/h", "203.0.113.77"),
    "license": ("driver's license S44190233", "DEA number BD4471902", "license plate 4TRK 228"),
    "biometric": ("fingerprint record FP-771290", "photo IMG_44190.jpg"),
}
STORIES = {
    "heart failure": (
        "Shortness of breath",
        "worsening dyspnea on exertion, orthopnea and leg swelling over two weeks. She ran out of Lasix and ate salty food. "
        "BNP was 2140 and CXR showed pulmonary edema",
        "Acute on chronic systolic heart failure. EF 25% on TTE; diuresed with IV furosemide, continued metoprolol succinate, "
        "lisinopril and spironolactone. Weight fell from 88.2 kg to 83.6 kg",
        "Acute on chronic systolic congestive heart failure",
    ),
    "pneumonia": (
        "Fever and cough",
        "fever to 102.4, productive cough and pleuritic chest pain for 5 days, sputum with Gram positive cocci. "
        "WBC 16.2, lactate 2.1",
        "Right lower lobe pneumonia treated with ceftriaxone and azithromycin, then levofloxacin 750 mg PO daily. Oxygen weaned "
        "to room air. Blood cultures negative",
        "Community acquired pneumonia",
    ),
    "hip fracture": (
        "Left hip pain after a fall",
        "a mechanical fall from standing with left hip pain and inability to bear weight. No head strike, no syncope. "
        "Strength 5/5 in the right leg",
        "Left intertrochanteric fracture, treated with a cephalomedullary nail. Enoxaparin prophylaxis, Tylenol and oxycodone "
        "for pain, weight bearing as tolerated, Foley removed on POD 2",
        "Left intertrochanteric hip fracture",
    ),
    "ketoacidosis": (
        "Nausea and vomiting",
        "two days of nausea, vomiting and polyuria after missing doses of Lantus and Humalog. Glucose 512, anion gap 24, "
        "ketones large",
        "Diabetic ketoacidosis treated with insulin drip, fluids and potassium; gap closed within 12 hours; "
        "Addison's disease and "
        "Graves disease were ruled out. Discharged on glargine 22 units qhs",
        "Diabetic ketoacidosis, type 1 diabetes mellitus",
    ),
}
IMAGES = {
    "chest": (
        "CHEST (PA AND LAT)",
        "with cough and fever // eval for pneumonia",
        "The lungs are clear apart from a patchy opacity in the right lower lobe. No effusion or pneumothorax. Heart size is "
        "top normal. Mild degenerative changes of the thoracic spine.",
        "Right lower lobe opacity, concerning for pneumonia.",
    ),
    "brain": (
        "CT HEAD W/O CONTRAST",
        "s/p fall, on Coumadin // eval for bleed",
        "There is no hemorrhage, edema, mass effect or large infarction. Ventricles and sulci are prominent, as in involutional "
        "change. The circle of Willis is unremarkable. Sylvian fissures are symmetric.",
        "No acute intracranial process.",
    ),
}


class Notes:
    """The rows of both tables. Identifiers are dealt in turn, so that each kind stands in some note."""

    def __init__(self) -> None:
        self.rows: dict[str, list[list[str]]] = {"discharge": [], "radiology": []}
        self._random = random.Random(4)
        self._dealt = dict.fromkeys(IDENTIFIERS, 0)

    def next(self, kind: str) -> str:
        self._dealt[kind] += 1
        return IDENTIFIERS[kind][(self._dealt[kind] - 1) % len(IDENTIFIERS[kind])]

    def add(self, table: str, subject: int, text: str) -> list[str]:
        sort, seq = {"discharge": "DS", "radiology": "RR"}[table], len(self.rows[table]) + 2
        time = f"{self._random.randint(2120, 2190)}-0{self._random.randint(1, 9)}-1{seq % 10} 00:00:00"
        stay = str(20_000_000 + subject % 1000) if table == "discharge" or seq % 2 else ""
        row = [
            f"{subject}-{sort}-{seq}",
            str(subject),
            stay,
            sort,
            str(seq),
            time,
            time.replace("00:00:", "11:26:"),
            text,
        ]
        self.rows[table].append(row)
        return row


def discharge(notes: Notes, number: int, story: tuple[str, ...]) -> str:
    complaint, illness, course, diagnosis = story
    patient, sex = notes.next("patient"), "MF"[number % 2]
    last = patient.split()[-1]
    masked = number % 3 == 2  # as the source masks it
    came, went, born, moved = ("___" if masked else notes.next("date") for _ in range(4))
    person = f"{'Mr' if sex == 'M' else 'Ms'}. {last}"
    age = notes.next("old") if number % 4 == 0 else f"{44 + number} year old"
    extra = (
        f"Call {notes.next('relative')}, the patient's daughter, at {notes.next('phone')} or {notes.next('email')}.",
        f"{notes.next('account')}. {notes.next('ssn')}. Has {notes.next('license')}.",
        f"ICD interrogated, {notes.next('device')}. See {notes.next('web')}; {notes.next('biometric')}.",
        f"Lives at {notes.next('address')} with her son {notes.next('relative')}; moved from {notes.next('town')} in 2140.",
    )[number // 4 % 4]
    return f""" 
{MARK}
Name:  {"___" if masked else patient}                     {"Unit No:   ___" if masked else notes.next("mrn")}
 
Admission Date:  {came}              Discharge Date:   {went}
 
Date of Birth:  {born}             Sex:   {sex}
 
Service: MEDICINE
 
Allergies: 
Penicillins / Bactrim / Zosyn
 
Attending: {"___." if masked else f"{notes.next('doctor')}, MD"}
 
Chief Complaint:
{complaint}
 
Major Surgical or Invasive Procedure:
none
 
History of Present Illness:
{"___" if masked else person} is a {age} {sex} with hypertension, Crohn's disease and s/p CABG who 
presents with {illness}. Transferred from {notes.next("hospital")}
on {moved}. T 98.6 HR 90 BP 142/84 RR 18 O2 94% RA.
{"" if masked else last + " denies"} chest pain.
 
Past Medical History:
Hypertension, hyperlipidemia, Parkinson's, Barrett's esophagus, Raynaud's
 
Social History:
{extra}
 
Pertinent Results:
___ 06:45AM BLOOD WBC-9.1 RBC-4.21* Hgb-12.9 Hct-38.6 MCV-92 Plt ___
___ 06:45AM BLOOD Glucose-110* UreaN-18 Creat-0.9 Na-140 K-4.1 Cl-103
 
Brief Hospital Course:
{course}. Discussed with Dr. {notes.next("doctor").split()[-1]} and {notes.next("relative")} (HCP).
 
Medications on Admission:
1. Atorvastatin 40 mg PO QPM  2. Aspirin 81 mg PO DAILY  3. Synthroid 75 mcg PO DAILY  4. Warfarin 2.5 mg PO 
DAILY16  5. Advair Diskus (250/50) 1 INH IH BID
 
Discharge Diagnosis:
{diagnosis}
 
Discharge Condition:
Mental Status: Clear and coherent. Level of Consciousness: Alert and interactive.
 
Discharge Instructions:
Dear {"Ms. ___" if masked else patient.split()[0]},
It was a pleasure caring for you. Follow up with Cardiology in 2 weeks.
 
Followup Instructions:
___
{"" if masked else f"Electronically signed by {notes.next('doctor')}, M.D."}
"""


def radiology(notes: Notes, number: int, image: tuple[str, ...]) -> str:
    title, indication, findings, impression = image
    masked = number % 3 == 2
    doctor = notes.next("doctor")
    return f"""{MARK}
EXAMINATION:  {title}
 
INDICATION:  {"___" if masked else notes.next("old") if number % 4 == 0 else f"{50 + number} year old"} {
        "wo" if number % 2 else ""
    }man {indication}
 
TECHNIQUE:  Standard technique. {"" if masked else notes.next("account")}
 
COMPARISON:  {"___" if masked else f"Study of {notes.next('date')} from {notes.next('hospital')}"}.
 
FINDINGS: 
{findings} Ewing sarcoma and Paget disease are unlikely.
 
IMPRESSION: 
{impression}
 
NOTIFICATION:  {
        ""
        if masked
        else f"The findings were discussed by Dr. {doctor} with Dr. {notes.next('doctor').split()[-1]} by telephone on "
        f"{notes.next('date')} at 3:40 pm, 5 minutes after discovery ({notes.next('phone')})."
    }
"""


def broken(notes: Notes) -> None:
    """One note for each way in which a note can be wrong."""
    whole = discharge(notes, 1, STORIES["pneumonia"])
    notes.add("discharge", 19_000_001, "x")
    notes.add("discharge", 19_000_002, (MARK + " The same line again and again. ") * 24_000)
    notes.add("discharge", 19_000_003, "")
    notes.add("discharge", 19_000_004, MARK + " \x00\x01\x02PK\x03\x04 a document in a field of text \x00\x00\x05")
    notes.add("discharge", 19_000_005, whole.replace("pleasure", "pl\udce9asure"))  # Latin-1 in a table of UTF-8
    notes.add("radiology", 19_000_006, whole)[3] = "ZZ"
    notes.add("radiology", 19_000_007, whole)[0] = "no id at all"
    notes.add("radiology", 19_000_008, whole).append("a ninth field")


def write(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(COLUMNS), *rows])
    data = text.getvalue().encode("utf-8", "surrogateescape")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(data)


def main() -> None:
    notes = Notes()
    stories, images = list(STORIES.values()), list(IMAGES.values())
    for number in range(24):
        subject = 18_000_000 + number // 2  # two notes of a subject
        notes.add("discharge", subject, discharge(notes, number, stories[number % len(stories)]))
    for number in range(16):
        notes.add("radiology", 18_000_000 + number, radiology(notes, number, images[number % len(images)]))
    broken(notes)
    for table, rows in notes.rows.items():
        write(RELEASE / "note" / f"{table}.csv.gz", rows)
    (RELEASE / "LICENSE.txt").write_text(LICENSE)
    listed = sorted(path for path in RELEASE.rglob("*") if path.is_file() and path.name != "SHA256SUMS.txt")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(RELEASE).as_posix()}\n" for p in listed]
    (RELEASE / "SHA256SUMS.txt").write_text("".join(sums))


if __name__ == "__main__":
    main()
