"""What must hold between the rows of one partition in gold, silver and the manifest, column by column.

Belongs here: pure comparisons of frames. Does not belong here: reading them (audit), what the audit recorded (recorded).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from medvec_assets import fingerprints
from medvec_assets.lineage_audit.findings import Ledger
from medvec_assets.modalities import modality
from medvec_assets.stages.embeddings import Target
from resources.errors import ObjectRejected

UNIT_NORM_TOLERANCE = 1e-3
PRECISIONS = ("fp32", "bf16")  # gold does not tell which one a row was computed in; the fingerprint does
COPIED = ("subject_key", "cohort", "modality", "attributes", "license", "access_tier")
"""Columns of a record that its embedding rows repeat."""


def ids(ledger: Ledger, aim: Target, rows: pl.DataFrame, partition: str) -> None:
    """Ids, fingerprints and weights of embedding rows, derived again."""
    where = {"space": aim.space, "partition": partition}
    parts = rows.select(
        pl.lit(aim.spec.id).alias("dataset"),
        pl.lit(aim.space).alias("space"),
        "record_id",
        "part_kind",
        pl.col("part_index").cast(pl.String),
    )
    derived = pl.Series(fingerprints.hashed_rows("vector", parts), dtype=pl.String)
    ledger.add("vector_id", rows.filter(rows["vector_id"] != derived)["vector_id"], **where)
    known = pl.Series([False] * rows.height, dtype=pl.Boolean)
    for precision in PRECISIONS:
        made_of = rows.select(
            "content_digest",
            pl.lit(aim.input_version).alias("input"),
            "encoder",
            "weights_digest",
            pl.lit(precision).alias("precision"),
        )
        known |= rows["fingerprint"] == pl.Series(fingerprints.hashed_rows("embedding", made_of), dtype=pl.String)
    ledger.add("fingerprint", rows.filter(~known)["vector_id"], **where)
    foreign = (pl.col("weights_digest") != aim.card.weights_digest) | (pl.col("encoder") != aim.card.ref)
    ledger.add("weights", rows.filter(foreign)["vector_id"], **where)


def records(
    ledger: Ledger, aim: Target, rows: pl.DataFrame, found: pl.DataFrame, set_aside: pl.Series, partition: str
) -> None:
    """Embedding rows against the records of their partition; `set_aside` are record ids in quarantine."""
    where = {"space": aim.space, "partition": partition}
    digest = pl.col("content_digests").str.json_path_match(f"$.{aim.space}").alias("_digest")
    known = found.select("record_id", digest, *(pl.col(name).alias(f"_{name}") for name in COPIED))
    both = rows.join(known, on="record_id", how="left")
    here = rows["record_id"].is_in(found["record_id"].implode())
    ledger.add("record_exists", rows.filter(~here)["vector_id"], **where)
    both = both.filter(here)
    same = pl.col("_digest").eq_missing(pl.col("content_digest"))
    ledger.add("content_digest", both.filter(~same)["vector_id"], **where)
    for name in COPIED:
        differ = both.filter(pl.col(name).ne_missing(pl.col(f"_{name}")))
        ledger.add("record_copied", differ["vector_id"], **where, detail=name)
    wanted = known.filter(pl.col("_digest").is_not_null())["record_id"]
    have = pl.concat([rows["record_id"], set_aside.cast(pl.String)])
    ledger.add("vector_exists", wanted.filter(~wanted.is_in(have.implode())), **where)
    if aim.card.input_kind == "text":
        _texts(ledger, aim, found, partition)


def _texts(ledger: Ledger, aim: Target, found: pl.DataFrame, partition: str) -> None:
    """A model input that is text is made of the record's own: its digest is derived again, once for each distinct text."""
    digest = pl.col("content_digests").str.json_path_match(f"$.{aim.space}").alias("digest")
    told = found.with_columns(digest).filter(pl.col("text").is_not_null() & pl.col("digest").is_not_null())
    distinct = told.unique("text")
    inputs = modality(aim.spec.modality).model_inputs(distinct, aim.space, _unread)
    derived = [fingerprints.text_digest(one) if isinstance(one, str) else "" for one in inputs]
    again = distinct.select("text", pl.Series("derived", derived, pl.String))
    told = told.join(again, on="text")
    wrong = told.filter(pl.col("digest") != pl.col("derived"))["record_id"]
    ledger.add("record_text", wrong, space=aim.space, partition=partition)


def _unread(uri: str) -> bytes:
    raise ObjectRejected("a text is made of its record alone", code="object_not_read", remedy="report this modality")


def sources(ledger: Ledger, found: pl.DataFrame, listed: pl.DataFrame, allowed: frozenset[str], partition: str) -> None:
    """Records against the manifest rows of their partition."""
    pairs = found.select("record_id", "license", object_id="object_ids").explode("object_id")
    known = listed.select("object_id", "removed_in_version", "upstream_version", pl.col("license").alias("_license"))
    both = pairs.join(known.with_columns(pl.lit(True).alias("_listed")), on="object_id", how="left")
    missing = both.filter(pl.col("_listed").is_null())
    for record_id, object_id in missing.select("record_id", "object_id").iter_rows():
        named = object_id if object_id is not None else "no object"
        ledger.add("object_listed", [named], partition=partition, detail=f"of record {record_id}")
    here = both.filter(pl.col("_listed"))
    gone = here.filter(pl.col("removed_in_version").is_not_null())["object_id"]
    ledger.add("object_published", gone, partition=partition)
    nowhere = here.filter(pl.col("upstream_version").str.strip_chars().is_in(["", "-"]))["object_id"]
    ledger.add("release", nowhere, partition=partition)
    same = here.group_by("record_id").agg((pl.col("license") == pl.col("_license")).any().alias("same"))
    foreign = set(same.filter(~pl.col("same"))["record_id"])
    foreign |= set(found.filter(~pl.col("license").is_in(sorted(allowed)))["record_id"])
    ledger.add("license", sorted(foreign), partition=partition)


def vectors(ledger: Ledger, aim: Target, batches: Iterator[pa.RecordBatch], partition: str) -> int:
    """The vectors themselves (columns vector_id, fingerprint, vector), streamed; how many were looked at."""
    where = {"space": aim.space, "partition": partition}
    first: dict[str, bytes] = {}
    seen = 0
    for batch in batches:
        names, prints = batch["vector_id"].to_pylist(), batch["fingerprint"].to_pylist()
        column = batch["vector"]
        sizes = np.diff(column.offsets.to_numpy())
        fits = sizes == aim.card.dim
        ledger.add("vector_valid", np.asarray(names, object)[~fits], **where, detail="dimension")
        kept = column.filter(pa.array(fits)).flatten().to_numpy().reshape(-1, aim.card.dim)
        norms = np.linalg.norm(kept, axis=1)
        good = np.isfinite(norms) & (np.abs(norms - 1) <= UNIT_NORM_TOLERANCE)
        chosen = np.flatnonzero(fits)
        ledger.add("vector_valid", [names[i] for i in chosen[~good]], **where, detail="norm")
        for place, vector in zip(chosen, kept, strict=True):
            digest = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
            if first.setdefault(prints[place], digest) != digest:
                ledger.add("vector_shared", [names[place]], **where, detail=f"fingerprint {prints[place]}")
        seen += len(names)
    return seen
