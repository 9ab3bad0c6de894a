"""1000 Genomes: do near vectors share an ancestry, and what decode and encode cost beside bare library loops.

    medvec run --dataset kgp_genotypes
    OPENBLAS_NUM_THREADS=1 python -m bench.genotypes [--rounds N] [--json]

Neighbours are exact, over the vectors of the lake at MEDVEC_HOME. p@k: the share of a sample's k nearest others that have
its label, averaged; chance: that of any two samples. Sex is the negative control: no site is on a sex chromosome. The axes
were fitted on the same samples, without labels; `held_out` fits them on one half and judges the other half's vectors.

Decode, bare: pysam's lines, split, to a numpy array; against it, a file to its objects (`list`: spelling and SHA-256 of
each too) and objects to model inputs (`decode`: digests checked too). Encode, bare: stack, centre, scale, project, norm.
What is counted is the process's own CPU time, so that a busy machine does not tell on it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pysam
import safetensors.numpy
from numpy.typing import NDArray

from bench import fit_kgp_pca
from medvec_assets.catalog.kgp_genotypes import KGP_GENOTYPES as SPEC
from medvec_assets.connectors import open_connector, sample_folder, vcf_file
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.genotypes import MODALITY
from medvec_assets.modalities.genotypes.reference import GENOME, reference
from resources import encoders, tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings

SPACE = "genotype"
LABELS = ("superpopulation", "population", "sex")
MAX_BYTES = 1 << 20


def of_the_lake(settings: Settings) -> tuple[NDArray[np.float32], pl.DataFrame]:
    """Vectors [samples, dim] of the block `genome`, and their labels in the same order."""
    lake = Lakehouse.open(settings)
    gold, silver = lake.snapshot(tables.embeddings(SPEC.id, SPACE)), lake.snapshot(tables.records(SPEC.id))
    if gold is None or silver is None:
        raise SystemExit(f"there are no vectors at {settings.home}: run `medvec run --dataset {SPEC.id}` first")
    records = silver.read(["record_id", "attributes"])
    attributes = records["attributes"].str.json_decode(pl.Struct(dict.fromkeys((*LABELS, "block"), pl.String())))
    labelled = records.with_columns(attributes.struct.unnest().get_columns()).filter(pl.col("block") == GENOME)
    rows = gold.read(["record_id", "vector"]).join(labelled, on="record_id").sort("record_id")
    return np.array(rows["vector"].to_list(), np.float32), rows.select(LABELS)


def precision(vectors: NDArray[np.float32], labels: pl.DataFrame) -> dict[str, dict[str, float]]:
    """p@1, p@10 and chance by label, and by superpopulation within `superpopulation:XXX`."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    found = {}
    for name in LABELS:
        label = labels[name].to_numpy()
        same = label[nearest] == label[:, None]
        _, counts = np.unique(label, return_counts=True)
        chance = float((counts * (counts - 1)).sum() / (len(label) * (len(label) - 1)))
        found[name] = _figures(same, chance)
        if name == "superpopulation":
            for one in sorted(set(label)):
                own = label == one
                found[f"{name}:{one}"] = _figures(same[own], (own.sum() - 1) / (len(label) - 1))
    return found


def _figures(same: NDArray[np.bool_], chance: float) -> dict[str, float]:
    return {"p@1": round(same[:, 0].mean(), 3), "p@10": round(same.mean(), 3), "chance": round(float(chance), 3)}


def held_out(settings: Settings, seed: int = 20_130_502) -> dict[str, dict[str, float]]:
    """As `precision`, of one half of the samples on axes that were fitted on the other half."""
    folder = sample_folder(SPEC.id)
    _, dosages = fit_kgp_pca.panel_dosages(folder)
    panel = pl.read_csv(next(folder.glob("*.panel")), separator="\t", columns=["pop", "super_pop", "gender"])
    order = np.random.default_rng(seed).permutation(len(dosages))
    fitting, judged = np.array_split(order, 2)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "half.safetensors"
        path.write_bytes(safetensors.numpy.save(fit_kgp_pca.fitted(dosages[fitting])))
        card = {"dim": fit_kgp_pca.DIM, "input_kind": "features", "license": "-", "medical": False}
        encoders.cards.write_card(path, name="half", version=1, **card)
        encoder = encoders.load("half@1", settings.model_copy(update={"weights": {"half@1": str(path)}}))
        vectors = encoder.encode(list(dosages[judged].astype(np.float32)))
    named = panel.rename({"pop": "population", "super_pop": "superpopulation", "gender": "sex"})
    return precision(vectors, named[judged].select(LABELS))


def throughput(rounds: int) -> dict[str, dict[str, float]]:
    """Samples per CPU second of each step and of its bare loop, and their ratio: of medians, the sides alternating."""
    folder = sample_folder(SPEC.id)
    vcf = next(folder.glob("*.vcf.gz"))
    index = vcf.with_name(f"{vcf.name}.tbi")
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), sources={SPEC.id: str(folder)}, device="cpu")
        connector = open_connector(SPEC.connector, settings, SPEC.id)
        objects = pl.concat([piece.objects for piece in connector.listings(pl.DataFrame())])

        def read(uri: str) -> bytes:
            return connector.read(uri, max_bytes=MAX_BYTES)

        records, _ = MODALITY.records(objects, read, Pseudonyms(b"bench" * 8, SPEC.source))
        asked = records.with_columns(object_uris=pl.concat_list("payload_uri"))
        inputs = MODALITY.model_inputs(asked, SPACE, read)
        encoder = encoders.load(SPEC.spaces[SPACE].encoder, settings)
        arrays = safetensors.numpy.load(fit_kgp_pca.ENCODER.read_bytes())

        def bare_decode() -> Any:
            with pysam.TabixFile(str(vcf)) as lines:
                columns = [[ord(gt[0]) + ord(gt[2]) - 96 for gt in line.split("\t")[9:]] for line in lines.fetch()]
            return np.array(columns, np.float32).T

        def bare_encode() -> Any:
            projected = (np.stack(inputs) - arrays["mean"]) * arrays["scale"] @ arrays["components"].T
            return projected / np.linalg.norm(projected, axis=1, keepdims=True)

        panel, count = reference(), len(inputs)
        listing = lambda: vcf_file.read_calls(vcf, index, vcf.name, GENOME, panel)  # noqa: E731
        decode = lambda: MODALITY.model_inputs(asked, SPACE, read)  # noqa: E731
        apart = np.abs(bare_encode() - encoder.encode(inputs)).max()
        return {
            "list": _compared(bare_decode, listing, count, rounds),
            "decode": _compared(bare_decode, decode, count, rounds),
            "list and decode": _compared(bare_decode, lambda: (listing(), decode()), count, rounds),
            "encode": _compared(bare_encode, lambda: encoder.encode(inputs), count, rounds)
            | {"largest_difference": float(apart)},
        }


def _compared(bare: Callable[[], Any], ours: Callable[[], Any], count: int, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    sides = [("bare", bare), ("ours", ours)]
    for _ in range(rounds):
        sides.reverse()  # neither always runs in the other's wake
        for name, loop in sides:
            start = time.process_time()
            loop()
            seconds[name].append(time.process_time() - start)
    slow, fast = (statistics.median(seconds[name]) for name in ("bare", "ours"))
    return {
        "bare_per_second": round(count / slow),
        "ours_per_second": round(count / fast),
        "ratio": round(slow / fast, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="1000 Genomes: neighbours by label, and throughput")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = Settings()
    vectors, labels = of_the_lake(settings)
    result = {
        "samples": len(vectors),
        "precision": precision(vectors, labels),
        "held_out": held_out(settings),
        "throughput": throughput(options.rounds),
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
