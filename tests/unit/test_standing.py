"""What is broken or stale right now: each kind of problem is found, counted, named and mended by the command it names."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers.memory_lake import MemoryLake
from helpers.pipeline import SPACE, Pipeline, small_spec
from helpers.tiny_source import series

from medvec_assets import printing, status
from medvec_assets.catalog.spec import Residency, Space
from medvec_assets.stages.promote import promote
from medvec_assets.stages.standing import MAX_SAMPLE, Problem, Runs, Standing, examine
from medvec_assets.stages.sync import sync_all
from resources import tables
from resources.errors import PolicyRefused, SourceError, SourceUnavailable

LAKE = MemoryLake
LUNG, LIVER = series("1", "lung"), series("2", "liver")


@pytest.fixture
def whole(pipeline: Pipeline) -> Pipeline:
    """Two cohorts, run to their end."""
    pipeline.list_source(LUNG, LIVER)
    pipeline.run()
    return pipeline


def standing(pipeline: Pipeline, runs: Runs = Runs(), days: int = 0) -> Standing:
    return examine(pipeline.context(), pipeline.spec, datetime.now(UTC) + timedelta(days=days), runs)


def only(pipeline: Pipeline, runs: Runs = Runs(), days: int = 0) -> Problem:
    (found,) = standing(pipeline, runs, days).problems
    return found


def test_what_is_whole_has_no_problem_at_any_age(whole: Pipeline) -> None:
    assert standing(whole, days=1000) == Standing("tcia_catalog", partitions=2, current=2)


def test_a_dataset_that_nobody_ran_has_no_problem(pipeline: Pipeline) -> None:
    assert standing(pipeline) == Standing("tcia_catalog")


def test_what_nobody_asked_for_is_no_problem_until_its_run_fails(pipeline: Pipeline) -> None:
    pipeline.list_source(LUNG, LIVER)
    pipeline.refresh()
    pipeline.records("lung")
    pipeline.embeddings("lung")
    pipeline.vectors("lung")
    found = standing(pipeline)
    assert (found.ok, found.partitions, found.current, found.unasked) == (True, 2, 1, 1)
    failed = only(pipeline, Runs(failed=frozenset({"liver"})))
    assert (failed.name, failed.count, failed.broken) == ("partitions_broken", 1, True)
    assert failed.sample == ("liver: its run failed before anything was made",)


def test_a_chain_that_stopped_halfway_is_broken_unless_a_run_is_at_it(whole: Pipeline) -> None:
    whole.list_source(LUNG, LIVER, series("3", "brain"))
    whole.refresh()
    whole.records("brain")
    found = only(whole)
    assert (found.name, found.sample) == ("partitions_broken", ("brain: text_embeddings: never materialized",))
    going_on = standing(whole, Runs(running=frozenset({"brain"})))
    assert (going_on.ok, going_on.running, going_on.unasked) == (True, 1, 0)


def test_a_lost_entity_is_broken(whole: Pipeline) -> None:
    whole.index.held["tcia_catalog__text__open__g1"].entities.popitem()
    found = only(whole)
    assert (found.name, found.broken, found.count) == ("partitions_broken", True, 1)
    assert "the index does not agree with its receipt" in found.sample[0]
    whole.run()
    assert standing(whole).ok


def test_a_change_that_is_listed_is_stale_and_broken_once_it_is_too_old(whole: Pipeline) -> None:
    whole.list_source(LUNG, series("2", "liver", what="another"))
    whole.refresh()
    found = only(whole)
    assert (found.name, found.broken, found.remedy) == ("partitions_stale", False, "medvec run --dataset tcia_catalog")
    assert found.sample[0].startswith("liver: records: its content")
    assert "0 of them are older than 120 days" in found.what
    late = only(whole, days=121)
    assert late.broken and "1 of them are older" in late.what
    whole.run()
    assert standing(whole).ok


def test_the_count_is_exact_and_the_sample_capped_and_the_command_names_what_it_brings(whole: Pipeline) -> None:
    more = [series(f"c{n}", f"cohort{n:02}") for n in range(12)]
    whole.list_source(LUNG, LIVER, *more)
    whole.refresh()
    for n in range(12):
        whole.records(f"cohort{n:02}")
    whole.spec = whole.spec.model_copy(update={"sample_cohorts": ("lung",)})
    found = only(whole)
    assert (found.count, len(found.sample)) == (12, MAX_SAMPLE)
    assert found.remedy == "medvec run --dataset tcia_catalog --all", "everything was asked for once"

    whole.list_source(LUNG, LIVER, *more, series("new", "never"))
    whole.refresh()
    words = shlex.split(only(whole).remedy.split(",")[0])
    assert words[:4] == ["medvec", "run", "--dataset", "tcia_catalog"]
    assert words[5::2] == [f"cohort{n:02}" for n in range(10)], "--all would also bring what nobody asked for"
    assert only(whole).remedy.endswith("2 more")


@pytest.mark.parametrize("error", [SourceUnavailable, SourceError])
def test_a_source_that_moved_or_cannot_be_read(
    whole: Pipeline, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    kind = type(whole.context().connector(whole.spec))
    monkeypatch.setattr(kind, "version", lambda _: "v26")
    moved = only(whole)
    assert (moved.name, moved.broken) == ("source_moved", False)
    assert moved.sample[0].endswith("v26 is published")

    def refuse(_: object) -> str:
        raise error("it does not answer", remedy="ask its operator")

    monkeypatch.setattr(kind, "version", refuse)
    unread = only(whole)
    assert (unread.name, unread.remedy, unread.broken) == ("source_unreadable", "ask its operator", True)


def test_quarantine_is_a_problem_above_the_threshold_only(whole: Pipeline) -> None:
    bad = series("3", "liver", license_short_name="none given")
    whole.list_source(LUNG, LIVER, bad)
    whole.spec = whole.spec.model_copy(update={"quarantine_threshold": 0.5})
    whole.run()
    assert standing(whole).ok
    whole.spec = whole.spec.model_copy(update={"quarantine_threshold": 0.1})
    found = only(whole)
    assert (found.name, found.count, found.broken) == ("quarantine_over_threshold", 1, True)
    (told,) = found.sample
    assert told.startswith("liver: 1 of 2 objects (") and told.endswith(" 1)")
    whole.spec = whole.spec.model_copy(update={"known_bad": {"liver": 0.5}})
    assert standing(whole).ok


def test_what_runs_left_behind_is_named_and_gone_after_the_command(whole: Pipeline) -> None:
    for partition in ("lung", "gone"):
        staged = Path(whole.lake.root) / f"staging/tcia_catalog/{SPACE}/tiny@1/{partition}/run-9-000000.arrow"
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(b"vectors")
    left = only(whole)
    assert (left.name, left.count, left.remedy) == ("staging_left_over", 2, "medvec sync --dataset tcia_catalog")
    assert left.sample == ("gone: 1 segments", "lung: 1 segments")
    whole.run()
    assert standing(whole).ok


def test_a_parent_that_was_not_retired_is_named(pipeline: Pipeline) -> None:
    pipeline.list_source(*[series(str(n), patient=f"P{n}", what=f"what {n}") for n in range(8)])
    pipeline.run()
    pipeline.refresh("lung")
    for partition in ("lung.0", "lung.1"):
        assert standing(pipeline).ok, "as long as its children are not whole the parent serves"
        pipeline.records(partition)
        pipeline.embeddings(partition)
        pipeline.vectors(partition)
    found = only(pipeline)
    assert (found.name, found.sample) == ("partitions_not_retired", ("lung",))
    pipeline.run()
    assert standing(pipeline).ok


def test_a_generation_that_waits_is_named_until_it_is_promoted(whole: Pipeline) -> None:
    whole.spec = small_spec(spaces={SPACE: Space(encoder="tiny@2")})
    whole.run()
    found = only(whole)
    assert (found.name, found.broken) == ("text_not_promoted", False)
    assert found.sample == ("tcia_catalog__text__open__g2 (tiny@2)",)
    assert found.remedy == "medvec promote --dataset tcia_catalog --space text"
    promote(whole.context(), whole.spec, SPACE)
    assert standing(whole).ok


def test_a_dataset_that_the_site_may_not_have_is_no_problem_and_says_the_rule(pipeline: Pipeline) -> None:
    pipeline.spec = pipeline.spec.model_copy(update={"residency": Residency(where="enclave:rap")})
    found = standing(pipeline)
    assert found.ok and "rule 'residency'" in found.note


def test_what_is_here_against_the_policy_is_a_problem(whole: Pipeline) -> None:
    whole.spec = whole.spec.model_copy(update={"residency": Residency(where="enclave:rap")})
    problem = only(whole)
    assert (problem.name, problem.broken) == ("kept_against_policy", True)
    assert "rule 'residency'" in problem.what


def test_a_commit_that_no_audit_row_tells_of_is_broken_even_if_its_input_went_back(whole: Pipeline) -> None:
    whole.list_source(LUNG, series("2", "liver", what="another"))
    whole.refresh()
    with whole.killed_before_audit():
        whole.records("liver")
    whole.list_source(LUNG, LIVER)
    whole.refresh()
    found = only(whole)
    assert (found.name, found.broken) == ("partitions_broken", True)
    assert "a run was killed between its commit and its audit row" in found.sample[0]
    whole.run()
    assert standing(whole).ok


def test_a_partition_that_leaks_is_due_and_worked_on_by_nothing_until_a_score_passes(whole: Pipeline) -> None:
    whole.scored("lung", leaks=3)
    assert whole.due() == {"lung": "records", "liver": "current"}
    found = only(whole)
    assert (found.name, found.count, found.broken) == ("deid_not_passed", 1, True)
    assert found.sample == ("lung: mrn of file name in silver/records and 2 more came through",)
    for stage in (whole.embeddings, whole.vectors):
        with pytest.raises(PolicyRefused, match="deid_leak"):
            stage("lung")
    assert set(whole.read(tables.refusals())["rule"]) == {"deid_leak"}
    assert {one.partition for one in sync_all(whole.context(), whole.spec, full=True)} == {"liver"}
    whole.scored("lung", failure="disk_full")
    assert whole.due()["lung"] == "records" and "1 of them leak" in only(whole).what
    whole.scored("lung")
    assert standing(whole).ok and whole.vectors("lung")


def test_a_score_that_could_not_be_made_is_named_and_hides_nothing(whole: Pipeline) -> None:
    whole.scored("-", failure="source_invalid")
    assert set(whole.due().values()) == {"records"}
    found = only(whole)
    assert found.count == 2 and "0 of them leak" in found.what
    assert "liver: the scored run failed (source_invalid)" in found.sample
    assert whole.embeddings("lung").computed == 0 and whole.vectors("lung")


def test_the_command_prints_the_answer_for_a_person_and_as_json(whole: Pipeline) -> None:
    whole.index.held.clear()
    found = replace(standing(whole), unasked=3)
    result = status.as_json([found, Standing("other")])
    assert (result["ok"], [one["ok"] for one in result["datasets"]]) == (False, [False, True])
    assert result["datasets"][0]["problems"][0]["count"] == 2
    lines = list(printing.status(result))
    assert lines[0] == "FAIL  tcia_catalog: 0 of 2 partitions current, 3 never asked for"
    assert (
        "      partitions_broken: 2, broken: a run failed or was killed in them, or the index lost what it held"
        in lines
    )
    assert lines[-2:] == [
        "        What to do: medvec run --dataset tcia_catalog",
        "ok    other: 0 of 0 partitions current",
    ]
