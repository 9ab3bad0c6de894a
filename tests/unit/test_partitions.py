"""The partition plan: complete prefix codes, one subject in one leaf, splits that move nothing else."""

from __future__ import annotations

import hashlib
import struct

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvec_assets.catalog.spec import Sharding
from medvec_assets.partitions import (
    CONTENT_COLUMNS,
    CONTENT_VERSION,
    MAX_BITS,
    Leaves,
    Partition,
    assign,
    content_digests,
    plan,
    split,
    subject_bits,
    utf8_columns,
)
from resources.errors import ConfigError, IntegrityError, NotFound

SOURCE = "tcia"
unhurried = settings(deadline=None, max_examples=60)  # a busy machine is not a failure

rows_of_objects = st.lists(
    st.tuples(st.sampled_from(["lung", "liver-2", "brain_x"]), st.integers(0, 40), st.integers(0, 1000)),
    min_size=1,
    max_size=120,
)
shardings = st.builds(Sharding, max_objects=st.integers(1, 30), max_bytes=st.none() | st.integers(1, 5000))


def frame(rows: list[tuple[str, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(cohort, f"P{subject}", size) for cohort, subject, size in rows],
        schema={"cohort": pl.String, "subject_ref": pl.String, "size_bytes": pl.Int64},
        orient="row",
    )


def covers_once(leaves: Leaves) -> bool:
    """Every bit string of every cohort begins with exactly one of the cohort's prefixes."""
    for cohort in {leaf.cohort for leaf in leaves}:
        prefixes = [leaf.prefix for leaf in leaves if leaf.cohort == cohort]
        depth = max(map(len, prefixes))
        strings = [f"{n:0{depth}b}" if depth else "" for n in range(2**depth)]
        if any(sum(bits.startswith(prefix) for prefix in prefixes) != 1 for bits in strings):
            return False
    return True


def test_subject_bits_are_the_leading_bits_of_sha256() -> None:
    first_two_bytes = hashlib.sha256(b"tcia\x1fP1").digest()[:2]
    assert subject_bits("tcia", "P1") == "".join(f"{byte:08b}" for byte in first_two_bytes)
    assert subject_bits("gdc", "P1") != subject_bits("tcia", "P1")


@pytest.mark.parametrize("name", ["tcga_lihc", "A-9", "nlst.0", "nlst.0101101001011010"])
def test_names_parse_back(name: str) -> None:
    assert str(Partition.parse(name)) == name


@pytest.mark.parametrize(
    "name", ["", ".", "nlst.", ".0", "nlst.2", "nlst.0.1", "a b", "a/b", "é", "nlst\n", "a." + "0" * 17]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a partition"):
        Partition.parse(name)


@unhurried
@given(rows_of_objects, shardings)
def test_plan_covers_keeps_subjects_whole_and_holds_the_limits(
    rows: list[tuple[str, int, int]], sharding: Sharding
) -> None:
    objects = frame(rows)
    leaves = plan(objects, (), sharding, SOURCE)
    assert covers_once(leaves)
    placed = objects.with_columns(assign(objects, leaves, SOURCE).alias("partition"))
    assert placed.group_by("cohort", "subject_ref").agg(pl.col("partition").n_unique())["partition"].max() == 1
    for (name,), members in placed.group_by("partition"):
        leaf = Partition.parse(str(name))
        assert set(members["cohort"]) == {leaf.cohort}
        assert all(subject_bits(SOURCE, subject).startswith(leaf.prefix) for subject in members["subject_ref"])
        fits = members.height <= sharding.max_objects and (
            sharding.max_bytes is None or members["size_bytes"].sum() <= sharding.max_bytes
        )
        assert fits or members["subject_ref"].n_unique() == 1


@unhurried
@given(rows_of_objects, rows_of_objects, shardings)
def test_plan_is_idempotent_and_only_ever_splits(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]], sharding: Sharding
) -> None:
    old = plan(frame(before), (), sharding, SOURCE)
    assert plan(frame(before), old, sharding, SOURCE) == old
    new = plan(frame(before + after), old, sharding, SOURCE)
    assert covers_once(new)
    assert {leaf.cohort for leaf in new} == {cohort for cohort, _, _ in before + after}
    for leaf in old:
        below = [other for other in new if other.cohort == leaf.cohort and other.prefix.startswith(leaf.prefix)]
        assert below and covers_once(tuple(Partition(o.cohort, o.prefix[len(leaf.prefix) :]) for o in below))


@unhurried
@given(rows_of_objects, shardings, st.data())
def test_a_split_moves_only_its_own_rows_and_only_to_its_children(
    rows: list[tuple[str, int, int]], sharding: Sharding, data: st.DataObject
) -> None:
    objects = frame(rows)
    leaves = plan(objects, (), sharding, SOURCE)
    chosen = data.draw(st.sampled_from([leaf for leaf in leaves if len(leaf.prefix) < MAX_BITS]))
    after = split(leaves, chosen)
    assert covers_once(after)
    children = {str(child) for child in chosen.children}
    moves = zip(assign(objects, leaves, SOURCE), assign(objects, after, SOURCE), strict=True)
    assert all(new in children if old == str(chosen) else new == old for old, new in moves)


def test_one_subject_is_never_divided() -> None:
    objects = frame([("lung", 7, 10)] * 100)
    assert plan(objects, (), Sharding(max_objects=1), SOURCE) == (Partition("lung"),)


def test_a_leaf_at_the_last_bit_is_left_as_it_is() -> None:
    seen: dict[str, str] = {}
    twins: tuple[str, str] | None = None
    for number in range(2000):  # two subjects that share all 16 bits; 2,000 give about 30 such pairs
        twin = seen.setdefault(subject_bits(SOURCE, f"P{number}"), f"P{number}")
        if twin != f"P{number}":
            twins = (twin, f"P{number}")
            break
    assert twins is not None
    objects = pl.DataFrame({"cohort": ["lung"] * 2, "subject_ref": twins, "size_bytes": [1, 1]})
    leaves = plan(objects, (), Sharding(max_objects=1), SOURCE)
    full = Partition("lung", subject_bits(SOURCE, twins[0]))
    assert full in leaves and len(leaves) == MAX_BITS + 1
    with pytest.raises(ConfigError, match="cut to 16 bits already"):
        split(leaves, full)


@pytest.mark.parametrize(
    "broken",
    [
        ["lung.0"],
        ["lung", "lung.0"],
        ["lung.0", "lung.00", "lung.1"],
        ["lung.0", "lung.0", "lung.1"],
        ["lung.0", "lung.10"],
    ],
)
def test_a_plan_that_is_not_complete_is_refused(broken: list[str]) -> None:
    with pytest.raises(IntegrityError, match="exactly once"):
        plan(frame([("lung", 1, 1)]), [Partition.parse(name) for name in broken], Sharding(), SOURCE)
    with pytest.raises(IntegrityError, match="exactly once"):
        assign(frame([("lung", 1, 1)]), [Partition.parse(name) for name in broken], SOURCE)


def test_what_was_never_planned_is_named() -> None:
    with pytest.raises(NotFound, match="'lung'"):
        assign(frame([("lung", 1, 1), ("brain", 1, 1)]), [Partition("brain")], SOURCE)
    with pytest.raises(NotFound, match=r"lung\.1 is not a partition"):
        split((Partition("lung"),), Partition("lung", "1"))


def test_no_objects_need_no_leaves() -> None:
    empty = frame([("lung", 1, 1)]).clear()
    assert plan(empty, (), Sharding(), SOURCE) == ()
    assert plan(empty, [Partition("lung")], Sharding(), SOURCE) == (Partition("lung"),)
    assert assign(empty, (), SOURCE).len() == 0
    assert content_digests(manifest().clear()).is_empty()


def manifest(*, rows: int = 6) -> pl.DataFrame:
    texts = {name: [f"{name} {n}" for n in range(rows)] for name in CONTENT_COLUMNS}
    return pl.DataFrame(texts).with_columns(
        size_bytes=pl.int_range(rows, dtype=pl.Int64),
        removed_in_version=pl.lit(None, pl.String),
        upstream_version=pl.lit("v1"),
        first_seen_version=pl.lit("v1"),
        partition=pl.Series([f"lung.{n % 2}" for n in range(rows)]),
    )


@unhurried
@given(st.permutations(range(6)))
def test_digests_do_not_depend_on_row_order(order: list[int]) -> None:
    assert content_digests(manifest()[order]).equals(content_digests(manifest()))


@pytest.mark.parametrize("column", CONTENT_COLUMNS)
def test_any_changed_field_moves_its_partition_and_no_other(column: str) -> None:
    before = manifest()
    changed = pl.lit(99, pl.Int64) if column == "size_bytes" else pl.lit("changed")
    after = before.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(changed).otherwise(column).alias(column))
    even, odd = content_digests(before)["content_digest"], content_digests(after)["content_digest"]
    assert even[0] != odd[0] and even[1] == odd[1]


def test_a_new_release_of_unchanged_objects_moves_nothing() -> None:
    released = manifest().with_columns(upstream_version=pl.lit("v2"), first_seen_version=pl.lit("v0"))
    assert content_digests(released).equals(content_digests(manifest()))


def test_dropping_or_doubling_a_row_or_emptying_a_null_moves_the_digest() -> None:
    rows = manifest().filter(pl.col("partition") == "lung.0")
    variants = [rows, rows[1:], pl.concat([rows, rows[:1]]), rows.with_columns(removed_in_version=pl.lit(""))]
    assert len({content_digests(variant)["content_digest"].item() for variant in variants}) == len(variants)


def test_tombstones_count_for_the_digest_and_not_for_the_size() -> None:
    rows = manifest(rows=4).with_columns(removed_in_version=pl.Series(["v9", None, None, None]))
    digests = content_digests(rows)
    assert digests.select("partition", "objects", "size_bytes").rows() == [("lung.0", 1, 2), ("lung.1", 2, 4)]
    assert digests["content_digest"][0] != content_digests(manifest(rows=4))["content_digest"][0]


def spelled(rows: pl.DataFrame) -> str:
    """The digest of one partition, written from the words of content_digests and nothing else."""
    dicts = sorted(rows.to_dicts(), key=lambda row: row["object_id"].encode())
    texts = [name for name in CONTENT_COLUMNS if name != "size_bytes"]
    content = CONTENT_VERSION.encode() + struct.pack("<q", len(dicts))
    content += bytes(row[name] is not None for name in CONTENT_COLUMNS for row in dicts)
    content += b"".join(struct.pack("<q", row["size_bytes"] or 0) for row in dicts)
    for name in texts:
        values = [(row[name] or "").encode() for row in dicts]
        content += b"".join(struct.pack("<q", len(value)) for value in values) + b"".join(values)
    return hashlib.sha256(content).hexdigest()


def test_the_digest_is_spelled_as_documented() -> None:
    """A digest that is spelled otherwise makes every partition of every lake run again: only on purpose."""
    awkward = manifest().with_columns(
        size_bytes=pl.Series([0, None, -1, 2**62, 4, 5]),
        attributes=pl.Series(["é" * 40, "", "plain", None, "\U0001f9e0", "x" * 5000]),
        removed_in_version=pl.Series([None, "", "v3", None, "v4", None]),
    )
    by_hand = [spelled(awkward.filter(partition=name)) for name in ("lung.0", "lung.1")]
    for laid_out in (awkward, awkward.reverse(), pl.concat([awkward[:2], awkward[2:]], rechunk=False), awkward[::-1]):
        assert content_digests(laid_out)["content_digest"].to_list() == by_hand


texts_or_null = st.lists(st.none() | st.text(max_size=20), min_size=4, max_size=4)


@unhurried
@given(texts_or_null, texts_or_null)
def test_utf8_columns_are_the_texts_and_their_lengths(first: list[str | None], second: list[str | None]) -> None:
    texts = pl.DataFrame({"first": first, "second": second}, schema={"first": pl.String, "second": pl.String})
    for kept in (slice(None), slice(1, 3)):
        for column, (lengths, joined) in zip((first, second), utf8_columns(texts[kept]), strict=True):
            values = [(value or "").encode() for value in column[kept]]
            assert lengths.tolist() == [len(value) for value in values]
            assert bytes(joined) == b"".join(values)
