"""Folders and a fake S3 endpoint: what is listed, what is refused, and how failures are told apart."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from resources import object_store
from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable, StorageError
from resources.object_store import ObjectStore, read_uri

ODD_NAMES = ["a b.dcm", "ü/名前.dcm", "scan#2", "50%20.dcm", "q?x=1", "new\nline", "..data", ".hidden"]


def code_of(call: object) -> str:
    with pytest.raises(ObjectRejected) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", [*ODD_NAMES, os.fsdecode(b"latin\xe9.dcm")])
def test_an_object_of_any_name_is_listed_and_read_back_by_key_and_by_uri(tmp_path: Path, name: str) -> None:
    store = ObjectStore(str(tmp_path))
    store.put(name, b"bytes")
    (info,) = store.list()
    assert list(store.list("a b", after=info.key)) == []
    assert (info.key, info.size_bytes) == (name, 5)
    assert info.uri.isascii() and store.key_of(info.uri) == name
    assert store.get(info.key, 5) == read_uri(info.uri, 5) == b"bytes"


def test_a_listing_is_complete_ordered_and_limited_to_its_prefix(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path.as_uri())
    for key in ("b/2", "b/1", "a", "b/c/3"):
        store.put(key, b"")
    assert [info.key for info in store.list()] == ["a", "b/1", "b/2", "b/c/3"]
    assert [info.key for info in store.list("b/c")] == ["b/c/3"]
    assert [info.key for info in store.list("b", after="b/1")] == ["b/2", "b/c/3"]
    assert list(store.list("nothing")) == []


def test_a_listing_never_leaves_its_root(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root.mkdir()
    (root / "real").write_bytes(b"x")
    (root / "link_out").symlink_to(outside / "secret")
    (root / "folder_out").symlink_to(outside)
    (root / "link_in").symlink_to(root / "real")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    store = ObjectStore(str(root))
    assert [info.key for info in store.list()] == ["link_in", "real"]
    for key in ("../outside/secret", "link_out", "folder_out/secret", str(outside / "secret"), "nul\0"):
        assert code_of(lambda key=key: store.get(key, 100)) == "object_outside_root"
    assert code_of(lambda: store.get("pipe", 100)) == "object_missing"  # and does not wait for a writer
    with pytest.raises(ObjectRejected):
        list(store.list(".."))
    with pytest.raises(ObjectRejected):
        store.put("../outside/new", b"")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_missing_root_is_not_an_empty_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        list(ObjectStore(str(tmp_path / "unmounted")).list())
    assert caught.value.code == "source_missing"


def test_size_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it would take a terabyte of memory
    assert code_of(lambda: ObjectStore(str(tmp_path)).get("huge", 1 << 20)) == "object_too_large"
    assert code_of(lambda: read_uri(str(huge), 1 << 20)) == "object_too_large"


def test_digests_heads_and_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CHUNK_BYTES", 7)  # several chunks
    data = bytes(range(100))
    store = ObjectStore(str(tmp_path))
    store.put("x", data)
    assert store.digest_and_head("x") == (hashlib.sha256(data).hexdigest(), b"")
    assert store.digest_and_head("x", 10) == (hashlib.sha256(data).hexdigest(), data[:10])
    assert store.digest_and_head("x", 1000)[1] == data
    pieces: list[bytes] = []
    store.digest_and_head("x", write=pieces.append)
    assert len(pieces) > 1 and b"".join(pieces) == data
    assert store.get_range("x", 90, 5) == data[90:95]
    assert store.get_range("x", 95, 50) == data[95:]
    assert store.get_range("x", 200, 5) == b""


def test_the_etag_moves_with_the_content_and_only_then(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    store.put("x", b"one")
    (first,) = store.list()
    store.get("x", 10)
    assert [info.etag for info in store.list()] == [first.etag]
    store.put("x", b"two")  # same size, perhaps within one tick of the clock
    assert [info.etag for info in store.list()] != [first.etag]


def test_a_put_that_fails_leaves_the_old_object_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(str(tmp_path))
    store.put("x", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        store.put("x", b"new")
    assert caught.value.code == "storage_full" and not caught.value.retryable
    assert store.get("x", 10) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_unfinished_put_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / f".medvec-{'0' * 16}.part").write_bytes(b"half")
    assert list(ObjectStore(str(tmp_path)).list()) == []


def test_delete_is_idempotent_and_missing_objects_are_named(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    store.put("x", b"1")
    store.delete("x")
    store.delete("x")
    assert code_of(lambda: store.get("x", 1)) == "object_missing"
    assert code_of(lambda: store.digest_and_head("no/such")) == "object_missing"


def test_permission_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "denied")  # raised by hand: the tests may run as root

    store = ObjectStore(str(tmp_path))
    store.put("x", b"1")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(StorageError) as caught:
        store.get("x", 1)
    assert caught.value.code == "storage_permission"


@pytest.mark.parametrize(
    "uri", ["gs://bucket", "https://host/x", "file://otherhost/x", "s3://", "s3:///x", "s3://b/../c"]
)
def test_other_uris_are_refused_with_a_remedy(uri: str) -> None:
    with pytest.raises(ConfigError):
        ObjectStore(uri)


# ---------------------------------------------------------------- a bucket


class FakeS3(BaseHTTPRequestHandler):
    """The few S3 answers that are read here: list, head, get with a range, put, delete."""

    objects: dict[str, bytes]
    denied = False

    def log_message(self, *_: object) -> None: ...

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if type(self).denied:
            return self._answer(403, b"<Error><Code>AccessDenied</Code><Message>secret-token</Message></Error>")
        if not urlsplit(self.path).path.startswith("/bucket"):
            return self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if "list-type" in query:
            return self._list(query.get("prefix", [""])[0], query.get("start-after", [""])[0])
        data = self.objects.get(self._key)
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        facts = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        asked = self.headers.get("Range")
        if not asked:
            return self._answer(200, data, **facts)
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        return self._answer(206, part, **facts, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(data)}")

    do_HEAD = do_GET

    def _list(self, prefix: str, after: str) -> None:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;"
            "</ETag><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix) and key > after
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, body.encode())

    def do_PUT(self) -> None:
        self.objects[self._key] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, ETag='"1"')


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeS3]]:
    handler = type("Handler", (FakeS3,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    yield handler
    server.shutdown()
    server.server_close()


def test_a_bucket_is_read_and_written_like_a_folder(bucket: type[FakeS3]) -> None:
    store = ObjectStore("s3://bucket/pre fix")
    store.put("a b/ü #1%20.dcm", b"0123456789")
    bucket.objects["elsewhere"] = b"x"
    (info,) = store.list()
    assert list(store.list("a b", after=info.key)) == []
    assert (info.key, info.size_bytes) == ("a b/ü #1%20.dcm", 10)
    assert info.etag == hashlib.md5(b"0123456789").hexdigest()
    assert info.uri == "s3://bucket/pre fix/a b/ü #1%20.dcm" and store.key_of(info.uri) == info.key
    assert store.get(info.key, 10) == read_uri(info.uri, 10) == b"0123456789"
    assert store.digest_and_head(info.key)[0] == hashlib.sha256(b"0123456789").hexdigest()
    assert [store.get_range(info.key, *span) for span in ((2, 3), (8, 9), (99, 1))] == [b"234", b"89", b""]


def test_a_buckets_refusals_are_told_apart(bucket: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore("s3://bucket")
    bucket.objects["big"] = bytes(100)
    assert code_of(lambda: store.get("big", 99)) == "object_too_large"
    assert code_of(lambda: store.get("none", 9)) == "object_missing"
    assert code_of(lambda: store.get("../big", 9)) == "object_outside_root"
    with pytest.raises(SourceError):
        list(ObjectStore("s3://other").list())
    bucket.denied = True
    for call in (lambda: list(store.list()), lambda: store.get("big", 200)):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code == "storage_permission" and "secret-token" not in str(caught.value)


def test_a_store_that_is_down_is_retryable(bucket: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound and never listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(SourceUnavailable) as caught:
            ObjectStore("s3://bucket").get("x", 1)
    assert caught.value.retryable


def test_plain_http_needs_a_word(bucket: type[FakeS3], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ConfigError):
        ObjectStore("s3://bucket")
