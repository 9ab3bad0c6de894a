"""Sequencing: do runs of one genome find one another, and what do the rules cost over the bare k-mer loop?

    python -m bench.sequencing [--runs N] [--rounds N] [--json]

Purity: the share of a run's nearest neighbours (cosine of encoder kmer_sketch@1) that are of its genome, on the sample bundle
of sra_runs and on strains that differ in one base of 20, 100 or 1,000 at a coverage of 2; chance and a label that means
nothing (the library's number) beside it. All of it is synthetic.
Throughput: the modality's `records` over N runs of 20,000 reads, against a bare loop of the same numpy kernels: unpack, find
lines, 21-mers, canonical, hash, keep, distinct, features. No masks of quality or adapters, no checks, no digests, no rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medvec_assets.connectors import LISTING, open_connector, sample_folder
from medvec_assets.connectors.sra_runs import LICENSE
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.sequencing import MODALITY
from medvec_assets.modalities.sequencing.sketch import KEPT_BELOW, K, canonical_hashes, distinct, features, kmer_codes
from resources import encoders
from resources.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "datasets"))
from make_sra_runs import fastq

NEIGHBOURS = 5
STRAINS, RUNS_A_STRAIN, STRAIN_BASES = 5, 6, 200_000
LETTERS = np.full(256, 4, np.uint8)
LETTERS[np.frombuffer(b"ACGT", np.uint8)] = range(4)
PSEUDONYMS = Pseudonyms(b"k" * 32, "sra")


def listed(names: list[str]) -> pl.DataFrame:
    rows = [
        {
            "object_id": name,
            "record_ref": name,
            "uri": name,
            "subject_ref": name,
            "cohort": "bench",
            "access_tier": "open",
        }
        | {"license": LICENSE, "attributes": '{"platform":"ILLUMINA"}'}
        for name in names
    ]
    return pl.DataFrame(rows, schema=LISTING)


def vectors(objects: pl.DataFrame, read: Callable[[str], bytes]) -> tuple[list[str], NDArray[np.float32]]:
    """(record ids, unit vectors) of the runs that are good."""
    records, _ = MODALITY.records(objects, read, PSEUDONYMS)
    uris = dict(objects.select("object_id", "uri").rows())
    records = records.with_columns(object_uris=pl.Series([[uris[one] for one in ids] for ids in records["object_ids"]]))
    inputs = MODALITY.model_inputs(records, "kmer", read)
    return records["record_id"].to_list(), encoders.load("kmer_sketch@1", Settings()).encode(inputs)


def purity(found: NDArray[np.float32], labels: list[str], neighbours: int) -> float:
    """Share of each row's nearest others that have its label."""
    scores = found @ found.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :neighbours]
    of = np.array(labels)
    return round(float((of[nearest] == of[:, None]).mean()), 3)


def chance(labels: list[str]) -> float:
    """What neighbours drawn at random would have."""
    of = np.array(labels)
    same = (of[:, None] == of).sum() - len(of)
    return round(float(same / (len(of) * (len(of) - 1))), 3)


def sample_purity() -> dict[str, float]:
    """On the sample bundle, whose good runs are of three genomes in two studies."""
    with tempfile.TemporaryDirectory() as home:
        connector = open_connector("sra_runs", Settings(home=Path(home)), "sra_runs")
        objects = pl.concat([one.objects for one in connector.listings(pl.DataFrame(schema=LISTING))])
        objects = objects.filter(pl.col("license") == LICENSE)
        names, found = vectors(objects, lambda uri: connector.read(uri, max_bytes=1 << 30))
    told = {
        row["Run"]: row
        for path in sample_folder("sra_runs").rglob("*RunInfo.csv")
        for row in csv.DictReader(path.open())
    }
    genomes = [told[name]["SampleName"] for name in names]
    libraries = [told[name]["LibraryName"].rpartition(" ")[2] for name in names]
    return {
        "runs": len(names),
        "at_1": purity(found, genomes, 1),
        f"at_{NEIGHBOURS}": purity(found, genomes, NEIGHBOURS),
        "chance": chance(genomes),
        f"by_library_at_{NEIGHBOURS}": purity(found, libraries, NEIGHBOURS),
        "by_library_chance": chance(libraries),
    }


def strain_purity(divergence: float) -> dict[str, float]:
    """On strains that differ from their ancestor in a share `divergence` of bases, twice covered."""
    random = np.random.default_rng(1)
    ancestor = random.integers(0, 4, STRAIN_BASES)
    contents, labels = {}, []
    for strain in range(STRAINS):
        bases = np.where(random.random(STRAIN_BASES) < divergence, random.integers(0, 4, STRAIN_BASES), ancestor)
        for run in range(RUNS_A_STRAIN):
            name = f"SRR{strain:03}{run:03}"
            contents[name] = fastq(name, bases, 1, strain * 100 + run, 2 * STRAIN_BASES // 100)
            labels.append(str(strain))
    _, found = vectors(listed(list(contents)), contents.__getitem__)
    return {
        "at_1": purity(found, labels, 1),
        f"at_{NEIGHBOURS}": purity(found, labels, NEIGHBOURS),
        "chance": chance(labels),
    }


def bare(packed: bytes) -> NDArray[np.float32]:
    """One run's features by the same kernels without a rule; k-mers over a read's end are left out, as they must be."""
    buffer = np.frombuffer(gzip.decompress(packed), np.uint8)
    lines = np.flatnonzero(buffer == 10).reshape(-1, 4)
    starts, lengths = lines[:, 0] + 1, lines[:, 1] - lines[:, 0]
    ends = np.cumsum(lengths)
    letters = buffer[np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)]
    codes = LETTERS[letters]
    kmers, _ = kmer_codes(codes)
    over = np.zeros(len(codes) + 1, np.int32)
    np.cumsum(codes == 4, out=over[1:])
    hashes = canonical_hashes(kmers[over[K:] == over[:-K]])
    return features(distinct(hashes[hashes < KEPT_BELOW]))


def throughput(runs: int, rounds: int) -> dict[str, float]:
    """Both loops over the same files, interleaved; the ratio is of medians."""
    bases = np.random.default_rng(1).integers(0, 4, 3_000_000)
    contents = {f"SRR{n:06}": gzip.compress(fastq(f"SRR{n:06}", bases, 1, n, 20_000), 6) for n in range(runs)}
    objects = listed(list(contents))

    def modality() -> None:
        assert MODALITY.records(objects, contents.__getitem__, PSEUDONYMS)[0].height == runs

    def loop() -> None:
        for packed in contents.values():
            bare(packed)

    seconds: dict[str, list[float]] = {"bare": [], "modality": []}
    sides = [("bare", loop), ("modality", modality)]
    for number in range(rounds + 1):
        sides.reverse()  # neither always runs in the other's wake
        for name, side in sides:
            start = time.perf_counter()
            side()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    bare_seconds, modality_seconds = (statistics.median(times) for times in seconds.values())
    return {
        "runs": runs,
        "reads_each": 20_000,
        "bare_runs_per_second": round(runs / bare_seconds, 2),
        "modality_runs_per_second": round(runs / modality_seconds, 2),
        "ratio": round(bare_seconds / modality_seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="purity of k-mer sketches, and their cost over a bare loop")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {
        "sample": sample_purity(),
        **{f"strains_{share}": strain_purity(share) for share in (0.05, 0.01, 0.001)},
        "throughput": throughput(options.runs, options.rounds),
    }
    if options.json:
        print(json.dumps(results))
        return
    for name, found in results.items():
        print(f"{name}: {', '.join(f'{what} {value}' for what, value in found.items())}")


if __name__ == "__main__":
    main()
