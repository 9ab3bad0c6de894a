"""Genotypes: the spelling of a sample's calls, dosages by the name of the counted allele, what is imputed and refused, and
that the projection shipped is the one that its script fits."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from bench import fit_kgp_pca
from bench.genotypes import precision
from medvec_assets.connectors import sample_folder
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.fingerprints import array_digest
from medvec_assets.modalities import RECORD_FRAME, Rejected, modality
from medvec_assets.modalities.genotypes.calls import SiteRecord, decode, spelled_call, spelled_calls, spelled_head
from medvec_assets.modalities.genotypes.reference import GENOME, reference
from resources.encoders.cards import read_card
from resources.encoders.projection import Projection
from resources.errors import ObjectRejected, SourceError

PANEL = reference()
SITES = PANEL.sites
PSEUDONYMS = Pseudonyms(b"x" * 32, "kgp")
RECORDS = [SiteRecord(site.chromosome, site.position, site.ref, (site.alt,)) for site in SITES]


def spelled(calls: list[str], records: list[SiteRecord] = RECORDS, block: str = GENOME) -> bytes:
    return f"{spelled_head(block, records)}{' '.join(map(spelled_call, calls))}\n".encode()


def at_first(records: list[SiteRecord], calls: list[str]) -> bytes:
    """`records` at the first site, and 0/0 at all others."""
    return spelled([*calls, *["0|0"] * 54], [*records, *RECORDS[1:]])


def first(ref: str, *alts: str) -> SiteRecord:
    return SiteRecord(SITES[0].chromosome, SITES[0].position, ref, alts)


# ---------------------------------------------------------------- spelling and dosages

GENOTYPES = st.sampled_from(
    ["0|0", "0|1", "1|0", "1/1", ".|.", "./1", ".", "0/2", "1", "0/0/1", "", "x|0", "0|12", "2|1"]
)


def dosage(genotype: str) -> float | None:
    """Copies of allele 1; None where the call is missing. ValueError for one that no biallelic record has."""
    alleles = ["."] * 2 if genotype == "." else genotype.replace("|", "/").split("/")
    if len(alleles) != 2 or not set(alleles) <= {"0", "1", "."}:
        raise ValueError(genotype)
    return None if "." in alleles else float(alleles.count("1"))


@given(st.lists(st.lists(GENOTYPES, min_size=55, max_size=55), min_size=1, max_size=3))
def test_dosages_are_what_the_genotypes_say(samples: list[list[str]]) -> None:
    """One by one, spelled column by column as the connector does, and decoded many at a time."""
    columns = [spelled_calls("\t".join(column), len(samples)) for column in zip(*samples, strict=True)]
    objects = []
    for row, calls in enumerate(samples):
        assert [column[row].decode() for column in columns if column is not None] == [
            spelled_call(one) for one in calls
        ]
        objects.append(spelled(calls))
    found = decode(objects)
    for row, calls in enumerate(samples):
        try:
            wanted = [dosage(one) for one in calls]
        except ValueError:
            assert found.refusals[row] == "bad_genotype"
            continue
        assert found.refusals[row] is None and found.called[row] == 55 - wanted.count(None)
        means = [site.mean if one is None else one for site, one in zip(SITES, wanted, strict=True)]
        assert found.values[row].tolist() == means  # exactly: means are multiples of 1/1024


@given(GENOTYPES)
def test_phase_and_order_are_not_spelled(genotype: str) -> None:
    alleles = genotype.replace("|", "/").split("/")
    assert spelled_call(genotype) == spelled_call("|".join(reversed(alleles)))


def test_a_line_with_another_number_of_columns_is_not_spelled() -> None:
    for columns in ("", "0|0", "0|0\t0|1\t0|1", "0|0\t0|1\t"):
        assert spelled_calls(columns, 2) is None
    assert spelled_calls("0|0\t0|1", 2) is not None


@pytest.mark.parametrize(
    ("records", "calls", "copies", "others"),
    [
        ([first("T", "G", "C")], ["1|2"], 1, 1),  # C is counted by its name, whatever its number
        ([first("T", "C", "G")], ["1|2"], 1, 1),
        ([first("T", "G", "C")], ["2|2"], 2, 0),
        ([first("T", "G"), first("T", "C")], ["0|1", "1|0"], 1, 0),  # a multi-allelic site in two records
        ([first("T", "G")], ["0|1"], 0, 1),  # the counted allele is not there
        ([first("T")], ["0|0"], 0, 0),  # nor is any other
        ([first("T", "C"), first("TA", "T")], ["1|1", "1|1"], 2, 0),  # a deletion at the place is another record
    ],
)
def test_the_counted_allele_is_counted_by_name(
    records: list[SiteRecord], calls: list[str], copies: int, others: int
) -> None:
    found = decode([at_first(records, calls)])
    assert found.refusals == [None] and found.called[0] == 55
    assert (found.values[0, 0], found.other_alleles[0]) == (copies, others)


@pytest.mark.parametrize("records", [[], [first("TA", "T")], [first("T", "<DEL>")]])
def test_a_site_without_a_record_of_its_bases_is_missing(records: list[SiteRecord]) -> None:
    found = decode([at_first(records, ["1|1"] * len(records))])
    assert found.refusals == [None] and found.called[0] == 54 and found.values[0, 0] == np.float32(SITES[0].mean)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (at_first([first("A", "G")], ["0|0"]), "strand_mismatch"),
        (at_first([first("C", "T")], ["0|0"]), "allele_mismatch"),
        (b"", "calls_unreadable"),
        (b"GRCh38 genome\n\n\n", "calls_unreadable"),
        (b"GRCh37 chr21\n\n\n", "calls_unreadable"),
        (b"GRCh37 genome\n1:x:T:C\n0/0\n", "calls_unreadable"),
        (spelled(["0|0"] * 54), "bad_genotype"),
        (spelled(["0|0"] * 54 + ["0|2"]), "bad_genotype"),
    ],
)
def test_what_is_not_of_the_reference_is_refused_alone(data: bytes, code: str) -> None:
    assert decode([spelled(["0|0"] * 55), data, spelled(["1|1"] * 55)]).refusals == [None, code, None]


def test_a_palindromic_site_of_the_other_strand_is_seen() -> None:
    site = next(site for site in SITES if {site.ref, site.alt} == {"A", "T"})
    assert site.mismatch(site.alt, (site.ref,)) == "strand_mismatch" and site.mismatch(site.ref, (site.alt,)) is None


# ---------------------------------------------------------------- records and model inputs


def objects(*data: bytes, labels: str = '{"population":"GBR","superpopulation":"EUR","sex":"male"}') -> pl.DataFrame:
    return pl.DataFrame(
        {
            "object_id": [f"genome.S{row}" for row in range(len(data))],
            "uri": [str(row) for row in range(len(data))],
            "cohort": GENOME,
            "license": "IGSR open data",
            "access_tier": "open",
            "subject_ref": [f"S{row}" for row in range(len(data))],
            "attributes": labels,
        }
    )


def test_a_record_holds_the_labels_and_nothing_else_of_the_source() -> None:
    data = [spelled(["0|1"] * 52 + ["."] * 3), spelled(["0|1"] * 49 + ["."] * 6), b"x"]
    extra = '{"population":"GBR","superpopulation":"EUR","sex":"male","etag":"1","further":"words"}'

    def read(uri: str) -> bytes:
        if uri == "2":
            raise ObjectRejected("gone", code="object_missing", remedy="refresh")
        return data[int(uri)]

    frame, rejected = modality("genotypes").records(objects(*data, labels=extra), read, PSEUDONYMS)
    assert dict(frame.schema) == RECORD_FRAME and frame["record_id"].to_list() == ["genome.S0"]
    assert json.loads(frame["attributes"][0]) == {
        "block": GENOME,
        "call_rate": 0.9455,
        "other_alleles": 0,
        "population": "GBR",
        "sex": "male",
        "sites": 55,
        "superpopulation": "EUR",
    }
    assert {(one.object_id, one.code) for one in rejected} == {
        ("genome.S1", "too_many_missing"),
        ("genome.S2", "object_missing"),
    }
    assert all(one.remedy for one in rejected)


def test_model_inputs_are_made_again_and_compared() -> None:
    form = modality("genotypes")
    data = [spelled(["0|1"] * 55), spelled(["1|1"] * 55), spelled(["0|0"] * 55)]
    frame, _ = form.records(objects(*data), lambda uri: data[int(uri)], PSEUDONYMS)
    asked = frame.with_columns(object_uris=pl.concat_list("payload_uri"))

    def read(uri: str) -> bytes:
        if uri == "1":
            raise ObjectRejected("gone", code="object_missing", remedy="refresh")
        return data[int(uri)] if uri == "0" else data[0]

    good, gone, changed = form.model_inputs(asked, "genotype", read)
    assert isinstance(good, np.ndarray) and good.dtype == np.float32 and good.shape == (55,)
    assert json.loads(frame["content_digests"][0]) == {"genotype": array_digest(good)}
    assert isinstance(gone, Rejected) and (gone.object_id, gone.code) == ("genome.S1", "object_missing")
    assert isinstance(changed, Rejected) and (changed.object_id, changed.code) == ("genome.S2", "payload_changed")


def test_attributes_of_another_connector_are_a_defect() -> None:
    with pytest.raises(SourceError, match="vcf_objects"):
        modality("genotypes").records(objects(spelled(["0|0"] * 55), labels="no JSON"), lambda _: b"", PSEUDONYMS)


# ---------------------------------------------------------------- the projection


def test_what_is_missing_or_of_another_block_adds_nothing() -> None:
    """The encoder takes the mean to zero: a block's vector is a sum over its own sites."""
    data = fit_kgp_pca.ENCODER.read_bytes()
    encoder = Projection(read_card("kgp_pca@1", str(fit_kgp_pca.ENCODER)).as_encoder_card(), data)
    arrays = safetensors.numpy.load(data)
    found = decode([spelled(["1|1"], RECORDS[-1:], "chr22"), spelled(["."] * 54 + ["1|1"])])
    assert found.sites.tolist() == [1, 55] and found.called.tolist() == [1, 1]
    own = (2 - SITES[-1].mean) * arrays["scale"][-1] * arrays["components"][:, -1]
    assert np.allclose(encoder.encode(list(found.values)), own / np.linalg.norm(own), atol=1e-6)


def test_the_features_are_those_that_the_encoder_was_fitted_with() -> None:
    arrays = safetensors.numpy.load(fit_kgp_pca.ENCODER.read_bytes())
    assert np.array_equal(arrays["mean"], PANEL.means) and len({site.name for site in SITES}) == 55
    assert modality("genotypes").input_versions == {"genotype": "dosage-1-kgp_kidd55_1"}


def test_a_refit_gives_the_same_map_and_neighbours_share_their_ancestry() -> None:
    folder = sample_folder("kgp_genotypes")
    features, dosages = fit_kgp_pca.panel_dosages(folder)
    assert [name for name, _ in features] == [site.name for site in SITES] and len(dosages) == 2_504
    again, shipped = fit_kgp_pca.fitted(dosages), safetensors.numpy.load(fit_kgp_pca.ENCODER.read_bytes())
    assert again.keys() == shipped.keys()
    assert all(np.allclose(again[name], shipped[name], atol=1e-5) for name in shipped)
    projected = (dosages - shipped["mean"]) * shipped["scale"] @ shipped["components"].T
    vectors = (projected / np.linalg.norm(projected, axis=1, keepdims=True)).astype(np.float32)
    panel = pl.read_csv(next(folder.glob("*.panel")), separator="\t", columns=["pop", "super_pop", "gender"])
    labels = panel.select(superpopulation="super_pop", population="pop", sex="gender")
    found = precision(vectors, labels)
    assert found["superpopulation"]["p@1"] > 0.9 and found["superpopulation"]["p@10"] > 0.9
    assert found["superpopulation"]["chance"] < 0.21
    assert abs(found["sex"]["p@10"] - found["sex"]["chance"]) < 0.02  # the negative control
