"""The records stage: rules of every modality, counts that add up, and what does not need a commit."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import bytes_modality
from helpers.counting_encoder import Killed
from helpers.memory_lake import MemoryLake
from helpers.pipeline import EPOCH, Pipeline
from helpers.tiny_source import series

from medvec_assets.catalog.spec import Residency
from medvec_assets.modalities import Rejected, modality
from medvec_assets.stages import pieces, records
from resources import tables
from resources.errors import CommitConflict, NotFound, PolicyRefused, SourceError, StorageError
from resources.lakehouse import Lakehouse
from resources.tables import TableSpec

LAKE = MemoryLake


def codes(pipeline: Pipeline) -> dict[str, tuple[str, str]]:
    """object_id -> (disposition, code) of stage records."""
    found = pipeline.quarantine.select("object_id", "disposition", "code", "stage").rows()
    return {object_id: (disposition, code) for object_id, disposition, code, stage in found if stage == "records"}


def fill(files: Pipeline, **contents: str) -> None:
    assert files.connector is not None
    files.connector.rows, files.connector.contents = [], {}
    for object_id, content in contents.items():
        files.connector.add(object_id, content.encode())


def test_every_object_is_in_a_record_or_in_quarantine(files: Pipeline) -> None:
    assert files.connector is not None
    fill(files, a="CT one", b="CT two", c="CT three")
    files.connector.add("part-1", b"MR first", record_ref="series")
    files.connector.add("part-2", b"second", record_ref="series")
    files.connector.add("forbidden", b"CT four", license="all rights reserved")
    del files.connector.contents["memory://b"]
    files.refresh()
    done = files.records("lung")
    assert (done.rows_in, done.rows_out, done.quarantined, done.skipped) == (6, 3, 2, 0)
    assert codes(files) == {
        "b": ("quarantined", "object_missing"),
        "forbidden": ("quarantined", "license_not_allowed"),
    }
    assert all(files.quarantine["remedy"])
    kept = dict(files.silver.select("record_id", "object_ids").rows())
    assert kept == {"record-a": ["a"], "record-c": ["c"], "series": ["part-1", "part-2"]}
    assert "memory://forbidden" not in files.connector.reads, "what is not allowed is not even read"


def test_a_record_is_never_cut_between_two_chunks(files: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BULK_OBJECTS", 2)
    assert files.connector is not None
    for number in range(7):
        files.connector.add(f"i{number}", b"CT %d" % number, record_ref=f"series-{number // 3}", subject_ref="S")
    files.refresh()
    files.records("lung")
    assert dict(files.silver.select("record_id", "object_ids").rows()) == {
        "series-0": ["i0", "i1", "i2"],
        "series-1": ["i3", "i4", "i5"],
        "series-2": ["i6"],
    }


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_bytes_that_are_not_those_of_the_manifest_are_quarantined(files: Pipeline, kind: str) -> None:
    assert files.connector is not None
    fill(files, good="CT good")
    files.connector.add("changed", b"CT x", checksum_kind=kind, checksum=hashlib.new(kind, b"CT x").hexdigest())
    files.refresh()
    files.connector.contents["memory://changed"] = b"CT y"
    done = files.records("lung")
    assert (done.rows_out, codes(files)) == (1, {"changed": ("quarantined", "checksum_mismatch")})


def test_a_checksum_that_is_no_digest_of_the_bytes_is_not_compared_with_them(files: Pipeline) -> None:
    assert files.connector is not None
    files.connector.add("a", b"CT a", checksum_kind="etag", checksum="abc-3")
    files.refresh()
    assert files.records("lung").rows_out == 1


def test_a_record_that_no_index_entity_could_hold_does_not_fail_its_partition(files: Pipeline) -> None:
    fill(files, good="CT good", bad="X" * 65)
    files.run()
    assert codes(files) == {"bad": ("quarantined", "field_too_long")}
    assert len(files.entities) == 1
    assert set(files.due().values()) == {"current"}


def test_a_suppressed_subject_is_dropped_and_stays_dropped(files: Pipeline) -> None:
    fill(files, a="CT a", b="CT b")
    files.run()
    assert len(files.entities) == 2
    files.suppress("subject-a")
    assert files.due() == {"lung": "records"}
    files.run()
    assert files.silver["record_id"].to_list() == files.gold["record_id"].to_list() == ["record-b"]
    assert [entity["record_id"] for entity in files.entities.values()] == ["record-b"]
    assert codes(files) == {"a": ("skipped", "suppressed_subject")}
    assert files.connector is not None
    files.connector.published = "v2"
    files.connector.add("a2", b"CT again", subject_ref="subject-a")
    files.run()
    assert files.silver["record_id"].to_list() == ["record-b"], "a refresh must not bring a withdrawn subject back"


def test_a_rerun_commits_nothing_and_reads_nothing(files: Pipeline) -> None:
    fill(files, a="CT a", b="CT b")
    files.run()
    assert files.connector is not None
    before, reads = files.versions(), len(files.connector.reads)
    done = files.records("lung")
    assert (files.versions(), len(files.connector.reads)) == (before, reads)
    assert (done.changed, done.rows_out) == (False, 2)


def test_a_normalisation_that_changes_nothing_commits_nothing(files: Pipeline) -> None:
    fill(files, a="CT a", b="CT b")
    files.run()
    before, encoded = files.versions(), list(files.encoders.encoded)
    bytes_modality.MODALITY.version = "bytes-2"
    assert files.due() == {"lung": "records"}
    files.run()
    after = files.versions()
    assert {path for path in after if after[path] != before[path]} == {tables.materializations().path}
    assert files.encoders.encoded == encoded
    assert files.due() == {"lung": "current"}


def test_a_normalisation_that_leaves_the_model_input_costs_no_vector(
    files: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(files, a="CT a", b="CT b")
    files.run()
    vectors = dict(files.gold.select("vector_id", "fingerprint").rows())
    records_version = files.versions()[tables.records(files.spec.id).path]
    record = bytes_modality.BytesModality._record

    def with_a_note(self: Any, *args: Any) -> dict[str, Any]:
        return record(self, *args) | {"attributes": '{"note": "new"}'}

    monkeypatch.setattr(bytes_modality.BytesModality, "_record", with_a_note)
    bytes_modality.MODALITY.version = "bytes-2"
    encoded = len(files.encoders.encoded)
    files.run()
    assert files.versions()[tables.records(files.spec.id).path] == records_version + 1
    assert set(files.gold["attributes"]) == {'{"note": "new"}'}
    assert dict(files.gold.select("vector_id", "fingerprint").rows()) == vectors
    assert len(files.encoders.encoded) == encoded


def test_a_modality_that_loses_an_object_fails_the_run_without_a_commit(
    files: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(files, a="CT a", b="CT b")
    files.refresh()
    kept = bytes_modality.BytesModality.records
    monkeypatch.setattr(
        bytes_modality.BytesModality, "records", lambda self, objects, *rest: kept(self, objects.head(1), *rest)
    )
    with pytest.raises(SourceError, match="lost objects"):
        files.records("lung")
    assert files.silver.is_empty()
    assert files.quarantine.is_empty()


def test_a_modality_that_counts_an_object_twice_is_found_out(files: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(files, a="CT a")
    files.refresh()
    kept = bytes_modality.BytesModality.records

    def twice(self: Any, *args: Any) -> Any:
        frame, rejected = kept(self, *args)
        return frame, [*rejected, Rejected("a", "x", "y")]

    monkeypatch.setattr(bytes_modality.BytesModality, "records", twice)
    with pytest.raises(SourceError, match="lost objects"):
        files.records("lung")


def test_a_partition_that_is_not_planned_is_not_found(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.refresh()
    with pytest.raises(NotFound, match="liver"):
        pipeline.records("liver")


def test_records_may_not_be_made_where_the_policy_forbids_it(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.refresh()
    pipeline.spec = pipeline.spec.model_copy(update={"residency": Residency(where="enclave:rap")})
    with pytest.raises(PolicyRefused):
        pipeline.records("lung")


def test_records_are_not_made_from_a_manifest_that_is_ahead_of_its_plan(pipeline: Pipeline) -> None:
    pipeline.list_source(series("1"))
    pipeline.run()
    pipeline.list_source(series("1", what="other"))
    with pipeline.killed_before_commit_of(tables.partitions(pipeline.spec.id)):
        pipeline.refresh()
    pipeline.spec = pipeline.spec.model_copy(update={"licenses": pipeline.spec.licenses | {"MIT"}})  # something is due
    with pytest.raises(CommitConflict, match="manifest"):
        pipeline.records("lung")
    pipeline.run()
    assert pipeline.silver["text"].str.contains("other").all()


def test_a_commit_that_the_audit_was_not_told_of_is_not_taken_for_its_last_row(pipeline: Pipeline) -> None:
    """The source changes, the run is killed after its commit, the source goes back: the audit knows that input."""
    pipeline.list_source(series("1", what="first"))
    pipeline.run()
    first = pipeline.silver
    pipeline.list_source(series("1", what="second"))
    pipeline.refresh()
    with pipeline.killed_before_audit():
        pipeline.records("lung")
    assert not pipeline.silver.equals(first)
    pipeline.list_source(series("1", what="first"))
    pipeline.refresh()
    assert pipeline.due() == {"lung": "records"}
    with pytest.raises(CommitConflict, match="did not end"):
        pipeline.embeddings("lung")
    pipeline.run()
    assert pipeline.silver.equals(first)
    assert pipeline.due() == {"lung": "current"}


def test_a_suppression_list_of_before_it_named_sources_concerns_every_dataset(pipeline: Pipeline) -> None:
    pipeline.lake = Lakehouse(pipeline.settings.lake)
    pipeline.list_source(series("1", patient="P1"), series("2", patient="P2"))
    pipeline.run()
    schema = pa.schema([field for field in tables.SUPPRESSION if field.name != "source"])
    row = {"subject_key": pipeline.context().pseudonyms(pipeline.spec).subject("P2"), "reason": "-", "since": EPOCH}
    old = TableSpec(tables.suppression().path, schema)
    pipeline.lake.append(old, pa.Table.from_pylist([row], schema=schema), {})
    assert pipeline.due() == {"lung": "records"}
    pipeline.run()
    assert set(pipeline.silver["record_id"]) == {"1"}
    pipeline.suppress("P9", "mimic")  # the column is added
    assert pipeline.due() == {"lung": "current"} and pipeline.read(tables.suppression()).height == 2


def test_a_full_disk_is_named_and_nothing_is_committed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.list_source(series("1"))
    pipeline.refresh()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "_spool_records", full)
    with pytest.raises(StorageError) as caught:
        pipeline.records("lung")
    assert caught.value.code == "disk_full"
    assert pipeline.silver.is_empty()


def test_scratch_folders_of_killed_runs_are_removed_and_those_in_use_are_not(pipeline: Pipeline) -> None:
    root = pipeline.settings.home / "scratch"
    with pipeline.context().scratch() as used:
        (used / "spool").write_bytes(b"x")
        left = root / "left-by-a-killed-run"
        left.mkdir()
        (left / "spool").write_bytes(b"x")
        Path(f"{left}.lock").touch()
        with pipeline.context().scratch():
            assert not left.exists()
            assert (used / "spool").exists()
    with pytest.raises(Killed), pipeline.context().scratch():
        raise Killed
    assert list(root.iterdir()) == []


def test_the_cached_modality_is_the_one_of_this_test(files: Pipeline) -> None:
    assert modality("bytes") is bytes_modality.MODALITY


def test_what_crosses_the_web_is_fetched_once(files: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a stage after this one, and by a run after one that was killed."""
    assert files.connector is not None
    monkeypatch.setattr(files.connector, "is_remote", True)
    files.connector.add("a", b"alpha")
    files.connector.add("b", b"beta")
    files.run()
    (partition,) = files.plan["partition"]
    read = records.reader(files.context(), files.spec, partition)
    assert [read(row["uri"]) for row in files.manifest.sort("object_id").iter_rows(named=True)] == [b"alpha", b"beta"]
    shown = records.reader(files.context(), files.spec, partition, keeps=False)
    assert {shown(uri) for uri in files.manifest["uri"]} == {b"alpha", b"beta"}
    assert len(files.connector.reads) == 2
    for kept in (files.settings.home / "landed" / files.spec.id).glob("??/*"):
        kept.write_bytes(b"")  # a power cut took it
    assert {read(uri) for uri in files.manifest["uri"]} == {b"alpha", b"beta"}
