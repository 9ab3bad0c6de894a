"""Scores that are kept: a partition is scored again only when its input, a rule's version or the scorer's own moved.

Belongs here: audit/deid_scores, and when a score in it is still true. Does not belong here: scoring (score), the check that
reads it (checks).

Of a catalogue every partition holds the same kind of row and the rules see nothing else: one score is of all of them, under
the partition `-`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import modality
from medvec_assets.scorer.score import VERSION, Score, score
from medvec_assets.scorer.source import is_catalogue
from medvec_assets.scorer.verdicts import ALL, Verdicts, passed
from medvec_assets.stages import records
from medvec_assets.stages.context import Context
from resources import tables

MAX_PLACES = 50  # named in a row; `leaks` counts all


def bring_up(ctx: Context, spec: DatasetSpec, partition: str) -> Score | None:
    """Score a partition whose records stand, and keep it; None if its newest score passed and is true of it still.

    One that failed is tried again: a rule may have been mended without moving its version.
    """
    known = Verdicts(ctx.lake, spec.id).newest(partition)
    if known is not None and passed(known) and known["input_digest"] == _input_digest(ctx, spec, partition):
        return None
    found = score(ctx, spec, partition)
    row = {
        "dataset": spec.id,
        "partition": _scope(ctx, spec, partition),
        "input_digest": _input_digest(ctx, spec, partition),
        "seed_digest": found.seed_digest,
        "profile": modality(spec.modality).deid_profile,
        "planted": found.planted,
        "kinds": found.kinds,
        "places": found.places,
        "copies": found.copies,
        "records": found.records,
        "leaks": len(found.leaks),
        "leak_places": json.dumps([str(leak) for leak in found.leaks[:MAX_PLACES]]),
        "not_plantable": json.dumps(found.not_plantable),
        "failure": found.failure,
        "run_id": ctx.run_id,
        "scored_at": datetime.now(UTC),
    }
    table = pa.Table.from_pylist([row], schema=tables.DEID_SCORES)
    ctx.lake.append(tables.deid_scores(), table, {"asset": "deid_scores", "run_id": ctx.run_id})
    return found


def latest(ctx: Context, spec: DatasetSpec, partition: str) -> dict[str, Any] | None:
    """The newest score (columns of audit/deid_scores) of the partition as it stands; None if there is none."""
    snapshot = ctx.lake.snapshot(tables.deid_scores())
    if snapshot is None:
        return None
    where = (pc.field("dataset") == spec.id) & (pc.field("partition") == _scope(ctx, spec, partition))
    digest = _input_digest(ctx, spec, partition)
    rows = snapshot.read(where=where & (pc.field("input_digest") == digest)).sort("scored_at").to_dicts()
    return rows[-1] if rows else None


def _scope(ctx: Context, spec: DatasetSpec, partition: str) -> str:
    return ALL if is_catalogue(ctx, spec) else partition


def _input_digest(ctx: Context, spec: DatasetSpec, partition: str) -> str:
    """Digest of what a score depends on: what the records were made of, by which rules, and how they are scored."""
    form, shown = modality(spec.modality), ",".join(sorted(spec.index_attributes))
    made_of = "" if is_catalogue(ctx, spec) else ctx.audit.latest(spec.id)[records.chain_of(partition)]["input_digest"]
    return fingerprints.input_digest("deid_score", VERSION, form.version, form.deid_profile, shown, made_of)
