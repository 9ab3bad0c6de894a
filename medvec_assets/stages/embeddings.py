"""The embeddings stage: one vector per record, computed only if its fingerprint is new anywhere in the dataset.

Belongs here: what is wanted, what is known (own partition, other partitions, staged), what must be encoded, the commit.
Does not belong here: the encoder (resources.encoders), the model input (modalities), the index (vectors).

Kill it anywhere: encoded vectors are staged in the lake segment by segment, and the next run adopts them.

Memory does not grow with a partition's rows, texts or vectors: they lie in files of the run's scratch folder. What is
held is a record id and twice the fingerprint per distinct input (about 170 bytes), and while encoding the objects' ids
and URIs (encoding.jobs).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
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
from medvec_assets.stages.staging import Origin, RowSpool, Staging, VectorScratch
from resources import encoders, tables
from resources.audit import ChainKey
from resources.encoders import EncoderCard
from resources.errors import CommitConflict, NotFound
from resources.lakehouse import Snapshot

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
    card = encoders.card(ref, ctx.settings)
    return Target(spec, space, card, encoders.precision(card, ctx.settings))


def expected_input(aim: Target, records_digest: str) -> str:
    return fingerprints.input_digest(
        asset_name(aim.space), records_digest, aim.card.ref, aim.card.weights_digest, aim.input_version, aim.precision
    )


def build(ctx: Context, spec: DatasetSpec, space: str, partition: str) -> dict[str, Outcome]:
    """Bring every maintained version of a space up to the partition's records; space version -> outcome."""
    ctx.require_allowed(spec, asset_name(space), partition, no_leak=True)
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

    with ctx.scratch() as folder:
        done = _commit(ctx, aim, partition, records, base, folder)
    outcome = Outcome(
        table_path=table.path,
        table_version=done.table_version,
        changed=done.changed,
        rows_in=int(upstream["rows_out"]),
        rows_out=done.rows,
        computed=done.computed,
        skipped=done.rows - done.computed,
        quarantined=done.quarantined,
        input_digest=key,
        output_digest=done.digest,
        seconds=time.monotonic() - started,
    )
    ctx.record(
        dataset=spec.id,
        asset=asset,
        partition=partition,
        space_version=aim.space_version,
        table_path=outcome.table_path,
        table_version=outcome.table_version,
        upstream_version=upstream["upstream_version"],
        encoder=aim.card.ref,
        weights_digest=aim.card.weights_digest,
        deid_profile=upstream["deid_profile"],
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        rows_computed=outcome.computed,
        rows_skipped=outcome.skipped,
        rows_quarantined=outcome.quarantined,
        input_digest=key,
        output_digest=outcome.output_digest,
    )
    return outcome


@dataclass(frozen=True)
class _Committed:
    """What one partition's gold became: `digest` of its `rows`, at `table_version`."""

    table_version: int
    changed: bool
    rows: int
    computed: int
    quarantined: int
    digest: str


def _commit(ctx: Context, aim: Target, partition: str, records: Snapshot, base: Snapshot, folder: Path) -> _Committed:
    """Bring the partition's rows in gold to what its records say, in one commit; none if they are that already."""
    stored, chain = stored_digest(base, aim.space_version, partition), chain_of(aim.space, aim.space_version, partition)
    staging = Staging(ctx.lake.root, aim.spec.id, aim.space, aim.space_version, partition)
    wanted = RowSpool(folder, (*_ROW_COLUMNS, "content_digest"), _wanted(records, aim, partition))
    digest = _digest(wanted)
    if digest == stored:
        quarantine.replace(ctx, aim.spec, chain, [])
        staging.clear()
        return _Committed(base.version, False, wanted.rows, 0, 0, digest)
    _give_back_memory()
    first = _distinct(wanted)
    with closing(VectorScratch(folder, aim.card.dim, first["fingerprint"])) as scratch:
        segments = _adopt(scratch, staging)
        _reuse(scratch, base, aim, partition)
        missing = first.filter(scratch.lacks(first["fingerprint"]))
        rejected = _encode(ctx, aim, partition, records, missing, scratch, staging, segments)
        refused = _refused(wanted, missing, rejected)
        quarantine.replace(ctx, aim.spec, chain, refused)
        if refused:
            digest = _digest(_kept(wanted, scratch))
        version = base.version
        if digest != stored:
            _give_back_memory()
            where = {"space_version": aim.space_version, "partition": partition}
            batches = (_batch(aim, partition, frame, scratch) for frame in _kept(wanted, scratch) if frame.height)
            facts, following = _facts(ctx, aim, partition, digest), ctx.transaction(aim.spec, chain)
            version = ctx.lake.replace(base, where, batches, facts, following).version
    staging.clear()
    computed, rows = missing.height - len(rejected), wanted.rows - len(refused)
    return _Committed(version, digest != stored, rows, computed, len(refused), digest)


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
    return _digest(_frames(snapshot, _ROW_COLUMNS, where))


def _wanted(records: Snapshot, aim: Target, partition: str) -> Iterator[pl.DataFrame]:
    """The rows that should be, one per record that has an input for the space: _ROW_COLUMNS and content_digest."""
    digest = pl.col("content_digests").str.json_path_match(f"$.{aim.space}").alias("content_digest")
    for frame in _frames(records, _RECORD_COLUMNS, pc.field("partition") == partition):
        frame = frame.with_columns(digest).filter(pl.col("content_digest").is_not_null())
        ids = [fingerprints.vector_id(aim.spec.id, aim.space, record_id) for record_id in frame["record_id"]]
        found = [aim.fingerprint(content) for content in frame["content_digest"]]
        yield frame.with_columns(pl.Series("vector_id", ids, pl.String), pl.Series("fingerprint", found, pl.String))


def _frames(snapshot: Snapshot, columns: Sequence[str], where: pc.Expression) -> Iterator[pl.DataFrame]:
    for batch in snapshot.scan(columns, where):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _digest(frames: Iterable[pl.DataFrame]) -> str:
    line = pl.concat_str(_ROW_COLUMNS, separator="\x1f")
    return fingerprints.set_digest(row for frame in frames for row in frame.select(line).to_series())


def _distinct(wanted: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """record_id and fingerprint of the first record of each fingerprint."""
    schema = pa.schema([("record_id", pa.string()), ("fingerprint", pa.string())])
    pieces = [
        frame.select(schema.names).unique("fingerprint", keep="first").to_arrow().cast(schema) for frame in wanted
    ]
    # The cast copies: a polars string is a view, and would keep all columns of the batch that it was read from.
    rows = pl.from_arrow(pa.concat_tables([schema.empty_table(), *pieces]))
    assert isinstance(rows, pl.DataFrame)
    return rows.unique("fingerprint", keep="first", maintain_order=True)


def _kept(wanted: RowSpool, scratch: VectorScratch) -> Iterator[pl.DataFrame]:
    """The wanted rows that have a vector: not those whose input was rejected."""
    for frame in wanted:
        yield frame.filter(~scratch.lacks(frame["fingerprint"]))


def _refused(wanted: RowSpool, tried: pl.DataFrame, rejected: Sequence[Rejected]) -> list[quarantine.Row]:
    """One quarantine row per record whose vector could not be made: one record was tried for all of equal content."""
    reasons = pl.DataFrame(
        [(one.object_id, one.disposition, one.code, one.remedy) for one in rejected],
        schema=dict.fromkeys(("record_id", "disposition", "code", "remedy"), pl.String()),
        orient="row",
    )
    reasons = tried.join(reasons, on="record_id").drop("record_id")
    rows: list[quarantine.Row] = []
    for frame in wanted if rejected else ():
        rows += frame.join(reasons, on="fingerprint").select("record_id", "disposition", "code", "remedy").rows()
    return rows


def _adopt(scratch: VectorScratch, staging: Staging) -> int:
    """Take over what an unfinished run of this partition left; how many segments that is."""
    segments = 0
    for origin, found, vectors in staging.segments():
        segments += 1
        scratch.add(found, vectors, [origin] * len(found))
    return segments


def _reuse(scratch: VectorScratch, base: Snapshot, aim: Target, partition: str) -> None:
    """Fetch vectors whose fingerprint stands in gold already: in this partition, then in any other of the dataset.

    Only the fingerprint column of other partitions is read; vectors only of those that hold something wanted.
    """
    version = pc.field("space_version") == aim.space_version
    _fetch(scratch, base, version & (pc.field("partition") == partition))
    if scratch.complete():
        return
    holders: dict[str, None] = {}
    for batch in base.scan(["partition", "fingerprint"], version & (pc.field("partition") != partition), 65_536):
        lacking = pa.array(scratch.lacks(batch["fingerprint"].to_pylist()))
        holders |= dict.fromkeys(batch["partition"].filter(lacking).unique().to_pylist())
    for holder in holders:
        _fetch(scratch, base, version & (pc.field("partition") == holder))


def _fetch(scratch: VectorScratch, base: Snapshot, where: pc.Expression) -> None:
    for batch in base.scan(["fingerprint", "vector", "run_id", "created_at"], where):
        rows = batch.filter(pa.array(scratch.lacks(batch["fingerprint"].to_pylist())))
        if rows.num_rows:
            vectors = rows["vector"].flatten().to_numpy().reshape(rows.num_rows, -1)
            origins = map(Origin, rows["run_id"].to_pylist(), rows["created_at"].to_pylist())
            scratch.add(rows["fingerprint"].to_pylist(), vectors, list(origins))


def _encode(
    ctx: Context,
    aim: Target,
    partition: str,
    records: Snapshot,
    missing: pl.DataFrame,
    scratch: VectorScratch,
    staging: Staging,
    segments: int,
) -> list[Rejected]:
    """Encode what is missing, one record per fingerprint, and stage each window; the records that gave no vector.

    `segments` are staged already, perhaps by an attempt under this very run id: theirs must not be overwritten.
    """
    refused: list[Rejected] = []
    if missing.is_empty():
        return refused
    number = segments
    for names, vectors, rejected in encoding.encode_records(ctx, aim, partition, records, missing):
        refused.extend(rejected)
        if names:
            staging.put(ctx.run_id, number, names, vectors)
            scratch.add(names, vectors, [Origin(ctx.run_id, datetime.now(UTC))] * len(names))
            number += 1
    return refused


def _batch(aim: Target, partition: str, rows: pl.DataFrame, scratch: VectorScratch) -> pa.RecordBatch:
    vectors, origins = scratch.get(rows["fingerprint"].to_list())
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
        name: pa.array([value] * rows.height, tables.EMBEDDINGS.field(name).type) for name, value in constant.items()
    }
    columns |= {name: rows[name].to_arrow().cast(pa.string()) for name in (*_ROW_COLUMNS, "content_digest")}
    columns["vector"] = _list_column(vectors)
    columns["run_id"] = pa.array([origin.run_id for origin in origins])
    columns["created_at"] = pa.array([origin.created_at for origin in origins], pa.timestamp("us", tz="UTC"))
    return pa.RecordBatch.from_arrays([columns[name] for name in tables.EMBEDDINGS.names], schema=tables.EMBEDDINGS)


def _give_back_memory() -> None:
    """What the C library keeps of freed memory goes to the kernel, before a step that allocates elsewhere.

    The encoder tells glibc to keep all (resources.encoders.runtime); 100 MB at the commit, taken back in milliseconds.
    """
    pa.system_memory_pool().release_unused()


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
