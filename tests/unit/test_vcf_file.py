"""VCF files that are not what they say: refused as a whole, with a code, before anything is committed."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.vcf_files import (
    LAST,
    NAME,
    SAMPLES,
    SITES,
    WHOLE,
    balanced,
    header,
    put_panel,
    put_vcf,
    record,
    records,
    release,
)

from medvec_assets.catalog import dataset
from medvec_assets.connectors import sample_folder, vcf_file
from medvec_assets.modalities.genotypes.reference import GENOME, is_build, reference
from medvec_assets.stages import manifest
from medvec_assets.stages.context import Context
from medvec_assets.stages.records import build
from resources import tables
from resources.errors import SourceError
from resources.lakehouse import Lakehouse
from resources.settings import Settings

GRCH38 = {"1": 248956422, "22": 50818468}
Break = Callable[[Path], object]


def rewritten(head: list[str], rows: list[str], *, keep_index: bool = False) -> Break:
    def change(path: Path) -> None:
        index = path.with_name(f"{path.name}.tbi").read_bytes()
        put_vcf(path, head, rows, index=not keep_index)
        if keep_index:
            path.with_name(f"{path.name}.tbi").write_bytes(index)

    return change


def with_bytes(change: Callable[[bytes], bytes], suffix: str = "") -> Break:
    def rewrite(path: Path) -> None:
        target = path.with_name(path.name + suffix)
        target.write_bytes(change(target.read_bytes()))

    return rewrite


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def line(**other: str) -> list[str]:
    return [*records(SITES[:-1]), record(LAST, ["0|0", "0|1", "1|1"], **other)]


BROKEN: dict[str, tuple[str, Break]] = {
    "no index": ("vcf_no_index", lambda path: path.with_name(f"{path.name}.tbi").unlink()),
    "index of bytes": ("vcf_no_index", with_bytes(lambda _: b"no index", ".tbi")),
    "index of another kind": ("vcf_no_index", with_bytes(lambda _: gzip.compress(b"CSI\1" + bytes(40)), ".tbi")),
    "index cut": ("vcf_no_index", with_bytes(lambda data: data[: len(data) // 2], ".tbi")),
    "no last block": ("vcf_truncated", with_bytes(lambda data: data[:-28])),
    "cut in the middle": ("vcf_truncated", with_bytes(lambda data: data[: len(data) // 2])),
    "empty": ("vcf_truncated", with_bytes(lambda _: b"")),
    "only a last block": ("vcf_header", with_bytes(lambda data: data[-28:])),
    "not BGZF": ("vcf_header", with_bytes(lambda data: gzip.compress(gzip.decompress(data)) + data[-28:])),
    "no column line": ("vcf_header", rewritten(header()[:-1], records(), keep_index=True)),
    "a sample twice": ("vcf_header", rewritten(header(["HG00096"] * 3), records(), keep_index=True)),
    "not sorted": ("vcf_unsorted", rewritten(header(), [records()[1], records()[0], *records()[2:]], keep_index=True)),
    "chromosomes mixed": ("vcf_unsorted", rewritten(header(), [*records()[1:], records()[0]], keep_index=True)),
    "another build": ("vcf_wrong_build", rewritten(header(lengths=GRCH38), records())),
    "no build": ("vcf_wrong_build", rewritten(["##fileformat=VCFv4.1", *header()[-2:]], records())),
    "other strand": ("strand_mismatch", rewritten(header(), line(ref="T", alt="C"))),
    "other alleles": ("allele_mismatch", rewritten(header(), line(ref="G", alt="A"))),
    "a column too few": ("vcf_malformed", rewritten(header(), [*records()[:-1], record(LAST, ["0|0", "1|1"])])),
    "a column too many": ("vcf_malformed", rewritten(header(), [*records()[:-1], record(LAST, ["0|0"] * 4)])),
    "no genotypes": ("vcf_malformed", rewritten(header(), line(form="DP"))),
    "no allele": ("vcf_malformed", rewritten(header(), line(alt="C,,G"))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_what_it_says_is_refused_and_nothing_committed(tmp_path: Path, name: str) -> None:
    code, damage = BROKEN[name]
    root = tmp_path / "in"
    put_panel(root)
    damage(put_vcf(root / WHOLE, header(), records()))
    settings = Settings(home=tmp_path / "home", sources={"kgp_genotypes": str(root)}, pseudonym_key="11" * 32)
    ctx = Context(settings, Lakehouse.open(settings), "test")
    with pytest.raises(SourceError) as refusal:
        manifest.refresh(ctx, dataset("kgp_genotypes"))
    assert refusal.value.code == code and refusal.value.remedy
    assert "0|1" not in str(refusal.value) and "HG00096" not in str(refusal.value)
    rows = [
        ctx.lake.snapshot(table("kgp_genotypes")) for table in (tables.manifest, tables.partitions, tables.quarantine)
    ]
    assert all(one is None or one.read().is_empty() for one in rows)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) * 3 // 4] + data[-28:], flipped])
def test_damage_behind_the_header_is_found(
    tmp_path: Path, damage: Callable[[bytes], bytes], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real file, which has several blocks; also where it is read by region."""
    monkeypatch.setattr(vcf_file, "WHOLE_BYTES", vcf_file.WHOLE_BYTES if whole else 0)
    (real,) = sample_folder("kgp_genotypes").glob("*.vcf.gz")
    path = shutil.copy(real, tmp_path / WHOLE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError) as refusal:
        vcf_file.read_calls(path, real.with_name(f"{real.name}.tbi"), "x", GENOME, reference())
    assert refusal.value.code == "vcf_truncated"


def test_a_bad_column_and_an_unknown_sample_harm_nobody(tmp_path: Path) -> None:
    """Not even where a column holds what no parser of VCF takes."""
    columns = ("HG00096", "BAD_ALLELE", "BAD_TEXT", "BAD_PLOIDY", "NO_CALLS", "UNKNOWN", "NA18525")
    calls = {"BAD_ALLELE": "0|2", "BAD_TEXT": "JOHN DOE", "BAD_PLOIDY": "1", "NO_CALLS": "."}

    def call(site: int, sample: int) -> str:
        return calls.get(columns[sample], balanced(site, 0 if sample == 0 else 2))

    plain, broken = tmp_path / "plain", tmp_path / "broken"
    release(plain)
    put_panel(broken, [name for name in columns if name != "UNKNOWN"])
    put_vcf(broken / WHOLE, header(columns), records(SITES, call, len(columns)))
    found = {}
    for source in (plain, broken):
        (source / NAME).unlink(missing_ok=True)
        settings = Settings(home=tmp_path / source.name / "home", sources={"kgp_genotypes": str(source)})
        ctx, spec = Context(settings, Lakehouse.open(settings), "test"), dataset("kgp_genotypes")
        assert manifest.refresh(ctx, spec).plan["partition"].to_list() == [GENOME]
        build(ctx, spec, GENOME)
        silver, aside = ctx.lake.snapshot(tables.records(spec.id)), ctx.lake.snapshot(tables.quarantine(spec.id))
        assert silver is not None
        found[source] = {row["record_id"]: row["content_digests"] for row in silver.read().to_dicts()}
        quarantine = dict(aside.read(["object_id", "code"]).iter_rows()) if aside else {}
    assert found[broken] == {f"{GENOME}.{name}": found[plain][f"{GENOME}.{name}"] for name in ("HG00096", "NA18525")}
    assert quarantine == {
        f"{GENOME}.BAD_ALLELE": "bad_genotype",
        f"{GENOME}.BAD_TEXT": "bad_genotype",
        f"{GENOME}.BAD_PLOIDY": "bad_genotype",
        f"{GENOME}.NO_CALLS": "too_many_missing",
        f"{GENOME}.UNKNOWN": "sample_not_in_panel",
    }


def test_a_file_without_samples_has_no_rows(tmp_path: Path) -> None:
    path = put_vcf(tmp_path / WHOLE, header(()), [record(site, []).rsplit("\t", 1)[0] for site in SITES])
    table = vcf_file.read_calls(path, path.with_name(f"{path.name}.tbi"), "x", GENOME, reference())
    assert table.num_rows == 0 and table.schema.equals(vcf_file.TABLE)


def test_alleles_of_ten_and_more_are_spelled_in_full(tmp_path: Path) -> None:
    alts = ",".join(["C", "G", *["A" * length for length in range(2, 12)]])
    path = put_vcf(tmp_path / WHOLE, header(), [record(SITES[0], ["11|0", "1|1", "."], alt=alts)])
    table = vcf_file.read_calls(path, path.with_name(f"{path.name}.tbi"), "x", GENOME, reference())
    assert table["calls"].to_pylist() == [b"0/11\n", b"1/1\n", b"./.\n"]
    assert table["sample"].to_pylist() == list(SAMPLES)


@pytest.mark.parametrize(
    ("lengths", "references", "is_one"),
    [
        ({"22": 51304566}, (), True),
        ({"chr22": 51304566, "chrUn": 5}, ("GRCh38.fa",), True),  # a length is a fact, a name is not
        ({"22": 51304566, "1": 1}, (), False),
        ({"22": None}, ("file:///refs/hs37d5.fa.gz",), True),
        ({"22": None}, ("GRCh38_full_analysis_set.fa",), False),
        ({"22": None}, (), None),
    ],
)
def test_a_build_is_told_by_its_lengths_and_then_by_its_name(
    lengths: dict[str, int | None], references: tuple[str, ...], is_one: bool | None
) -> None:
    assert is_build(lengths, references) is is_one
