"""The lineage audit on real Delta tables and an index in memory: whole where nothing was touched, and each thing that is
tampered with found and named."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import bytes_modality
from helpers.pipeline import SPACE, Pipeline, bytes_spec
from typer.testing import CliRunner

from medvec_assets.catalog.spec import AccessTier
from medvec_assets.cli import app
from medvec_assets.lineage_audit import audit, recorded, report
from medvec_assets.lineage_audit.audit import Scope
from medvec_assets.lineage_audit.findings import MAX_NAMED, RULES, Ledger
from medvec_assets.modalities import modality
from resources import signatures, tables
from resources.errors import ConfigError, IntegrityError
from resources.tables import TableSpec

COLLECTION = "tcia_catalog__text__open__g1"
Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the first test filled, for the others to copy: its lake and its index."""
    return {"lake": tmp_path_factory.mktemp("shelf") / "lake"}


@pytest.fixture
def filled(files: Pipeline, shelf: dict[str, Any]) -> Pipeline:
    """Four text files of one cohort, one of them of the same content as another, embedded and indexed."""
    assert files.connector is not None
    for name, text in {"a": "CT one", "b": "CT two", "c": "MR three", "d": "CT one"}.items():
        files.connector.add(name, text.encode(), attributes="{}")
    if "index" in shelf:
        shutil.copytree(shelf["lake"], files.lake.root)
        files.index = copy.deepcopy(shelf["index"])
        return files
    files.run()
    shutil.copytree(files.lake.root, shelf["lake"])
    shelf["index"] = copy.deepcopy(files.index)
    return files


def found(pipeline: Pipeline, **scope: int) -> dict[str, set[str]]:
    """rule -> the objects that it names."""
    named: dict[str, set[str]] = {}
    for one in looked(pipeline, **scope).ledger.named:
        named.setdefault(one.rule, set()).add(one.object)
    return named


def looked(pipeline: Pipeline, **scope: int) -> audit.Audited:
    return audit.of_dataset(pipeline.context(), pipeline.spec, Scope(**scope))


def rewrite(pipeline: Pipeline, table: TableSpec, change: Change) -> None:
    """Somebody writes to a table beside medvec."""
    base = pipeline.lake.ensure(table)
    changed = change(base.read()).select(table.schema.names).to_arrow().cast(table.schema)
    pipeline.lake.replace(base, {}, changed.to_batches(), {})


def set_where(key: str, value: str, column: str, new: pl.Expr) -> Change:
    return lambda rows: rows.with_columns(
        pl.when(pl.col(key) == value).then(new).otherwise(pl.col(column)).alias(column)
    )


def vector_id(pipeline: Pipeline, name: str) -> str:
    rows = pipeline.gold.filter(pl.col("record_id") == f"record-{name}")
    return str(rows["vector_id"].item())


def entity(pipeline: Pipeline, name: str) -> dict[str, object]:
    [one] = [one for one in pipeline.entities.values() if one["record_id"] == f"record-{name}"]
    return one


def other_vector() -> list[float]:
    return [1.0, *[0.0] * 7]


def test_an_untouched_chain_is_whole(filled: Pipeline) -> None:
    before = filled.versions()
    done = looked(filled, recompute=4)
    assert (done.ok, done.ledger.named) == (True, [])
    assert filled.versions() == before
    assert done.counts == {
        "audit_rows": 4,
        "records": 4,
        "vectors": 4,
        "entities": 3,
        "entity_vectors_compared": 3,
        "vectors_made_again": 4,
        "objects_read": 4,
        "payloads_read": 0,
        "bytes_read": 26,
        "objects_without_checksum_of_bytes": 0,
    }
    assert done.lowest_cosine == pytest.approx(1.0)


def test_a_changed_byte_of_a_source_object_is_found(filled: Pipeline) -> None:
    assert filled.connector is not None
    filled.connector.contents["memory://b"] = b"CT twO"
    assert found(filled) == {"object_bytes": {"b"}}
    del filled.connector.contents["memory://b"]
    assert found(filled) == {"object_readable": {"b"}}


def test_what_is_made_again_from_a_changed_object_is_not_believed(filled: Pipeline) -> None:
    assert filled.connector is not None
    filled.connector.contents["memory://c"] = b"MR threE"
    named = found(filled, recompute=4)
    assert named["object_bytes"] == {"c"}
    assert named["record_again"] == {"record-c"}  # its bytes are refused, as they would be in a run
    assert named["vector_again"] == {vector_id(filled, "c")}


class Notes(bytes_modality.PayloadBytesModality):
    """A text's model input is made of its record, whatever was landed."""

    model_inputs = bytes_modality.BytesModality.model_inputs


def test_payloads_are_made_again_to_the_same_name_and_a_damaged_one_is_found(
    files: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytes_modality, "MODALITY", Notes())
    modality.cache_clear()
    files.spec = bytes_spec(access_tier=AccessTier.REGISTERED)
    assert files.connector is not None
    for name in "ab":
        files.connector.add(name, f"CT {name} @Somebody".encode(), attributes="{}", access_tier="registered")
    files.run()
    assert found(files, recompute=2) == {}
    assert looked(files).counts["payloads_read"] == 2
    uri = files.silver.filter(pl.col("record_id") == "record-b")["payload_uri"].item()
    (Path(files.lake.root) / uri).write_bytes(b"CT c")
    assert found(files) == {"payload_whole": {"record-b"}}
    (Path(files.lake.root) / uri).unlink()
    assert found(files) == {"payload_whole": {"record-b"}}


CHANGED_RECORDS = [
    ("deid_actions", pl.lit('{"removed":1}'), {"rows_recorded"}),
    ("text", pl.lit("CT altered"), {"rows_recorded", "record_text"}),
    ("license", pl.lit("CC0"), {"rows_recorded", "record_copied", "license"}),
    ("subject_key", pl.lit("somebody"), {"rows_recorded", "record_copied"}),
    ("content_digests", pl.lit('{"text":"00"}'), {"rows_recorded", "record_text", "content_digest"}),
    ("object_ids", pl.lit(["nowhere"], dtype=pl.List(pl.String)), {"rows_recorded", "object_listed"}),
]


def test_a_changed_record_is_found_and_named(filled: Pipeline) -> None:
    table = tables.records(filled.spec.id)
    own, whole = {"record-b", vector_id(filled, "b"), "nowhere"}, filled.silver
    for column, new, rules in CHANGED_RECORDS:
        rewrite(filled, table, set_where("record_id", "record-b", column, new))
        named = found(filled)
        assert named.keys() == rules
        assert all(objects <= own and objects for objects in named.values()), named
        rewrite(filled, table, lambda rows: whole)
    assert found(filled) == {}


def test_a_record_that_is_gone_is_missed(filled: Pipeline) -> None:
    rewrite(filled, tables.records(filled.spec.id), lambda rows: rows.filter(pl.col("record_id") != "record-b"))
    assert found(filled) == {"rows_recorded": {"record-b"}, "record_exists": {vector_id(filled, "b")}}


def test_a_changed_embedding_row_is_found(filled: Pipeline) -> None:
    own, whole, table = vector_id(filled, "b"), filled.gold, tables.embeddings(filled.spec.id, SPACE)
    for column, rule in (("vector_id", "vector_id"), ("fingerprint", "fingerprint"), ("weights_digest", "weights")):
        rewrite(filled, table, set_where("record_id", "record-b", column, pl.lit("0" * 32)))
        assert found(filled)[rule] == {"0" * 32 if rule == "vector_id" else own}
        rewrite(filled, table, lambda rows: whole)


def test_a_vector_that_is_gone_is_missed(filled: Pipeline) -> None:
    own = vector_id(filled, "b")
    table = tables.embeddings(filled.spec.id, SPACE)
    rewrite(filled, table, lambda rows: rows.filter(pl.col("record_id") != "record-b"))
    named = found(filled)
    assert (named["vector_exists"], named["rows_recorded"]) == ({"record-b"}, {own})


def test_another_vector_in_gold_is_found_and_told_from_the_index_s_copy(filled: Pipeline) -> None:
    own = vector_id(filled, "b")
    new = pl.lit(other_vector(), dtype=pl.List(pl.Float32))
    rewrite(filled, tables.embeddings(filled.spec.id, SPACE), set_where("record_id", "record-b", "vector", new))
    assert found(filled) == {"entity_vector": {own}}
    # Which copy is wrong, gold's or the index's, the encoder tells; what is suspected is made again first.
    assert found(filled, recompute=1) == {"entity_vector": {own}, "vector_again": {own}}


def test_another_vector_in_the_index_is_found_and_gold_stands(filled: Pipeline) -> None:
    entity(filled, "b")["vector"] = np.array(other_vector(), np.float32)
    assert found(filled, recompute=1) == {"entity_vector": {vector_id(filled, "b")}}


def test_a_vector_changed_in_both_is_found_only_by_making_it_again(filled: Pipeline) -> None:
    own = vector_id(filled, "b")
    new = pl.lit(other_vector(), dtype=pl.List(pl.Float32))
    rewrite(filled, tables.embeddings(filled.spec.id, SPACE), set_where("record_id", "record-b", "vector", new))
    entity(filled, "b")["vector"] = np.array(other_vector(), np.float32)
    assert found(filled) == {}
    assert found(filled, recompute=4) == {"vector_again": {own}}


def test_a_member_s_own_vector_must_be_its_representative_s(filled: Pipeline) -> None:
    own = vector_id(filled, "d")  # its content is a's, which stands for it in the index
    new = pl.lit([float("nan"), *[0.0] * 7], dtype=pl.List(pl.Float32))
    rewrite(filled, tables.embeddings(filled.spec.id, SPACE), set_where("record_id", "record-d", "vector", new))
    assert own in found(filled)["vector_valid"]
    new = pl.lit(other_vector(), dtype=pl.List(pl.Float32))
    rewrite(filled, tables.embeddings(filled.spec.id, SPACE), set_where("record_id", "record-d", "vector", new))
    assert found(filled)["vector_shared"] <= {own, vector_id(filled, "a")}


def test_damage_to_the_index_is_found(filled: Pipeline) -> None:
    held = filled.index.held[COLLECTION].entities
    lost, stale = entity(filled, "b"), entity(filled, "c")
    del held[str(lost["entity_id"])]
    stale["row_fingerprint"] = "0" * 32
    held["f" * 32] = dict(stale) | {"entity_id": "f" * 32}
    assert found(filled) == {
        "entity_indexed": {vector_id(filled, "b")},
        "entity_fields": {vector_id(filled, "c")},
        "entity_extra": {"f" * 32},
    }
    filled.index.drop(COLLECTION)
    assert found(filled)["entity_indexed"] == {vector_id(filled, name) for name in "abc"}


CHANGED_OBJECTS = [
    ("checksum", "00", {"rows_recorded", "object_bytes"}),
    ("license", "CC0", {"rows_recorded", "license"}),
    ("removed_in_version", "v2", {"rows_recorded", "object_published"}),
    ("object_id", "elsewhere", {"rows_recorded", "object_listed"}),
    ("upstream_version", "-", {"release"}),
]


def test_a_changed_manifest_row_is_found(filled: Pipeline) -> None:
    whole, table = filled.manifest, tables.manifest(filled.spec.id)
    for column, value, rules in CHANGED_OBJECTS:
        rewrite(filled, table, set_where("object_id", "b", column, pl.lit(value)))
        named = found(filled)
        assert named.keys() == rules
        assert all(objects <= {"b", "record-b", "elsewhere"} for objects in named.values()), named
        rewrite(filled, table, lambda rows: whole)


def test_a_manifest_is_compared_in_bites_and_what_is_in_no_plan_is_seen(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filled.connector is not None
    for name in ("e", "f"):
        filled.connector.add(name, b"CT other", cohort=f"cohort_{name}", attributes="{}")
    filled.connector.published = "v2"
    filled.run()
    monkeypatch.setattr(recorded, "MAX_OBJECTS", 1)
    assert found(filled) == {}
    rewrite(filled, tables.manifest(filled.spec.id), set_where("object_id", "f", "partition", pl.lit("nowhere")))
    assert "f" in found(filled)["rows_recorded"]


def test_a_changed_audit_row_breaks_its_chain(filled: Pipeline) -> None:
    rewrite(filled, tables.materializations(), set_where("asset", "records", "run_id", pl.lit("another")))
    [broken] = found(filled)["audit_chain"]
    assert broken.startswith("records/-/lung")


def test_a_subject_that_withdrew_must_be_gone(filled: Pipeline) -> None:
    filled.suppress("subject-b")
    assert found(filled) == {"suppressed": {"record-b"}}


def test_where_the_recorded_version_is_gone_the_partition_is_named(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = filled.lake.ensure(tables.records(filled.spec.id))
    kept = recorded.file_paths({})
    change = set_where("record_id", "record-b", "deid_actions", pl.lit('{"removed":1}'))
    rewrite(filled, tables.records(filled.spec.id), change)
    for uri in kept:
        Path(uri.removeprefix("file://")).unlink()
    assert found(filled) == {"rows_recorded": {"partition lung of silver/tcia_catalog/records"}}


def test_a_sample_is_the_same_for_a_seed_and_reads_only_its_objects(filled: Pipeline) -> None:
    assert filled.connector is not None
    read = []
    for _ in range(2):
        filled.connector.reads.clear()
        done = looked(filled, sample=1, seed=7)
        read.append(list(filled.connector.reads))
        assert (done.ok, done.counts["objects_read"], done.counts["vectors"]) == (True, 1, 4)
    assert read[0] == read[1]


def test_a_dataset_that_may_not_be_here_is_not_looked_at(filled: Pipeline) -> None:
    from medvec_assets.catalog.spec import Residency

    filled.spec = filled.spec.model_copy(update={"residency": Residency(where="enclave:elsewhere")})
    done = looked(filled)
    assert done.note.startswith("not looked at") and done.counts == {}


def test_the_count_is_exact_and_what_is_named_is_bounded() -> None:
    ledger = Ledger("x")
    ledger.add("vector_id", (str(number) for number in range(MAX_NAMED + 5)))
    ledger.add("fingerprint", ["y"])
    assert (ledger.total, len(ledger.named)) == (MAX_NAMED + 6, MAX_NAMED + 1)


# -- the report


def made(pipeline: Pipeline) -> dict[str, object]:
    scope = Scope(recompute=1)
    return report.of(pipeline.settings, scope, [looked(pipeline)], datetime.now(UTC), "run-x")


def test_a_report_is_signed_and_no_byte_of_it_may_change(filled: Pipeline, tmp_path: Path) -> None:
    told = made(filled)
    written = report.write(told, filled.settings, str(tmp_path / "out"))
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == sorted(written)
    for path in (one for one in files if one.suffix in (".json", ".html")):
        assert signatures.check(path, home=filled.settings.home)["key"] == "deployment's own"
        assert signatures.check(path)["key"] == "enclosed"
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"Audit" if path.suffix == ".html" else b'"ok": true', b"AudiT", 1) + b" ")
        with pytest.raises(IntegrityError, match="not the ones that were signed"):
            signatures.check(path)
        path.write_bytes(whole)
    assert (filled.settings.home / "keys" / "report.key").stat().st_mode & 0o777 == 0o600


def test_another_s_key_does_not_pass_for_ours(filled: Pipeline, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", filled.settings.model_copy(update={"home": tmp_path / "their-home"})
    told = made(filled)
    report.write(told, filled.settings, str(ours))
    [own] = ours.glob("*.pub.pem")
    report.write(told, theirs, str(tmp_path / "theirs"))
    [forged] = (tmp_path / "theirs").glob("*.json")
    with pytest.raises(IntegrityError, match="the pinned key is"):
        signatures.check(forged, pinned=own)
    with pytest.raises(ConfigError):
        signatures.check(tmp_path / "nowhere.json")
    forged.with_name(forged.name + ".sig").write_text("{}")
    with pytest.raises(IntegrityError, match="signature file"):
        signatures.check(forged)


def test_the_page_names_what_is_broken_and_loads_nothing(filled: Pipeline) -> None:
    assert filled.connector is not None
    filled.connector.contents["memory://b"] = b"<script>"
    told = made(filled)
    page = report.as_page(told)
    assert "1 broken links" in page and "object_bytes" in page and RULES["object_bytes"].remedy in page
    assert "<script" not in page and "http:" not in page and "https:" not in page
    text = json.dumps(told)
    assert "subject" not in text.replace("suppressed subject", "") and "memory://" not in text and "CT one" not in text


def test_small_counts_of_persons_are_not_shown(filled: Pipeline) -> None:
    filled.spec = filled.spec.model_copy(update={"smallest_count": 20})
    [one] = made(filled)["datasets"]  # type: ignore[misc]
    assert one["counts"]["records"] is None and one["counts"]["vectors"] is None and one["counts"]["audit_rows"] == 4


def test_check_report_on_the_command_line(filled: Pipeline, tmp_path: Path) -> None:
    report.write(made(filled), filled.settings, str(tmp_path))
    [file] = tmp_path.glob("*.json")
    done = CliRunner().invoke(app, ["audit", "check-report", str(file), "--json"], env={"MEDVEC_HOME": str(tmp_path)})
    assert done.exit_code == 0 and json.loads(done.stdout)["key"] == "enclosed"
    file.write_bytes(file.read_bytes() + b" ")
    done = CliRunner().invoke(app, ["audit", "check-report", str(file)], env={"MEDVEC_HOME": str(tmp_path)})
    assert done.exit_code == 1 and isinstance(done.exception, IntegrityError)
