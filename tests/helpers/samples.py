"""What a dataset's fixture folder becomes: its records and quarantine rows as texts, to be held against `expected/`.

Digests of pixels are left out: the last bit of an interpolation may differ from processor to processor, and a payload's
compressed bytes from one library's version to the next. Of a table of many rows the first stand there, and the number and
digest of the others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import manifest, records
from medvec_assets.stages.context import Context
from resources import tables
from resources.lakehouse import Lakehouse
from resources.settings import Settings
from resources.tables import TableSpec

DATASETS = Path(__file__).parents[1] / "datasets"
SHOWN_ROWS = 100


def made(spec: DatasetSpec, home: Path, workers: int = 0) -> Mapping[Path, str]:
    """File of `expected/` -> what it should hold."""
    folder = DATASETS / spec.id
    # What is made up says so, and only the sample is.
    sources = {} if spec.sample == "synthetic" else {spec.id: str(folder / "in")}
    settings = Settings(home=home, sources=sources, pseudonym_key="11" * 32, device="cpu", decode_workers=workers)
    ctx = Context(settings, Lakehouse.open(settings), "fixture")
    for partition in manifest.refresh(ctx, spec).plan["partition"]:
        records.build(ctx, spec, partition)
    found = {"records": _rows(ctx, tables.records(spec.id)), "quarantine": _rows(ctx, tables.quarantine(spec.id))}
    return {
        folder / "expected" / f"{name}.json": _text(
            json.loads(json.dumps(rows).replace((folder / "in").as_uri(), "in"))
        )
        for name, rows in found.items()
    }


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
