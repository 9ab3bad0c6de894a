"""Each planter puts identifiers into every kind of place that its format has, and the copy is still of that format."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.dicom_files import real
from PIL import Image
from pydicom import dcmread

from medvec_assets.scorer.planting import Planted, Subject, planter
from medvec_assets.scorer.planting.cells import KINDS, REMARK, pairs
from medvec_assets.scorer.planting.manifest_rows import planted_catalogue_row, planted_row
from medvec_assets.scorer.plants import Mint
from medvec_assets.scorer.search import Searcher

REAL_REF = "10000032"
NOTE = "Name:  ___   Unit No:   ___\n\nHistory of Present Illness:\nA pleasant ___ woman.\n\nDischarge Instructions:\nCall ___.\n"
VCF = (
    "##fileformat=VCFv4.1\n##contig=<ID=22>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tHG00096\tHG00097\n"
    "22\t16050075\trs1\tA\tG\t100\tPASS\tAC=1\tGT\t0|0\t0|1\n"
)
CSV = (
    f"subject_id,note_id,text,valuenum\n{REAL_REF},{REAL_REF}-DS-21,stable,1.5\n{REAL_REF},{REAL_REF}-DS-22,better,2\n"
)
MATRIX = '!Series_title\t"A study"\n!Series_type\t"Expression"\n"ID_REF"\t"GSM1"\n"P1"\t2.5\n'
JSON_LINES = f'{{"subject_id": {REAL_REF}, "hadm_id": 22595853}}\n{{"subject_id": {REAL_REF}, "comments": "seen"}}\n'
FASTQ = "@SRR1.1 machine:1 length=4\nACGT\n+\nIIII\n" * 3


def picture(form: str) -> bytes:
    out = BytesIO()
    Image.new("L", (16, 16), 100).save(out, form)
    return out.getvalue()


def volume() -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return bytes(head) + bytes(range(256))


def parquet() -> bytes:
    out = BytesIO()
    pq.write_table(pa.table({"person_id": [REAL_REF, REAL_REF], "note_text": ["a", "b"], "n": [1, 2]}), out)
    return out.getvalue()


FORMATS = {
    "application/dicom": (real("MR_small.dcm"), 110),
    "text/plain": (NOTE.encode(), 9),
    "text/csv": (CSV.encode(), 17),
    "text/tab-separated-values": (MATRIX.encode(), 20),
    "application/x-ndjson": (JSON_LINES.encode(), 17),
    "application/json": (json.dumps([{"patient": REAL_REF, "n": 1}]).encode(), 15),
    "application/vnd.apache.parquet": (parquet(), 18),
    "image/png": (picture("PNG"), 10),
    "image/jpeg": (picture("JPEG"), 10),
    "application/x-nifti": (volume(), 6),
    "text/x-vcf": (VCF.encode(), 6),
    "chemical/seq-na-fastq": (FASTQ.encode(), 4),
}


def planted(media_type: str, data: bytes) -> tuple[Mint, Subject, list[Planted]]:
    mint = Mint(b"planting")
    subject, plant = Subject.like(mint, REAL_REF), planter(media_type)
    assert plant is not None
    return mint, subject, list(plant(data, subject))


@pytest.mark.parametrize("media_type", FORMATS)
def test_every_token_stands_in_a_copy_and_the_first_copy_is_whole(media_type: str) -> None:
    data, places = FORMATS[media_type]
    mint, _, copies = planted(media_type, data)
    assert [copy.damaged for copy in copies] == [False, True]
    searcher = Searcher(mint.tokens)
    found = {leak.planted for copy in copies for leak in searcher.in_bytes(copy.data, "copy")}
    missing = {t.place for t in mint.tokens if t.kind not in ("date", "age")} - found
    assert missing <= {"the subject's name", "the subject's id"}
    assert len({token.place for token in mint.tokens}) >= places


@pytest.mark.parametrize("media_type", [name for name in FORMATS if name.startswith("text/")])
def test_what_is_gzipped_is_planted_within(media_type: str) -> None:
    data, _ = FORMATS[media_type]
    mint, _, copies = planted(f"{media_type}+gzip; charset=utf-8", gzip.compress(data))
    assert copies and all(copy.data[:2] == b"\x1f\x8b" for copy in copies)
    assert Searcher(mint.tokens).in_bytes(copies[0].data, "copy")


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize("data", [b"", b"\0" * 600, bytes(range(256)) * 3, b"\x1f\x8b\x08no gzip"])
def test_bytes_that_are_not_of_the_format_are_planted_nowhere_or_as_they_are(media_type: str, data: bytes) -> None:
    _, _, copies = planted(media_type, data)
    assert copies == [] or media_type == "text/plain"


def archive(content: bytes) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("T1/log.bin", b"\0\1\2")
        packed.writestr("T1/content", content)
    return out.getvalue()


@pytest.mark.parametrize("content", [VCF.encode(), FASTQ.encode(), volume(), JSON_LINES.encode(), NOTE.encode()])
def test_what_no_media_type_tells_is_told_by_its_content(content: bytes) -> None:
    for media_type, data in (
        ("application/gzip", gzip.compress(content)),
        ("application/zip", archive(content)),
        ("application/zip", archive(gzip.compress(content))),
    ):
        mint, _, copies = planted(media_type, data)
        found = {leak.planted for copy in copies for leak in Searcher(mint.tokens).in_bytes(copy.data, "copy")}
        assert {t.place for t in mint.tokens if t.kind not in ("date", "age")} - found <= {
            "the subject's name",
            "the subject's id",
        }
        assert len(copies) == 2 and (media_type != "application/zip" or "ZIP member name" in found)


def test_no_media_type_but_a_known_one_has_a_planter() -> None:
    assert planter("application/octet-stream") is None
    assert planter("text/x-genotype-calls") is None
    assert planter("Text/CSV; charset=utf-8") is not None


def test_a_dicom_copy_keeps_its_pixels_and_refers_to_the_first_of_its_subject() -> None:
    _, subject, (good, bad) = planted("application/dicom", real("MR_small.dcm"))
    original, copy, damaged = (dcmread(BytesIO(data)) for data in (real("MR_small.dcm"), good.data, bad.data))
    assert copy.PixelData == original.PixelData
    assert (copy.PatientID, copy.PatientName.family_name) == (subject.ref, subject.family)
    assert copy.StudyInstanceUID == damaged.StudyInstanceUID != original.StudyInstanceUID
    assert copy.ReferencedImageSequence[0].ReferencedSOPInstanceUID == copy.SOPInstanceUID == subject.objects[0]
    assert damaged.ReferencedImageSequence[0].ReferencedSOPInstanceUID == copy.SOPInstanceUID != damaged.SOPInstanceUID
    assert copy.SOPClassUID == original.SOPClassUID, "what the standard defines is nobody's"


def test_a_subjects_id_and_visits_are_the_same_in_all_rows_of_a_table() -> None:
    _, subject, (good, _) = planted("application/x-ndjson", JSON_LINES.encode())
    rows = [json.loads(line) for line in good.data.splitlines()]
    assert {str(row["subject_id"]) for row in rows} == {subject.ref}
    assert isinstance(rows[0]["hadm_id"], int) and str(rows[0]["hadm_id"]) == subject.aliases["22595853"]
    _, subject, (good, more) = planted("text/csv", CSV.encode())
    lines = [line.split(",") for line in good.data.decode().splitlines()]
    assert lines[0] == CSV.splitlines()[0].split(",") and {line[0] for line in lines[1:]} == {subject.ref}
    assert len(more.data.splitlines()[0].split(b",")) > len(lines[0])


EHR_LINES = (
    '{"drug":"Aspirin","starttime":"2150-01-01 10:00:00","table":"prescriptions"}\n'
    '{"drug":"Heparin","starttime":"2150-01-01 11:00:00","table":"prescriptions"}\n'
    '{"icd_code":"I10","long_title":"Hypertension","table":"diagnoses_icd"}\n'
    '{"table":"visit","visit_code":"IP","visit_name":"Inpatient Visit"}\n'
)


def test_the_copies_of_a_pair_differ_in_one_cell_and_every_column_has_its_pairs() -> None:
    mint, known = Mint(b"cells"), set[str]()
    found = list(pairs(EHR_LINES.encode(), Subject.like(mint, REAL_REF), known))
    original = [json.loads(line) for line in EHR_LINES.splitlines()]
    for pair in found:
        copies = [[json.loads(line) for line in copy.splitlines()] for copy in pair.copies]
        differing = [
            (row["table"], key) for row, *others in zip(original, *copies, strict=True) for key in row
            if any(other[key] != row[key] for other in others)
        ]  # fmt: skip
        assert differing == [tuple(pair.place.removeprefix("cell ").split("."))]
        assert copies[0] != copies[1]
        for copy in pair.copies:
            shown = {leak.planted for leak in Searcher(mint.tokens).in_bytes(copy, "copy")}
            assert pair.place in shown or pair.kind == "date"  # of which a run has a few, for all places
    typed = {"prescriptions.drug", "prescriptions.starttime", "diagnoses_icd.icd_code"}
    joined = {"diagnoses_icd.long_title", "visit.visit_code", "visit.visit_name"}
    assert known == {f"cell {one}" for one in typed | joined}
    assert {pair.place for pair in found if pair.kind == REMARK} == {f"cell {one}" for one in joined}
    assert len(found) == len(typed) * len(KINDS) + len(joined)
    assert list(pairs(EHR_LINES.encode(), Subject.like(mint, REAL_REF), known)) == []


def test_the_copies_of_pictures_and_volumes_can_be_read() -> None:
    for media_type in ("image/png", "image/jpeg"):
        _, _, (good, bad) = planted(media_type, FORMATS[media_type][0])
        assert Image.open(BytesIO(good.data)).size == (16, 16)
        with pytest.raises(OSError):
            Image.open(BytesIO(bad.data)).load()
    _, _, (good, _) = planted("application/x-nifti", volume())
    voxels = int(struct.unpack_from("<f", good.data, 108)[0])
    assert good.data[voxels:] == volume()[352:] and (voxels - 352) % 16 == 0


# ---------------------------------------------------------------- manifest rows


@pytest.fixture
def subject() -> Iterator[Subject]:
    yield Subject.like(Mint(b"rows"), REAL_REF)


ROW = {
    "object_id": "obj-1",
    "cohort": "hosp",
    "uri": f"https://physionet.org/files/x/notes.csv.gz#{REAL_REF}",
    "media_type": "text/csv",
    "access_tier": "controlled",
    "subject_ref": REAL_REF,
    "record_ref": f"{REAL_REF}-DS-21",
    "attributes": json.dumps({"etag": "abc", "case": REAL_REF}),
}


def test_a_row_that_is_not_published_is_planted_in_every_column_that_bronze_keeps_for_itself(subject: Subject) -> None:
    row = planted_row(ROW, subject, 3)
    assert row["subject_ref"] == subject.ref and row["object_id"] == "planted-3"
    assert not any(REAL_REF in str(row[name]) for name in ("uri", "record_ref", "subject_ref", "attributes"))
    assert row["uri"].startswith("https:///archive/") and ".csv.gz#" in row["uri"]
    told = json.loads(row["attributes"])
    assert told["etag"] == "abc" and told["case"] == subject.ref and {"patient_name", "ssn"} <= told.keys()
    leaks = Searcher(subject.mint.tokens).in_text(f"{row['uri']} {row['record_ref']}", "row")
    assert {"mrn", "file_name", "accession"} <= {leak.kind for leak in leaks}


def test_what_an_open_source_publishes_stays_but_for_the_subject(subject: Subject) -> None:
    row = planted_row(ROW | {"access_tier": "open"}, subject, 4)
    assert row["uri"] == f"https://physionet.org/files/x/copy-4/notes.csv.gz#{REAL_REF}"
    assert row["record_ref"] == f"{REAL_REF}-DS-21-4"
    assert row["subject_ref"] == subject.ref
    image = planted_row(ROW | {"access_tier": "open", "media_type": "application/dicom"}, subject, 5)
    assert "/archive/" in image["uri"], "folders of images are called after patients, whoever publishes them"
    catalogue = planted_catalogue_row(ROW, subject)
    assert {name for name in ROW if catalogue[name] != ROW[name]} == {"subject_ref", "attributes"}


def test_the_scorer_does_not_load_what_it_scores() -> None:
    code = (
        "import sys, medvec_assets.scorer.dicom_folder, medvec_assets.scorer.planting.tables\n"
        "print([m for m in sys.modules if m.startswith('medvec_assets.modalities.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
