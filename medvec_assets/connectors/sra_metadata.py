"""What NCBI tells of sequencing runs: RunInfo tables and SRA's XML. A helper of sra_runs, not a connector itself.

Belongs here: the two layouts and what is taken of them. Does not belong here: where they come from and the reads
(sra_runs, eutils).

A RunInfo table is what `efetch -db sra -format runinfo` and the web page's "Send to: File: RunInfo" give. Asked for by the
history server it comes without its header, so the header's columns stand here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medvec_assets.connectors import Rejection
from medvec_assets.connectors.eutils import parsed
from resources.errors import SourceError

RUN = re.compile(r"[SED]RR[0-9]{6,}")
PUBLIC = "public"  # the one consent under which reads are open; any other is a dbGaP consent group
HEADER = (
    "Run,ReleaseDate,LoadDate,spots,bases,spots_with_mates,avgLength,size_MB,AssemblyName,download_path,Experiment,"
    "LibraryName,LibraryStrategy,LibrarySelection,LibrarySource,LibraryLayout,InsertSize,InsertDev,Platform,Model,SRAStudy,"
    "BioProject,Study_Pubmed_id,ProjectID,Sample,BioSample,SampleType,TaxID,ScientificName,SampleName,g1k_pop_code,source,"
    "g1k_analysis_group,Subject_ID,Sex,Disease,Tumor,Affection_Status,Analyte_Type,Histological_Type,Body_Site,CenterName,"
    "Submission,dbgap_study_accession,Consent,RunHash,ReadHash"
)
_NEEDED = ("Run", "LibraryLayout", "Platform", "SRAStudy", "Sample", "BioSample", "Consent", "RunHash", "ReadHash")
_ACCESSION = re.compile(r"[A-Z]{3,6}[0-9]+")


@dataclass(frozen=True)
class Run:
    """One row of a RunInfo table."""

    accession: str
    study: str
    biosample: str
    consent: str
    platform: str
    layout: str
    hashes: str
    """RunHash and ReadHash, which NCBI makes of a run's data: they move when the data do."""
    megabytes: int

    @property
    def is_public(self) -> bool:
        """A run without a word on consent is not public: deny is the default."""
        return self.consent == PUBLIC


@dataclass(frozen=True)
class SraFile:
    """One file of a run, as SRA's XML lists it; `url` is one that anybody may read."""

    name: str
    url: str
    size_bytes: int
    md5: str


def runs(table: str) -> Iterator[Run | Rejection]:
    """The runs of a RunInfo table, with or without its header. Raises SourceError `schema_drift` if the header lacks a
    column that is needed; a row that does not fit the header is a rejection."""
    columns = HEADER.split(",")
    for number, cells in enumerate(csv.reader(io.StringIO(table, newline=""))):
        if not any(cells):
            continue
        if cells[0].removeprefix("\ufeff") == "Run":
            columns = [cells[0].removeprefix("\ufeff"), *cells[1:]]
            _check(columns)
        else:
            yield _run(cells, columns, number)


def _check(columns: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise SourceError(
            f"a RunInfo table lacks the columns {', '.join(missing)}",
            remedy="export it again from SRA's web page or with efetch, or teach connectors/sra_metadata.py the new layout",
            code="schema_drift",
        )


def _run(cells: list[str], columns: list[str], number: int) -> Run | Rejection:
    named = RUN.fullmatch(cells[0]) is not None
    object_id = cells[0] if named else f"runinfo-row-{number}"
    if len(cells) != len(columns):
        remedy = "the row has more or fewer fields than the header: export the table again"
        return Rejection(object_id, "runinfo_shifted", remedy)
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    subject = row["BioSample"] or row["Sample"]
    if not named or not _ACCESSION.fullmatch(row["SRAStudy"]) or not _ACCESSION.fullmatch(subject):
        remedy = "run, study and sample must be accessions: export the table again, or ask NCBI"
        return Rejection(object_id, "bad_accession", remedy)
    return Run(
        accession=row["Run"],
        study=row["SRAStudy"],
        biosample=subject,
        consent=row["Consent"] or "unknown",
        platform=row["Platform"],
        layout=row["LibraryLayout"],
        hashes=f"{row['RunHash']}-{row['ReadHash']}",
        megabytes=int(row["size_MB"]) if row.get("size_MB", "").isdecimal() else 0,
    )


def files(page: str) -> Mapping[str, list[SraFile]]:
    """run -> its files that anybody may read, of an EXPERIMENT_PACKAGE_SET; runs that are not public are left out."""
    found: dict[str, list[SraFile]] = {}
    for run in parsed(page).iter("RUN"):
        accession = run.get("accession", "")
        if RUN.fullmatch(accession) and run.get("is_public", "true") == "true":
            found[accession] = []
            for file in run.iterfind("SRAFiles/SRAFile"):
                for place in file.iterfind("Alternatives"):
                    url = place.get("url", "")
                    if place.get("access_type") == "anonymous" and url.startswith(("https://", "http://", "s3://")):
                        size, md5 = file.get("size", ""), file.get("md5", "").lower()
                        name = file.get("filename", "")
                        found[accession].append(SraFile(name, url, int(size) if size.isdecimal() else 0, md5))
                        break
    return found
