"""The lake and the object store on a real S3 server: commits that exclude each other, refusals, TLS, sudden death."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import count

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from resources.errors import CommitConflict, MedvecError, ObjectRejected, SourceError, SourceUnavailable, StorageError
from resources.lakehouse import Commit, Lakehouse
from resources.object_store import ObjectStore, read_uri
from resources.settings import Settings
from resources.tables import TableSpec
from tests.services import SeaweedFS

pytestmark = pytest.mark.integration

NOTES = TableSpec(
    "test/notes",
    pa.schema([pa.field("partition", pa.string(), nullable=False), pa.field("note", pa.string(), nullable=False)]),
    ("partition",),
)
_prefixes = count()

Become = Callable[[SeaweedFS, str], str]
"""Puts one identity's AWS variables of a server into the environment; answers a fresh s3:// prefix in `lake`."""


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def change(server: SeaweedFS, who: str = "writer") -> str:
        for name, value in server.environment(who).items():
            monkeypatch.setenv(name, value)
        return f"s3://lake/{next(_prefixes)}"

    return change


@pytest.fixture
def root(seaweedfs: SeaweedFS, become: Become) -> str:
    return become(seaweedfs, "writer")


def lake_at(root: str) -> Lakehouse:
    return Lakehouse.open(Settings(lake_uri=root))


def notes(partition: str, *values: str) -> pa.Table:
    return pa.Table.from_pylist([{"partition": partition, "note": value} for value in values], schema=NOTES.schema)


def replace(lake: Lakehouse, partition: str, *values: str, transaction: tuple[str, int] | None = None) -> Commit:
    rows = notes(partition, *values).to_batches()
    return lake.replace(lake.ensure(NOTES), {"partition": partition}, rows, {"run_id": "r1"}, transaction)


def stored(lake: Lakehouse) -> list[tuple[str, str]]:
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None
    return sorted(snapshot.read().rows())


# ---------------------------------------------------------------- tables


def test_a_table_on_s3_is_made_replaced_and_appended_to(root: str) -> None:
    lake = lake_at(root)
    assert lake.snapshot(NOTES) is None
    replace(lake, "p", "a")
    replace(lake, "q", "b", "c")
    replace(lake, "p", "d", transaction=("run", 7))
    lake.append(NOTES, notes("q", "e"), {})
    assert stored(lake_at(root)) == [("p", "d"), ("q", "b"), ("q", "c"), ("q", "e")]
    snapshot = lake.snapshot(NOTES)
    assert snapshot is not None and snapshot.transaction_version("run") == 7
    before = lake.snapshot(NOTES, snapshot.version - 2)
    assert before is not None and before.count() == 3


def test_a_snapshot_is_handed_out_again_until_a_commit_of_anybody_follows_it(root: str) -> None:
    lake, other = lake_at(root), lake_at(root)
    first = lake.ensure(NOTES)
    assert lake.snapshot(NOTES) is first
    for turn in range(22):  # over a checkpoint, whose file sorts between the log's entries
        replace(other, "p", f"turn {turn}")
        assert stored(lake) == [("p", f"turn {turn}")]
        assert lake.snapshot(NOTES) is lake.snapshot(NOTES)
    assert (first.version, first.count()) == (0, 0)


def test_a_snapshot_of_a_table_that_was_deleted_is_not_handed_out(root: str) -> None:
    lake, store = lake_at(root), ObjectStore(root)
    replace(lake, "p", "a")
    for info in list(store.list(NOTES.path)):
        store.delete(info.key)
    assert lake.snapshot(NOTES) is None
    replace(lake_at(root), "p", "b")  # the same version again
    assert stored(lake) == [("p", "b")]


def test_a_run_that_began_before_another_ones_commit_is_refused(root: str) -> None:
    lake, other = lake_at(root), lake_at(root)
    replace(lake, "p", "a")
    base = lake.ensure(NOTES)
    replace(other, "p", "b")
    with pytest.raises(CommitConflict, match="test/notes"):
        lake.replace(base, {"partition": "p"}, notes("p", "c").to_batches(), {})
    lake.replace(base, {"partition": "q"}, notes("q", "d").to_batches(), {})
    assert stored(other) == [("p", "b"), ("q", "d")]


def test_of_writers_at_once_everyone_of_another_partition_lands_and_one_of_the_same(root: str) -> None:
    base = lake_at(root).ensure(NOTES)
    together = threading.Barrier(6)

    def write(number: int) -> bool:
        lake, partition = lake_at(root), "same" if number < 3 else f"own-{number}"
        snapshot = lake.snapshot(NOTES, base.version)
        assert snapshot is not None
        together.wait(30)
        try:
            lake.replace(snapshot, {"partition": partition}, notes(partition, f"{number}").to_batches(), {})
        except CommitConflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        landed = list(pool.map(write, range(6)))
    assert landed[3:] == [True] * 3
    rows = stored(lake_at(root))
    # On an empty partition nothing is removed that two could both remove: see Lakehouse.replace.
    assert [row for row in rows if row[0] != "same"] == [(f"own-{number}", f"{number}") for number in (3, 4, 5)]
    assert len([row for row in rows if row[0] == "same"]) == sum(landed[:3]) >= 1


def test_appends_of_many_at_once_all_land(root: str) -> None:
    lake_at(root).ensure(NOTES)

    def append(number: int) -> None:
        lake = lake_at(root)
        for turn in range(3):
            lake.append(NOTES, notes("p", f"{number}-{turn}"), {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    assert stored(lake_at(root)) == [("p", f"{number}-{turn}") for number in range(4) for turn in range(3)]


def test_the_server_honours_if_none_match(seaweedfs: SeaweedFS) -> None:
    """Commits lean on it. A server that ignores it loses them silently: then this lake is not to be trusted."""
    client = seaweedfs.client("writer")
    client.put_object(Bucket="lake", Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket="lake", Key="once", Body=b"second", IfNoneMatch="*")
    assert error.value.response["Error"]["Code"] == "PreconditionFailed"
    assert client.get_object(Bucket="lake", Key="once")["Body"].read() == b"first"


# ---------------------------------------------------------------- refusals


def test_who_may_only_read_reads_and_is_told_that_it_may_not_write(
    root: str, seaweedfs: SeaweedFS, become: Become
) -> None:
    replace(lake_at(root), "p", "a")
    become(seaweedfs, "reader")
    assert stored(lake_at(root)) == [("p", "a")]
    with pytest.raises(StorageError) as error:
        replace(lake_at(root), "p", "b")
    assert error.value.code == "storage_denied" and not error.value.retryable
    with pytest.raises(StorageError) as error:
        ObjectStore(root).put("object", b"bytes")
    assert error.value.code == "storage_permission"
    assert stored(lake_at(root)) == [("p", "a")]


WRONG = [{"AWS_SECRET_ACCESS_KEY": "geheim"}, {"AWS_ACCESS_KEY_ID": "geheim"}]


@pytest.fixture(params=WRONG, ids=["secret", "key"])
def wrong_root(root: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The prefix of a lake with one table, and credentials that are wrong for it."""
    replace(lake_at(root), "p", "a")
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    return root


def test_a_store_refuses_wrong_credentials_by_name(wrong_root: str) -> None:
    store = ObjectStore(wrong_root)
    for attempt in (lambda: list(store.list()), lambda: store.put("object", b"x"), lambda: store.get("object", 10)):
        with pytest.raises(StorageError) as error:
            attempt()
        assert error.value.code == "storage_permission" and not error.value.retryable
        assert "geheim" not in str(error.value) and "secret" not in str(error.value)


def test_a_lake_refuses_wrong_credentials_by_name(wrong_root: str) -> None:
    with pytest.raises(StorageError) as error:
        lake_at(wrong_root).snapshot(NOTES)
    assert error.value.code == "storage_denied" and not error.value.retryable


def test_who_may_nothing_is_told_so_and_no_secret(root: str, seaweedfs: SeaweedFS, become: Become) -> None:
    replace(lake_at(root), "p", "a")
    become(seaweedfs, "stranger")
    with pytest.raises(StorageError) as error:
        lake_at(root).snapshot(NOTES)
    assert error.value.code == "storage_denied" and "secret" not in str(error.value)
    with pytest.raises(StorageError) as error:
        ObjectStore(root).get("object", 10)
    assert error.value.code == "storage_permission" and "secret" not in str(error.value)


# ---------------------------------------------------------------- objects


def test_objects_of_any_name_and_size_are_put_listed_read_and_deleted(root: str) -> None:
    store, names = ObjectStore(root), ["a b.dcm", "ü/名前.dcm", "scan#2", "50%20.dcm", "q?x=1", "x/y+z"]
    for name in names:
        store.put(name, name.encode())
    found = {info.key: info for info in store.list()}
    assert set(found) == set(names)
    for name in names:
        assert store.get(name, 100) == read_uri(found[name].uri, 100) == name.encode()
    assert [info.key for info in store.list("x")] == ["x/y+z"]
    big = os.urandom(1 << 20) * 24
    store.put("big", big)
    assert store.digest_and_head("big", 5) == (sha256(big).hexdigest(), big[:5])
    assert store.get_range("big", len(big) - 3, 10) == big[-3:]
    assert store.get_range("big", len(big) + 3, 10) == b""
    for name in [*names, "big", "big"]:
        store.delete(name)
    assert list(store.list()) == []


def test_what_is_not_there_is_named(root: str) -> None:
    for call in (lambda: ObjectStore(root).get("absent", 10), lambda: ObjectStore(root).get_range("absent", 0, 1)):
        with pytest.raises(ObjectRejected) as rejected:
            call()
        assert rejected.value.code == "object_missing"
    with pytest.raises(SourceError, match="no bucket"):
        list(ObjectStore("s3://nobucket/x").list())


# ---------------------------------------------------------------- TLS


def test_a_lake_behind_tls_is_used_with_its_authority_and_not_without(
    seaweedfs_tls: SeaweedFS, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = become(seaweedfs_tls, "writer")
    replace(lake_at(root), "p", "a")
    ObjectStore(root).put("object", b"bytes")
    assert stored(lake_at(root)) == [("p", "a")]
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceUnavailable) as error:
        ObjectStore(root).get("object", 10)
    assert "AWS_ENDPOINT_URL" in error.value.remedy


def test_all_that_a_lake_writes_is_encrypted_with_the_key_that_is_asked_for(
    seaweedfs: SeaweedFS, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in one part and in several, the log and its checkpoints, objects of any size."""
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "lake-key")
    lake, big = lake_at(root), os.urandom(12 << 20)
    replace(lake, "p", big.hex())
    for turn in range(20):
        replace(lake, "q", f"turn {turn}")
    ObjectStore(root).put("object", big)
    assert stored(lake_at(root)) == [("p", big.hex()), ("q", "turn 19")]
    assert ObjectStore(root).get("object", len(big)) == big
    names = [info.uri.removeprefix("s3://lake/") for info in ObjectStore(root).list()]
    heads = {name: seaweedfs.client().head_object(Bucket="lake", Key=name) for name in names}
    assert any(name.endswith(".checkpoint.parquet") for name in names)
    assert {(head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) for head in heads.values()} == {
        ("aws:kms", "lake-key")
    }


# ---------------------------------------------------------------- sudden death


@pytest.fixture
def mortal(become: Become) -> Iterator[tuple[SeaweedFS, str]]:
    """A server of one test, and a prefix in it."""
    with SeaweedFS("lake") as server:
        yield server, become(server, "writer")


def test_a_lake_whose_server_is_killed_between_commits_goes_on_afterwards(mortal: tuple[SeaweedFS, str]) -> None:
    server, root = mortal
    lake = lake_at(root)
    replace(lake, "p", "a")
    ObjectStore(root).put("object", b"bytes")
    server.kill()
    server.start()
    assert stored(lake) == [("p", "a")]
    assert ObjectStore(root).get("object", 10) == b"bytes"
    replace(lake, "p", "b")
    assert stored(lake_at(root)) == [("p", "b")]


def test_commits_during_which_the_server_is_killed_are_there_once_or_not_at_all(mortal: tuple[SeaweedFS, str]) -> None:
    server, root = mortal
    lake, going = lake_at(root), threading.Event()
    lake.ensure(NOTES)
    told: list[str] = []
    refused: list[MedvecError] = []

    def write() -> None:
        for number in range(40):
            try:
                lake.append(NOTES, notes("p", f"{number:02}"), {})
                told.append(f"{number:02}")
            except MedvecError as error:
                refused.append(error)
            if number == 5:
                going.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert going.wait(60)
    server.kill()
    server.start()
    writer.join(120)
    assert not writer.is_alive()
    found = [note for _, note in stored(lake_at(root))]
    assert len(found) == len(set(found)), "nothing twice"
    assert set(told) <= set(found), "nothing lost that was acknowledged"
    assert len(told) + len(refused) == 40
    assert all(isinstance(error, StorageError) and error.retryable for error in refused)
