"""The study of a record: a keyed pseudonym that stays in the lake, costs no vector, and groups hits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers.counting_encoder import CountingEncoders, vector_of
from helpers.dicom_files import edited
from helpers.memory_index import MemoryIndex
from helpers.query_world import R1, World, built_world, copy_of
from helpers.search_world import opened_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medvec_assets.catalog import dataset
from medvec_assets.catalog.spec import DatasetSpec, Space
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import imaging, modality
from medvec_assets.query.search import Answer, SearchEngine, SearchRequest
from medvec_assets.stages import embeddings, manifest, records, vectors
from medvec_assets.stages.context import Context
from resources import encoders, tables
from resources.errors import QueryInvalid
from resources.lakehouse import Lakehouse
from resources.settings import Settings

UID = "1.2.826.0.1.3680043.8.498.1"
KEYS = Pseudonyms(b"k" * 32, "tcia")


# -- records


def study_of(data: bytes, keys: Pseudonyms = KEYS, **columns: str) -> str | None:
    row = {"object_id": "o", "uri": "mem:o", "cohort": "c", "license": "MIT", "access_tier": "open"}
    row |= {"subject_ref": "P1", "record_ref": "S1"} | columns
    made, rejected = modality("imaging").records(pl.DataFrame([row]), lambda _: data, keys)
    assert rejected == []
    study: str | None = json.loads(made["attributes"].item()).get("study")
    assert UID not in str(made.to_dicts())
    return study


def test_a_study_is_known_by_its_key_alone() -> None:
    """Equal for the series of one study, open or not; whoever has the UID and not the key cannot find it."""
    ct = edited(StudyInstanceUID=UID)
    study = study_of(ct)
    assert study == study_of(ct, record_ref="S2") == study_of(ct, access_tier="controlled") == KEYS.of("study", UID)
    assert study != study_of(edited(StudyInstanceUID=f"{UID}.1"))
    assert study != study_of(ct, Pseudonyms(b"l" * 32, "tcia"))


@pytest.mark.parametrize("header", [{"drop": ("StudyInstanceUID",)}, {"StudyInstanceUID": ""}])
def test_a_series_that_names_no_study_has_none(header: dict[str, Any]) -> None:
    assert study_of(edited(**header)) is None


def test_a_study_stands_in_no_index_and_no_answer() -> None:
    spec = dataset("tcia_radiology").model_dump() | {"index_attributes": ("modality", "study")}
    with pytest.raises(ValidationError, match="shown in none"):
        DatasetSpec.model_validate(spec)


# -- what a study costs


class OfPictures:
    """Encodes a picture by its bytes; counts."""

    encoded = 0
    precision, device = "fp32", "cpu"

    def __init__(self, ref: str, settings: Settings) -> None:
        self.card = replace(encoders.card(ref, settings), input_kind="image")

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        OfPictures.encoded += len(batch)
        return np.stack([vector_of(one.tobytes().hex()) for one in batch])


def test_records_that_get_their_study_are_made_again_and_vectors_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting_encoders: CountingEncoders
) -> None:
    monkeypatch.setattr(encoders, "load", OfPictures)
    OfPictures.encoded = 0
    spec = dataset("tcia_radiology").model_copy(update={"spaces": {"image": Space(encoder="tiny@1")}})
    source = Path(__file__).parents[1] / "datasets" / spec.id / "in"
    home = Settings(home=tmp_path, sources={spec.id: str(source)}, pseudonym_key="11" * 32, device="cpu")
    lake, index = Lakehouse.open(home), MemoryIndex()

    def run() -> list[tuple[int, int, int]]:
        ctx = Context(home, lake, "run", index=index)  # type: ignore[arg-type]
        told = []
        for partition in manifest.refresh(ctx, spec).plan["partition"]:
            assert records.build(ctx, spec, partition).changed
            made = embeddings.build(ctx, spec, "image", partition)["tiny@1"]
            [synced] = vectors.build(ctx, spec, "image", partition)
            told.append((made.computed, synced.upserted, synced.deleted))
        return told

    def studies() -> int:
        found = [lake.snapshot(table) for table in (tables.records(spec.id), tables.embeddings(spec.id, "image"))]
        return sum(one.read()["attributes"].str.contains('"study"').sum() for one in found if one is not None)

    with monkeypatch.context() as before:
        before.setattr(imaging.Imaging, "version", "imaging-2")
        before.setattr(imaging, "of_study", lambda *_: {})
        assert run() == [(1, 1, 0), (1, 1, 0)]
    assert (studies(), OfPictures.encoded) == (0, 2)
    assert run() == [(0, 0, 0), (0, 0, 0)]
    assert (studies(), OfPictures.encoded) == (4, 2)


# -- groups


def near(number: int, study: str | None) -> Any:
    """A record near R1, the nearer the smaller its number."""
    slope = number / 10
    vector = (1 / np.hypot(1, slope), slope / np.hypot(1, slope), 0.0)
    return replace(R1, record_id=f"s{number}", cohort="studies", partition="studies", vector=vector, study=study)


STUDIES = [near(number, study) for number, study in enumerate(["one", "one", None, "two", "one", None, "two", "three"])]
BEST = ["s0", "s2", "s3", "s5", "s7"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = built_world(tmp_path_factory.mktemp("lake"))
    made.publish(*STUDIES)
    snapshot = made.lake.snapshot(tables.records(R1.dataset))
    assert snapshot is not None
    rows = snapshot.read().filter(pl.col("partition") == "studies").with_columns(subject_key=pl.lit("of-jane"))
    table = rows.to_arrow().cast(tables.RECORDS)
    made.lake.replace(snapshot, {"partition": "studies"}, table.to_batches(), {})
    return made


@pytest.fixture(scope="module")
def searching(world: World) -> Iterator[SearchEngine]:
    with opened_engine(world, world.index) as engine:
        yield engine


def asked(searching: SearchEngine, **narrowed: Any) -> Answer:
    of_all = {"vector": (1.0, 0.0, 0.0), "datasets": ("tcia_radiology",), "cohorts": ("studies",), "group_by": "study"}
    return searching.search(SearchRequest(**(of_all | narrowed)))


def test_a_group_is_a_study_and_a_record_of_none_is_alone(searching: SearchEngine) -> None:
    hits = asked(searching).hits
    assert [(hit.record_id, hit.group, hit.group_size) for hit in hits] == [
        ("s0", "study 1", 3),
        ("s2", None, 1),
        ("s3", "study 3", 2),
        ("s5", None, 1),
        ("s7", "study 5", 1),
    ]
    assert all("study" not in hit.shown() and "study" not in hit.attributes for hit in hits)
    assert [hit.record_id for hit in asked(searching, group_by="subject").hits] == ["s0"]


@settings(max_examples=10, deadline=None)
@given(limits=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_pages_of_studies_repeat_nothing_and_leave_nothing_out(searching: SearchEngine, limits: list[int]) -> None:
    found: list[str] = []
    cursor, turn = None, 0
    while turn == 0 or cursor is not None:
        page = asked(searching, limit=limits[turn % len(limits)], cursor=cursor)
        found += [hit.record_id for hit in page.hits]
        cursor, turn = page.cursor, turn + 1
    assert found == BEST


def test_one_uid_under_two_subjects_is_two_studies(world: World, tmp_path: Path) -> None:
    """Sources have given two patients one study's UID; what is whose counts more."""
    other = copy_of(world, tmp_path)
    other.publish(replace(near(8, "one"), cohort="other", partition="other"))
    with opened_engine(other, other.index) as engine:
        assert [hit.record_id for hit in asked(engine, cohorts=("studies", "other")).hits] == [*BEST, "s8"]


def test_a_dataset_without_studies_is_named(searching: SearchEngine) -> None:
    with pytest.raises(QueryInvalid, match="records of tcia_catalog name no study") as refused:
        asked(searching, vector=(1.0, 0.0, 0.0, 0.0), datasets=("tcia_catalog",), cohorts=())
    assert refused.value.remedy == "group by subject"
