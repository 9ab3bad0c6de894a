"""First fills by bulk import on a real Milvus: the same state as by insert, and nothing twice whoever was killed when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.counting_encoder import CountingEncoders
from helpers.index_data import batch, clustered, entity_ids, fingerprints, recall, spec
from helpers.pipeline import Pipeline
from helpers.tiny_source import series

from medvec_assets.stages.verify import as_json, verify
from resources import tables
from resources.errors import ConfigError, IndexInvalid, IndexUnavailable
from resources.object_store import ObjectStore
from resources.settings import Settings
from resources.vector_index import CollectionInfo, VectorIndex, open_index
from resources.vector_index.bulk import BulkPlace
from tests.services import Milvus, SeaweedFS
from tests.services.milvus import BUCKET

pytestmark = pytest.mark.integration

ROWS = 3_000


class Killed(BaseException):
    """A process that ends here."""


@pytest.fixture(scope="module")
def place(milvus: Milvus) -> Path:
    """A folder that the server reads."""
    folder = milvus.folder / "data" / "bulk"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def importing(milvus: Milvus, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorIndex]:
    """An index that imports what fills an empty partition with ROWS or more."""
    home = tmp_path_factory.mktemp("index")
    bulk = {"index_bulk_uri": str(place), "index_bulk_rows": ROWS}
    with open_index(Settings(home=home, **milvus.settings, **bulk)) as opened:
        yield opened


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The partitions that are imported."""
    found: list[str] = []
    fill = BulkPlace.fill

    def seen(self: BulkPlace, info: CollectionInfo, partition: str, rows: Any) -> int:
        found.append(partition)
        return fill(self, info, partition, rows)

    monkeypatch.setattr(BulkPlace, "fill", seen)
    return found


def left_in(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def some(partition: str, seed: int = 0) -> list[Any]:
    rows = batch(partition, clustered(ROWS, seed=seed))
    return [rows.slice(0, 2_000), rows.slice(2_000)]


def test_an_import_ends_in_the_state_that_inserts_end_in(
    importing: VectorIndex, place: Path, fills: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.vector_index.bulk.FILE_BYTES", 1)  # a file for each batch
    imported, inserted = spec(), spec()
    importing.ensure(imported)
    for seed, partition in enumerate("ab"):  # the second into a collection that is loaded
        assert importing.write(imported.name, partition, some(partition, seed), ROWS) == ROWS
        assert importing.count(imported.name, partition) == ROWS, "there before anything else is done with it"
        assert set(fingerprints(importing, imported.name, partition)) == set(entity_ids(partition, ROWS))
    importing.settle(imported.name)
    assert fills == ["a", "b"]
    assert left_in(place) == []
    importing.ensure(inserted)
    importing.write(inserted.name, "a", some("a"))
    assert fingerprints(importing, imported.name, "a") == fingerprints(importing, inserted.name, "a")
    ids = entity_ids("a", ROWS)[:5]
    for one in ids:
        [left], [right] = importing.get(imported.name, [one]), importing.get(inserted.name, [one])
        np.testing.assert_array_equal(left.pop("vector"), right.pop("vector"))
        assert left == right
    # Rows that stood in another partition than their key's would be counted, and not found under a filter.
    queries = clustered(20, seed=7)
    for seed, partition in enumerate("ab"):
        assert recall(importing, imported.name, queries, clustered(ROWS, seed=seed), [partition]) >= 0.99
    assert importing.delete(imported.name, "a", ids) == 5
    importing.write(imported.name, "b", [batch("b", clustered(100), "v2")], expected=ROWS)
    assert fills == ["a", "b"], "only an empty partition is filled"
    assert (importing.count(imported.name, "a"), importing.count(imported.name, "b")) == (ROWS - 5, ROWS)


def test_a_fill_that_was_killed_while_it_was_imported_is_waited_for_and_doubled_nowhere(
    importing: VectorIndex, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = spec()
    importing.ensure(wanted)
    monkeypatch.setattr("resources.vector_index.bulk.FILE_BYTES", 1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BulkPlace, "_await", killed)  # after the first file's import began
        importing.write(wanted.name, "p", some("p"), ROWS)
    assert len(left_in(place)) == 1
    there = fingerprints(importing, wanted.name, "p")
    assert set(there) == set(entity_ids("p", ROWS)[:2_000]), "its outcome is known before anything is compared"
    assert left_in(place) == []
    importing.write(wanted.name, "p", [batch("p", clustered(ROWS)).slice(2_000)], 1_000)
    importing.settle(wanted.name)
    assert importing.count(wanted.name, "p") == len(fingerprints(importing, wanted.name, "p")) == ROWS


def test_a_fill_that_was_killed_before_its_import_began_leaves_nothing(importing: VectorIndex, place: Path) -> None:
    wanted = spec()
    importing.ensure(wanted)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BulkPlace, "_begin", killed)
        importing.write(wanted.name, "p", some("p"), ROWS)
    assert len(left_in(place)) == 1
    assert importing.write(wanted.name, "p", some("p"), ROWS) == ROWS
    assert left_in(place) == []
    assert importing.count(wanted.name, "p") == ROWS


def test_a_server_that_is_killed_while_it_imports_is_an_outage_and_doubles_nothing(
    importing: VectorIndex, milvus: Milvus, place: Path
) -> None:
    wanted = spec()
    importing.ensure(wanted)
    wait = BulkPlace._await

    def through_a_restart(self: BulkPlace, *arguments: Any) -> None:
        milvus.kill()
        milvus.start()
        wait(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(IndexUnavailable, match="restarted while it imported"):
        patch.setattr(BulkPlace, "_await", through_a_restart)
        importing.write(wanted.name, "p", some("p"), ROWS)
    assert importing.write(wanted.name, "p", some("p"), ROWS) == ROWS
    assert left_in(place) == []
    assert importing.count(wanted.name, "p") == len(fingerprints(importing, wanted.name, "p")) == ROWS


def test_a_bucket_that_the_server_reads_is_imported_from(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fills: list[str]
) -> None:
    """A server that keeps all its data there: imports name the object by its key."""
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    bucket, wanted = f"s3://{BUCKET}/bulk", spec()
    with Milvus(storage=seaweedfs) as server:
        settings = Settings(home=tmp_path, **server.settings, index_bulk_uri=bucket, index_bulk_rows=ROWS)
        with open_index(settings) as index:
            index.ensure(wanted)
            index.write(wanted.name, "p", some("p"), ROWS)
            index.settle(wanted.name)
            assert (fills, list(ObjectStore(bucket).list())) == (["p"], [])
            assert set(fingerprints(index, wanted.name, "p")) == set(entity_ids("p", ROWS))
            assert recall(index, wanted.name, clustered(20, seed=7), clustered(ROWS), ["p"]) >= 0.99
    assert any("index_files" in found.key for found in ObjectStore(f"s3://{BUCKET}").list())


def test_what_was_imported_twice_is_seen_and_mended(importing: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was lost and repeated: an import keeps both copies of an id."""
    wanted = spec()
    importing.ensure(wanted)
    begin = BulkPlace._begin
    monkeypatch.setattr(BulkPlace, "_begin", lambda *args: (begin(*args), begin(*args))[1])
    with pytest.raises(IndexUnavailable, match="are there"):
        importing.write(wanted.name, "p", some("p"), ROWS)
    found, [rows] = fingerprints(importing, wanted.name, "p"), [batch("p", clustered(ROWS))]
    stale = [found.get(one) != f"v1-{row}" for row, one in enumerate(entity_ids("p", ROWS))]
    importing.write(wanted.name, "p", [rows.filter(pa.array(stale))])
    assert importing.count(wanted.name, "p") == ROWS
    assert len(fingerprints(importing, wanted.name, "p")) == ROWS


def test_an_import_that_fails_names_file_and_remedy_and_no_value(
    importing: VectorIndex, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = spec()
    importing.ensure(wanted)
    monkeypatch.setattr("resources.vector_index.bulk._file", lambda batches: (ROWS, b"PAR1 geheim"))
    with pytest.raises(IndexInvalid, match=r"could not import .*bulk/.*parquet") as error:
        importing.write(wanted.name, "p", some("p"), ROWS)
    assert (error.value.code, "geheim" in str(error.value)) == ("index_import", False)
    assert "MEDVEC_INDEX_BULK_URI" in error.value.remedy
    assert importing.write(wanted.name, "p", some("p")) == ROWS
    assert (importing.count(wanted.name), left_in(place)) == (ROWS, [])


def test_a_sync_by_import_writes_the_receipt_that_one_by_insert_writes(
    milvus: Milvus, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fills: list[str]
) -> None:
    encoders = CountingEncoders()
    encoders.install(monkeypatch)
    rows = [series(str(n), "lung" if n < 11 else "liver", patient=f"P{n}", what=f"series {n}") for n in range(15)]
    told = []
    for number, bulk in enumerate(({}, {"index_bulk_uri": str(place), "index_bulk_rows": 5})):
        pipeline = Pipeline(tmp_path / str(number), encoders)
        pipeline.list_source(*rows)
        with open_index(Settings(home=tmp_path, **milvus.settings, **bulk)) as index:
            for name in (one for one in index.collections() if one.startswith("tcia_catalog__")):
                index.drop(name)
            pipeline.index = index  # type: ignore[assignment]
            pipeline.run()
            assert as_json(verify(pipeline.context(), pipeline.spec, with_recall=True))["ok"]
            assert set(pipeline.due().values()) == {"current"}
            index.drop("tcia_catalog__text__open__g1")
        receipts = pipeline.read(tables.index_receipts()).sort("partition")
        told.append(receipts.select("collection", "partition", "entities", "entities_digest", "definition").rows())
    assert told[0] == told[1]
    assert fills == ["lung"], "a partition of four is inserted"


def test_a_server_that_cannot_import_and_a_place_that_is_none_are_refused(milvus: Milvus, tmp_path: Path) -> None:
    for given, said in (
        (Settings(home=tmp_path, index_bulk_uri=str(tmp_path)), "milvus-lite .* needs Milvus 2.3.5"),
        (Settings(home=tmp_path, **milvus.settings, index_bulk_uri=str(tmp_path / "absent")), "no folder"),
    ):
        with pytest.raises(ConfigError, match=said) as error, open_index(given):
            pass
        assert "MEDVEC_INDEX_BULK_URI" in error.value.remedy


def killed(*_: object) -> None:
    raise Killed
