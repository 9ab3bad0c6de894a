"""Replays on real Delta tables: what an old version answers, less what may not come back, and nothing once it is deleted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from helpers.query_world import (
    A1,
    B1,
    C1,
    R1,
    World,
    append,
    built_world,
    copy_of,
    opened,
    use_fake_encoder,
    versions_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from api.app import create_app
from medvec_assets.cli import app
from medvec_assets.query import exact
from medvec_assets.query.as_of import PastRequest, replay
from resources import tables
from resources.errors import ConfigError, NotFound, QueryInvalid, VersionGone

NAME = "tcia_catalog/text"
TABLE = tables.embeddings("tcia_catalog", "text")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    return copy_of(built, tmp_path)


def newest(world: World) -> int:
    return versions_of(world.lake, [("tcia_catalog", "text")])[NAME]


def asked(world: World, version: int, **question: object) -> list[str]:
    request = PastRequest(as_of={NAME: version}, **question or {"vector": A1.vector})  # type: ignore[arg-type]
    return [hit.record_id for hit in replay(request, world.settings, world.lake).hits]


def without(world: World, table: tables.TableSpec, record_id: str) -> None:
    base = world.lake.ensure(table)
    rows = base.read().filter(pl.col("record_id") != record_id).to_arrow().cast(table.schema)
    world.lake.replace(base, {}, rows.to_batches(), {})


def test_an_old_version_answers_what_it_held(world: World) -> None:
    last = newest(world)
    assert asked(world, last) == ["a1", "b1", "c1"]
    assert asked(world, last - 1) == ["a1", "b1"]
    without(world, TABLE, "b1")
    assert asked(world, newest(world)) == ["a1", "c1"]
    assert asked(world, last) == ["a1", "b1", "c1"]


def test_a_hit_says_what_a_search_s_hit_says(built: World) -> None:
    answer = replay(PastRequest(as_of={NAME: newest(built)}, vector=A1.vector), built.settings, built.lake)
    first = answer.hits[0]
    assert (first.vector_id, first.members, first.score) == (A1.vector_id, 2, 1.0)
    assert first.attributes == {"modality": "CT"} and first.source_uri == "s3://idc-open-data/a1/*"
    assert answer.complete and "subject-of-a1" in answer.subjects


def test_who_was_suppressed_or_taken_back_since_never_comes_back(world: World) -> None:
    version = newest(world)
    world.suppress(B1)
    assert asked(world, version) == ["a1", "c1"]
    without(world, tables.records("tcia_catalog"), "a1")
    request = PastRequest(as_of={NAME: version}, vector=A1.vector)
    answer = replay(request, world.settings, world.lake)
    assert [(hit.record_id, hit.members) for hit in answer.hits] == [("a2", 1), ("c1", 1)]
    assert not answer.complete and "subject-of-b1" not in answer.subjects


def test_what_is_withheld_makes_room_for_the_next(world: World) -> None:
    world.suppress(A1)
    for name in ("a2", "b1"):
        append(world.lake, tables.suppression(), {"subject_key": f"subject-of-{name}", "reason": "withdrawn"})
    assert asked(world, newest(world), vector=A1.vector, limit=1) == ["c1"]


def test_by_a_vector_of_then_without_itself_and_by_cohort(world: World) -> None:
    version = newest(world)
    without(world, TABLE, "a1")
    assert asked(world, version, vector_id=A1.vector_id) == ["b1", "c1"]
    assert asked(world, version, vector_id=A1.vector_id, cohorts=("liver",)) == ["c1"]
    with pytest.raises(NotFound):
        asked(world, version, vector_id="0" * 32)


def test_by_text(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    assert asked(built, newest(built), text="of the liver", limit=1) == ["c1"]


def test_once_its_files_are_deleted_a_version_is_refused(world: World) -> None:
    version = newest(world)
    snapshot = world.lake.snapshot(TABLE)
    assert snapshot is not None
    files = snapshot.file_paths({})
    without(world, TABLE, "b1")
    for uri in files:
        Path(uri.removeprefix("file://")).unlink()
    for question in ({"vector": A1.vector}, {"vector_id": A1.vector_id}):
        with pytest.raises(VersionGone, match="not kept any more"):
            asked(world, version, **question)
    assert asked(world, newest(world)) == ["a1", "c1"]


def test_a_version_that_is_not_there_yet_and_a_foreign_space_are_not_found(built: World) -> None:
    with pytest.raises(NotFound, match="has no version"):
        asked(built, newest(built) + 1)
    for name, error in (("tcia_catalog/image", NotFound), ("nothing/text", NotFound)):
        with pytest.raises(error):
            replay(PastRequest(as_of={name: 0}, vector=A1.vector), built.settings, built.lake)
    request = PastRequest(as_of={NAME: 0}, vector=A1.vector)
    with pytest.raises(NotFound):
        replay(request, built.settings, built.lake, frozenset({"tcia_radiology"}))


def test_several_spaces_and_vectors_of_another_kind_are_refused(built: World) -> None:
    both = {NAME: newest(built), "tcia_radiology/image": 0}
    with pytest.raises(QueryInvalid, match="several spaces"):
        replay(PastRequest(as_of=both, vector=R1.vector), built.settings, built.lake)
    with pytest.raises(QueryInvalid, match="dimensions"):
        asked(built, newest(built), vector=R1.vector)
    with pytest.raises(QueryInvalid, match="direction"):
        asked(built, newest(built), vector=(0.0,) * 4)
    with pytest.raises(QueryInvalid, match="one question"):
        PastRequest(as_of={NAME: 0}, vector=C1.vector, text="x")


class _Batches:
    """As much of a snapshot as is read: rows in batches of two."""

    spec = TABLE

    def __init__(self, rows: pl.DataFrame) -> None:
        self._table = rows.to_arrow()

    def scan(self, columns: list[str], where: object) -> object:
        return iter(self._table.select(columns).to_batches(max_chunksize=2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=30), st.integers(1, 8))
def test_the_nearest_are_those_of_a_full_sort(drawn: list[tuple[int, int]], limit: int) -> None:
    rows = [(f"p{content % 2}", "CC0", "open", str(content), "whole", 0, _vector(content)) for _, content in drawn]
    frame = pl.DataFrame(rows, schema=[*exact.CONTENT, "vector"], orient="row")
    frame = frame.with_columns(pl.col("vector").cast(pl.List(pl.Float32)), pl.col("part_index").cast(pl.Int32))
    query = np.array([1.0, 0.0], np.float32)
    found = exact.nearest_contents(_Batches(frame), None, query, limit)  # type: ignore[arg-type]
    scores = {str(content): round(float(np.float32(_vector(content)[0])), 5) for _, content in drawn}
    wanted = sorted(scores.items(), key=lambda one: -one[1])[:limit]
    assert [round(score, 5) for score in found["score"]] == [score for _, score in wanted]
    assert found["content_digest"].is_unique().all()


def _vector(content: int) -> list[float]:
    return [float(np.cos(content / 10)), float(np.sin(content / 10))]


def test_over_http(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    with TestClient(create_app(built.settings, lambda _: opened(built.index)), base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = (built.settings.home / "keys" / "api.key").read_text().strip()
        body = {"text": "chest", "as_of": {NAME: newest(built)}}
        answer = client.post("/v1/replay", json=body)
        assert answer.status_code == 200 and answer.json()["versions"] == {NAME: newest(built)}
        searched = client.post("/v1/search", json={"text": "chest"}).json()["hits"]
        same = ("vector_id", "members", "record_id", "score", "attributes")
        assert [[hit[name] for name in same] for hit in answer.json()["hits"]] == [
            [hit[name] for name in same] for hit in searched
        ]
        for wrong in ({"as_of": {}}, {"as_of": {"x": 1}}, {"as_of": {NAME: -1}}, {"text": None}, {"limit": 0}):
            assert client.post("/v1/replay", json=body | wrong).status_code == 422
        assert client.post("/v1/replay", json=body | {"as_of": {NAME: 10**9}}).status_code == 404


def test_on_the_command_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    environment = {"MEDVEC_HOME": str(world.settings.home)}
    world.suppress(B1)
    command = ["replay", "chest", "--as-of", f"{NAME}={newest(world)}"]
    done = CliRunner().invoke(app, [*command, "--json"], env=environment)
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    assert [hit["record_id"] for hit in told["hits"]] == ["a1", "c1"] and told["complete"] is False
    assert "not complete" in CliRunner().invoke(app, command, env=environment).stdout
    done = CliRunner().invoke(app, ["replay", "chest", "--as-of", "x"], env=environment)
    assert isinstance(done.exception, ConfigError)
