"""A thousand requests that are wrong, to every route of the app: refused, without a word of the inside, and forgotten.

Uploads are read by the real decoder's process. MEDVEC_MALFORMED: how many requests.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from helpers.dicom_files import jpeg2000_bomb, jpeg_bomb, real
from helpers.image_world import DICOM, GZIP, NIFTI, PNG, Bright, nifti, png
from helpers.query_world import A1, FakeEncoder, World, built_world, opened
from PIL import Image

from api.app import create_app
from medvec_assets.query.uploads import MEDIA_TYPES
from resources import encoders
from resources.settings import Settings

pytestmark = pytest.mark.integration

REQUESTS = int(os.environ.get("MEDVEC_MALFORMED", "1000"))
GROWTH_BYTES = 700  # of each request; 270 were measured: a limit's window keeps some for a minute
DECODER_GROWTH_BYTES = 96 << 20  # of all uploads: what its libraries keep to use again
SECRET = "JANE-DOE-4711"
LEAKS = re.compile(
    rf"Traceback|File \"|site-packages|\.py\b|\b0x[0-9a-f]{{6}}|{SECRET}|\b\w+(Error|Exception)\b"
    r"|pydantic|starlette|fastapi|uvicorn|milvus|pyarrow|polars|deltalake|numpy|pydicom|nibabel|\bPIL\b|http://|/tmp/|/root",
    re.IGNORECASE,
)

BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/search": [
        {"text": SECRET, "limit": 5, "datasets": ["tcia_catalog"], "attributes": {"body_part": {"in": ["HEAD"]}}},
        {"queries": [{"text": SECRET}, {"vector_id": A1.vector_id}], "explain": True, "group_by": "subject"},
        {"vector": [1.0, 0.0, 0.0, 0.0], "cursor": SECRET},
    ],
    "/v1/replay": [{"text": SECRET, "as_of": {"tcia_catalog/text": 1}}],
    "/v1/cohorts/neighbours": [{"dataset": "tcia_catalog", "record_ids": [SECRET], "top_k": 3, "by": ["cohort"]}],
}
WITH_ID = ["/v1/hits/{}/members", "/v1/lineage/{}", "/v1/datasets/{}", "/{}"]
PLAIN = ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/datasets"]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    " ",
    "\0",
    "\ud800",
    SECRET,
    "x" * 9_000,
    [],
    [[]],
    {},
]
ODD_BYTES = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"a\r\nSet-Cookie: x=1",
    b"%00",
    b"x" * 60_000,
    SECRET.encode(),
    b"\xe2\x80\xae",
    b"[]",
]
HEADERS = ["Authorization", "X-API-Key", "X-Purpose-Of-Use", "X-Correlation-Id", "traceparent", "Content-Type", "Accept",
           "Host", "Content-Length", "Content-Encoding", "Range", "X-Forwarded-For", "Cookie", "Expect", "Origin"]  # fmt: skip


@dataclass
class Sent:
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, bytes] = field(default_factory=dict)


def _json(chance: random.Random) -> Sent:
    """A question that was damaged as text, or in one of its values."""
    path = chance.choice(sorted(BODIES))
    asked = json.loads(json.dumps(chance.choice(BODIES[path])))
    name = chance.choice([*asked, "surprise"])
    whole = json.dumps(asked).encode()
    cut = chance.randrange(len(whole))
    odd = json.dumps(asked | {name: chance.choice(ODD)}).encode()
    body = chance.choice(
        [
            odd,
            json.dumps(asked | {name: [chance.choice(ODD)] * chance.choice([1, 100])}).encode(),
            whole[:cut],
            whole[:cut] + chance.randbytes(3) + whole[cut:],
            chance.randbytes(chance.randrange(500)),
            b"[" * chance.choice([10, 100_000]),
            b'{"text":' * 50_000,
            b'{"vector": [' + chance.choice([b"NaN", b"-Infinity", b"1e999", b"1" * 5_000, b"0x1"]) + b"]}",
            whole.decode().encode("utf-16"),
            whole + b"}",
            b"\xef\xbb\xbf" + whole,
            b'{"text": "a", "text": "b", "limit": 1e5}',
            b'{"text": "' + b"x" * (1 << 20) + b'"}',
        ]
    )
    types = [b"application/json"] * 6 + [
        b"text/plain",
        b"application/xml",
        b"multipart/form-data; boundary=x",
        b"\xff",
        b"",
    ]
    return Sent("POST", path, body, {"Content-Type": chance.choice(types)})


def _files() -> dict[str, list[bytes]]:
    pixels = BytesIO()
    Image.open(BytesIO(png())).save(pixels, "JPEG")
    small = nifti(8, 8, 8) + bytes(range(256)) * 4
    return {
        DICOM: [real("CT_small.dcm"), jpeg2000_bomb(60_000), jpeg_bomb(60_000)],
        PNG: [png(), png(1_100, 1_000), b"GIF89a" + SECRET.encode()],
        "image/jpeg": [pixels.getvalue()],
        NIFTI: [small, nifti(30_000, 30_000, 30_000)],
        GZIP: [gzip.compress(one) for one in (small, nifti(30_000, 30_000, 30_000) + bytes(1 << 20), bytes(4 << 20))],
    }  # fmt: skip


FILES = _files()


def _upload(chance: random.Random) -> Sent:
    """A file that was cut, overturned or declared more than it has; or of another type than it is said to be."""
    said = chance.choice(sorted(FILES))
    data = bytearray(chance.choice(FILES[said if chance.random() < 0.8 else chance.choice(sorted(FILES))]))
    match chance.randrange(4):
        case 0:
            data = data[: chance.randrange(len(data))]
        case 1:
            for _ in range(chance.randint(1, 40)):
                data[chance.randrange(min(len(data), chance.choice([64, 2_000, len(data)])))] = chance.randrange(256)
        case 2:
            at = chance.randrange(len(data))
            data[at:at] = chance.randbytes(chance.randrange(200)) + SECRET.encode()
        case _:
            data = bytearray(chance.randbytes(chance.randrange(3_000)))
    media_type = (
        said if chance.random() < 0.9 else chance.choice(["text/html", "application/json", f"{PNG};x={SECRET}", ""])
    )
    query = chance.choice(["", "?limit=1e9", f"?filter={SECRET}", "?cursor=%00", "?limit=1&limit=2", "?group_by=study"])
    return Sent("POST", f"/v1/search/image{query}", bytes(data), {"Content-Type": media_type.encode()})


def _path(chance: random.Random) -> Sent:
    """An odd id, query string or method."""
    odd = [
        "..",
        "../../etc/passwd",
        "%2e%2e",
        "\0",
        "\u202e",
        "a" * 20_000,
        "{}",
        "'; --",
        SECRET,
        "0" * 32,
        "0" * 32 + "\n",
        "/",
        "",
    ]
    path = chance.choice([one.format(quote(chance.choice(odd), safe="%")) for one in WITH_ID] + PLAIN)
    strings = [
        "",
        "?",
        "?limit=NaN",
        "?format=%00",
        "?" + "a=1&" * 3_000,
        "?after=" + "%F0%9F" * 100,
        f"?format={SECRET}",
        "?[]=&=&&",
    ]
    methods = ["GET"] * 8 + ["POST", "DELETE", "TRACE", "PROPFIND", "get"]
    return Sent(chance.choice(methods), path + chance.choice(strings))


def _header(chance: random.Random) -> Sent:
    """A right request with a wrong header."""
    sent = chance.choice(
        [Sent("GET", "/v1/datasets"), Sent("POST", "/v1/search", b'{"text": "x"}'), Sent("GET", "/livez")]
    )
    sent.headers = {chance.choice(HEADERS): chance.choice(ODD_BYTES) for _ in range(chance.randint(1, 3))}
    return sent


KINDS: list[Callable[[random.Random], Sent]] = [_json, _json, _upload, _upload, _path, _header]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


def _encoder(ref: str, settings: Settings) -> Any:
    card = encoders.card(ref, settings)
    return FakeEncoder(card) if card.input_kind == "text" else Bright(ref, settings)


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(encoders, "load", _encoder)
    limits = ("api_rate_limit", "api_cost_limit", "api_failure_limit")
    # A loaded machine must not change the outcome: neither the log's budget nor the decoder's is tested here.
    patient = {"access_budget_ms": 60_000, "api_upload_seconds": 120.0, "decode_workers": 1}
    bounds = {"api_upload_bytes": 2 << 20, "api_upload_pixels": 1_000_000}
    settings = world.settings.model_copy(update=dict.fromkeys(limits, "1000000000/minute") | patient | bounds)
    app = create_app(settings, lambda _: opened(world.index))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {(world.settings.home / 'keys' / 'api.key').read_text().strip()}"
        yield client


def ask(client: TestClient, sent: Sent) -> Any:
    headers = [(name.encode(), value) for name, value in sent.headers.items()]
    return client.request(sent.method, sent.path, content=sent.body, headers=headers)


def faults(sent: Sent, answer: Any, home: Path) -> Iterator[str]:
    """What is wrong with an answer to what was wrong."""
    if answer.status_code >= 500:
        yield "a server error"
    shown = answer.text + str([(name, value) for name, value in answer.headers.items() if name != "x-medvec-event"])
    if answer.status_code >= 400:
        if answer.headers["content-type"] != "application/problem+json" and sent.method != "HEAD":
            yield "no problem"
        if (found := LEAKS.search(shown)) or str(home) in shown:
            yield f"tells {found}"
        if len(answer.content) > 8_192:
            yield "a long refusal"
    if "set-cookie" in answer.headers or any("\n" in value for value in answer.headers.values()):
        yield "a header of the caller's"


def test_what_is_wrong_is_refused_and_forgotten(client: TestClient, world: World) -> None:
    chance = random.Random(4711)
    every = [KINDS[number % len(KINDS)](chance) for number in range(REQUESTS)]
    # Traced, a request takes twice as long. What the first traced ones leave is mostly what was there already, made anew.
    warm, settling, last = every[: REQUESTS // 2], every[REQUESTS // 2 : REQUESTS * 2 // 3], every[REQUESTS * 2 // 3 :]
    statuses: Counter[int] = Counter()
    routes: Counter[str] = Counter()

    def send(part: list[Sent]) -> list[str]:
        found = []
        for sent in part:
            answer = ask(client, sent)
            statuses[answer.status_code] += 1
            routes[sent.path.partition("?")[0]] += 1
            what = f"{sent.method} {sent.path[:80]} {sent.headers!s:.200} {sent.body[:200]!r} -> {answer.status_code}"
            found += [f"{fault}: {what} {answer.text[:300]}" for fault in faults(sent, answer, world.settings.home)]
        return found

    wrong = send(warm)
    decoder_before = _decoder_bytes(client)
    tracemalloc.start()
    try:
        wrong += send(settling)
        before = _traced_bytes()
        wrong += send(last)
        grown = _traced_bytes() - before
    finally:
        tracemalloc.stop()
    assert wrong == []
    assert grown < GROWTH_BYTES * len(last)
    assert _decoder_bytes(client) - decoder_before < DECODER_GROWTH_BYTES
    assert {*BODIES, "/v1/search/image", *PLAIN} <= routes.keys()
    assert {400, 401, 404, 405, 413, 415, 422} <= statuses.keys()
    assert statuses[422] > REQUESTS / 3


def _traced_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _decoder_bytes(client: TestClient) -> int:
    """What the one process of the decoder has in memory; it must be one still."""
    [process] = client.app_state["service"].decoder._slots.queue
    assert process is not None and process.poll() is None
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_every_type_of_file_is_sent() -> None:
    assert FILES.keys() == MEDIA_TYPES.keys()
