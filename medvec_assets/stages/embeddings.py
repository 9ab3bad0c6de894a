"""The embeddings stage: one vector per record, computed only if its fingerprint is new anywhere in the dataset.

Belongs here: what is wanted, what is known (own partition, other partitions, staged), what must be encoded, the commit.
Does not belong here: the encoder (resources.encoders), the model input (modalities), the index (vectors).

Kill it anywhere: encoded vectors are staged in the lake segment by segment, and the next run adopts them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets import fingerprints
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.modalities import Rejected, modality
from medvec_assets.stages import encoding, generations, quarantine
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context, Outcome, is_ahead
from medvec_assets.stages.staging import Origin, Staging, VectorScratch
from resources import encoders, tables
from resources.audit import ChainKey
from resources.encoders import EncoderCard
from resources.errors import CommitConflict, NotFound
from resources.lakehouse import Snapshot

COMMIT_ROWS = 8_192
_RECORD_COLUMNS = (
    "record_id",
    "subject_key",
    "cohort",
    "modality",
    "license",
    "access_tier",
    "attributes",
    "content_digests",
)
# What makes two embedding rows the same row; run_id and created_at say who computed it and may differ.
_ROW_COLUMNS = (
    "vector_id",
    "record_id",
    "subject_key",
    "cohort",
    "modality",
    "attributes",
    "license",
    "access_tier",
    "fingerprint",
)


def asset_name(space: str) -> str:
    return f"{space}_embeddings"


def chain_of(space: str, space_version: str, partition: str) -> ChainKey:
    """The audit chain of a partition's embeddings at one version of a space."""
    return (asset_name(space), space_version, partition)


@dataclass(frozen=True)
class Target:
    """One space version of one dataset: everything that goes into a fingerprint but the content."""

    spec: DatasetSpec
    space: str
    card: EncoderCard
    precision: str

    @property
    def space_version(self) -> str:
        return self.card.ref

    @cached_property
    def input_version(self) -> str:
        return modality(self.spec.modality).input_versions[self.space]

    def fingerprint(self, content_digest: str) -> str:
        return fingerprints.embedding_fingerprint(
            content_digest, self.input_version, self.card.ref, self.card.weights_digest, self.precision
        )


def target(ctx: Context, spec: DatasetSpec, space: str, space_version: str | None = None) -> Target:
    """The spec's space at its current version, or at another version that is still kept."""
    ref = space_version or spec.spaces[space].version
    return Target(spec, space, encoders.card(ref, ctx.settings), encoders.precision(ctx.settings))


def expected_input(aim: Target, records_digest: str) -> str:
    return fingerprints.input_digest(
        asset_name(aim.space), records_digest, aim.card.ref, aim.card.weights_digest, aim.input_version, aim.precision
    )


def build(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> dict[str, Outcome]:
    """Bring every maintained version of a space up to the partition's records; space version -> outcome."""
    ctx.require_allowed(spec)
    versions = generations.maintained_versions(ctx, spec, space)
    return {version: _build_version(ctx, target(ctx, spec, space, version), partition) for version in versions}


def _build_version(ctx: Context, aim: Target, partition: str) -> Outcome:
    started = time.monotonic()
    asset, spec = asset_name(aim.space), aim.spec
    upstream, records = _upstream(ctx, spec, partition)
    key = expected_input(aim, upstream["output_digest"])
    chain = chain_of(aim.space, aim.space_version, partition)
    head = ctx.audit.latest(spec.id).get(chain)
    table = tables.embeddings(spec.id, aim.space)
    base, aside = ctx.lake.ensure(table), ctx.lake.snapshot(tables.quarantine(spec.id))
    if head is not None and head["input_digest"] == key and not is_ahead(chain, head, base, aside):
        return records_stage.from_audit(head)

    wanted = _wanted(records, aim, partition)
    stored = stored_digest(base, aim.space_version, partition)
    digest, computed, refused, version = _digest(wanted), 0, [], base.version
    changed = digest != stored
    staging = Staging(ctx.lake.root, spec.id, aim.space, aim.space_version, partition)
    if not changed:
        quarantine.replace(ctx, spec, chain, [])
    else:
        with ctx.scratch() as folder:
            scratch = VectorScratch(folder, aim.card.dim)
            segments = _adopt(scratch, staging, set(wanted["fingerprint"]))
            _reuse(scratch, base, aim, partition, set(wanted["fingerprint"]))
            failures = _encode_missing(ctx, aim, partition, records, wanted, scratch, staging, segments)
            computed = wanted["fingerprint"].n_unique() - failures.known
            refused = _refused(wanted, failures.rejected)
            quarantine.replace(ctx, spec, chain, refused)
            wanted = wanted.filter(pl.col("fingerprint").is_in(scratch.known()))
            digest = _digest(wanted)
            changed = digest != stored
            if changed:
                facts = _facts(ctx, aim, partition, digest)
                where = {"space_version": aim.space_version, "partition": partition}
                rows, following = _rows(aim, partition, wanted, scratch), ctx.transaction(spec, chain)
                version = ctx.lake.replace(base, where, rows, facts, following).version
            scratch.close()
    staging.clear()
    outcome = Outcome(
        table_path=table.path,
        table_version=version,
        changed=changed,
        rows_in=int(upstream["rows_out"]),
        rows_out=wanted.height,
        computed=computed,
        skipped=wanted.height - computed,
        quarantined=len(refused),
        input_digest=key,
        output_digest=digest,
        seconds=time.monotonic() - started,
    )
    ctx.record(
        dataset=spec.id,
        asset=asset,
        partition=partition,
        space_version=aim.space_version,
        table_path=outcome.table_path,
        table_version=version,
        upstream_version=upstream["upstream_version"],
        encoder=aim.card.ref,
        weights_digest=aim.card.weights_digest,
        deid_profile=upstream["deid_profile"],
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        rows_computed=computed,
        rows_skipped=outcome.skipped,
        rows_quarantined=len(refused),
        input_digest=key,
        output_digest=digest,
    )
    return outcome


def _upstream(ctx: Context, spec: DatasetSpec, partition: str) -> tuple[dict[str, Any], Snapshot]:
    """The last materialization of the partition's records, and the records it tells of."""
    chain = records_stage.chain_of(partition)
    head = ctx.audit.latest(spec.id).get(chain)
    if head is None:
        raise NotFound(
            f"partition {partition!r} of {spec.id} has no records yet",
            remedy=f"materialize {spec.id}/records for this partition first",
        )
    records = ctx.lake.snapshot(tables.records(spec.id))
    assert records is not None  # its materialization is in the audit
    if is_ahead(chain, head, records):
        raise CommitConflict(
            f"the records of {spec.id}/{partition} were committed by a run that did not end",
            remedy=f"materialize {spec.id}/records for this partition, then run again",
        )
    return head, records


def stored_digest(snapshot: Snapshot, space_version: str, partition: str) -> str:
    """Digest of the partition's embedding rows as they stand in the table."""
    where = (pc.field("space_version") == space_version) & (pc.field("partition") == partition)
    return _digest(snapshot.read(_ROW_COLUMNS, where))


def _wanted(records: Snapshot, aim: Target, partition: str) -> pl.DataFrame:
    """The rows that should be: _ROW_COLUMNS and content_digest, one per record that has an input for the space."""
    frame = records.read(_RECORD_COLUMNS, pc.field("partition") == partition)
    digests = frame["content_digests"].str.json_path_match(f"$.{aim.space}")
    frame = frame.with_columns(digests.alias("content_digest")).filter(pl.col("content_digest").is_not_null())
    known = {digest: aim.fingerprint(digest) for digest in frame["content_digest"].unique()}
    ids = [fingerprints.vector_id(aim.spec.id, aim.space, record_id) for record_id in frame["record_id"]]
    return frame.drop("content_digests").with_columns(
        pl.col("content_digest").replace_strict(known, return_dtype=pl.String).alias("fingerprint"),
        pl.Series("vector_id", ids, pl.String),
    )


def _digest(rows: pl.DataFrame) -> str:
    return fingerprints.set_digest(rows.select(pl.concat_str(_ROW_COLUMNS, separator="\x1f"))["vector_id"])


def _refused(wanted: pl.DataFrame, rejected: Sequence[Rejected]) -> list[quarantine.Row]:
    """One quarantine row per record whose vector could not be made: one record was tried for all of equal content."""
    tried = wanted.select(tried="record_id", fingerprint="fingerprint")
    rows: list[quarantine.Row] = []
    for one in rejected:
        same = tried.filter(pl.col("tried") == one.object_id)["fingerprint"].implode()
        for record_id in wanted.filter(pl.col("fingerprint").is_in(same))["record_id"]:
            rows.append((record_id, one.disposition, one.code, one.remedy))
    return rows


def _adopt(scratch: VectorScratch, staging: Staging, wanted: set[str]) -> int:
    """Take over what an unfinished run of this partition left; how many segments that is."""
    segments = 0
    for origin, found, vectors in staging.segments():
        segments += 1
        keep = [i for i, fingerprint in enumerate(found) if fingerprint in wanted]
        scratch.add([found[i] for i in keep], vectors[keep], [origin] * len(keep))
    return segments


def _reuse(scratch: VectorScratch, base: Snapshot, aim: Target, partition: str, wanted: set[str]) -> None:
    """Fetch vectors whose fingerprint stands in gold already: in this partition, then in any other of the dataset.

    Only the fingerprint column of other partitions is read; vectors only of those that hold something wanted.
    """
    version = pc.field("space_version") == aim.space_version
    _fetch(scratch, base, version & (pc.field("partition") == partition), wanted)
    missing = {fingerprint for fingerprint in wanted if fingerprint not in scratch}
    if not missing:
        return
    holders: dict[str, set[str]] = {}
    for batch in base.scan(["partition", "fingerprint"], version & (pc.field("partition") != partition), 65_536):
        for holder, fingerprint in zip(batch["partition"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True):
            if fingerprint in missing:
                holders.setdefault(holder, set()).add(fingerprint)
    for holder, found in holders.items():
        _fetch(scratch, base, version & (pc.field("partition") == holder), found)


def _fetch(scratch: VectorScratch, base: Snapshot, where: pc.Expression, wanted: set[str]) -> None:
    for batch in base.scan(["fingerprint", "vector", "run_id", "created_at"], where):
        found = batch["fingerprint"].to_pylist()
        keep = [i for i, fingerprint in enumerate(found) if fingerprint in wanted and fingerprint not in scratch]
        if not keep:
            continue
        rows = batch.take(pa.array(keep))
        vectors = rows["vector"].flatten().to_numpy().reshape(len(keep), -1)
        origins = [
            Origin(r, c) for r, c in zip(rows["run_id"].to_pylist(), rows["created_at"].to_pylist(), strict=True)
        ]
        scratch.add([found[i] for i in keep], vectors, origins)


def _encode_missing(
    ctx: Context,
    aim: Target,
    partition: str,
    records: Snapshot,
    wanted: pl.DataFrame,
    scratch: VectorScratch,
    staging: Staging,
    segments: int,
) -> encoding.Encoded:
    """Encode one record per missing fingerprint and stage each window; what is known already is counted, not done.

    `segments` are staged already, perhaps by an attempt under this very run id: theirs must not be overwritten.
    """
    first = wanted.unique("fingerprint", keep="first", maintain_order=True)
    missing = first.filter(~pl.col("fingerprint").is_in(scratch.known()))
    result = encoding.Encoded(known=first.height - missing.height)
    if missing.is_empty():
        return result
    read = records_stage.reader(ctx, aim.spec, partition)
    jobs = encoding.jobs(ctx, aim.spec, partition, records, missing)
    number = segments
    for names, vectors, rejected in encoding.encode(ctx, aim, partition, jobs, read, missing.height):
        result.rejected.extend(rejected)
        if names:
            staging.put(ctx.run_id, number, names, vectors)
            scratch.add(names, vectors, [Origin(ctx.run_id, datetime.now(UTC))] * len(names))
            number += 1
    result.known += len(result.rejected)
    return result


def _rows(aim: Target, partition: str, wanted: pl.DataFrame, scratch: VectorScratch) -> Iterator[pa.RecordBatch]:
    for piece in wanted.iter_slices(COMMIT_ROWS):
        names: Sequence[str] = piece["fingerprint"].to_list()
        origins = [scratch.origin(name) for name in names]
        count = piece.height
        constant = {
            "space_version": aim.space_version,
            "partition": partition,
            "part_kind": "whole",
            "part_index": 0,
            "part_locator": "",
            "encoder": aim.card.ref,
            "weights_digest": aim.card.weights_digest,
            "dim": aim.card.dim,
        }
        columns = {
            name: pa.array([value] * count, tables.EMBEDDINGS.field(name).type) for name, value in constant.items()
        }
        columns |= {name: piece[name].to_arrow().cast(pa.string()) for name in (*_ROW_COLUMNS, "content_digest")}
        columns["vector"] = _list_column(scratch.vectors(names))
        columns["run_id"] = pa.array([origin.run_id for origin in origins])
        columns["created_at"] = pa.array([origin.created_at for origin in origins], pa.timestamp("us", tz="UTC"))
        yield pa.RecordBatch.from_arrays([columns[name] for name in tables.EMBEDDINGS.names], schema=tables.EMBEDDINGS)


def _list_column(vectors: NDArray[np.float32]) -> pa.ListArray:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1)))


def _facts(ctx: Context, aim: Target, partition: str, digest: str) -> dict[str, str]:
    return {
        "asset": asset_name(aim.space),
        "partition": partition,
        "run_id": ctx.run_id,
        "encoder": aim.card.ref,
        "weights_digest": aim.card.weights_digest,
        "content": digest,
    }
