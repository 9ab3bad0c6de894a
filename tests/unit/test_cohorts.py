"""Neighbour counts and the catalogue: right numbers, none that is too small, and never an id."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from helpers.pipeline import SPACE, Pipeline
from helpers.query_world import A1, NOON, R1, Item, World, built_world, copy_of, empty_world, opened
from helpers.tiny_source import series

from api.app import create_app
from medvec_assets.catalog import dataset
from medvec_assets.query import catalogue, cohorts
from medvec_assets.query.catalogue import Catalogue
from medvec_assets.query.cohorts import NeighboursRequest, neighbour_counts
from medvec_assets.query.published import PublishedCohort
from resources.errors import NotFound, QueryInvalid
from resources.settings import Agreement

SPEC = dataset("tcia_catalog")
FEW = SPEC.model_copy(update={"smallest_count": 3})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    return copy_of(built, tmp_path)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two cohorts of 8 and 2 around one direction, and 5 far from it; a subject for each record."""
    world = empty_world(tmp_path_factory.mktemp("crowd"))
    turned = [np.cos(np.arange(8) / 50), np.sin(np.arange(8) / 50)]
    items = [_item(f"a{n}", "lung", x, y) for n, (x, y) in enumerate(zip(*turned, strict=True))]
    items += [_item(f"b{n}", "liver", 1.0, 0.0) for n in range(2)]
    items += [_item(f"c{n}", "brain", -1.0, 0.0) for n in range(5)]
    world.publish(*items)
    return world


def _item(name: str, cohort: str, x: float, y: float) -> Item:
    return Item("tcia_catalog", name, cohort, cohort, (float(x), float(y), 0.0, 0.0))


def counted(world: World, **asked: Any) -> dict[str, int | None]:
    request = NeighboursRequest(dataset="tcia_catalog", **asked)
    found = neighbour_counts(request, world.settings, world.lake)
    return {str(row["cohort"]): row["subjects"] for row in found.counts}  # type: ignore[misc]


def test_neighbours_of_a_vector_by_cohort(crowd: World) -> None:
    assert counted(crowd, vector=A1.vector, min_score=0.9) == {"lung": 8, "liver": 2, "all": 10}
    assert counted(crowd, vector=A1.vector, min_score=-1.0) == {"lung": 8, "liver": 2, "brain": 5, "all": 15}
    assert counted(crowd, vector=(-2.0, 0.0, 0.0, 0.0), top_k=5) == {"brain": 5, "all": 5}


def test_the_set_is_no_neighbour_of_itself(crowd: World) -> None:
    assert counted(crowd, record_ids=("b0", "b1"), min_score=0.9) == {"lung": 8, "all": 8}
    assert counted(crowd, cohort="lung", min_score=0.9) == {"liver": 2, "all": 2}
    assert counted(crowd, record_ids=("b0",), top_k=1) == {"lung": 1, "liver": 1, "all": 2}  # both at score 1


def test_suppressed_subjects_are_neither_asked_with_nor_counted(world: World) -> None:
    world.suppress(A1)
    assert counted(world, vector=A1.vector, min_score=0.99) == {"lung": 1, "all": 1}  # a2 alone
    with pytest.raises(NotFound):
        counted(world, record_ids=("a1",), top_k=1)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "dataset_of", lambda name, grants: FEW)


@pytest.mark.usefixtures("few")
def test_a_small_count_and_what_would_tell_it_are_hidden(crowd: World) -> None:
    # liver is 2 of 15: it is hidden, and another cohort with it, or the total would tell it.
    found = counted(crowd, vector=A1.vector, min_score=-1.0)
    assert found["liver"] is None and found["all"] == 15
    assert [found["lung"], found["brain"]].count(None) == 1
    assert counted(crowd, vector=A1.vector, min_score=0.9) == {"lung": None, "liver": None, "all": 10}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "asked",
    [
        {"vector": A1.vector, "top_k": 4},
        {"vector": A1.vector, "min_score": 0.91},
        {"record_ids": ("b0", "b1"), "min_score": 0.9},
        {"cohort": "liver", "top_k": 3},
    ],
)
def test_questions_that_could_be_subtracted_are_refused(crowd: World, asked: dict[str, Any]) -> None:
    with pytest.raises(QueryInvalid):
        counted(crowd, **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"top_k": 1},
        {"vector": A1.vector},
        {"vector": A1.vector, "cohort": "lung", "top_k": 1},
        {"vector": A1.vector, "top_k": 1, "min_score": 0.5},
        {"vector": A1.vector, "top_k": 0},
        {"vector": (0.0,) * 4, "top_k": 1},
        {"vector": R1.vector, "top_k": 1},
        {"vector": A1.vector, "top_k": 1, "by": ("subject_key",)},
    ],
)
def test_what_is_no_question_is_refused(crowd: World, asked: dict[str, Any]) -> None:
    with pytest.raises(QueryInvalid):
        counted(crowd, **asked)


def test_too_much_at_once_is_refused(crowd: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "MAX_PAIRS", 8 * 15 - 1)
    with pytest.raises(QueryInvalid, match="too many at once"):
        counted(crowd, cohort="lung", top_k=1)
    monkeypatch.setattr(cohorts, "MAX_QUERIES", 3)  # a large set is asked with evenly
    request = NeighboursRequest(dataset="tcia_catalog", cohort="lung", min_score=0.9)
    found = neighbour_counts(request, crowd.settings, crowd.lake)
    assert found.queries == 3 and found.counts == [{"cohort": "liver", "subjects": 2}, {"cohort": "all", "subjects": 2}]


# -- the catalogue


def test_the_catalogue_tells_how_many_and_how_fresh(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.list_source(*[series(str(n), "lung", patient=f"P{n}", what=f"what {n}") for n in range(5)])
    monkeypatch.setattr("medvec_assets.catalog.CATALOG", (pipeline.spec,))
    monkeypatch.setattr("medvec_assets.query.published.CATALOG", (pipeline.spec,))
    catalogue = Catalogue(pipeline.settings, pipeline.lake)  # one for all: what it keeps must not outlive a commit
    [told] = catalogue.entries()
    assert (told.freshness.met, told.counts.records, told.freshness.last_materialized_at) == (None, 0, None)
    pipeline.run()
    [told] = catalogue.entries()
    assert (told.counts.objects, told.counts.records, told.counts.vectors) == (5, 5, {SPACE: 5})
    assert (told.freshness.partitions, told.freshness.partitions_behind, told.freshness.met) == (1, 0, True)
    assert told.freshness.upstream_version and told.freshness.last_materialized_at is not None
    pipeline.list_source(series("9", "lung", what="new"))
    pipeline.refresh()
    [told] = catalogue.entries()
    assert (told.freshness.partitions_behind, told.freshness.met) == (1, True)  # behind, and not for too long
    late = told.freshness.last_materialized_at + pipeline.spec.freshness.max_age + timedelta(hours=1)  # type: ignore[operator]
    [told] = catalogue.entries(now=late)
    assert told.freshness.met is False
    assert catalogue.entries() == Catalogue(pipeline.settings, pipeline.lake).entries()


def test_numbers_that_would_tell_a_small_one_are_hidden(crowd: World) -> None:
    from medvec_assets.query.catalogue import Counts
    from medvec_assets.stages.context import Context

    ctx = Context(crowd.settings, crowd.lake, "x")
    seen = (PublishedCohort("lung", 8, 1), PublishedCohort("liver", 2, 1), PublishedCohort("brain", 5, 1))
    whole = Counts(objects=15, records=15, quarantined=0, vectors={"text": 15})
    counts, shown = catalogue._without_small(ctx, FEW, whole, seen)
    assert counts == whole
    hidden = {one.cohort for one in shown if one.objects is None}
    assert "liver" in hidden and len(hidden) == 2
    lost = Counts(objects=17, records=15, quarantined=2, vectors={"text": 15})
    counts, _ = catalogue._without_small(ctx, FEW, lost, seen)
    assert counts == Counts(17, None, None, {"text": None})


def test_terms_are_told_and_what_was_not_granted_is_not_there(world: World) -> None:
    agreement = Agreement(id="x", holder="y", datasets=frozenset({"z"}), expires=NOON.date())
    settings = world.settings.model_copy(update={"agreements": (agreement,)})
    told = Catalogue(settings, world.lake).entry("tcia_catalog")
    assert (told.agreement.needed, told.agreement.on_file, told.residency) == (None, False, "anywhere")
    for name, grants in (
        ("tcia_catalog", frozenset({"tcia_radiology"})),
        ("nothing", None),
        ("ukb_brain_mri", frozenset()),
    ):
        with pytest.raises(NotFound) as refused:
            Catalogue(settings, world.lake).entry(name, grants)
        assert name not in str(refused.value)


# -- over HTTP


@pytest.fixture
def client(built: World) -> Iterator[TestClient]:
    with TestClient(create_app(built.settings, lambda _: opened(built.index)), base_url="http://127.0.0.1") as client:
        client.headers["X-API-Key"] = (built.settings.home / "keys" / "api.key").read_text().strip()
        yield client


def test_one_dataset_over_http(client: TestClient) -> None:
    [listed] = [one for one in client.get("/v1/datasets").json()["datasets"] if one["id"] == "tcia_catalog"]
    answer = client.get("/v1/datasets/tcia_catalog")
    assert answer.status_code == 200 and answer.json() == listed
    assert {"citation", "licenses", "freshness", "counts", "agreement"} <= listed.keys()
    for name in ("nothing", "x" * 300):
        assert client.get(f"/v1/datasets/{name}").status_code in (404, 422)


def test_counts_over_http_hold_no_id(client: TestClient) -> None:
    body = {"dataset": "tcia_catalog", "record_ids": ["a1"], "min_score": 0.5, "by": ["cohort", "modality"]}
    answer = client.post("/v1/cohorts/neighbours", json=body)
    assert answer.status_code == 200
    assert answer.json()["counts"][-1] == {"cohort": "all", "modality": "all", "subjects": 2}
    for private in ("a2", "b1", "subject-of", A1.vector_id):
        assert f'"{private}' not in answer.text
    wrong: list[dict[str, Any]] = [{"by": []}, {"top_k": 1}, {"record_ids": []}, {"min_score": 2}, {"x": 1}]
    for change in wrong:
        assert client.post("/v1/cohorts/neighbours", json=body | change).status_code == 422


def test_every_route_of_these_has_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for name in ("ReplayBody", "NeighboursBody", "LineageAnswer"):
        assert document["components"]["schemas"][name]["examples"]
    kinds = document["paths"]["/v1/lineage/{vector_id}"]["get"]["responses"]["200"]["content"]
    assert set(kinds) == {
        "application/json",
        "application/prov+json",
        "application/vnd.openlineage+json",
        "image/svg+xml",
        "text/html",
    }
