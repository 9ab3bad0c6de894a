"""The chain in the forms that others read: each is read back by its own library, and says no more than the chain."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from helpers.query_world import A1, World, built_world, opened
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent
from prov.model import ProvDocument
from typer.testing import CliRunner

from api.app import SECURITY_HEADERS, create_app
from medvec_assets.cli import app
from medvec_assets.query import html
from medvec_assets.query.forms import MEDIA_TYPES, Form, as_text
from medvec_assets.query.lineage import lineage, openlineage, picture, prov, trace

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def told(world: World) -> dict[str, Any]:
    return lineage(A1.vector_id, world.settings, world.lake)


def test_the_trace_names_whose_it_is_beside_the_answer(world: World) -> None:
    found = trace(A1.vector_id, world.settings, world.lake)
    assert found.subjects == {"subject-of-a1"}
    assert found.versions.keys() == {"tcia_catalog/text"}
    assert "subject-of" not in json.dumps(found.told)


def test_each_commit_says_what_made_it(told: dict[str, Any]) -> None:
    for commit in told["commits"]:
        assert {
            "code_version",
            "image_digest",
            "encoder",
            "weights_digest",
            "deid_profile",
            "row_hash",
        } <= commit.keys()
    assert told["embedding"]["preprocessing"] == "descriptor-1"
    assert told["upstream"]["homepage"].startswith("https://")


def test_prov_is_read_back_as_the_same_document(told: dict[str, Any]) -> None:
    text = prov.as_json(told)
    read = ProvDocument.deserialize(content=text, format="json")
    assert read == prov.document(told)
    relations = text.count("prov:usedEntity"), text.count("prov:generatedEntity")
    assert min(relations) >= 4  # release -> manifest -> record -> embedding -> vector


def test_the_way_back_in_prov_leads_from_the_vector_to_the_release(told: dict[str, Any]) -> None:
    derived = json.loads(prov.as_json(told))["wasDerivedFrom"].values()
    steps = {one["prov:generatedEntity"]: set() for one in derived}
    for one in derived:
        steps[one["prov:generatedEntity"]].add(one["prov:usedEntity"])
    reached, ahead = set(), {f"medvec:vector/{told['vector']['entity_id']}"}
    while ahead:
        reached |= ahead
        ahead = set().union(*(steps.get(name, set()) for name in ahead)) - reached
    assert {name.split(":")[1].split("/")[0] for name in reached} == {"vector", "embedding", "record", "object"}
    members = json.loads(prov.as_json(told))["hadMember"].values()
    assert {one["prov:entity"] for one in members} <= reached


def test_openlineage_events_pass_the_client_s_own_validators(told: dict[str, Any]) -> None:
    events = openlineage.events(told)
    assert [one["job"]["name"].split("/")[1] for one in events] == [
        "manifest",
        "records",
        "text_embeddings",
        "text_vectors",
    ]
    for one in events:
        datetime.fromisoformat(one["eventTime"])
        UUID(one["run"]["runId"])
        rebuilt = RunEvent(
            eventTime=one["eventTime"],
            producer=one["producer"],
            run=Run(**one["run"]),
            job=Job(**one["job"]),
            inputs=[InputDataset(**dataset) for dataset in one["inputs"]],
            outputs=[OutputDataset(**dataset) for dataset in one["outputs"]],
        )
        assert rebuilt.schemaURL == one["schemaURL"]
        for dataset in (*one["inputs"], *one["outputs"]):
            for facet in dataset["facets"].values():
                assert facet["_schemaURL"].startswith("https://openlineage.io/spec/") and facet["_producer"]
    for before, after in pairwise(events):
        [made], [taken] = before["outputs"], after["inputs"]
        assert all(made[name] == taken[name] for name in ("namespace", "name", "facets"))
    assert len({one["run"]["runId"] for one in events}) == len(events)


def test_the_picture_stands_alone_and_tells_the_whole_chain(told: dict[str, Any]) -> None:
    drawn = picture.svg(told)
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img" and root.get("aria-labelledby") == "lineage-title lineage-description"
    title, described = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == f"Lineage of vector {A1.vector_id}"
    assert described is not None and described.text is not None
    for whole in (A1.content_digest, told["vector"]["entity_id"], told["embedding"]["weights_digest"]):
        assert whole in described.text
    assert [one.title for one in picture.boxes(told)] == [
        "Upstream release",
        "Source object",
        "Manifest",
        "Record",
        "Embedding",
        "Vector",
    ]
    # Nothing from elsewhere, nothing that a content policy would have to allow.
    assert not any(f" {name}=" in drawn or f"<{name}" in drawn for name in ("style", "href", "script", "image"))
    assert drawn.count("http") == 1  # the namespace


def test_what_is_told_is_text_and_never_markup(told: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(told).replace("lung", "<script>alert(1)</script>&'"))
    for form in (Form.SVG, Form.HTML):
        made = as_text(hostile, form)
        assert "<script" not in made and "&lt;script&gt;" in made


def test_an_unindexed_vector_without_commits_has_every_form(told: dict[str, Any]) -> None:
    bare = told | {"commits": [], "runs": [], "objects": [], "vector": told["vector"] | {"collection": None}}
    for form in Form:
        assert as_text(bare, form)


@pytest.mark.parametrize("form", list(Form))
def test_every_form_over_http(world: World, form: Form) -> None:
    with TestClient(create_app(world.settings, lambda _: opened(world.index)), base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = (world.settings.home / "keys" / "api.key").read_text().strip()
        answer = client.get(f"/v1/lineage/{A1.vector_id}", params={"format": form})
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == MEDIA_TYPES[form]
        assert "subject-of" not in answer.text and "PATIENT-NAME" not in answer.text
        policy = answer.headers["content-security-policy"]
        wanted = f"{html.POLICY}; frame-ancestors 'none'" if form is Form.HTML else None
        assert policy == (wanted or SECURITY_HEADERS["Content-Security-Policy"])
        assert client.get(f"/v1/lineage/{A1.vector_id}", params={"format": "pdf"}).status_code == 422


def test_every_form_on_the_command_line(world: World, tmp_path: Path) -> None:
    environment = {"MEDVEC_HOME": str(world.settings.home)}
    for form in Form:
        file = tmp_path / f"chain.{form}"
        command = ["lineage", A1.vector_id, "--format", form, "--output", str(file)]
        done = CliRunner().invoke(app, command, env=environment)
        assert (done.exit_code, done.stdout) == (0, ""), done.exception
        assert file.read_text().strip()
    done = CliRunner().invoke(app, ["lineage", A1.vector_id, "--json", "--format", "svg"], env=environment)
    assert done.exit_code == 1 and "exclude each other" in str(done.exception)
