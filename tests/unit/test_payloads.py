"""Payloads: what is not open is landed before its record stands, read instead of its source, mended, and gone when it must be."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers import bytes_modality
from helpers.counting_encoder import Killed
from helpers.memory_lake import MemoryLake
from helpers.pipeline import Pipeline, bytes_spec
from helpers.tiny_source import MemoryConnector

from medvec_assets.catalog.spec import AccessTier, Withdrawal
from medvec_assets.modalities import modality
from medvec_assets.query.rows import source_uri
from medvec_assets.stages import payloads, pieces
from medvec_assets.stages.payloads import DAMAGED, GRACE, Payloads
from resources.errors import ObjectRejected, SourceError
from resources.object_store import ObjectStore

LAKE = MemoryLake
DATASET = "tcia_catalog"
CLOSED = {"access_tier": "registered"}
KILLS = 20


@pytest.fixture
def closed(files: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The chain over texts of a registered dataset, whose withdrawals erase."""
    monkeypatch.setattr(bytes_modality, "MODALITY", bytes_modality.PayloadBytesModality())
    modality.cache_clear()
    files.spec = bytes_spec(access_tier=AccessTier.REGISTERED, withdrawal=Withdrawal.ERASE)
    return files


def source(pipeline: Pipeline) -> MemoryConnector:
    assert pipeline.connector is not None
    return pipeline.connector


def publish(pipeline: Pipeline, version: str, **contents: str) -> None:
    """A source that holds just these; of every object a subject of its own."""
    connector = source(pipeline)
    connector.rows, connector.contents, connector.published = [], {}, version
    for object_id, content in contents.items():
        connector.add(object_id, content.encode(), **CLOSED)


def landed(pipeline: Pipeline) -> dict[str, Path]:
    """payload_uri -> its file."""
    root = Path(pipeline.lake.root)
    return {path.relative_to(root).as_posix(): path for path in (root / "payload").rglob("*") if path.is_file()}


def named(pipeline: Pipeline) -> set[str]:
    return set(pipeline.silver["payload_uri"])


def age(pipeline: Pipeline, by: timedelta = GRACE + timedelta(hours=1)) -> None:
    for path in landed(pipeline).values():
        os.utime(path, (time.time() - by.total_seconds(),) * 2)


def sweep(pipeline: Pipeline) -> int:
    return payloads.sweep(pipeline.context(), pipeline.spec)


def uri_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"payload/{DATASET}/{digest[:2]}/{digest}"


# ---------------------------------------------------------------- landing and reading


def test_what_is_not_open_is_landed_and_its_source_is_read_once(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT of @Jane Doe", b="MR")
    closed.run()
    assert named(closed) == set(landed(closed)) == {uri_of("CT of Doe"), uri_of("MR")}
    assert landed(closed)[uri_of("CT of Doe")].read_bytes() == b"CT of Doe"
    assert sorted(source(closed).reads) == ["memory://a", "memory://b"]
    assert len(closed.entities) == 2


def test_what_is_open_stays_where_it_is_in_a_closed_dataset_too(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT a")
    source(closed).add("o", b"CT o", access_tier="open")
    closed.run()
    assert named(closed) == {uri_of("CT a"), "memory://o"} and set(landed(closed)) == {uri_of("CT a")}
    assert sorted(source(closed).reads) == ["memory://a", "memory://o", "memory://o"]


def test_an_open_dataset_has_no_payload(files: Pipeline) -> None:
    source(files).add("a", b"CT a")
    files.run()
    assert landed(files) == {} and named(files) == {"memory://a"}
    assert sweep(files) == 0


def test_a_modality_that_lands_nothing_of_what_is_closed_commits_nothing(
    closed: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(closed, "v1", a="CT a", b="CT b")
    closed.refresh()
    monkeypatch.setattr(bytes_modality, "OPEN", "registered")
    with pytest.raises(SourceError, match="landed no payload of 2 records"):
        closed.records("lung")
    assert closed.silver.is_empty()


def test_a_lake_may_be_moved(closed: Pipeline, tmp_path: Path) -> None:
    publish(closed, "v1", a="CT a")
    closed.run()
    Path(closed.lake.root).rename(tmp_path / "moved")
    (uri,) = named(closed)
    assert Payloads(str(tmp_path / "moved"), DATASET).read(uri) == b"CT a"


@pytest.mark.parametrize(
    "uri",
    [
        uri_of("a").replace(DATASET, "mimic_notes"),
        uri_of("a").replace("/", "/../", 1),
        uri_of("a")[:-1],
        uri_of("a") + "\n",
        "s3://bucket/" + uri_of("a"),
        "object:a",
    ],
)
def test_nothing_else_is_taken_for_a_payload(tmp_path: Path, uri: str) -> None:
    found = Payloads(str(tmp_path), DATASET)
    assert found.holds(uri_of("a")) and not found.holds(uri)
    assert found.reader(lambda asked: asked.encode())(uri) == uri.encode()


def test_an_answer_names_neither_the_lake_nor_the_source() -> None:
    assert source_uri(DATASET, uri_of("a"), ["o-1", "o-2"]) == "object:o-1"
    assert source_uri(DATASET, "s3://idc/x.dcm", ["o-1"]) == "s3://idc/x.dcm"


# ---------------------------------------------------------------- damage


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def altered(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


DAMAGES = [truncated, altered, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_payload_is_made_again_from_its_source(closed: Pipeline, damage: Callable[[Path], None]) -> None:
    publish(closed, "v1", a="CT a", b="CT b", c="CT c")
    closed.refresh()
    closed.records("lung")
    damage(landed(closed)[uri_of("CT b")])
    reads = len(source(closed).reads)
    closed.run()
    assert closed.gold.height == 3 and closed.quarantine.is_empty()
    assert source(closed).reads[reads:] == ["memory://b"]
    assert landed(closed)[uri_of("CT b")].read_bytes() == b"CT b"


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_that_cannot_be_made_again_is_reported_and_its_neighbours_go_on(
    closed: Pipeline, damage: Callable[[Path], None]
) -> None:
    publish(closed, "v1", a="CT a", b="CT b")
    closed.refresh()
    closed.records("lung")
    damage(landed(closed)[uri_of("CT b")])
    source(closed).contents["memory://b"] = b"CT other"
    closed.run()
    assert closed.gold["record_id"].to_list() == ["record-a"]
    assert closed.quarantine.select("object_id", "code").rows() == [("record-b", DAMAGED)]


def test_records_that_are_made_anew_mend_their_payloads(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT a")
    closed.run()
    altered(landed(closed)[uri_of("CT a")])
    with pytest.raises(ObjectRejected) as refusal:
        Payloads(closed.lake.root, DATASET).read(uri_of("CT a"))
    assert refusal.value.code == DAMAGED
    publish(closed, "v2", a="CT a", b="CT b")
    closed.run()
    assert landed(closed)[uri_of("CT a")].read_bytes() == b"CT a"


# ---------------------------------------------------------------- removal


def test_a_withdrawn_subjects_payload_is_gone_with_its_record(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT a", b="CT b")
    closed.run()
    publish(closed, "v2", a="CT a")
    closed.run()
    assert set(landed(closed)) == {uri_of("CT a")}
    closed.suppress("subject-a")
    closed.run()
    assert landed(closed) == {}


def test_a_payload_that_another_record_names_stays(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT same", b="CT same")
    source(closed).add("c", b"CT same", cohort="liver", **CLOSED)
    closed.run()
    publish(closed, "v2", c="CT gone")
    source(closed).rows[0]["cohort"] = "liver"
    closed.refresh()
    closed.records("lung")
    assert set(landed(closed)) == {uri_of("CT same")}, "the liver's record names it yet"
    closed.records("liver")
    assert set(landed(closed)) == {uri_of("CT gone")}


def test_a_subject_who_withdraws_while_the_partition_is_split_leaves_nothing(closed: Pipeline) -> None:
    contents = {f"o{number}": f"CT {number}" for number in range(8)}
    publish(closed, "v1", **contents)
    closed.run()
    closed.suppress("subject-o3")
    closed.run("lung")
    assert set(landed(closed)) == named(closed) == {uri_of(text) for name, text in contents.items() if name != "o3"}


def test_where_withdrawal_archives_a_payload_goes_with_the_next_maintenance(closed: Pipeline) -> None:
    closed.spec = closed.spec.model_copy(update={"withdrawal": Withdrawal.ARCHIVE})
    publish(closed, "v1", a="CT a", b="CT b")
    closed.run()
    age(closed)
    publish(closed, "v2", a="CT a")
    closed.run()
    assert len(landed(closed)) == 2, "a run that began before may be reading it"
    assert sweep(closed) == 1
    assert set(landed(closed)) == named(closed)


def test_what_no_record_names_goes_after_a_grace_and_nothing_else(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT a")
    closed.run()
    store = Payloads(closed.lake.root, DATASET)
    folder = Path(closed.lake.root) / "payload" / DATASET
    (folder / ".medvec-0a.part").write_bytes(b"of a writer that was killed")
    store.land(b"of a run that was killed")
    age(closed)
    store.land(b"of a run at work")
    (folder / ".medvec-0b.part").write_bytes(b"of a writer at work")
    assert sweep(closed) == 1
    rest = {folder.parents[1] / uri for uri in (uri_of("CT a"), uri_of("of a run at work"))}
    assert set(landed(closed).values()) == rest | {folder / ".medvec-0b.part"}
    assert sweep(closed) == 0


# ---------------------------------------------------------------- kills


@contextmanager
def killed_at(pipeline: Pipeline, number: int) -> Iterator[None]:
    """End the process at the write of this number: a payload written or removed, a commit, an append, a staged file."""
    left = number

    def before(method: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return method(*args, **kwargs)

        return ticking

    lake: type = type(pipeline.lake)
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        for owner, name in ((lake, "replace"), (lake, "append"), (ObjectStore, "put"), (ObjectStore, "delete")):
            patch.setattr(owner, name, before(getattr(owner, name)))
        yield


@pytest.mark.parametrize(
    ("again", "number"), [*product(["the same"], range(KILLS)), *product(["another"], range(0, KILLS, 3))]
)
def test_a_run_killed_anywhere_and_run_again_leaves_what_is_named_and_no_more(
    closed: Pipeline, number: int, again: str
) -> None:
    publish(closed, "v1", a="CT a", b="CT @Jane b", c="CT c")
    closed.run()
    age(closed)
    publish(closed, "v2", a="CT a", b="CT changed", d="CT d")  # c withdrew
    with killed_at(closed, number):
        closed.run()
    store = Payloads(closed.lake.root, DATASET)
    for uri in named(closed):
        assert store.read(uri), "a record that stands has its payload, wherever the run was killed"
    age(closed)
    if again == "another":
        publish(closed, "v3", a="CT a", b="CT changed again")
    closed.run()
    assert set(closed.due().values()) == {"current"} and len(closed.entities) == closed.silver.height
    assert uri_of("CT c") not in landed(closed), "erased without waiting for maintenance"
    age(closed)
    sweep(closed)
    assert set(landed(closed)) == named(closed)
    assert closed.silver.filter(pl.col("payload_uri").str.contains("Jane")).is_empty()


def test_the_kills_above_are_at_every_write(closed: Pipeline) -> None:
    publish(closed, "v1", a="CT a", b="CT @Jane b", c="CT c")
    closed.run()
    publish(closed, "v2", a="CT a", b="CT changed", d="CT d")
    ended = False
    with killed_at(closed, KILLS):
        closed.run()
        ended = True
    assert ended


def test_a_partitions_payloads_are_not_held_in_memory(closed: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in the lake before the next object is read."""
    monkeypatch.setattr(pieces, "BULK_OBJECTS", 1)
    publish(closed, "v1", a="CT a", b="CT b")
    closed.refresh()
    seen: list[int] = []
    read = source(closed).read
    monkeypatch.setattr(
        source(closed), "read", lambda uri, **limits: (seen.append(len(landed(closed))), read(uri, **limits))[1]
    )
    closed.records("lung")
    assert seen == [0, 1]
