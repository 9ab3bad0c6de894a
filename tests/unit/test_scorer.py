"""The scorer finds nothing while every rule is at work, and names the leak when any one of them is switched off."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from helpers.dagster_world import CHAIN, DagsterWorld
from helpers.pipeline import Pipeline
from helpers.tiny_source import series

from medvec_assets import checks, printing, status
from medvec_assets.catalog.aimi_chest_xray import AIMI_CHEST_XRAY
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.catalog.tcia_radiology import TCIA_RADIOLOGY
from medvec_assets.connectors import dicom_objects, sample_folder
from medvec_assets.deid import technical
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import imaging, raster, series_descriptor
from medvec_assets.modalities.imaging import image_rules
from medvec_assets.modalities.imaging import series as imaging_series
from medvec_assets.modalities.imaging.dicom_file import PARSER_FAILURES, rejected
from medvec_assets.scorer import scores
from medvec_assets.scorer.score import Score, score
from medvec_assets.scorer.search import Leak
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import ObjectRejected
from resources.lakehouse import Lakehouse
from resources.settings import Settings

SEED = b"the scorer's tests"
Patch = pytest.MonkeyPatch
PARTITION = "chest_ct"


def made(spec: DatasetSpec, home: Path) -> Context:
    """The dataset's fixture, listed and made into records."""
    settings = Settings(
        home=home, sources={spec.id: str(sample_folder(spec.id))}, pseudonym_key="11" * 32, device="cpu"
    )
    ctx = Context(settings, Lakehouse.open(settings), "scored")
    for partition in manifest.refresh(ctx, spec).plan["partition"]:
        records.build(ctx, spec, partition)
    return ctx


@pytest.fixture(scope="module")
def radiology(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return made(TCIA_RADIOLOGY, tmp_path_factory.mktemp("radiology"))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return made(TCIA_CATALOG, tmp_path_factory.mktemp("catalogue"))


def leaks(found: Score) -> set[tuple[str, str]]:
    """(planted in, found in)"""
    return {(leak.planted, leak.found) for leak in found.leaks}


@pytest.mark.parametrize("partition", ["brain_mr", "chest_ct"])
def test_nothing_comes_through_while_every_rule_is_at_work(radiology: Context, partition: str) -> None:
    found = score(radiology, TCIA_RADIOLOGY, partition, SEED)
    assert found.leaks == () and found.passed
    assert found.planted >= 200 and found.places >= 100 and found.kinds >= 20
    assert found.records >= 2, "a copy as it is and a planted one were made into records"
    assert found.quarantined >= 1, "a copy was refused for a name where a number belongs"


def test_equal_seeds_plant_the_same_and_leave_nothing_behind(radiology: Context) -> None:
    before = sorted(path for path in radiology.settings.home.rglob("*") if "scratch" not in path.parts)
    one, two = (score(radiology, TCIA_RADIOLOGY, PARTITION, SEED) for _ in range(2))
    assert (one.seed_digest, one.planted, one.places) == (two.seed_digest, two.planted, two.places)
    assert sorted(path for path in radiology.settings.home.rglob("*") if "scratch" not in path.parts) == before
    assert list((radiology.settings.home / "scratch").iterdir()) == []


# ---------------------------------------------------------------- one rule off at a time


def allow_list_off(patch: Patch) -> None:
    patch.setattr(technical, "_term", lambda value, terms: value)


def pseudonyms_off(patch: Patch) -> None:
    patch.setattr(Pseudonyms, "of", lambda self, kind, identifier: identifier)


def plain_digests_for_pseudonyms(patch: Patch) -> None:
    import hashlib

    patch.setattr(Pseudonyms, "of", lambda self, kind, identifier: hashlib.sha256(identifier.encode()).hexdigest()[:32])


def every_uri_public(patch: Patch) -> None:
    patch.setattr(imaging, "_PUBLIC_URI", re.compile(".*"))


def file_names_for_surrogates(patch: Patch) -> None:
    patch.setattr(dicom_objects, "object_id", lambda root, key: key)


def parser_messages_in_quarantine(patch: Patch) -> None:
    @contextmanager
    def talkative(code: str, rule: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except PARSER_FAILURES as error:
            raise rejected(code, rule, f"{remedy}: {error}") from None

    patch.setattr(image_rules, "parser_failures_as", talkative)


def whole_header_in_attributes(patch: Patch) -> None:
    real = imaging_series.technical_attributes
    patch.setattr(imaging_series, "HEADER_KEYWORDS", ("Modality", "PatientName", "StudyDate", "PatientComments"))
    patch.setattr(
        imaging_series,
        "technical_attributes",
        lambda header, **more: real(header, **more) | {name: str(value) for name, value in header.items()},
    )


def spoken(patch: Patch, say: Callable[[str], Any]) -> None:
    real = imaging_series.check_image

    def talkative(dataset: Any) -> Any:
        say(f"looking at {dataset.get('PatientName')}")
        return real(dataset)

    patch.setattr(imaging_series, "check_image", talkative)


RECORDS = "silver/tcia_radiology/records"
RULES: dict[str, tuple[Callable[[Patch], None], set[tuple[str, str]]]] = {
    "the allow list of terms": (
        allow_list_off,
        {
            ("CS BodyPartExamined", f"{RECORDS}/partition=chest_ct: column attributes"),
            ("CS BodyPartExamined", "index entities"),
        },
    ),
    "the allow list of elements": (
        whole_header_in_attributes,
        {
            ("the subject's name", f"{RECORDS}/partition=chest_ct: column attributes"),
            ("free text PatientComments", f"{RECORDS}/partition=chest_ct: column attributes"),
        },
    ),
    "pseudonyms": (
        pseudonyms_off,
        {
            ("the subject's id", f"{RECORDS}/partition=chest_ct: column subject_key"),
            ("UI SeriesInstanceUID", f"{RECORDS}/partition=chest_ct: column record_id"),
            ("UI SeriesInstanceUID", "index entities"),
        },
    ),
    "the key of pseudonyms": (
        plain_digests_for_pseudonyms,
        {("the subject's id", f"{RECORDS}/partition=chest_ct: column subject_key")},
    ),
    "only public URIs": (
        every_uri_public,
        {("manifest row, a file's name", f"{RECORDS}/partition=chest_ct: column payload_uri")},
    ),
    "surrogates of file names": (
        file_names_for_surrogates,
        {
            ("manifest row, a folder's name", f"{RECORDS}/partition=chest_ct: column object_ids"),
            ("manifest row, a file's name", "bronze/tcia_radiology/manifest: column object_id"),
        },
    ),
    "codes instead of a parser's messages": (
        parser_messages_in_quarantine,
        {
            (
                "a name in NumberOfFrames, which a parser refuses",
                "bronze/tcia_radiology/quarantine/stage=records/partition=chest_ct: column remedy",
            )
        },
    ),
    "silence of loggers": (
        lambda patch: spoken(patch, logging.getLogger("any.library").warning),
        {("the subject's name", "logs, warnings and error messages")},
    ),
    "silence on the terminal": (
        lambda patch: spoken(patch, print),
        {("the subject's name", "logs, warnings and error messages")},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_is_switched_off_is_a_leak_that_is_named(radiology: Context, monkeypatch: Patch, rule: str) -> None:
    switch_off, expected = RULES[rule]
    switch_off(monkeypatch)
    found = score(radiology, TCIA_RADIOLOGY, PARTITION, SEED)
    assert expected <= leaks(found), sorted(leaks(found))
    assert not found.passed


def test_a_payload_that_keeps_what_the_file_said_is_a_leak(tmp_path: Path, monkeypatch: Patch) -> None:
    settings = Settings(home=tmp_path, pseudonym_key="11" * 32, device="cpu")
    ctx = Context(settings, Lakehouse.open(settings), "scored")
    (partition,) = manifest.refresh(ctx, AIMI_CHEST_XRAY).plan["partition"]
    records.build(ctx, AIMI_CHEST_XRAY, partition)
    assert score(ctx, AIMI_CHEST_XRAY, partition, SEED).passed
    parsed = raster.Raster.parsed
    monkeypatch.setattr(
        raster.Raster, "parsed", lambda self, data, said: replace(parsed(self, data, said), payload=lambda: data)
    )
    found = score(ctx, AIMI_CHEST_XRAY, partition, SEED)
    assert {leak.found for leak in found.leaks} == {"payload/aimi_chest_xray"}
    assert {"JPEG comment", "JPEG EXIF, tag 0x010e"} <= {leak.planted for leak in found.leaks}


def test_a_run_that_ends_proves_nothing(radiology: Context, monkeypatch: Patch) -> None:
    def fail(*_: Any) -> None:
        raise ObjectRejected("no", code="no_such_thing", remedy="none")

    monkeypatch.setattr(records, "build", fail)
    found = score(radiology, TCIA_RADIOLOGY, PARTITION, SEED)
    assert (found.failure, found.passed, found.leaks) == ("no_such_thing", False, ())


# ---------------------------------------------------------------- a catalogue


def test_a_catalogue_keeps_its_published_ids_and_neither_subjects_nor_columns_on_no_list(
    catalogue: Context, monkeypatch: Patch
) -> None:
    found = score(catalogue, TCIA_CATALOG, "tcga_lihc", SEED)
    assert found.passed and found.planted >= 50 and found.records == found.copies == 5

    real = series_descriptor.MODALITY.records

    def talkative(objects: Any, *more: Any) -> Any:
        frame, refused = real(objects, *more)
        return frame.with_columns(attributes=objects["attributes"]), refused

    monkeypatch.setattr(series_descriptor.MODALITY, "records", talkative)
    shown = leaks(score(catalogue, TCIA_CATALOG, "tcga_lihc", SEED))
    assert (
        "manifest row, attribute patient_name",
        "silver/tcia_catalog/records/partition=tcga_lihc: column attributes",
    ) in shown


# ---------------------------------------------------------------- what is kept of it


def test_a_score_is_kept_and_made_again_only_when_something_moved(pipeline: Pipeline, monkeypatch: Patch) -> None:
    pipeline.list_source(*[series(f"{cohort}-1", cohort) for cohort in ("lung", "liver")])
    pipeline.run()
    spec = pipeline.spec

    def bring_up(partition: str) -> Score | None:
        return scores.bring_up(pipeline.context(), spec, partition)

    first = bring_up("lung")
    assert first is not None and first.passed
    (row,) = pipeline.read(tables.deid_scores()).to_dicts()
    assert (row["planted"], row["leaks"], row["partition"]) == (first.planted, 0, scores.ALL)
    assert bring_up("lung") is None
    assert bring_up("liver") is None, "of a catalogue one score is of all partitions"

    monkeypatch.setattr(series_descriptor.MODALITY, "version", "series-descriptor-of-a-test")
    monkeypatch.setattr(Pseudonyms, "of", lambda self, kind, identifier: identifier)
    second = bring_up("lung")
    assert second is not None and not second.passed
    finding = next(one for one in checks.of_records(pipeline.context(), spec, "lung") if one.name == "deid_scored")
    assert not finding.passed
    assert "mrn of the subject's id in silver/" in finding.remedy
    assert json.loads(pipeline.read(tables.deid_scores()).sort("scored_at")["leak_places"][-1])

    monkeypatch.undo()
    third = bring_up("lung")
    assert third is not None and third.passed, "the first score is true again, but the newest leaks"
    assert bring_up("lung") is None


def test_records_that_are_found_to_leak_without_having_changed_are_due_until_a_score_passes(
    pipeline: Pipeline, monkeypatch: Patch
) -> None:
    """As after the scorer learned of more places: nothing of the records moved, so by their inputs they are current."""
    pipeline.list_source(series("1", "lung"))
    with dg.DagsterInstance.ephemeral() as instance:
        world = DagsterWorld(pipeline, instance)
        world.refresh()
        pipeline.run()
        before = pipeline.versions()
        with monkeypatch.context() as patch:
            patch.setattr(
                scores, "score", lambda *_: Score("seed", leaks=(Leak("mrn", "file name", "silver", "as is"),))
            )
            assert not world.run("records", partition="lung").success
            assert pipeline.due() == {"lung": "records"}
            found = status.of_dataset(world.runtime, pipeline.spec, instance, "status")
        assert [(one.name, one.broken, one.count) for one in found.problems] == [("deid_not_passed", True, 1)]
        shown = status.as_json([found])
        assert json.loads(json.dumps(shown))["datasets"][0]["problems"][0]["sample"] == list(found.problems[0].sample)
        printed = "\n".join(printing.status(shown))
        assert "lung: mrn of file name in silver" in printed and "medvec run --dataset tcia_catalog" in printed
        assert world.run(*CHAIN, partition="lung").success and pipeline.due() == {"lung": "current"}
        assert status.of_dataset(world.runtime, pipeline.spec, instance, "status").ok
    assert pipeline.versions() == before, "only the score was made again"


def test_a_partition_that_was_never_scored_does_not_pass(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1", "lung"))
    pipeline.run()
    finding = next(
        one for one in checks.of_records(pipeline.context(), pipeline.spec, "lung") if one.name == "deid_scored"
    )
    assert not finding.passed and "never scored" in finding.remedy


def test_a_leak_stops_the_partition_in_dagster_and_a_mended_rule_lets_it_go_on(
    pipeline: Pipeline, monkeypatch: Patch
) -> None:
    pipeline.list_source(series("1", "lung"))
    with dg.DagsterInstance.ephemeral() as instance:
        world = DagsterWorld(pipeline, instance)
        world.refresh()
        with monkeypatch.context() as patch:
            patch.setattr(Pseudonyms, "of", lambda self, kind, identifier: identifier)
            stopped = world.run(*CHAIN, partition="lung")
        failed = {check.check_name for check in stopped.get_asset_check_evaluations() if not check.passed}
        assert (stopped.success, failed) == (False, {"deid_scored"})
        assert pipeline.gold.is_empty() and not pipeline.entities

        assert world.run(*CHAIN, partition="lung").success
        version = pipeline.lake.snapshot(tables.deid_scores()).version  # type: ignore[union-attr]
        assert world.run(*CHAIN, partition="lung").success
        assert pipeline.lake.snapshot(tables.deid_scores()).version == version, "an unchanged run costs nothing"  # type: ignore[union-attr]
