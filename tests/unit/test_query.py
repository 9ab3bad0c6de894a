"""Search on real Delta tables and an exact fake index: what is asked, what is shown, what is refused."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
from helpers.query_world import A1, B1, NOON, R2, World, append, built_world, copy_of, empty_world, use_fake_encoder

from medvec_assets import catalog
from medvec_assets.catalog import dataset
from medvec_assets.catalog.spec import AccessTier, Residency
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.catalog.tcia_radiology import TCIA_RADIOLOGY
from medvec_assets.query import facts, published
from medvec_assets.query.catalogue import Catalogue
from medvec_assets.query.lineage import lineage
from medvec_assets.query.published import live_spaces, visible
from medvec_assets.query.rows import find_records
from medvec_assets.query.search import Hit, SearchEngine, SearchRequest, targets
from medvec_assets.query.small_cells import counts
from resources import tables
from resources.errors import (
    ConfigError,
    IndexUnavailable,
    IntegrityError,
    MedvecError,
    NotFound,
    PolicyRefused,
    QueryInvalid,
)
from resources.settings import Agreement


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    return built_world(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def world(built: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    use_fake_encoder(monkeypatch)
    return copy_of(built, tmp_path)


def ask(world: World, **question: object) -> list[Hit]:
    with closing(SearchEngine(world.settings, world.lake, world.index)) as engine:  # type: ignore[arg-type]
        return list(engine.search(SearchRequest(**question)).hits)  # type: ignore[arg-type]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.record_id for hit in hits]


# -- search: what is answered


def test_a_text_finds_the_text_space_and_each_hit_carries_its_provenance(world: World) -> None:
    hits = ask(world, text="  chest CT ")
    assert ids(hits) == ["a1", "b1", "c1"]
    first = hits[0]
    gold = world.lake.snapshot(tables.embeddings("tcia_catalog", "text"))
    assert gold is not None
    assert first == Hit(
        score=1.0,
        vector_id=A1.vector_id,
        members=2,
        dataset="tcia_catalog",
        cohort="lung",
        record_id="a1",
        modality="CT",
        source_uri="s3://idc-open-data/a1/*",
        thumbnail=None,
        license="CC BY 4.0",
        encoder="minilm@1",
        weights_digest=world.index.infos[World.collection(A1)].properties["medvec.weights_digest"],
        delta_version=gold.version,
        upstream_version="v25",
        deid_profile="profile-1",
        attributes={"modality": "CT"},
        subject_key="subject-of-a1",
    )
    assert hits[1].score == pytest.approx(0.8)


def test_the_limit_holds(world: World) -> None:
    assert ids(ask(world, text="chest", limit=2)) == ["a1", "b1"]


def test_a_cohort_is_expanded_to_its_partitions(world: World) -> None:
    assert ids(ask(world, text="liver", cohorts=("lung",))) == ["b1", "a1"]
    assert world.index.searched[-1] == (World.collection(A1), ("lung.0", "lung.1"))
    assert world.index.params == {"nprobe": 72}, "32 lists, and 2 of the 3 objects"


def test_an_unknown_cohort_is_named(world: World) -> None:
    with pytest.raises(NotFound, match=r"no cohort moon in tcia_catalog"):
        ask(world, text="liver", cohorts=("lung", "moon"))


def test_more_like_a_record_leaves_out_its_own_content(world: World) -> None:
    # a1 and a2 are members of one content: neither is its own neighbour.
    assert ids(ask(world, record_id="a2")) == ["b1", "c1"]
    assert ids(ask(world, record_id="r1")) == ["r2"]


def test_excluding_its_own_content_does_not_cost_a_hit(world: World) -> None:
    assert ids(ask(world, record_id="a1", limit=2)) == ["b1", "c1"]


def test_more_like_a_vector_id(world: World) -> None:
    assert ids(ask(world, vector_id=R2.vector_id)) == ["r1"]


def test_a_vector_is_normalised_whatever_its_length(world: World) -> None:
    for scale in (1.0, 250.0, 1e-200, 1e200):
        hits = ask(world, vector=[scale, 0.0, 0.0, 0.0], space="text")
        assert (ids(hits)[0], hits[0].score) == ("a1", 1.0)


def test_ties_are_ordered_by_dataset_and_entity(world: World) -> None:
    twins = [replace(B1, record_id=f"t{n}", partition="lung.1", vector=(0.0, 0.0, 1.0, 0.0)) for n in range(5)]
    world.publish(*twins)
    ranked = ask(world, vector=[0.0, 0.0, 1.0, 0.0], space="text", limit=5)
    entities = {e["record_id"]: e["entity_id"] for _, e in world.index.held[World.collection(A1)]}
    assert ids(ranked) == sorted(ids(ranked), key=entities.__getitem__)
    assert {hit.score for hit in ranked} == {1.0}


def test_scores_of_two_datasets_of_one_space_are_merged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = TCIA_CATALOG.model_copy(update={"id": "tcia_twin"})
    both = (TCIA_CATALOG, twin)
    for module in (catalog, published, targets):
        monkeypatch.setattr(module, "CATALOG", both)
    other = replace(
        A1, dataset="tcia_twin", record_id="z1", cohort="brain", partition="brain", vector=(0.96, 0.28, 0, 0)
    )
    world.publish(other)
    assert [(hit.dataset, hit.record_id) for hit in ask(world, text="chest")] == [
        ("tcia_catalog", "a1"),
        ("tcia_twin", "z1"),
        ("tcia_catalog", "b1"),
        ("tcia_catalog", "c1"),
    ]
    assert ids(ask(world, text="chest", cohorts=("brain",))) == ["z1"]
    assert ids(ask(world, text="chest", datasets=("tcia_twin",))) == ["z1"]


# -- search: what is refused


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"text": "x", "record_id": "y"},
        {"text": "   "},
        {"text": "x" * 8_193},
        {"text": "x", "limit": 0},
        {"text": "x", "limit": 1_001},
    ],
)
def test_a_malformed_question_is_refused_before_anything_is_read(question: dict[str, object]) -> None:
    with pytest.raises(QueryInvalid):
        SearchRequest(**question)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vector", "rule"),
    [
        ([1.0, 0.0], "2 dimensions"),
        ([0.0] * 4, "zero"),
        ([1.0, float("nan"), 0.0, 0.0], "finite"),
        ([1.0, float("inf"), 0.0, 0.0], "finite"),
    ],
)
def test_a_vector_without_direction_or_of_another_dimension_is_refused(
    world: World, vector: list[float], rule: str
) -> None:
    with pytest.raises(QueryInvalid, match=rule):
        ask(world, vector=vector, space="text")


def test_spaces_are_never_mixed(world: World) -> None:
    with pytest.raises(ConfigError, match=r"image \(lite0@1\) of tcia_radiology; text \(minilm@1\) of tcia_catalog"):
        ask(world, vector=[1.0, 0.0, 0.0, 0.0])
    assert ids(ask(world, vector=[1.0, 0.0, 0.0], datasets=("tcia_radiology",))) == ["r1", "r2"]


def test_two_versions_of_one_space_are_never_mixed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    live = live_spaces(world.settings, world.lake)
    newer = replace(live[0], spec=live[1].spec, space_version="minilm@2")
    monkeypatch.setattr(facts, "granted_spaces", lambda *_: [live[0], newer])
    with pytest.raises(QueryInvalid, match="several spaces"):
        ask(world, vector=[1.0, 0.0, 0.0, 0.0], space="text")


def test_text_is_refused_where_no_space_takes_it(world: World) -> None:
    with pytest.raises(QueryInvalid, match="tcia_radiology cannot be searched by text"):
        ask(world, text="chest", datasets=("tcia_radiology",))
    with pytest.raises(QueryInvalid, match="cannot be searched by text"):
        ask(world, text="chest", space="image")


def test_an_unknown_space_dataset_or_id_is_refused(world: World) -> None:
    with pytest.raises(QueryInvalid, match="no dataset that was asked has this space"):
        ask(world, text="chest", space="nowhere")
    with pytest.raises(NotFound, match="no dataset of that name") as caught:
        ask(world, text="chest", datasets=("moon",))
    assert "tcia" not in str(caught.value)
    with pytest.raises(NotFound, match="record_id"):
        ask(world, record_id="nobody")


def test_nothing_live_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        ask(empty_world(tmp_path), text="chest")
    assert "medvec run" in caught.value.remedy


def test_a_named_dataset_that_is_not_live_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_encoder(monkeypatch)
    world = empty_world(tmp_path)
    world.publish(A1)
    with pytest.raises(NotFound, match="nothing of tcia_radiology is live"):
        ask(world, text="chest", datasets=("tcia_catalog", "tcia_radiology"))


def test_a_filling_generation_answers_nothing(tmp_path: Path) -> None:
    world = empty_world(tmp_path)
    append(world.lake, tables.generations(), {"dataset": "tcia_catalog", "space": "text", "state": "filling"})
    assert live_spaces(world.settings, world.lake) == []


def test_a_live_collection_that_the_index_lost_is_an_error_with_a_remedy(world: World) -> None:
    del world.index.infos[World.collection(A1)]
    with pytest.raises(IndexUnavailable, match="tcia_catalog__text__open__g1") as caught:
        ask(world, text="chest")
    assert "medvec sync --full" in caught.value.remedy


def test_weights_that_the_index_was_not_made_with_are_refused(world: World) -> None:
    world.index.infos[World.collection(A1)].properties["medvec.weights_digest"] = "0" * 64
    for question in ({"text": "chest"}, {"record_id": "a1"}):
        with pytest.raises(IntegrityError, match="other weights"):
            ask(world, **question)


# -- search: what is not shown


def test_a_suppressed_subject_is_neither_found_nor_asked_about(world: World) -> None:
    world.suppress(B1)
    assert ids(ask(world, text="chest")) == ["a1", "c1"]
    with pytest.raises(NotFound):
        ask(world, record_id="b1")
    with pytest.raises(NotFound):
        ask(world, vector_id=B1.vector_id)


@pytest.mark.parametrize("partition", ["lung.1", "-"], ids=["its partition", "the whole catalogue"])
def test_what_leaks_is_neither_found_nor_asked_about_until_a_later_score_passes(world: World, partition: str) -> None:
    others = ["a1", "c1"] if partition == "lung.1" else []
    score = {"dataset": "tcia_catalog", "partition": partition, "failure": ""}
    append(world.lake, tables.deid_scores(), score | {"leaks": 2})
    assert ids(ask(world, text="chest")) == others
    with pytest.raises(NotFound):
        ask(world, record_id="b1")
    with pytest.raises(NotFound):
        lineage(B1.vector_id, world.settings, world.lake)
    with pytest.raises(PolicyRefused, match="deid_leak"):
        counts(world.lake, dataset("tcia_catalog"), ["cohort"])
    append(world.lake, tables.deid_scores(), score | {"failure": "disk_full", "scored_at": NOON + timedelta(hours=1)})
    assert ids(ask(world, text="chest")) == others, "a run that failed proves nothing"
    append(world.lake, tables.deid_scores(), score | {"scored_at": NOON + timedelta(hours=2)})
    assert ids(ask(world, text="chest")) == ["a1", "b1", "c1"]


def test_a_record_gone_from_silver_is_no_hit_while_the_index_still_holds_it(world: World) -> None:
    base = world.lake.snapshot(tables.records("tcia_catalog"))
    assert base is not None
    world.lake.replace(base, {"partition": "lung.1"}, [], {})
    assert ids(ask(world, text="chest")) == ["a1", "c1"]


def test_a_record_that_a_split_moved_is_still_found(world: World) -> None:
    table = tables.records("tcia_catalog")
    base = world.lake.snapshot(table)
    assert base is not None
    moved = [row | {"partition": "lung.10"} for row in base.read(where=pc.field("partition") == "lung.1").to_dicts()]
    world.lake.replace(base, {"partition": "lung.1"}, [], {})
    append(world.lake, table, *moved)
    assert ids(ask(world, text="chest")) == ["a1", "b1", "c1"]


@pytest.mark.parametrize(
    ("tier", "residency", "site", "agreements", "shown"),
    [
        (AccessTier.OPEN, Residency(), "anywhere", set(), True),
        (AccessTier.REGISTERED, Residency(), "anywhere", set(), False),
        (AccessTier.CONTROLLED, Residency(where="holders", agreement="dua-1"), "anywhere", set(), False),
        (AccessTier.CONTROLLED, Residency(where="holders", agreement="dua-1"), "anywhere", {"dua-1"}, True),
        (AccessTier.OPEN, Residency(where="enclave:rap"), "anywhere", set(), False),
        (AccessTier.CONTROLLED, Residency(where="enclave:rap"), "anywhere", set(), False),
        (AccessTier.CONTROLLED, Residency(where="enclave:rap"), "rap", set(), True),
    ],
)
def test_deny_is_the_default(
    world: World, tier: AccessTier, residency: Residency, site: str, agreements: set[str], shown: bool
) -> None:
    spec = TCIA_CATALOG.model_copy(update={"access_tier": tier, "residency": residency})
    on_file = [Agreement(id=one, holder="H", datasets={"tcia_catalog"}, expires=date.max) for one in agreements]
    settings = world.settings.model_copy(update={"site": site, "agreements": tuple(on_file)})
    assert visible(spec, settings) is shown


@pytest.mark.parametrize("mark", [{}, {"synthetic": True}, {"synthetic": "true, they say"}])
def test_where_only_the_sample_may_be_shown_what_does_not_say_so_is_not(world: World, mark: dict[str, object]) -> None:
    """Real rows that the lake still holds, of a deployment whose source was the real one before."""
    table = tables.records("tcia_catalog")
    base = world.lake.snapshot(table)
    assert base is not None
    rows = base.read(where=pc.field("partition") == "lung.1").to_dicts()
    told = [row | {"attributes": json.dumps(json.loads(row["attributes"]) | mark)} for row in rows]
    world.lake.replace(base, {"partition": "lung.1"}, [], {})
    append(world.lake, table, *told)
    keys = {row["record_id"] for row in rows}
    found = find_records(world.lake, "tcia_catalog", keys, {"lung.1"}, ["payload_uri"], made_up=True)
    assert set(found["record_id"]) == (keys if mark.get("synthetic") is True else set())
    assert found.columns == ["record_id", "payload_uri"]


def test_rows_of_a_closed_tier_of_an_open_dataset_are_not_shown(world: World) -> None:
    closed = replace(A1, record_id="k1", cohort="shut", partition="shut", access_tier="controlled")
    world.publish(closed)
    assert "k1" not in ids(ask(world, text="chest"))
    with pytest.raises(NotFound):
        ask(world, record_id="k1")
    with pytest.raises(NotFound):
        lineage(closed.vector_id, world.settings, world.lake)


def test_a_dataset_that_may_not_be_shown_is_refused_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = TCIA_CATALOG.model_copy(update={"access_tier": AccessTier.CONTROLLED})
    for module in (catalog, published, targets):
        monkeypatch.setattr(module, "CATALOG", (shut, TCIA_RADIOLOGY))
    with pytest.raises(PolicyRefused, match="tcia_catalog"):
        ask(world, text="chest", datasets=("tcia_catalog",))
    assert [one.id for one in Catalogue(world.settings, world.lake).entries()] == ["tcia_radiology"]


def test_no_message_quotes_the_question(world: World) -> None:
    secret = "JANE-DOE"
    questions: list[dict[str, object]] = [
        {"record_id": secret},
        {"vector_id": secret},
        {"text": secret, "datasets": ("tcia_radiology",)},
        {"text": secret, "space": "image"},
    ]
    for question in questions:
        with pytest.raises(MedvecError) as caught:
            ask(world, **question)
        assert secret not in str(caught.value)


# -- published


def test_datasets_tell_live_spaces_and_cohorts(world: World) -> None:
    (first,) = [one for one in Catalogue(world.settings, world.lake).entries() if one.id == "tcia_catalog"]
    assert (first.id, [space.query_kind for space in first.spaces]) == ("tcia_catalog", ["text"])
    assert [(one.cohort, one.partitions) for one in first.cohorts] == [("liver", 1), ("lung", 2)]
    assert first.spaces[0].medical is False


def test_datasets_are_told_before_anything_is_materialized(tmp_path: Path) -> None:
    world = empty_world(tmp_path)
    told = Catalogue(world.settings, world.lake).entries()
    assert {"tcia_catalog", "tcia_radiology"} <= {one.id for one in told}
    assert {(one.spaces, one.cohorts) for one in told} == {((), ())}
