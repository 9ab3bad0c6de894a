"""Parse, check, normalise and encode of whole STAR-counts files against a bare polars and numpy loop, in one process.

    python -m bench.expression [--files N] [--genes N] [--rounds N] [--json]

medvec's side is what the embeddings stage does: `model_inputs` of the modality, with every rule of it and the check of each
input's digest, then the encoder. The bare side reads the same two columns, looks the genes up in the first file alone, as if
all were laid out alike, and projects; it checks nothing. The files have as many genes as GDC's (60,660; 4 MB each) and are
in memory; their counts are invented.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

from bench.embedding import Loop, compare
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities.expression import MODALITY
from medvec_assets.modalities.expression.genes import LISTS, gene_lists
from medvec_assets.modalities.expression.tables import GDC_COLUMNS
from resources import encoders
from resources.encoders.cards import fitted
from resources.settings import Settings

SPACE, ENCODER = "rna_seq", "star_pca@1"
GDC_GENES = 60_660


def files(count: int, genes: int) -> list[bytes]:
    """`count` tables in GDC's layout, the list's genes among `genes`."""
    listed = pl.read_csv(LISTS / f"{SPACE}.tsv", separator="\t", comment_prefix="#")["feature"].to_list()
    others = [f"ENSG9{number:010d}" for number in range(genes - len(listed))]
    ids = [f"{gene}.{1 + number % 20}" for number, gene in enumerate(sorted(listed + others))]
    made = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        found = random.negative_binomial(1, 0.001, len(ids))
        lines = ["# gene-model: GENCODE v36", "\t".join(GDC_COLUMNS)]
        lines += [
            f"{name}\t\t\t1000\t1000\t1000\t\t\t"
            for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
        ]
        rates = found / found.sum() * 1e6
        lines += [
            f"{gene}\tNAME{i}\tprotein_coding\t{n}\t{n // 2}\t{n - n // 2}\t{r:.4f}\t{r:.4f}\t{r:.4f}"
            for i, (gene, n, r) in enumerate(zip(ids, found.tolist(), rates.tolist(), strict=True))
        ]
        made.append(("\n".join(lines) + "\n").encode())
    return made


def listed_objects(count: int) -> pl.DataFrame:
    """Manifest rows whose URI is the number of their file."""
    rows = [
        {
            "object_id": f"{n:06d}",
            "record_ref": f"{n:06d}",
            "subject_ref": f"{n:06d}",
            "uri": f"{n:06d}",
            "cohort": "bench",
            "license": "bench",
            "access_tier": "open",
            "attributes": "{}",
        }
        for n in range(count)
    ]
    return pl.DataFrame(rows)


def ours(data: list[bytes], settings: Settings) -> Loop:
    def read(uri: str) -> bytes:
        return data[int(uri)]

    frame, refused = MODALITY.records(listed_objects(len(data)), read, Pseudonyms(b"bench", "gdc"))
    if refused:
        raise SystemExit(f"a file of the benchmark is refused: {refused[0].code}")
    records = frame.with_columns(object_uris=pl.col("object_ids"))
    encoder = encoders.load(ENCODER, settings)

    def loop(numbers: list[Any]) -> NDArray[np.float32]:
        return encoder.encode(MODALITY.model_inputs(records.filter(pl.col("record_id").is_in(numbers)), SPACE, read))

    return loop


def bare(data: list[bytes]) -> Loop:
    arrays = safetensors.numpy.load(Path(fitted()[ENCODER]).read_bytes())
    genes = gene_lists()[SPACE].index.filter(pl.col("name").str.starts_with("ENSG")).rename({"name": "gene_id"})

    first = read_counts(data[0]).with_columns(pl.col("gene_id").str.replace(r"\.\d+", "")).with_row_index("row")
    places = genes.join(first, on="gene_id", how="left", maintain_order="left")["row"].to_numpy()

    def loop(numbers: list[Any]) -> NDArray[np.float32]:
        rows = []
        for number in numbers:
            counts = read_counts(data[int(number)])["unstranded"].to_numpy()
            rows.append(np.log2(counts[places] / counts.sum() * 1e6 + 1))
        vectors = (np.stack(rows) - arrays["mean"]) @ arrays["components"].T
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return loop


def read_counts(data: bytes) -> pl.DataFrame:
    columns = ["gene_id", "unstranded"]
    return pl.read_csv(data, separator="\t", comment_prefix="#", columns=columns, quote_char=None).slice(4)


def main() -> None:
    parser = argparse.ArgumentParser(description="expression against a bare polars and numpy loop")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--genes", type=int, default=GDC_GENES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = files(options.files, options.genes)
    numbers = [f"{number:06d}" for number in range(len(data))]  # sorted as text, they keep their order
    found = compare(bare(data), ours(data, Settings(device="cpu")), numbers, options.rounds)
    if options.json:
        print(json.dumps({"genes": options.genes, **found}))
        return
    print(
        f"expression: medvec {found['encoder_per_second']} files/s, bare {found['bare_per_second']} files/s, "
        f"ratio {found['ratio']}, vectors within {found['largest_difference']:.1e}"
    )


if __name__ == "__main__":
    main()
