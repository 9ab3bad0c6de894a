"""The service as people meet it: a real process on loopback over a lake and an index that the real stages filled."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import polars as pl
import pytest
from helpers.filling import fill
from helpers.made_once import made_once

from api.client import Client
from medvec_assets.catalog import dataset
from medvec_assets.stages.context import Context
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.vector_index import open_index

pytestmark = pytest.mark.integration

CATALOG = dataset("tcia_catalog")
LIVER, BRAIN = "tcga_lihc", "upenn_gbm"
SERIES_EACH = 150
START_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    client: httpx.Client
    log: Path


def _real_index(folder: Path) -> Path:
    """The first series of two collections of the real Imaging Data Commons index, in its own layout."""
    package = find_spec("idc_index_data")
    assert package is not None and package.origin is not None
    rows = pl.scan_parquet(Path(package.origin).parent / "idc_index.parquet")
    picked = [rows.filter(pl.col("collection_id") == name).head(SERIES_EACH) for name in (LIVER, BRAIN)]
    path = folder / "idc_index.parquet"
    pl.concat(picked).collect().write_parquet(path)
    return path


def _fill(settings: Settings) -> None:
    with open_index(settings) as index:
        ctx = Context(settings, Lakehouse.open(settings), run_id="run-of-the-test", index=index)
        fill(ctx, CATALOG, "text")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def filled_home(factory: pytest.TempPathFactory) -> Path:
    """A home of one's own with two collections of the real catalogue, in the lake and in an embedded index."""

    def make(folder: Path) -> None:
        _fill(Settings(home=folder, sources={"tcia_catalog": str(_real_index(folder))}))

    home = factory.mktemp("filled")
    shutil.copytree(made_once(factory, "filled", make), home, dirs_exist_ok=True)
    return home


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = filled_home(tmp_path_factory)
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDVEC_")}
    environment |= {"MEDVEC_HOME": str(home), "MEDVEC_API_PORT": str(port)}
    log = home / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_SECONDS) as client:
            _wait_until_ready(client, process, log)
            client.headers["X-API-Key"] = (home / "keys" / "api.key").read_text()
            yield Running(client, log)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready in {START_SECONDS} s: {log.read_text()}")


def _search(service: Running, **question: object) -> list[dict[str, object]]:
    answer = service.client.post("/v1/search", json=question)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, object]] = answer.json()["hits"]
    return hits


def test_a_question_in_words_finds_what_it_names(service: Running) -> None:
    for question, cohort in (("CT of the liver", LIVER), ("MR of the brain, glioblastoma", BRAIN)):
        hits = _search(service, text=question, limit=5)
        assert [hit["cohort"] for hit in hits] == [cohort] * 5
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)  # type: ignore[type-var]
        assert str(hits[0]["source_uri"]).startswith("s3://idc-open-data")


def test_a_cohort_restricts_and_an_unknown_one_is_refused(service: Running) -> None:
    hits = _search(service, text="CT of the liver", cohorts=[BRAIN], limit=20)
    assert hits and {hit["cohort"] for hit in hits} == {BRAIN}
    assert service.client.post("/v1/search", json={"text": "x", "cohorts": ["moon"]}).status_code == 404


def test_more_like_a_record_does_not_answer_with_itself(service: Running) -> None:
    first = _search(service, text="CT of the liver", limit=1)[0]
    for question in ({"record_id": first["record_id"]}, {"vector_id": first["vector_id"]}):
        hits = _search(service, **question, limit=3)
        assert len(hits) == 3
        assert first["vector_id"] not in {hit["vector_id"] for hit in hits}


def test_pages_filters_and_many_questions_on_a_real_index(service: Running) -> None:
    asked: dict[str, object] = {"text": "CT of the liver", "cohorts": [LIVER], "limit": 7}
    pages, cursor = [], None
    while len(pages) < 4 and (cursor is not None or not pages):
        told = service.client.post("/v1/search", json=asked | {"cursor": cursor, "explain": True}).json()
        pages.append([hit["vector_id"] for hit in told["hits"]])
        cursor = told["cursor"]
        assert told["explain"]["collections"][0]["collection"] == "tcia_catalog__text__open__g1"
    whole = [hit["vector_id"] for hit in _search(service, **asked | {"limit": 28})]
    paged = [one for page in pages for one in page]
    assert len(set(paged)) == len(paged) and set(paged) == set(whole)

    mr = _search(service, text="liver", attributes={"modality": {"equals": "MR"}, "instances": {"gte": 2}}, limit=50)
    assert mr and all(hit["modality"] == "MR" and hit["attributes"]["instances"] >= 2 for hit in mr)  # type: ignore[index]
    subjects = _search(service, text="CT of the liver", group_by="subject", limit=5)
    assert [hit["group"] for hit in subjects] == [f"subject {number}" for number in range(1, 6)]

    texts = ["CT of the liver", "MR of the brain"]
    told = service.client.post("/v1/search", json={"queries": [{"text": one} for one in texts], "limit": 4}).json()
    alone = [_search(service, text=one, limit=4) for one in texts]
    assert [[hit["vector_id"] for hit in hits] for hits in told["answers"]] == [
        [hit["vector_id"] for hit in hits] for hits in alone
    ]


def test_the_members_of_a_hit_are_as_many_as_it_says(service: Running) -> None:
    hit = max(_search(service, text="CT of the liver", limit=50), key=lambda one: int(str(one["members"])))
    told = service.client.get(f"/v1/hits/{hit['vector_id']}/members").json()
    assert told["members"] == len(told["records"]) == hit["members"]
    assert hit["vector_id"] in {one["vector_id"] for one in told["records"]}


def test_every_hit_can_be_followed_to_its_source(service: Running) -> None:
    for hit in _search(service, text="brain tumour", limit=3):
        told = service.client.get(f"/v1/lineage/{hit['vector_id']}").json()
        assert told["vector"]["collection"] == "tcia_catalog__text__open__g1"
        assert told["vector"]["index_receipt"]["entities"] > 0
        assert told["embedding"]["weights_digest"] == hit["weights_digest"]
        assert told["embedding"]["run_id"] == "run-of-the-test"
        assert told["record"]["record_id"] == hit["record_id"]
        assert [one["uri"] for one in told["objects"]] == [hit["source_uri"]]
        assert told["objects"][0]["license"] == hit["license"]
        assert told["upstream"]["version"]
        assert [one["asset"] for one in told["commits"]] == ["manifest", "records", "text_embeddings", "text_vectors"]
        assert [(one["run_id"], len(one["assets"])) for one in told["runs"]] == [("run-of-the-test", 4)]


def test_datasets_count_what_was_filled(service: Running) -> None:
    told = {one["id"]: one for one in service.client.get("/v1/datasets").json()["datasets"]}
    cohorts = {one["cohort"]: one["objects"] for one in told["tcia_catalog"]["cohorts"]}
    assert cohorts == {LIVER: SERIES_EACH, BRAIN: SERIES_EACH}
    assert told["tcia_radiology"]["spaces"] == []


def test_the_log_holds_routes_and_no_question(service: Running) -> None:
    _search(service, text="JANE-DOE liver")
    service.client.get("/v1/lineage/JANE-DOE?name=JANE-DOE")
    deadline = time.monotonic() + 30  # a line is written when its answer has been sent
    while "GET /v1/lineage/{vector_id} 422" not in (log := service.log.read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    assert "POST /v1/search 200" in log
    assert "JANE-DOE" not in log


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [
        ("search_and_cite.py", ["contrast enhanced CT of the liver"], "CC BY"),
        ("neighbours_of_a_cohort.py", ["tcia_catalog", LIVER], BRAIN),
        ("keep_the_evidence.py", ["brain MR", "lineage.json"], "again at {'tcia_catalog/text': "),
    ],
)
def test_the_documented_programs_run(
    service: Running, tmp_path: Path, program: str, arguments: list[str], shown: str
) -> None:
    environment = os.environ | {"MEDVEC_KEY": service.client.headers["X-API-Key"].strip()}
    command = [sys.executable, str(EXAMPLES / program), str(service.client.base_url), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert all("prefix" in path.read_text() for path in tmp_path.iterdir())


def test_the_client_has_a_method_for_every_route_that_answers_data(service: Running) -> None:
    methods = {
        "/v1/search": Client.search,
        "/v1/search/image": Client.search_image,
        "/v1/hits/{vector_id}/members": Client.members,
        "/v1/cohorts/neighbours": Client.neighbours,
        "/v1/replay": Client.replay,
        "/v1/lineage/{vector_id}": Client.lineage,
        "/v1/datasets": Client.datasets,
        "/v1/datasets/{dataset_id}": Client.dataset,
        "/v1/datasets/{dataset_id}/map": Client.map,
    }
    paths = {path for path in service.client.get("/openapi.json").json()["paths"] if path.startswith("/v1/")}
    assert {path for path in paths if "thumbnail" not in path} == set(methods)
    url, key = str(service.client.base_url), service.client.headers["X-API-Key"].strip()
    with Client(url, key) as client:
        [hit] = client.search("liver CT", limit=1).hits
        members = client.members(hit.vector_id)
        assert members.members == hit.members and hit.record_id in [one.record_id for one in members.records]
        assert client.dataset(hit.dataset) in client.datasets().datasets
        assert client.lineage_as(hit.vector_id, "svg").lstrip().startswith("<svg")
