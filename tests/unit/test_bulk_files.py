"""Files for bulk imports, and how the server calls them: no server."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.index_data import LAYOUT, batch, clustered

from resources.errors import ConfigError, IndexInvalid, IndexUnavailable
from resources.settings import Settings
from resources.vector_index import ENTITY_SCHEMA, CollectionInfo, bulk
from resources.vector_index.bulk import BulkPlace, bulk_place

SERVER: Any = SimpleNamespace(lite=False)
LITE: Any = SimpleNamespace(lite=True)
PENDING, FAILED, STARTED, COMPLETED = 0, 1, 2, 6
INFO = CollectionInfo("c", "uuid", 32, {}, LAYOUT)


def task(state: int, file: str) -> Any:
    return SimpleNamespace(state=state, row_count=100, infos={"files": file})


class Imports:
    """A connection whose server knows `tasks`; each question brings them one step on."""

    lite = False

    def __init__(self, steps: list[list[Any]]) -> None:
        self.steps = steps

    def call(self, what: str, request: Any) -> Any:
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_POLL_SECONDS", 0.0)


def test_files_hold_every_row_once_and_little_more_than_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "FILE_BYTES", 50_000)
    rows = batch("p", clustered(2_000))
    files = list(bulk._files([rows.slice(start, 100) for start in range(0, 2_000, 100)], "p", 32))
    read = [pq.read_table(io.BytesIO(content)) for _, content in files]
    assert [table.num_rows for table in read] == [count for count, _ in files]
    assert len(files) > 5
    assert max(len(content) for _, content in files) < 100_000
    assert pa.concat_tables(read).equals(pa.Table.from_batches([rows]))
    assert all(table.schema.equals(ENTITY_SCHEMA) for table in read)
    assert list(bulk._files([rows.slice(0, 0)], "p", 32)) == []


def test_a_batch_that_breaks_a_rule_is_in_no_file() -> None:
    with pytest.raises(IndexInvalid, match="another partition"):
        next(bulk._files([batch("q", clustered(3))], "p", 32))


def test_the_server_is_told_a_path_in_its_file_system_or_a_key_in_its_bucket(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    assert BulkPlace(SERVER, str(folder), 1)._path("c/p/x.parquet") == f"{folder}/c/p/x.parquet"
    assert BulkPlace(SERVER, folder.as_uri(), 1)._path("c/p/x.parquet") == f"{folder}/c/p/x.parquet"
    assert BulkPlace(SERVER, "s3://bucket/some/prefix", 1)._path("c/p/x.parquet") == "some/prefix/c/p/x.parquet"


@pytest.mark.parametrize(
    ("connection", "version", "refused"),
    [
        (SERVER, "milvus 2.3.5-lite", False),
        (SERVER, "milvus 2.4.15", False),
        (SERVER, "milvus 2.3.3", True),
        (LITE, "milvus-lite 3.2.2", True),
    ],
)
def test_bulk_import_is_gated_by_the_server_s_version(
    connection: Any, version: str, refused: bool, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, index_bulk_uri=str(tmp_path))
    if refused:
        with pytest.raises(ConfigError, match=r"needs Milvus 2\.3\.5"):
            bulk_place(connection, settings, version)
    else:
        assert bulk_place(connection, settings, version) is not None
    assert bulk_place(connection, Settings(home=tmp_path), version) is None


def left(tmp_path: Path, name: str) -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return str(path)


def test_only_imports_of_what_was_left_are_waited_for_and_only_this_collection_s_rows_counted(tmp_path: Path) -> None:
    mine, before = left(tmp_path, "c/p/uuid-1.parquet"), left(tmp_path, "c/p/former-1.parquet")
    never, other = left(tmp_path, "c/p/uuid-2.parquet"), left(tmp_path, "c/q/uuid-3.parquet")
    failed = left(tmp_path, "c/p/uuid-4.parquet")
    rest = [task(STARTED, other), task(COMPLETED, before), task(FAILED, failed)]
    imports: Any = Imports([[task(STARTED, mine), *rest], [task(PENDING, mine), *rest], [task(COMPLETED, mine), *rest]])
    place = BulkPlace(imports, str(tmp_path), 1)
    assert place.settle(INFO, "p") == 100
    assert (len(imports.steps), Path(never).exists()) == (1, True), "asked until it was done; files stay until counted"
    place.clear("c", "p")
    assert [path.name for path in tmp_path.rglob("*.parquet")] == ["uuid-3.parquet"]
    assert place.settle(INFO, "p") is None
    assert Path(other).exists()


def test_an_import_that_never_ends_is_given_up_and_its_file_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "IMPORT_SECONDS", 0.0)
    mine = left(tmp_path, "c/p/uuid-1.parquet")
    imports: Any = Imports([[task(STARTED, mine)]])
    with pytest.raises(IndexUnavailable, match="did not end within"):
        BulkPlace(imports, str(tmp_path), 1).settle(INFO, "p")
    assert Path(mine).exists(), "the next run must know of it"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("the file /x/1.parquet does not exist", True), ("value 'geheim' of /x/1.parquet is bad", False)],
)
def test_a_server_s_reason_is_told_only_where_it_is_about_the_file(reason: str, told: bool) -> None:
    error = bulk._failed("c", "/x/1.parquet", reason)
    assert ("not exist" in str(error), "geheim" in str(error)) == (told, False)
