"""The DICOM sample by the main job: pixels to vectors, and every object that did not make it counted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
from command import Home, commits

from resources import tables
from resources.lakehouse import Lakehouse

RADIOLOGY, IMAGE = "tcia_radiology", "image"


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
