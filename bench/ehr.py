"""EHR tables: records and inputs against a bare polars loop, neighbours of the planted kinds, memory of sorting a table.

    python -m bench.ehr [--stays N] [--rows N] [--rounds N] [--tables-rows N ...] [--json]

Both sides of the ratio get the same bytes: `stays` parts of `rows` rows. The bare loop parses them, spells their codes and
hashes their counts, and makes neither records nor checks, text or digests. The product's side is `records`, then
`model_inputs` of these records; each and both together are timed against one bare pass. Sides alternate, the ratio is of
medians. Memory is the peak of a process of its own that lists a release whose labevents has so
many rows. Neighbours are those of the samples (tests/datasets/make_*.py), exact, by cosine.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.connectors import open_connector
from medvec_assets.connectors.mimic_tables import TABLES
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.ehr import MODALITY, mimic
from medvec_assets.modalities.ehr.bag import FEATURES
from resources.settings import Settings

PIECE = 512
STAYS = 200_000  # of the release whose tables are sorted
COLUMNS = sorted({column for columns in mimic.RULES.tables.values() for column in columns})
SAMPLES = {"mimic_stays": ("mimic_tables", 20_000_000, 101), "aou_persons": ("omop", 1_000_000, 13)}
KEY = "11" * 32


def parts(stays: int, rows: int) -> list[bytes]:
    """Stays as mimic_tables writes them: five laboratory results in six rows, as in MIMIC-IV; the rest drugs and codes."""
    chance, found = random.Random(3), []
    for _ in range(stays):
        lines: list[dict[str, str]] = [
            {
                "table": "admissions",
                "admittime": "2150-03-01 10:00:00",
                "dischtime": "2150-03-04 09:00:00",
                "admission_type": "URGENT",
            },
            {"table": "patients", "gender": "F", "anchor_age": "60", "anchor_year": "2148"},
        ]
        for number in range(rows - 2):
            when = f"2150-03-0{number % 3 + 1} {number % 24:02}:00:00"
            if number % 12 == 0:
                code = f"{chance.choice('EIJKN')}{chance.randrange(10, 99)}{chance.randrange(10)}"
                lines.append(
                    {
                        "table": "diagnoses_icd",
                        "seq_num": str(number),
                        "icd_code": code,
                        "icd_version": "10",
                        "long_title": f"Title of {code}",
                    }
                )
            elif number % 12 == 6:
                lines.append(
                    {
                        "table": "prescriptions",
                        "drug": f"Drug {chance.randrange(800)}",
                        "route": "PO",
                        "starttime": when,
                    }
                )
            else:
                value = str(round(chance.uniform(1, 200), 1))
                lines.append(
                    {"table": "labevents", "itemid": str(50_800 + chance.randrange(300)), "charttime": when, "valuenum": value,
                     "valueuom": "mg/dL", "ref_range_lower": "70", "ref_range_upper": "105"}
                )  # fmt: skip
        found.append(
            "".join(sorted(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)).encode()
        )
    return found


def bare(found: list[bytes]) -> NDArray[np.float32]:
    """Lines to features in plain polars and numpy, PIECE parts at a time."""
    made = []
    for start in range(0, len(found), PIECE):
        piece = found[start : start + PIECE]
        rows = pl.read_ndjson(b"".join(piece), schema=dict.fromkeys(("table", *COLUMNS), pl.String()))
        rows = rows.with_columns(
            part=pl.Series(np.repeat(np.arange(len(piece), dtype=np.uint32), [one.count(b"\n") for one in piece]))
        )
        value, low, high = (
            pl.col(name).cast(pl.Float64) for name in ("valuenum", "ref_range_lower", "ref_range_upper")
        )
        side = (
            pl.when(value < low).then(pl.lit("low")).when(value > high).then(pl.lit("high")).otherwise(pl.lit("normal"))
        )
        code = (
            pl.when(pl.col("table") == "labevents").then(pl.format("LAB//{}//{}//{}", "itemid", "valueuom", side))
            .when(pl.col("table") == "prescriptions").then(pl.format("DRUG//{}//{}", pl.col("drug").str.to_lowercase(), "route"))
            .when(pl.col("table") == "diagnoses_icd").then(pl.format("ICD10CM//{}", "icd_code"))
            .when(pl.col("table") == "admissions").then(pl.format("ADMISSION//{}", "admission_type"))
        )  # fmt: skip
        counts = rows.select("part", code=code).drop_nulls().group_by("part", "code").len()
        codes = counts["code"].unique()
        places = [int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "big") for one in codes]
        table = pl.DataFrame(
            {
                "code": codes,
                "place": [one % FEATURES for one in places],
                "sign": [1.0 if one >> 63 else -1.0 for one in places],
            }
        )
        placed = counts.join(table, on="code")
        features = np.zeros((len(piece), FEATURES), np.float64)
        np.add.at(
            features,
            (placed["part"].to_numpy(), placed["place"].to_numpy()),
            placed["sign"].to_numpy() * np.log1p(placed["len"].to_numpy()),
        )
        made.append(features.astype(np.float32))
    return np.concatenate(made)


def throughput(stays: int, rows: int, rounds: int) -> dict[str, float]:
    found = parts(stays, rows)
    objects = pl.DataFrame(
        {
            "object_id": [f"o{i}" for i in range(stays)],
            "uri": [str(i) for i in range(stays)],
            "subject_ref": [str(i) for i in range(stays)],
        }
    )
    objects = objects.with_columns(cohort=pl.lit("hosp"), license=pl.lit("L"), access_tier=pl.lit("registered"))
    pseudonyms = Pseudonyms(b"k" * 32, "mimic")

    def read(uri: str) -> bytes:
        return found[int(uri)]

    made = MODALITY.records(objects, read, pseudonyms)[0].with_columns(object_uris=pl.concat_list(objects["uri"]))
    sides: list[tuple[str, Callable[[], Any]]] = [
        ("bare", lambda: bare(found)),
        ("records", lambda: MODALITY.records(objects, read, pseudonyms)),
        ("inputs", lambda: MODALITY.model_inputs(made, "codes", read)),
    ]
    seconds: dict[str, list[float]] = {name: [] for name, _ in sides}
    for _ in range(rounds):
        sides.reverse()  # none always runs in another's wake
        for name, side in sides:
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "stays": stays,
        "rows_a_stay": rows,
        **{f"{name}_rows_per_second": round(stays * rows / taken) for name, taken in median.items()},
        "records_ratio": round(median["bare"] / median["records"], 3),
        "inputs_ratio": round(median["bare"] / median["inputs"], 3),
        "together_ratio": round(median["bare"] / (median["records"] + median["inputs"]), 3),
    }


def neighbours(dataset: str) -> dict[str, float]:
    """p@1 and p@5 of the planted kind, and of sex, on which nothing depends; a kind is a quarter of the sample."""
    name, first, step = SAMPLES[dataset]
    with tempfile.TemporaryDirectory() as home:
        connector = open_connector(name, Settings(home=Path(home), pseudonym_key=KEY), dataset)
        objects = pl.concat([listing.objects for listing in connector.listings(pl.DataFrame())])

        def read(uri: str) -> bytes:
            return connector.read(uri, max_bytes=1 << 30)

        records, _ = MODALITY.records(objects, read, Pseudonyms(b"k" * 32, dataset))
        rows = records.join(objects.select("object_id", "uri"), left_on="record_id", right_on="object_id")
        inputs = MODALITY.model_inputs(rows.with_columns(object_uris=pl.concat_list("uri")), "codes", read)
    vectors = np.stack([one for one in inputs if isinstance(one, np.ndarray)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-(vectors @ vectors.T - 2 * np.eye(len(vectors))), axis=1)
    kind = (rows["uri"].str.extract(r"(\d+)$").cast(pl.Int64).to_numpy() - first) // step % 4
    sex = np.array([json.loads(one)["sex"] for one in rows["attributes"]])
    labels = {"kind": kind, "sex": sex}
    return {
        f"{label}_p@{k}": round(float((values[order[:, :k]] == values[:, None]).mean()), 3)
        for label, values in labels.items()
        for k in (1, 5)
    }


def release(folder: Path, rows: int) -> None:
    """The sample's release with STAYS further admissions and a labevents of `rows` rows of them."""
    source = (
        Path(__file__).parents[1]
        / "tests"
        / "datasets"
        / "mimic_stays"
        / "in"
        / "physionet.org"
        / "files"
        / "mimiciv"
        / "3.1"
    )
    header = TABLES["labevents"].documented.replace(" ", ",")
    for path in source.rglob("*.*"):
        (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(source)).write_bytes(path.read_bytes())
    with gzip.open(folder / "hosp" / "labevents.csv.gz", "wb", compresslevel=1) as file:
        file.write(header.encode() + b"\n")
        for start in range(0, rows, 100_000):
            numbers = pl.int_range(start, min(rows, start + 100_000), eager=True).alias("n")
            lines = numbers.to_frame().select(
                pl.format(
                    "{},{},{},{},{},,2150-01-01 10:{}:00,2150-01-01 11:00:00,{},{},mg/dL,0.5,1.2,,STAT,",
                    "n", 10_000_000 + pl.col("n") % (STAYS // 2), 30_000_000 + pl.col("n") % STAYS, "n",
                    50_800 + pl.col("n") % 300, 10 + pl.col("n") % 50, pl.col("n") % 97 / 10, pl.col("n") % 97 / 10,
                )
            )  # fmt: skip
            file.write("\n".join(lines.to_series()).encode() + b"\n")
    sample = gzip.decompress((folder / "hosp" / "admissions.csv.gz").read_bytes())
    with gzip.open(folder / "hosp" / "admissions.csv.gz", "wb", compresslevel=1) as file:
        file.write(sample)
        for n in range(STAYS):
            stay = f"{10_000_000 + n % (STAYS // 2)},{30_000_000 + n},2150-01-01 10:00:00,2150-01-03 10:00:00,,URGENT"
            file.write(f"{stay},,,,,,,,,,0\n".encode())
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(folder).as_posix()}"
        for p in sorted(folder.rglob("*.*"))
        if p.name != "SHA256SUMS.txt"
    ]
    (folder / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")


def memory(rows: int) -> dict[str, float]:
    """Peak megabytes and seconds of a process that lists the release for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "mimiciv" / "3.1"
        release(place, rows)
        command = [sys.executable, "-m", "bench.ehr", "--list", str(place), str(Path(folder) / "home")]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"labevents_rows": rows, **found}


def listed(source: str, home: str) -> dict[str, float]:
    """Lists a release; the process's peak before it is what importing takes."""
    before, start = peak_mb(), time.perf_counter()
    settings = Settings(home=Path(home), sources={"mimic_stays": source}, pseudonym_key=KEY)
    for _ in open_connector("mimic_tables", settings, "mimic_stays").listings(pl.DataFrame()):
        pass
    return {"seconds": round(time.perf_counter() - start, 1), "imports_mb": before, "peak_mb": peak_mb()}


def peak_mb() -> int:
    """Of this process alone: what getrusage says begins with the peak of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description="EHR tables against a bare polars loop")
    parser.add_argument("--stays", type=int, default=2_048)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tables-rows", type=int, nargs="*", default=[2_000_000, 8_000_000])
    parser.add_argument("--list", nargs=2, metavar=("RELEASE", "HOME"), help="used by this benchmark itself")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.list:
        print(json.dumps(listed(*options.list)))
        return
    results = {
        "throughput": throughput(options.stays, options.rows, options.rounds),
        "neighbours": {dataset: neighbours(dataset) for dataset in SAMPLES},
        "memory": [memory(rows) for rows in options.tables_rows],
    }
    if options.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        print(f"{name}: {json.dumps(found)}")


if __name__ == "__main__":
    main()
