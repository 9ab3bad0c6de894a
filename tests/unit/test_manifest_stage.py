"""The manifest stage: validation, tombstones, the plan, and runs that end between its commits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import polars as pl
import pytest
from helpers.counting_encoder import Killed
from helpers.pipeline import Pipeline, leaf_of, small_spec
from helpers.tiny_source import listed, series

from medvec_assets.catalog.spec import Residency, Sharding
from medvec_assets.connectors import LISTING, Listing
from medvec_assets.stages import manifest
from resources import tables
from resources.errors import CommitConflict, PolicyRefused, SourceError

GOOD = [listed(f"good-{number}") for number in range(3)]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("object_id", None, "missing_field"),
        ("object_id", "", "missing_field"),
        ("cohort", None, "missing_field"),
        ("license", "", "missing_field"),
        ("subject_ref", None, "missing_field"),
        ("upstream_version", None, "missing_field"),
        ("first_seen_version", None, "missing_field"),
        ("media_type", None, "missing_field"),
        ("checksum_kind", None, "missing_field"),
        ("attributes", None, "missing_field"),
        ("object_id", "x" * 256, "field_too_long"),
        ("record_ref", "é" * 128, "field_too_long"),
        ("cohort", "c" * 201, "field_too_long"),
        ("uri", "u" * 2_049, "field_too_long"),
        ("object_id", "a\x00b", "control_characters"),
        ("uri", "s3://bucket/a\nb", "control_characters"),
        ("media_type", "a\x1fb", "control_characters"),
        ("subject_ref", "a\x85b", "control_characters"),
        ("attributes", '{"a":\n1}', "control_characters"),
        ("attributes", "a\x7fb", "control_characters"),
        ("attributes", "é\x7fb", "control_characters"),
        ("attributes", "\x80", "control_characters"),
        ("attributes", "\x9f", "control_characters"),
        ("removed_in_version", "v\x1e", "control_characters"),
        ("cohort", "lung cancer", "bad_cohort"),
        ("cohort", "lung.0", "bad_cohort"),
        ("size_bytes", -1, "negative_size"),
        ("size_bytes", None, "negative_size"),
        ("access_tier", "everybody", "bad_access_tier"),
    ],
)
def test_a_bad_row_is_named_with_code_and_remedy_and_its_neighbours_go_on(field: str, value: object, code: str) -> None:
    rows = [*GOOD, listed("bad") | {field: value}]
    valid, rejected = manifest.validated(Listing(pl.DataFrame(rows, schema=LISTING)))
    assert valid["object_id"].to_list() == ["good-0", "good-1", "good-2"]
    assert [(found.object_id, found.code) for found in rejected] == [
        ("row-3" if field == "object_id" else "bad", code),
    ]
    assert rejected[0].remedy


def test_a_row_at_every_limit_is_valid() -> None:
    row = listed(
        "x" * 255, cohort="c" * 200, subject_ref="é" * 127, record_ref="r" * 255, uri="u" * 2_048, size_bytes=0
    )
    valid, rejected = manifest.validated(Listing(pl.DataFrame([row], schema=LISTING)))
    assert (valid.height, rejected) == (1, [])


def test_text_beyond_ascii_is_valid() -> None:
    texts = ["~ ", "é", "\xa0", "µm", "脳", "\U0001f9e0"]
    rows = [listed(f"id-{n}", attributes=text) for n, text in enumerate(texts)]
    valid, rejected = manifest.validated(Listing(pl.DataFrame(rows, schema=LISTING)))
    assert (valid["attributes"].to_list(), rejected) == (texts, [])


def test_the_first_rule_broken_is_named() -> None:
    everything = dict.fromkeys(("object_id", "cohort"), "\n" * 300) | {"size_bytes": -1, "access_tier": "everybody"}
    broken = [listed("bad") | everything | {"license": None}, listed("bad") | everything]
    _, rejected = manifest.validated(Listing(pl.DataFrame([*GOOD, *broken], schema=LISTING)))
    assert [(one.object_id, one.code) for one in rejected] == [("row-3", "missing_field"), ("row-4", "field_too_long")]


def test_an_empty_listing_has_nothing_to_refuse() -> None:
    valid, rejected = manifest.validated(Listing(pl.DataFrame(schema=LISTING)))
    assert (valid.schema, valid.height, rejected) == (LISTING, 0, [])


def test_bad_rows_and_duplicates_are_quarantined_without_their_text(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.rows = [*GOOD, listed("NAME^" * 100), listed("twice"), listed("twice", cohort="liver")]
    done = files.refresh()
    assert (done.outcome.rows_in, done.outcome.rows_out, done.outcome.quarantined) == (6, 3, 3)
    found = files.quarantine.sort("code", "object_id")
    assert found.select("object_id", "stage", "partition", "code").rows() == [
        ("twice", "manifest", "unassigned", "duplicate_object_id"),
        ("twice", "manifest", "unassigned", "duplicate_object_id"),
        ("row-3", "manifest", "unassigned", "field_too_long"),
    ]
    assert all(found["remedy"])
    assert files.manifest["object_id"].sort().to_list() == ["good-0", "good-1", "good-2"]
    files.connector.rows, files.connector.published = GOOD, "v2"
    files.refresh()
    assert files.quarantine.is_empty(), "a corrected source leaves quarantine"


@pytest.mark.parametrize("bad", [4, 0])
def test_a_source_that_is_not_what_it_says_fails_the_run_without_a_commit(files: Pipeline, bad: int) -> None:
    assert files.connector is not None
    files.connector.rows = GOOD
    files.refresh()
    before = files.versions()
    files.connector.published = "v2"
    files.connector.rows = [*GOOD, *(listed(f"bad-{n}", size_bytes=-1) for n in range(bad))] if bad else []
    with pytest.raises(SourceError) as caught:
        files.refresh()
    assert files.spec.id in str(caught.value)
    assert files.versions() == before


def test_half_of_the_rows_bad_is_still_a_source(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.rows = [*GOOD, *(listed(f"bad-{n}", size_bytes=-1) for n in range(3))]
    assert files.refresh().outcome.rows_out == 3


def test_a_dataset_that_may_not_be_here_is_refused_before_anything_is_written(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.spec = small_spec(residency=Residency(where="enclave:rap"))
    with pytest.raises(PolicyRefused):
        pipeline.refresh()
    assert set(pipeline.versions().values()) == {-1}


def test_an_unchanged_source_commits_nothing(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"), series("2"))
    first = pipeline.refresh()
    before = pipeline.versions()
    again = pipeline.refresh()
    assert pipeline.versions() == before
    assert (again.outcome.changed, again.changed_partitions) == (False, ())
    assert again.outcome.output_digest == first.outcome.output_digest


def test_a_new_release_that_changes_no_object_commits_no_table(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.rows = GOOD
    files.refresh()
    before = files.versions()
    files.connector.published = "v2"
    files.connector.rows = [row | {"upstream_version": "v2"} for row in reversed(GOOD)]
    done = files.refresh()
    after = files.versions()
    audit = tables.materializations().path
    assert {path for path in after if after[path] != before[path]} == {audit}
    assert (done.outcome.changed, done.upstream_version) == (False, "v2")


def test_a_removed_series_becomes_a_dated_tombstone_and_a_reappearing_one_lives(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.rows = GOOD
    files.refresh()
    for version in ("v2", "v3"):
        files.connector.rows, files.connector.published = GOOD[:2], version
        files.refresh()
        removed = dict(files.manifest.select("object_id", "removed_in_version").rows())
        assert removed == {"good-0": None, "good-1": None, "good-2": "v2"}, "the date is that of the first absence"
    assert files.plan["objects"].sum() == 2
    files.connector.rows, files.connector.published = GOOD, "v4"
    files.refresh()
    assert files.manifest["removed_in_version"].null_count() == files.manifest.height == 3


def test_changed_attributes_change_exactly_their_partitions_digest(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1", "lung"), series("2", "liver"), series("3", "brain"))
    before = dict(pipeline.refresh().plan.select("partition", "content_digest").rows())
    pipeline.list_source(series("1", "lung"), series("2", "liver", what="venous phase"), series("3", "brain"))
    done = pipeline.refresh()
    after = dict(done.plan.select("partition", "content_digest").rows())
    assert done.changed_partitions == ("liver",)
    assert {name for name in after if after[name] != before[name]} == {"liver"}


def test_a_split_moves_rows_and_the_plan_version(pipeline: Pipeline) -> None:
    pipeline.list_source(*(series(str(n), patient=f"P{n}") for n in range(8)), series("9", "liver"))
    before = pipeline.refresh().plan
    assert (before["partition"].to_list(), before["plan_version"].unique().to_list()) == (["liver", "lung"], [1])
    done = pipeline.refresh("lung")
    assert done.plan["partition"].to_list() == ["liver", "lung.0", "lung.1"]
    assert done.plan["plan_version"].unique().to_list() == [2]
    assert done.changed_partitions == ("lung.0", "lung.1")
    rows = pipeline.manifest
    assert rows.height == 9
    assert set(rows["partition"]) == {"liver", "lung.0", "lung.1"}
    for subject, partition in rows.filter(pl.col("cohort") == "lung").select("subject_ref", "partition").rows():
        assert partition == leaf_of(pipeline.spec, ["lung.0", "lung.1"], "lung", subject)


def test_a_cohort_that_grows_over_its_limit_is_split(pipeline: Pipeline) -> None:
    pipeline.spec = small_spec(sharding=Sharding(max_objects=4, max_bytes=None))
    pipeline.list_source(*(series(str(n), patient=f"P{n}") for n in range(4)))
    assert pipeline.refresh().plan["partition"].to_list() == ["lung"]
    pipeline.list_source(*(series(str(n), patient=f"P{n}") for n in range(12)))
    plan = pipeline.refresh().plan
    assert plan.height > 1
    assert plan["objects"].sum() == 12
    assert plan["objects"].max() <= 4


@pytest.mark.parametrize("write", range(4))
def test_killed_at_any_of_its_writes_the_next_refresh_ends_where_an_undisturbed_one_does(
    files: Pipeline, write: int
) -> None:
    """The writes of a refresh that finds bad rows and a changed source: quarantine, manifest, plan, audit."""
    assert files.connector is not None
    files.connector.rows = GOOD
    files.refresh()
    before = files.manifest.sort("object_id"), files.plan.drop("upstream_version"), files.quarantine
    changed = [row | {"attributes": json.dumps({"modality": "MR"})} for row in GOOD]
    files.connector.published = "v2"
    files.connector.rows = [*changed, listed("bad", size_bytes=-1)]
    with files.killed_at_write(write), pytest.raises(Killed):
        files.refresh()
    # The source goes back to what it was: nothing of the killed run may stay, though the audit knows this input.
    files.connector.rows, files.connector.published = GOOD, "v1"
    files.refresh()
    assert files.manifest.sort("object_id").equals(before[0])
    assert files.plan.drop("upstream_version").equals(before[1])
    assert files.quarantine.equals(before[2])
    files.connector.rows, files.connector.published = [*changed, listed("bad", size_bytes=-1)], "v2"
    files.refresh()
    assert set(files.manifest["attributes"]) == {json.dumps({"modality": "MR"})}
    assert files.quarantine["object_id"].to_list() == ["bad"]


def test_a_plan_that_another_run_committed_meanwhile_is_not_overwritten(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.refresh()
    pipeline.list_source(series("1"), series("2", "liver"))
    ctx = pipeline.context()
    connector = ctx.connector(pipeline.spec)
    listings = connector.listings

    def overtaken(previous: pl.DataFrame) -> Iterator[Listing]:
        pipeline.refresh("lung")
        return listings(previous)

    connector.listings = overtaken  # type: ignore[method-assign]
    with pytest.raises(CommitConflict):
        manifest.refresh(ctx, pipeline.spec)
    assert pipeline.plan["partition"].to_list() == ["liver", "lung.0", "lung.1"]


def test_a_connector_is_not_told_of_what_was_removed(files: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lists from what it knows, where a file has not changed, would bring it back."""
    assert files.connector is not None
    files.connector.rows = [*GOOD]
    files.refresh()
    files.connector.rows, files.connector.published = [*GOOD[1:]], "v2"
    files.refresh()
    told: list[set[str]] = []

    def listings(previous: pl.DataFrame) -> Iterator[Listing]:
        told.append(set(previous["object_id"]))
        yield Listing(pl.DataFrame(GOOD[1:], schema=LISTING))

    monkeypatch.setattr(files.connector, "listings", listings)
    files.connector.published = "v3"
    files.refresh()
    assert told == [{row["object_id"] for row in GOOD[1:]}]
