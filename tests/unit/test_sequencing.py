"""Sequencing: reads out of FASTQ, sketches that follow what runs share, and the code of every bad file."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.fit_kmer_sketch import write
from medvec_assets.connectors import LISTING
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import Rejected
from medvec_assets.modalities.sequencing import MODALITY, fastq
from medvec_assets.modalities.sequencing import sketch as sketches
from medvec_assets.modalities.sequencing.fastq import read_fastq
from medvec_assets.modalities.sequencing.sketch import ADAPTERS, BINS, K, features, mixed, sketch
from resources.encoders.cards import fitted
from resources.errors import ObjectRejected

COMPLEMENT = str.maketrans("ACGT", "TGCA")
RANDOM = np.random.default_rng(7)


packed_of = partial(gzip.compress, mtime=0)  # the time would make another name of a test in each process


def genome(bases: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), bases))


def tiled(source: str, step: int = 10, length: int = 80) -> list[str]:
    """Reads that cover `source` several times, every other one from the other strand."""
    reads = [source[start : start + length] for start in range(0, len(source) - length + 1, step)]
    return [read.translate(COMPLEMENT)[::-1] if number % 2 else read for number, read in enumerate(reads)]


def text(reads: list[str], quality: str = "I") -> bytes:
    return "".join(f"@r{number}\n{read}\n+\n{quality * len(read)}\n" for number, read in enumerate(reads)).encode()


def sketched(*reads: list[str]) -> sketches.Sketch:
    return sketch([read_fastq(text(one)) for one in reads])


def cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def naive(reads: list[str]) -> dict[int, int]:
    """Canonical k-mers in plain Python, hash -> times, of those that a sketch keeps."""
    found: dict[int, int] = {}
    for read in reads:
        for start in range(len(read) - K + 1):
            kmer = read[start : start + K]
            if set(kmer) <= set("ACGT"):
                both = (kmer, kmer.translate(COMPLEMENT)[::-1])
                code = min(sum("ACGT".index(base) << 2 * (K - 1 - i) for i, base in enumerate(one)) for one in both)
                number = int(mixed(np.array([(code + 0x9E3779B97F4A7C15) % 2**64], np.uint64))[0])
                if number < 2**64 // 16:
                    found[number] = found.get(number, 0) + 1
    return found


READS = tiled(genome(3_000, 1))


# ---------------------------------------------------------------- FASTQ


def test_reads_of_every_spelling_are_the_same() -> None:
    plain = text(READS)
    half = plain.index(b"\n@", len(plain) // 2) + 1
    members = packed_of(plain[:half]) + packed_of(plain[half:])
    spellings = [
        plain,
        plain[:-1],
        plain + b"\n\n",
        plain + b"\n" * 4,
        plain.replace(b"\n", b"\r\n"),
        packed_of(plain),
        members,
        members + bytes(64),
    ]
    for data in spellings:
        reads = read_fastq(data)
        letters = np.frombuffer(b"ACGT\n", np.uint8)[reads.codes].tobytes().decode()
        assert letters.splitlines() == READS
        assert reads.lengths.tolist() == [80] * len(READS) and set(reads.qualities[reads.ends].tolist()) == {10}


def test_of_a_head_the_whole_reads_are_taken() -> None:
    packed = packed_of(text(READS))
    whole = len(READS)
    for data in (packed[: len(packed) // 2], text(READS)[: len(text(READS)) // 2]):
        assert fastq.MIN_READS < len(read_fastq(data, is_head=True).lengths) < whole
    assert len(read_fastq(packed, is_head=True).lengths) == whole
    with pytest.raises(ObjectRejected) as refusal:
        read_fastq(packed[: len(packed) // 2])
    assert refusal.value.code == "truncated_gzip"


def test_no_more_is_unpacked_than_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastq, "MAX_READS", 120)
    assert len(read_fastq(text(READS)).lengths) == 120
    monkeypatch.setattr(fastq, "MAX_TEXT_BYTES", 20_000)
    bomb = packed_of(text(READS) + b"A" * 50_000_000)
    assert len(read_fastq(bomb).codes) <= 20_000


def page(reads: list[str]) -> bytes:
    return b"<html><body>Run has been removed at the submitter's request</body></html>"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_object"),
        (packed_of(b""), "empty_object"),
        (page(READS), "message_page"),
        (packed_of(page(READS)), "message_page"),
        (b"NCBI.sra" + bytes(100), "sra_archive"),
        (b">contig\nACGT\n", "not_fastq"),
        (packed_of(text(READS))[:-1], "truncated_gzip"),
        (packed_of(text(READS)) + b"rest", "truncated_gzip"),
        (packed_of(text(READS))[:-8] + bytes(8), "truncated_gzip"),
        (text(READS)[:-50], "fastq_layout"),
        (text(READS).replace(b"+\n", b"\n", 1), "fastq_layout"),
        (text(READS).split(b"\n", 1)[0] + b"\n", "fastq_layout"),
        (text(READS) + b"@r\nACGT\n+\nIII\n", "fastq_layout"),
        (text([read.replace("A", "E") for read in READS]), "wrong_alphabet"),
        (text([read.translate(str.maketrans("ACGT", "0123")) for read in READS]), "colour_space"),
        (text(READS, quality="\x1f"), "bad_quality"),
        (text(READS[:99]), "too_few_reads"),
    ],
)
def test_a_bad_file_has_a_code(data: bytes, code: str) -> None:
    with pytest.raises(ObjectRejected) as refusal:
        read_fastq(data)
    assert refusal.value.code == code


@given(data=st.binary(max_size=300), head=st.booleans())
@settings(max_examples=200)
def test_any_bytes_are_read_or_refused(data: bytes, head: bool) -> None:
    for given_bytes in (data, b"@" + data, packed_of(b"@" + data)[: 200 + len(data)], b"\x1f\x8b" + data):
        with pytest.raises(ObjectRejected):
            read_fastq(given_bytes, is_head=head)


# ---------------------------------------------------------------- sketch


def test_a_sketch_is_what_plain_python_finds() -> None:
    reads = [*READS, "ACGTN" * 20, "acgtacgatcgatcgatgctagcatgacgatcgatca", "ACG", ""]
    times = naive([read.upper() for read in reads])
    assert sketched(reads).hashes.tolist() == sorted(number for number, count in times.items() if count > 1)


def test_shallow_reads_keep_what_stands_once() -> None:
    reads = tiled(genome(20_000, 2), step=120)
    assert sketched(reads).hashes.tolist() == sorted(naive(reads))


@given(seed=st.integers(0, 1_000))
@settings(max_examples=15, deadline=None)
def test_strand_and_order_do_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    mixed_reads = [
        READS[i] if random.random() < 0.5 else READS[i].translate(COMPLEMENT)[::-1]
        for i in random.permutation(len(READS))
    ]
    assert np.array_equal(sketched(mixed_reads).hashes, sketched(READS).hashes)


def test_two_files_are_one_run() -> None:
    assert np.array_equal(sketched(READS[::2] * 2, READS[1::2] * 2).hashes, sketched(READS * 2).hashes)


def test_cosine_follows_what_runs_share() -> None:
    """Two samples that share a part of their genomes: cosine = shared / size, within 3 deviations of 1/sqrt(BINS)."""
    for share in (0.0, 0.25, 0.5, 0.9, 1.0):
        common, size = genome(int(40_000 * share), 3), 40_000
        left, right = (common + genome(size - len(common), seed) for seed in (4, 5))
        vectors = [features(sketched(tiled(one, step=20)).hashes) for one in (left, right)]
        assert cosine(*vectors) == pytest.approx(share, abs=3 / np.sqrt(BINS))


def test_errors_of_the_machine_matter_little() -> None:
    random = np.random.default_rng(9)

    def with_errors(read: str) -> str:
        return "".join("ACGT"[random.integers(4)] if random.random() < 0.01 else base for base in read)

    clean, once, again = READS * 3, [with_errors(read) for read in READS * 3], [with_errors(read) for read in READS * 3]
    assert cosine(features(sketched(once).hashes), features(sketched(again).hashes)) > 0.9
    assert cosine(features(sketched(clean).hashes), features(sketched(once).hashes)) > 0.9


def test_an_adapter_and_what_follows_it_do_not_count() -> None:
    tail = (ADAPTERS[0] + "CACACGTCTGAACTCCAGTCACATCACGATCTCGTATGCCG")[:40]
    assert np.array_equal(sketched([read + tail for read in READS]).hashes, sketched(READS).hashes)


def test_doubtful_bases_do_not_count() -> None:
    doubted = text(READS).replace(b"+\nIIIII", b"+\nI#III")
    assert sketch([read_fastq(doubted)]).hashes.tolist() == sorted(
        n for n, c in naive([read[2:] for read in READS]).items() if c > 1
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (text(READS, quality="#"), "low_quality"),
        (text(["N" * 80] * 200), "low_quality"),
        (text([ADAPTERS[1] + read[12:] for read in READS]), "adapters_only"),
        (text(["A" * 80] * 200), "low_complexity"),
        (text([read[:20] for read in READS]), "low_complexity"),
    ],
)
def test_bad_reads_have_a_code(data: bytes, code: str) -> None:
    with pytest.raises(ObjectRejected) as refusal:
        sketch([read_fastq(data)])
    assert refusal.value.code == code


def test_features_are_the_same_on_every_machine() -> None:
    """Whole numbers, and a digest that was written down: if it moves, `input_versions` must."""
    vector = features(sketched(READS).hashes)
    assert vector.dtype == np.float32 and vector.shape == (BINS,) and np.array_equal(vector, np.round(vector))
    assert array_digest(vector) == "10d9918e00f4c30ecde79a03dd89d5181a4eea595ad946ac7288591f94f4b554"
    assert MODALITY.input_versions == {"kmer": "kmer-21-16-1024-1"}


# ---------------------------------------------------------------- the modality


def objects(contents: dict[str, bytes], **fields: str) -> pl.DataFrame:
    rows = [
        {
            "object_id": name,
            "cohort": "srp1",
            "uri": f"https://x.org/{name}.fastq.gz",
            "license": "NCBI SRA public",
            "access_tier": "open",
            "subject_ref": "SAMN1",
            "record_ref": name.partition("_")[0],
            "attributes": json.dumps({"platform": "ILLUMINA", "layout": "PAIRED", "study": "SRP1", "file": {}}),
        }
        | fields
        for name in contents
    ]
    return pl.DataFrame(rows, schema=LISTING)


def test_a_run_is_made_of_its_good_files() -> None:
    contents = {"SRR1_1": text(READS), "SRR1_2": b"", "SRR2": text(READS, quality="#")}
    by_uri = {f"https://x.org/{name}.fastq.gz": data for name, data in contents.items()}
    frame, refused = MODALITY.records(objects(contents), by_uri.__getitem__, Pseudonyms(b"k" * 32, "sra"))
    assert {one.object_id: one.code for one in refused} == {"SRR1_2": "empty_object", "SRR2": "low_quality"}
    row = frame.row(0, named=True)
    assert (row["record_id"], row["object_ids"]) == ("SRR1", ["SRR1_1"])
    assert json.loads(row["attributes"]) == {
        "platform": "ILLUMINA",
        "layout": "PAIRED",
        "read_length": 80,
        "reads_used": len(READS),
        "gc_share": pytest.approx(0.5, abs=0.03),
    }
    assert "SAMN1" not in json.dumps(row)


def test_model_inputs_are_made_again_or_refused() -> None:
    contents = {"SRR1_1": text(READS[::2] * 2), "SRR1_2": text(READS[1::2] * 2)}
    by_uri = {f"https://x.org/{name}.fastq.gz": data for name, data in contents.items()}
    frame, _ = MODALITY.records(objects(contents), by_uri.__getitem__, Pseudonyms(b"k" * 32, "sra"))
    rows = frame.with_columns(object_uris=pl.lit(list(by_uri), pl.List(pl.String)))
    (found,) = MODALITY.model_inputs(rows, "kmer", by_uri.__getitem__)
    assert isinstance(found, np.ndarray)
    assert array_digest(found) == json.loads(frame["content_digests"][0])["kmer"]
    other = dict.fromkeys(by_uri, text(tiled(genome(3_000, 8))))
    for reader, code in ((other, "payload_changed"), (dict.fromkeys(by_uri, b""), "empty_object")):
        (refused,) = MODALITY.model_inputs(rows, "kmer", reader.__getitem__)
        assert isinstance(refused, Rejected) and refused.code == code


def test_the_encoder_is_written_the_same_again(tmp_path: Path) -> None:
    shipped = Path(fitted()["kmer_sketch@1"])
    made = write(tmp_path)
    assert made.read_bytes() == shipped.read_bytes()
    card = f"{made.name}.medvec.json"
    assert (tmp_path / card).read_text() == shipped.with_name(card).read_text()
