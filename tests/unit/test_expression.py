"""The expression modality: tables and what is refused of them, scales, gene lists, the shipped projections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fit_golub_pca, fit_star_pca, pca
from medvec_assets.connectors import open_connector
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import Rejected
from medvec_assets.modalities.expression import MODALITY, expression_input, tables
from medvec_assets.modalities.expression.genes import MIN_OVERLAP, gene_lists
from medvec_assets.modalities.expression.normalise import GRID, is_logarithmic, on_grid, scaled
from medvec_assets.modalities.expression.tables import GDC_COLUMNS, read_table
from resources import encoders
from resources.encoders.cards import fitted
from resources.encoders.projection import Projection
from resources.errors import ObjectRejected
from resources.settings import Settings

LIST = gene_lists()["rna_seq"]
IDS = LIST.index.filter(pl.col("name").str.starts_with("ENSG")).sort("position")["name"].to_list()
PROBES = gene_lists()["expression"].index.sort("position")["name"].to_list()
COUNTS = np.random.default_rng(1).negative_binomial(2, 0.01, len(IDS))
PSEUDONYMS = Pseudonyms(b"\x11" * 32, "gdc")


def gdc_rows(ids: list[str] = IDS, counts: Any = COUNTS) -> list[str]:
    return [
        f"{gene}.7\tN{i}\tprotein_coding\t{n}\t0\t{n}\t{n / 2:.4f}\t1.0\t1.0"
        for i, (gene, n) in enumerate(zip(ids, counts, strict=False))  # fewer genes, fewer rows
    ]


def gdc_table(rows: list[str]) -> bytes:
    own = [f"{name}\t\t\t9\t9\t9\t\t\t" for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")]
    return ("\n".join(["# gene-model: GENCODE v36", "\t".join(GDC_COLUMNS), *own, *rows]) + "\n").encode()


def sample(values: dict[str, Any], **head: str) -> bytes:
    lines = [*(f"#{key}: {value}" for key, value in head.items()), "feature_id\tvalue"]
    return ("\n".join([*lines, *(f"{name}\t{value}" for name, value in values.items())]) + "\n").encode()


def code_of(data: bytes, space: str = "rna_seq") -> str:
    with pytest.raises(ObjectRejected) as refusal:
        expression_input(data, space)
    assert refusal.value.remedy
    return refusal.value.code


GOOD = gdc_table(gdc_rows())
FIRST = gdc_rows()[0].split("\t")
INTENSITIES = {probe: 20 + 7 * number for number, probe in enumerate(PROBES)}


# ---------------------------------------------------------------- tables


def changed(**fields: str) -> bytes:
    row = [fields.get(name, value) for name, value in zip(GDC_COLUMNS, FIRST, strict=True)]
    return gdc_table(["\t".join(row), *gdc_rows()[1:]])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_object"),
        (b" \n\n", "empty_object"),
        (GOOD.decode().encode("utf-16"), "wrong_encoding"),
        (GOOD.decode().encode("utf-16-le"), "wrong_encoding"),
        (GOOD.replace(b"GENCODE v36", "modèle".encode("latin-1")), "wrong_encoding"),
        (b"\n<html><body>Please log in</body></html>\n", "html_page"),
        (b"\x1f\x8b\x08\x00", "compressed_table"),
        (b"a\tb\n1\t2\n", "unknown_layout"),
        (b"# only a comment", "unknown_layout"),
        (GOOD.replace(b"unstranded\tstr", b"counts\tstr"), "unknown_layout"),
        (GOOD[:-1], "truncated_table"),
        (GOOD[: len(GOOD) // 2], "truncated_table"),
        (gdc_table([row.partition("\t")[2] for row in gdc_rows()]), "shifted_columns"),
        (gdc_table([*gdc_rows()[:-1], gdc_rows()[-1] + "\t"]), "shifted_columns"),
        (gdc_table(["\t".join([b, a, *rest]) for a, b, *rest in map(str.split, gdc_rows())]), "shifted_columns"),
        (gdc_table([]), "shifted_columns"),
        (changed(unstranded="-1"), "negative_counts"),
        (changed(unstranded="many"), "not_a_number"),
        (changed(unstranded="1.5"), "not_a_number"),
        (changed(unstranded=""), "not_a_number"),
        (gdc_table([*gdc_rows(), gdc_rows()[0]]), "duplicate_genes"),
        (gdc_table([*gdc_rows(), gdc_rows()[0].replace(".7\t", ".8\t")]), "duplicate_genes"),
        (gdc_table(gdc_rows(counts=[0] * len(IDS))), "all_zero"),
        (gdc_table(gdc_rows(ids=[f"ENSMUSG{i:011d}" for i in range(len(IDS))])), "gene_set_mismatch"),
        (gdc_table(gdc_rows()[: int(len(IDS) * (MIN_OVERLAP - 0.05))]), "gene_set_mismatch"),
        (sample(INTENSITIES), "gene_set_mismatch"),
    ],
)  # fmt: skip
def test_a_bad_counts_table_is_refused_by_its_rule(data: bytes, code: str) -> None:
    assert code_of(data) == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sample(INTENSITIES | {PROBES[0]: "1,5"}), "not_a_number"),
        (sample(INTENSITIES | {PROBES[0]: "inf"}), "not_a_number"),
        (sample(INTENSITIES | {PROBES[0]: "5\t6"}), "shifted_columns"),
        (sample({"": 5} | INTENSITIES), "shifted_columns"),
        (sample(INTENSITIES) + f"{PROBES[0]}\t5\n".encode(), "duplicate_genes"),
        (sample(dict.fromkeys(PROBES, 0)), "all_zero"),
        (sample(dict.fromkeys(PROBES, 20)), "constant_values"),
        (sample(dict.fromkeys(PROBES, "null")), "nothing_measured"),
        (sample(INTENSITIES | dict.fromkeys(PROBES[:600], "NA")), "gene_set_mismatch"),
        (sample({f"{n}_at": n for n in range(5_000)}), "gene_set_mismatch"),
        (sample(INTENSITIES, value_type="beta"), "unknown_layout"),
        (sample(INTENSITIES | {PROBES[0]: -5}, value_type="tpm"), "negative_counts"),
        (GOOD, "gene_set_mismatch"),
    ],
)
def test_a_bad_sample_is_refused_by_its_rule(data: bytes, code: str) -> None:
    assert code_of(data, "expression") == code


def test_a_table_that_is_far_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", len(GOOD) - 1)
    assert code_of(GOOD) == "table_too_large"


def test_no_refusal_quotes_the_table() -> None:
    with pytest.raises(ObjectRejected) as refusal:
        expression_input(changed(unstranded="JANE DOE"), "rna_seq")
    assert "JANE" not in str(refusal.value) and refusal.value.__cause__ is None


def test_the_rows_that_are_no_genes_and_the_copies_on_y_are_left_apart() -> None:
    copy = gdc_rows()[0].replace(".7\t", ".7_PAR_Y\t", 1)
    table = read_table(gdc_table([*gdc_rows(), copy]))
    assert table.features.len() == len(IDS) + 1 and not table.features.str.starts_with("N_").any()
    assert set(table.values) == {"counts", "tpm"}
    with_copy = expression_input(gdc_table([*gdc_rows(), copy.replace(f"\t{COUNTS[0]}\t", "\t0\t", 1)]), "rna_seq")
    assert np.array_equal(with_copy, expression_input(GOOD, "rna_seq"))


def test_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    plain = expression_input(sample(INTENSITIES, platform="GPL80"), "expression")
    windows = sample(INTENSITIES, platform="GPL80").replace(b"\n", b"\r\n")
    assert np.array_equal(expression_input(windows, "expression"), plain)
    assert np.array_equal(expression_input(b"\xef\xbb\xbf" + sample(INTENSITIES), "expression"), plain)


# ---------------------------------------------------------------- scales and gene lists


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(len(IDS))), st.integers(2, 9))
def test_the_input_depends_neither_on_the_order_nor_on_the_depth(order: list[int], times: int) -> None:
    moved = gdc_rows([IDS[i] for i in order], [COUNTS[i] * times for i in order])
    assert np.array_equal(expression_input(gdc_table(moved), "rna_seq"), expression_input(GOOD, "rna_seq"))


def test_counts_become_log2_of_counts_per_million_on_the_grid() -> None:
    found = expression_input(GOOD, "rna_seq")
    assert found.dtype == np.float32 and found.shape == (LIST.features,)
    wanted = np.log2(COUNTS / COUNTS.sum() * 1e6 + 1)
    assert np.abs(found - wanted).max() <= 0.5 / GRID + 1e-6
    assert np.array_equal(found * GRID, np.rint(found * GRID))


def test_symbols_and_versions_name_the_same_genes() -> None:
    symbols = dict(LIST.index.filter(~pl.col("name").str.starts_with("ENSG")).select("position", "name").iter_rows())
    named = {symbols[i]: n for i, n in enumerate(COUNTS)}
    versioned = {f"{gene}.12": n for gene, n in zip(IDS, COUNTS, strict=True)}
    wanted = expression_input(GOOD, "rna_seq")
    for values in (named, versioned):
        assert np.array_equal(expression_input(sample(values, value_type="counts"), "rna_seq"), wanted)
    twice = versioned | {symbols[0]: 5}
    assert code_of(sample(twice, value_type="counts")) == "duplicate_genes"


def test_what_was_not_measured_is_typical() -> None:
    genes = gene_lists()["expression"]
    found = expression_input(sample(INTENSITIES | {PROBES[3]: "", PROBES[4]: "NA"}), "expression")
    assert np.array_equal(found[3:5], genes.typical[3:5])
    assert found[5] == on_grid(np.log2(np.array([INTENSITIES[PROBES[5]]])))[0]


def test_logarithms_are_not_taken_twice_and_nothing_is_below_the_floor() -> None:
    linear = np.array([-50.0, 5.0, 20.0, 400.0, 60_000.0, np.nan])
    assert not is_logarithmic(linear)
    found = scaled(linear, linear, "log2_intensity", 20.0)
    assert np.allclose(found[:5], np.log2([20, 20, 20, 400, 60_000])) and np.isnan(found[5])
    assert is_logarithmic(found)
    assert np.allclose(scaled(found, found, "log2_intensity", 20.0)[:5], found[:5])
    assert np.allclose(scaled(np.array([0.0, 3.0]), linear, "log2_tpm", 0.0), [0, 2])


# ---------------------------------------------------------------- records


def objects(**rows: bytes) -> tuple[pl.DataFrame, Any]:
    frame = pl.DataFrame(
        [
            {
                "object_id": name,
                "record_ref": name.partition("_")[0],
                "subject_ref": "case",
                "uri": f"https://host/{name}",
                "cohort": "c",
                "license": "l",
                "access_tier": "open",
                "attributes": json.dumps(
                    {"sample_type": "Primary Tumor", "etag": "1", "class": "seen 01:02 by a@b.org"}
                ),
            }
            for name in rows
        ]
    )
    return frame, lambda uri: rows[uri.rpartition("/")[2]]


def test_an_aliquots_second_file_is_skipped_and_stands_in_where_the_first_is_bad() -> None:
    frame, read = objects(a_1=GOOD, a_2=GOOD, b_1=GOOD[:-1], b_2=GOOD)
    records, rejected = MODALITY.records(frame, read, PSEUDONYMS)
    assert records["object_ids"].to_list() == [["a_1"], ["b_2"]]
    assert [(one.object_id, one.code, one.disposition) for one in rejected] == [
        ("a_2", "second_object", "skipped"),
        ("b_1", "truncated_table", "quarantined"),
    ]
    assert json.loads(records["attributes"][0]) == {"sample_type": "Primary Tumor"}
    assert json.loads(records["content_digests"][0]).keys() == {"rna_seq"}
    assert records["payload_uri"][0] == "https://host/a_1"


def test_the_input_is_made_again_from_its_object_or_refused() -> None:
    frame, read = objects(a=GOOD, b=sample(INTENSITIES, platform="GPL80", tissue="bone marrow"))
    records, rejected = MODALITY.records(frame, read, PSEUDONYMS)
    assert not rejected and records["modality"].to_list() == ["RNA-Seq", "microarray"]
    assert json.loads(records["attributes"][1])["tissue"] == "bone marrow"
    jobs = records.head(1).with_columns(object_uris=pl.lit(pl.Series([["https://host/a"]])).first())
    (found,) = MODALITY.model_inputs(jobs, "rna_seq", read)
    assert np.array_equal(found, expression_input(GOOD, "rna_seq"))
    (other,) = MODALITY.model_inputs(jobs, "rna_seq", lambda uri: changed(unstranded="999999"))
    assert isinstance(other, Rejected) and other.code == "payload_changed"
    (broken,) = MODALITY.model_inputs(jobs, "rna_seq", lambda uri: GOOD[:-1])
    assert isinstance(broken, Rejected) and broken.code == "truncated_table"


def test_a_source_that_is_not_open_gives_pseudonyms() -> None:
    frame, read = objects(a=GOOD)
    records, _ = MODALITY.records(frame.with_columns(access_tier=pl.lit("controlled")), read, PSEUDONYMS)
    assert records["record_id"][0] == PSEUDONYMS.of("sample", "a")
    assert records["payload_uri"][0] == "object:a"


# ---------------------------------------------------------------- what is shipped


def shipped(ref: str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(Path(fitted()[ref]).read_bytes())


def assert_same_map(found: dict[str, np.ndarray], ref: str) -> None:
    for name, array in shipped(ref).items():
        assert np.allclose(found[name], array, atol=1e-4), name


def test_golub_pca_is_what_a_refit_gives() -> None:
    probes, values = fit_golub_pca.matrix()
    inputs = fit_golub_pca.model_inputs(values)
    assert probes == PROBES
    assert_same_map(pca.fit(inputs, fit_golub_pca.DIM), "golub_pca@1")
    table = pca.gene_table(probes, [""] * len(probes), inputs)
    assert np.allclose(table["typical"].to_numpy(), gene_lists()["expression"].typical)


def test_star_pca_is_what_a_refit_gives(tmp_path: Path) -> None:
    found = Settings(home=tmp_path, sources={"gdc_rna_seq": str(fit_star_pca.SAMPLE)})
    read = fit_star_pca.tables(open_connector("gdc", found, "gdc_rna_seq"))
    chosen, inputs = fit_star_pca.model_inputs(read)
    assert read[0].features.gather(chosen).str.replace(r"\.[0-9]+", "").to_list() == IDS
    assert_same_map(pca.fit(inputs, fit_star_pca.DIM), "star_pca@1")


def test_neighbours_of_leukaemias_are_of_their_class(tmp_path: Path) -> None:
    """Leave one out, over the real samples: .95 at the first neighbour, where chance is .36."""
    probes, values = fit_golub_pca.matrix()
    lines = fit_golub_pca.lines()
    (told,) = [line for line in lines if line.startswith("!Sample_characteristics_ch1")]
    classes = np.array(told.split("\t")[1:])
    inputs = [expression_input(sample(dict(zip(probes, row, strict=True))), "expression") for row in values]
    card = encoders.card("golub_pca@1", Settings(home=tmp_path))
    vectors = Projection(card, Path(fitted()[card.ref]).read_bytes()).encode(inputs)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    assert (classes[likeness.argmax(axis=1)] == classes).mean() > 0.9


def test_every_list_has_an_input_version_and_a_projection_of_its_size(tmp_path: Path) -> None:
    assert set(gene_lists()) == set(MODALITY.input_versions)
    for space, ref in {"expression": "golub_pca@1", "rna_seq": "star_pca@1"}.items():
        assert shipped(ref)["mean"].shape == (gene_lists()[space].features,)
