"""The embeddings stage: what is computed, what is adopted, what is moved, what is set aside."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.counting_encoder import DIM, Killed, vector_of
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Space
from medvec_assets.stages import encoding, retire
from medvec_assets.stages.staging import Staging
from resources import tables
from resources.errors import CommitConflict, NotFound

FOUR = [series(str(n), patient=f"P{n}", what=f"series {n}") for n in range(4)]


def prepared(pipeline: Pipeline, *rows: dict[str, Any], partition: str = "lung") -> None:
    """Manifest and records stand."""
    pipeline.list_source(*rows)
    pipeline.refresh()
    pipeline.records(partition)


def texts(pipeline: Pipeline) -> dict[str, str]:
    return dict(pipeline.silver.select("record_id", "text").rows())


def assert_vectors_are_those_of_their_texts(pipeline: Pipeline) -> None:
    found = texts(pipeline)
    for record_id, version, vector in pipeline.gold.select("record_id", "space_version", "vector").rows():
        np.testing.assert_array_equal(np.asarray(vector, np.float32), vector_of(found[record_id], version))


def test_every_record_gets_its_vector_with_its_provenance(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    done = pipeline.embeddings("lung")
    assert (done.rows_in, done.rows_out, done.computed, done.skipped, done.quarantined) == (4, 4, 4, 0, 0)
    assert_vectors_are_those_of_their_texts(pipeline)
    gold = pipeline.gold
    assert set(gold["dim"]) == {DIM}
    assert set(gold["encoder"]) == set(gold["space_version"]) == {"tiny@1"}
    assert set(gold["run_id"]) == {f"run-{pipeline.runs}"}
    assert gold["vector_id"].is_unique().all()


def test_identical_inputs_are_encoded_once(pipeline: Pipeline) -> None:
    prepared(pipeline, *(series(str(n), patient=f"P{n}", what="the same") for n in range(5)), series("9", what="other"))
    done = pipeline.embeddings("lung")
    assert (done.computed, done.skipped, done.rows_out) == (2, 4, 6)
    assert sorted(pipeline.encoders.encoded) == sorted(set(texts(pipeline).values()))
    assert_vectors_are_those_of_their_texts(pipeline)


def test_an_input_known_in_another_partition_is_not_encoded_again(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.embeddings("lung")
    pipeline.refresh("lung")
    for partition in pipeline.plan["partition"]:
        pipeline.records(partition)
        done = pipeline.embeddings(partition)
        assert (done.changed, done.computed) == (True, 0)
    assert len(pipeline.encoders.encoded) == 4
    assert_vectors_are_those_of_their_texts(pipeline)


def test_a_rerun_computes_nothing_and_commits_nothing(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    first = pipeline.embeddings("lung")
    before = pipeline.versions()
    again = pipeline.embeddings("lung")
    assert pipeline.versions() == before
    assert (again.changed, again.computed, again.rows_out) == (False, 0, 4)
    assert again.output_digest == first.output_digest


def test_one_changed_text_is_one_vector_computed(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.embeddings("lung")
    before = dict(pipeline.gold.select("vector_id", "run_id").rows())
    prepared(pipeline, *FOUR[:3], series("3", patient="P3", what="changed"))
    done = pipeline.embeddings("lung")
    assert (done.computed, done.rows_out) == (1, 4)
    after = dict(pipeline.gold.select("vector_id", "run_id").rows())
    assert before.keys() == after.keys(), "the id is the record's, not the content's"
    assert sum(after[i] != before[i] for i in after) == 1, "kept vectors keep the run that computed them"
    assert_vectors_are_those_of_their_texts(pipeline)


def test_attributes_that_change_without_the_text_rewrite_rows_and_compute_nothing(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.embeddings("lung")
    prepared(pipeline, *FOUR[:3], FOUR[3] | {"Manufacturer": "Other"})
    done = pipeline.embeddings("lung")
    assert (done.changed, done.computed) == (True, 0)
    assert pipeline.gold["attributes"].str.contains("Other").sum() == 1


def test_vectors_computed_before_a_failed_commit_are_adopted(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    with pipeline.killed_before_commit_of(tables.embeddings(pipeline.spec.id, SPACE)):
        pipeline.embeddings("lung")
    assert len(pipeline.encoders.encoded) == 4
    assert pipeline.staged()
    assert pipeline.gold.is_empty()
    killed_run = f"run-{pipeline.runs}"
    done = pipeline.embeddings("lung")
    assert (len(pipeline.encoders.encoded), done.computed, done.rows_out) == (4, 0, 4)
    assert set(pipeline.gold["run_id"]) == {killed_run}, "provenance names the run that computed them"
    assert pipeline.staged() == []
    assert_vectors_are_those_of_their_texts(pipeline)


def test_killed_in_the_middle_of_encoding_only_the_rest_is_computed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encoding.WINDOW, "text", 1)
    prepared(pipeline, *FOUR)
    for die_at in (1, 3):  # twice: the second attempt adopts and stages too, and is killed itself
        pipeline.encoders.die_at = die_at
        with pytest.raises(Killed):
            pipeline.embeddings("lung")
        assert len(pipeline.encoders.encoded) == len(pipeline.staged()) == die_at
    pipeline.encoders.die_at = None
    done = pipeline.embeddings("lung")
    assert (done.computed, len(pipeline.encoders.encoded)) == (1, 4)
    assert_vectors_are_those_of_their_texts(pipeline)


def test_a_second_attempt_under_the_same_run_id_keeps_what_the_first_staged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster retries a step under its run's id."""
    monkeypatch.setitem(encoding.WINDOW, "text", 1)
    prepared(pipeline, *FOUR)
    for die_at in (2, 3):
        pipeline.encoders.die_at = die_at
        pipeline.runs = 100
        with pytest.raises(Killed):
            pipeline.embeddings("lung")
    assert len(pipeline.staged()) == 3
    pipeline.encoders.die_at = None
    pipeline.embeddings("lung")
    assert len(pipeline.encoders.encoded) == 4


def test_killed_after_the_commit_the_next_run_removes_what_was_staged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(staging: Staging) -> None:
        raise Killed

    prepared(pipeline, *FOUR)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Staging, "clear", die)
        pipeline.embeddings("lung")
    assert pipeline.staged()
    assert pipeline.gold.height == 4
    version = pipeline.versions()[tables.embeddings(pipeline.spec.id, SPACE).path]
    done = pipeline.embeddings("lung")
    assert (done.computed, done.changed, pipeline.staged()) == (0, False, [])
    assert pipeline.versions()[tables.embeddings(pipeline.spec.id, SPACE).path] == version


def test_staged_vectors_that_nobody_wants_any_more_are_not_committed(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    with pipeline.killed_before_commit_of(tables.embeddings(pipeline.spec.id, SPACE)):
        pipeline.embeddings("lung")
    prepared(pipeline, *FOUR[:2])
    done = pipeline.embeddings("lung")
    assert (done.computed, pipeline.gold.height, pipeline.staged()) == (0, 2, [])


def test_a_bad_item_is_set_aside_alone_with_everybody_of_its_content(pipeline: Pipeline) -> None:
    rows = [*FOUR, series("8", what="bad one"), series("9", what="bad one")]
    prepared(pipeline, *rows)
    bad = {text for text in texts(pipeline).values() if "bad one" in text}
    pipeline.encoders.bad = bad
    done = pipeline.embeddings("lung")
    assert (done.computed, done.rows_out, done.quarantined) == (4, 4, 2)
    found = pipeline.quarantine.select("object_id", "stage", "code").rows()
    stage = "text_embeddings tiny@1"  # each maintained version of a space has its own quarantine
    assert sorted(found) == [("8", stage, "encoder_output"), ("9", stage, "encoder_output")]
    assert pipeline.embeddings("lung").rows_out == 4, "known to be bad: not tried again"
    prepared(pipeline, *FOUR)
    done = pipeline.embeddings("lung")
    assert (done.changed, done.quarantined) == (False, 0)
    assert pipeline.quarantine.is_empty(), "what left the source leaves quarantine, though gold needs no commit"


def test_weights_that_fail_for_everything_still_isolate_each_item(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.encoders.bad = set(texts(pipeline).values())
    done = pipeline.embeddings("lung")
    assert (done.rows_out, done.quarantined, pipeline.gold.height) == (0, 4, 0)


def test_a_new_encoder_version_stands_beside_the_old_one(pipeline: Pipeline) -> None:
    pipeline.list_source(*FOUR)
    pipeline.run()
    before, old = pipeline.versions(), pipeline.gold
    pipeline.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    assert pipeline.due() == {"lung": "text_embeddings"}
    pipeline.run()
    after = pipeline.versions()
    for table in (tables.manifest, tables.partitions, tables.records):
        path = table(pipeline.spec.id).path
        assert after[path] == before[path]
    assert len(pipeline.encoders.encoded) == 8
    assert pipeline.gold.filter(pl.col("space_version") == "tiny@1").sort("vector_id").equals(old.sort("vector_id"))
    assert_vectors_are_those_of_their_texts(pipeline)
    ids = pipeline.gold.group_by("space_version").agg(pl.col("vector_id").sort())["vector_id"].to_list()
    assert ids[0] == ids[1]
    generations = pipeline.read(tables.generations()).sort("generation")
    assert generations.select("generation", "space_version", "state").rows() == [
        (1, "tiny@1", "live"),
        (2, "tiny@2", "filling"),
    ]
    name = f"{pipeline.spec.id}__text__open"
    assert pipeline.index.alias_target(name) == f"{name}__g1", "readers stay where they are until promotion"
    assert pipeline.index.count(f"{name}__g1") == pipeline.index.count(f"{name}__g2") == 4
    # Both are maintained: a changed source reaches both.
    pipeline.list_source(*FOUR[:3])
    pipeline.run()
    assert pipeline.index.count(f"{name}__g1") == pipeline.index.count(f"{name}__g2") == 3
    assert pipeline.due() == {"lung": "current"}


def test_other_weights_under_the_same_name_are_other_vectors(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.embeddings("lung")
    pipeline.encoders.weights["tiny@1"] = "f" * 64
    done = pipeline.embeddings("lung")
    assert (done.computed, set(pipeline.gold["weights_digest"])) == (4, {"f" * 64})


def test_a_split_moves_rows_and_computes_nothing(pipeline: Pipeline) -> None:
    pipeline.list_source(*(series(str(n), patient=f"P{n}", what=f"series {n}") for n in range(8)))
    pipeline.run()
    before = dict(pipeline.gold.select("vector_id", "fingerprint").rows())
    encoded = len(pipeline.encoders.encoded)
    pipeline.refresh("lung")
    assert pipeline.due() == {"lung.0": "records", "lung.1": "records"}
    for partition in ("lung.0", "lung.1"):
        pipeline.records(partition)
        assert retire.retire(pipeline.context(), pipeline.spec) == [], "the parent stays until its children stand"
        assert pipeline.embeddings(partition).computed == 0
        pipeline.vectors(partition)
    assert set(pipeline.gold["partition"]) == {"lung", "lung.0", "lung.1"}
    assert retire.retire(pipeline.context(), pipeline.spec) == ["lung"]
    assert len(pipeline.encoders.encoded) == encoded
    assert set(pipeline.silver["partition"]) == set(pipeline.gold["partition"]) == {"lung.0", "lung.1"}
    assert {entity["partition"] for entity in pipeline.entities.values()} == {"lung.0", "lung.1"}
    assert dict(pipeline.gold.select("vector_id", "fingerprint").rows()) == before
    assert retire.retire(pipeline.context(), pipeline.spec) == []


def test_retiring_takes_staging_and_quarantine_with_it(pipeline: Pipeline) -> None:
    rows = [series(str(n), patient=f"P{n}", what=f"series {n}") for n in range(8)]
    pipeline.list_source(*rows, series("x", license_short_name="none"))
    pipeline.refresh()
    pipeline.records("lung")
    with pipeline.killed_before_commit_of(tables.embeddings(pipeline.spec.id, SPACE)):
        pipeline.embeddings("lung")
    assert pipeline.staged()
    pipeline.run("lung")
    assert pipeline.staged() == []
    assert set(pipeline.quarantine["partition"]) <= {"lung.0", "lung.1"}
    assert pipeline.quarantine.height == 1


def test_a_partition_with_nothing_but_quarantined_objects_is_retired_too(pipeline: Pipeline) -> None:
    pipeline.list_source(*(series(str(n), patient=f"P{n}", license_short_name="none") for n in range(4)))
    pipeline.run()
    assert pipeline.due() == {"lung": "current"}, "nothing to index is not something to do"
    pipeline.run("lung")
    assert set(pipeline.quarantine["partition"]) == {"lung.0", "lung.1"}


def test_embeddings_need_records(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.refresh()
    with pytest.raises(NotFound, match="no records"):
        pipeline.embeddings("lung")


def test_objects_that_were_moved_meanwhile_are_not_blamed(pipeline: Pipeline) -> None:
    prepared(pipeline, *FOUR)
    pipeline.refresh("lung")
    with pytest.raises(CommitConflict, match="manifest"):
        pipeline.embeddings("lung")
    assert pipeline.quarantine.is_empty()


def test_a_commit_that_the_audit_was_not_told_of_is_not_taken_for_its_last_row(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1", what="first"))
    pipeline.run()
    first = pipeline.gold.select("vector_id", "fingerprint")
    prepared(pipeline, series("1", what="second"))
    with pipeline.killed_before_audit():
        pipeline.embeddings("lung")
    prepared(pipeline, series("1", what="first"))
    assert pipeline.due() == {"lung": "text_embeddings"}
    with pytest.raises(CommitConflict, match="did not end"):
        pipeline.vectors("lung")
    pipeline.run()
    assert pipeline.gold.select("vector_id", "fingerprint").equals(first)
    assert_vectors_are_those_of_their_texts(pipeline)
    assert pipeline.due() == {"lung": "current"}
