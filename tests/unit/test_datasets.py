"""Every dataset's fixture folder: what the source publishes (`in/`) becomes just these records and quarantine rows (`expected/`).

`MEDVEC_UPDATE_FIXTURES=1 pytest tests/unit/test_datasets.py` writes `expected/` anew; read its diff. Digests of pixels
are left out: the last bit of an interpolation may differ from processor to processor, and a payload's compressed bytes from one
library's version to the next. Of a table of many rows the first stand there, and the number and digest of the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec

DATASETS = Path(__file__).parents[1] / "datasets"
SHOWN_ROWS = 100


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.id)
def test_the_sample_becomes_what_is_expected(spec: DatasetSpec, tmp_path: Path) -> None:
    folder = DATASETS / spec.id
    # What is made up says so, and only the sample is.
    sources = {} if spec.sample == "synthetic" else {spec.id: str(folder / "in")}
    settings = Settings(home=tmp_path, sources=sources, pseudonym_key="11" * 32, device="cpu")
    ctx = Context(settings, Lakehouse.open(settings), "fixture")
    for partition in manifest.refresh(ctx, spec).plan["partition"]:
        records.build(ctx, spec, partition)
    found = {"records": _rows(ctx, tables.records(spec.id)), "quarantine": _rows(ctx, tables.quarantine(spec.id))}
    for name, rows in found.items():
        text = _text(json.loads(json.dumps(rows).replace((folder / "in").as_uri(), "in")))
        path = folder / "expected" / f"{name}.json"
        if os.environ.get("MEDVEC_UPDATE_FIXTURES"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text()


def _text(rows: list[dict[str, Any]]) -> str:
    shown, others = rows[:SHOWN_ROWS], rows[SHOWN_ROWS:]
    if others:
        digest = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
        shown.append({"further_rows": len(others), "sha256": digest})
    return json.dumps(shown, indent=1, sort_keys=True) + "\n"


def _rows(ctx: Context, table: TableSpec) -> list[dict[str, Any]]:
    snapshot = ctx.lake.snapshot(table)
    rows = snapshot.read().to_dicts() if snapshot else []
    for row in rows:
        row.pop("run_id", None)
        row.pop("first_seen", None)
        row.pop("payload", None)
        for name in row.keys() & {"attributes", "deid_actions"}:
            row[name] = json.loads(row[name])
        if "payload_uri" in row:
            row["payload_uri"] = re.sub(r"^(payload/\w+/).*", r"\1<sha256>", row["payload_uri"])
        if "content_digests" in row:
            row["content_digests"] = sorted(json.loads(row["content_digests"]))
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
