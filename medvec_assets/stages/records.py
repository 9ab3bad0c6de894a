"""The records stage: a partition's objects become de-identified, normalised records.

Belongs here: rules that hold for every modality (licence, suppression, checksum, payloads of what is not open, counts that
add up), the commit.
Does not belong here: parsing or normalising (modalities), what may be kept of an object (deid).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from medvec_assets import fingerprints, partitions
from medvec_assets.catalog.spec import SYNTHETIC, DatasetSpec, Withdrawal
from medvec_assets.connectors import MAX_OBJECT_BYTES
from medvec_assets.connectors.landing import Landing
from medvec_assets.json_columns import with_mark
from medvec_assets.modalities import OPEN, RECORD_FRAME, Modality, PayloadModality, ReadObject, Rejected, modality
from medvec_assets.stages import payloads, pieces, quarantine
from medvec_assets.stages.context import Context, Outcome, is_ahead
from medvec_assets.stages.payloads import Payloads
from resources import tables
from resources.audit import ChainKey
from resources.errors import CommitConflict, NotFound, ObjectRejected, SourceError
from resources.lakehouse import Snapshot
from resources.vector_index.types import MAX_BYTES

ASSET = "records"
BATCH_RECORDS = 4_096  # of the spool and of a commit, however small the pieces are that records are made in
CHECKED_ON_READ = ("sha256", "md5")  # checksum kinds that are the digest of an object's bytes
_INDEXED = ("record_id", "modality")  # what a modality writes and an index entity repeats


def expected_input(ctx: Context, spec: DatasetSpec, planned_digest: str) -> str:
    """Digest of everything that decides a partition's records."""
    form = modality(spec.modality)
    return fingerprints.input_digest(
        ASSET, planned_digest, form.version, form.deid_profile, *sorted(spec.licenses), _suppressed_digest(ctx, spec)
    )


def chain_of(partition: str) -> ChainKey:
    """The audit chain of a partition's records."""
    return (ASSET, "-", partition)


def build(ctx: Context, spec: DatasetSpec, partition: str) -> Outcome:
    """Make the records of one partition what its manifest says; one commit, or none if nothing is new."""
    ctx.require_allowed(spec, ASSET, partition)
    planned = _planned(ctx, spec, partition)
    key = expected_input(ctx, spec, planned["content_digest"])
    chain = chain_of(partition)
    head = ctx.audit.latest(spec.id).get(chain)
    base, aside = ctx.lake.ensure(tables.records(spec.id)), ctx.lake.snapshot(tables.quarantine(spec.id))
    recorded = not is_ahead(chain, head, base, aside)
    if head is not None and head["input_digest"] == key and recorded:
        return from_audit(head)

    with ctx.scratch() as folder:
        spool = folder / "records.arrow"
        listed = _listed(ctx, spec, partition, planned["content_digest"])
        rejected = _spool_records(ctx, spec, partition, listed, spool)
        rows, digest = _spool_digest(spool)
        quarantine.replace(
            ctx, spec, chain, [(one.object_id, one.disposition, one.code, one.remedy) for one in rejected]
        )
        changed = digest != stored_digest(base, partition)
        version = base.version
        if changed:
            facts = {"asset": ASSET, "partition": partition, "run_id": ctx.run_id, "content": digest}
            where, following = {"partition": partition}, ctx.transaction(spec, chain)
            version = ctx.lake.replace(base, where, _read_spool(spool), facts, following).version
    if spec.withdrawal == Withdrawal.ERASE:
        _erase_payloads(ctx, spec, partition, base, changed=changed, recorded=recorded)
    outcome = Outcome(
        table_path=tables.records(spec.id).path,
        table_version=version,
        changed=changed,
        rows_in=listed.height,
        rows_out=rows,
        skipped=sum(r.disposition == "skipped" for r in rejected),
        quarantined=sum(r.disposition == "quarantined" for r in rejected),
        input_digest=key,
        output_digest=digest,
    )
    ctx.record(
        dataset=spec.id,
        asset=ASSET,
        partition=partition,
        table_path=outcome.table_path,
        table_version=version,
        upstream_version=planned["upstream_version"],
        deid_profile=modality(spec.modality).deid_profile,
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        rows_computed=outcome.rows_out if changed else 0,
        rows_skipped=outcome.skipped,
        rows_quarantined=outcome.quarantined,
        input_digest=key,
        output_digest=digest,
    )
    return outcome


def from_audit(head: dict[str, object]) -> Outcome:
    """The outcome of a stage that had nothing to do, from what its last run recorded."""
    return Outcome(
        table_path=str(head["table_path"]),
        table_version=int(str(head["table_version"])),
        changed=False,
        rows_in=int(str(head["rows_in"])),
        rows_out=int(str(head["rows_out"])),
        skipped=int(str(head["rows_skipped"])),
        quarantined=int(str(head["rows_quarantined"])),
        input_digest=str(head["input_digest"]),
        output_digest=str(head["output_digest"]),
    )


def stored_digest(snapshot: Snapshot, partition: str) -> str:
    """Digest of the partition's rows as they stand in the table."""
    return fingerprints.set_digest(
        line for batch in snapshot.scan(None, pc.field("partition") == partition) for line in _lines(batch)
    )


def _planned(ctx: Context, spec: DatasetSpec, partition: str) -> dict[str, str]:
    snapshot = ctx.lake.snapshot(tables.partitions(spec.id))
    rows = snapshot.read(where=pc.field("partition") == partition).to_dicts() if snapshot else []
    if not rows:
        raise NotFound(
            f"dataset {spec.id} has no partition {partition!r}",
            remedy=f"`medvec partitions {spec.id}` lists them; refresh the manifest if it should exist",
        )
    return rows[0]


def _listed(ctx: Context, spec: DatasetSpec, partition: str, planned_digest: str) -> pl.DataFrame:
    """The partition's published objects. CommitConflict if the manifest is not the one the plan was made of."""
    manifest = ctx.lake.snapshot(tables.manifest(spec.id))
    assert manifest is not None  # the plan is committed after the manifest
    objects = manifest.read(where=pc.field("partition") == partition)
    found = partitions.content_digests(objects)["content_digest"].to_list() or [fingerprints.input_digest("empty")]
    if found != [planned_digest]:
        raise CommitConflict(
            f"manifest and plan of {spec.id} tell different things of partition {partition!r}: "
            "a refresh is under way, or was killed between its commits",
            remedy=f"materialize {spec.id}/manifest, then this partition again",
        )
    return objects.filter(pl.col("removed_in_version").is_null()).sort("record_ref", "object_id")


def _spool_records(
    ctx: Context, spec: DatasetSpec, partition: str, objects: pl.DataFrame, spool: Path
) -> list[Rejected]:
    form, landed = modality(spec.modality), Payloads(ctx.lake.root, spec.id)
    allowed, rejected = _by_rule(ctx, spec, objects)
    read, workers = verified_reader(ctx, spec, allowed), ctx.settings.decode_threads
    made = pieces.records(spec.modality, allowed, read, ctx.pseudonyms(spec), landed.land, workers)
    with closing(made), pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, tables.RECORDS) as writer:
        done, held = 0, list[pa.Table]()
        for piece, (frame, refused) in made:
            _check_counts(spec, form, partition, piece, frame, refused)
            _check_landed(spec, form, landed, frame)
            if ctx.is_synthetic(spec):
                frame = frame.with_columns(with_mark(frame["attributes"], SYNTHETIC))
            frame, too_long = _without_too_long(frame)
            rejected.extend([*refused, *too_long])
            held.append(_as_table(frame, partition))
            if sum(map(len, held)) >= BATCH_RECORDS:
                _write(writer, held)
            done += piece.height
            ctx.progress(f"{spec.id} {partition} records", done, allowed.height)
        _write(writer, held)
    return rejected


def _write(writer: pa.ipc.RecordBatchFileWriter, held: list[pa.Table]) -> None:
    if held:
        writer.write_table(pa.concat_tables(held).combine_chunks())
        held.clear()


def _without_too_long(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejected]]:
    """Set aside records with a field that an index entity cannot hold: one of them would fail its whole partition."""
    fits = pl.all_horizontal([pl.col(name).str.len_bytes() <= MAX_BYTES[name] for name in _INDEXED])
    limits = ", ".join(f"{name} {MAX_BYTES[name]}" for name in _INDEXED)
    remedy = f"a field of its record is too long (bytes allowed: {limits}); ask the source to correct it"
    refused = frame.filter(~fits)["object_ids"].explode()
    return frame.filter(fits), [Rejected(object_id, "field_too_long", remedy) for object_id in refused]


def _by_rule(ctx: Context, spec: DatasetSpec, objects: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejected]]:
    """Set aside objects whose licence the spec does not allow and objects of suppressed subjects."""
    rejected: list[Rejected] = []
    licensed = pl.col("license").is_in(sorted(spec.licenses))
    remedy = (
        f"if its terms allow vectors, add the licence to the spec of {spec.id}; a folder states the licence of its files "
        "in the first line of a file named LICENSE"
    )
    for object_id in objects.filter(~licensed)["object_id"]:
        rejected.append(Rejected(object_id, "license_not_allowed", remedy))
    objects = objects.filter(licensed)
    suppressed = _suppressed(ctx)
    if suppressed:
        pseudonyms = ctx.pseudonyms(spec)
        gone = [ref for ref in objects["subject_ref"].unique() if pseudonyms.subject(ref) in suppressed]
        for object_id in objects.filter(pl.col("subject_ref").is_in(gone))["object_id"]:
            rejected.append(Rejected(object_id, "suppressed_subject", "the subject withdrew; nothing to do", "skipped"))
        objects = objects.filter(~pl.col("subject_ref").is_in(gone))
    return objects, rejected


def _suppressed(ctx: Context) -> frozenset[str]:
    snapshot = ctx.lake.snapshot(tables.suppression())
    return frozenset(snapshot.read(["subject_key"])["subject_key"]) if snapshot else frozenset()


def _suppressed_digest(ctx: Context, spec: DatasetSpec) -> str:
    """Of the rows that can be of this dataset's subjects: a subject's key is of its source. It only says what is due; what
    is left out and not shown is the whole list, whatever source a row names."""
    snapshot = ctx.lake.snapshot(tables.suppression())
    source = pc.field("source")
    rows = snapshot.read(["subject_key"], source.is_null() | (source == spec.source)) if snapshot else None
    return fingerprints.set_digest(frozenset(rows["subject_key"]) if rows is not None else ())


def verified_reader(ctx: Context, spec: DatasetSpec, objects: pl.DataFrame, *, keeps: bool = True) -> ReadObject:
    """Reads an object and refuses it if its bytes are not the ones the manifest lists. What crosses the web for it is kept
    if `keeps`."""
    connector, landing = ctx.connector(spec), Landing(ctx.settings, spec.id, keeps=keeps)
    digested = objects.filter(pl.col("checksum_kind").is_in(CHECKED_ON_READ))
    expected = {uri: (kind, digest) for uri, kind, digest in digested.select("uri", "checksum_kind", "checksum").rows()}

    def is_right(kind: str, digest: str, data: bytes) -> bool:
        return hashlib.new(kind, data, usedforsecurity=False).hexdigest() == digest

    def verified(uri: str) -> bytes:
        data = connector.read(uri, max_bytes=MAX_OBJECT_BYTES)
        if uri in expected and not is_right(*expected[uri], data):
            raise ObjectRejected(
                "an object's bytes are not the ones its manifest row was made from",
                code="checksum_mismatch",
                remedy="refresh the manifest if the source changed the object; otherwise restore it from the source",
            )
        return data

    def read(uri: str) -> bytes:
        if not connector.is_remote or uri not in expected:
            return verified(uri)
        return landing.bytes("-".join(expected[uri]), partial(verified, uri), partial(is_right, *expected[uri]))

    return read


def reader(ctx: Context, spec: DatasetSpec, partition: str, *, keeps: bool = True) -> ReadObject:
    """A verified reader for the partition's objects, for stages after records."""
    manifest = ctx.lake.snapshot(tables.manifest(spec.id))
    assert manifest is not None
    columns = ["uri", "checksum", "checksum_kind"]
    return verified_reader(ctx, spec, manifest.read(columns, pc.field("partition") == partition), keeps=keeps)


def _check_counts(
    spec: DatasetSpec, form: Modality, partition: str, piece: pl.DataFrame, frame: pl.DataFrame, refused: list[Rejected]
) -> None:
    kept = int(frame["object_ids"].list.len().sum()) if frame.height else 0
    if kept + len(refused) != piece.height:
        raise SourceError(
            f"modality {spec.modality} ({form.version}) lost objects in {spec.id}/{partition}: "
            f"{piece.height} in, {kept} kept, {len(refused)} refused",
            remedy="this is a defect of the modality: report it; nothing was committed",
        )


def _check_landed(spec: DatasetSpec, form: Modality, landed: Payloads, frame: pl.DataFrame) -> None:
    """Only what is open stays where it is, whatever its dataset."""
    if not isinstance(form, PayloadModality):
        return
    closed = frame.filter(pl.col("access_tier") != OPEN)["payload_uri"]
    if missing := sum(not landed.holds(uri) for uri in closed):
        raise SourceError(
            f"modality {spec.modality} ({form.version}) landed no payload of {missing} records of {spec.id} that are not open",
            remedy="this is a defect of the modality: report it; nothing was committed",
        )


def _erase_payloads(
    ctx: Context, spec: DatasetSpec, partition: str, before: Snapshot, *, changed: bool, recorded: bool
) -> None:
    """Remove what the partition's records of `before` named and none names now.

    What a run that was killed after its commit did not come to (it is not `recorded`) is told by nothing but its age."""
    if changed:
        payloads.remove_unused(ctx, spec, payloads.of_partition(before, partition))
    if not recorded:
        payloads.sweep(ctx, spec)


def land_again(ctx: Context, spec: DatasetSpec, partition: str, record_ids: Collection[str]) -> None:
    """Make damaged payloads of these records again from their source. Nothing is committed: what comes out under another
    name than the record's is as damaged as before."""
    silver, manifest = ctx.lake.snapshot(tables.records(spec.id)), ctx.lake.snapshot(tables.manifest(spec.id))
    form = modality(spec.modality)
    assert silver is not None and manifest is not None and isinstance(form, PayloadModality)
    here, chosen = pc.field("partition") == partition, pc.field("record_id").isin(list(record_ids))
    names = silver.read(["object_ids"], here & chosen)["object_ids"].explode()
    objects = manifest.read(where=here & pc.field("object_id").isin(names.to_list()))
    read, landed = verified_reader(ctx, spec, objects), Payloads(ctx.lake.root, spec.id)
    for piece in pieces.cut(objects.sort("record_ref", "object_id"), pieces.BULK_OBJECTS):
        form.records(piece, read, ctx.pseudonyms(spec), landed.land)


def _as_table(frame: pl.DataFrame, partition: str) -> pa.Table:
    ordered = frame.select([pl.col(name).cast(kind) for name, kind in RECORD_FRAME.items()])
    ordered = ordered.with_columns(pl.lit(partition).alias("partition")).select(tables.RECORDS.names)
    return ordered.to_arrow().cast(tables.RECORDS)


def _lines(batch: pa.RecordBatch) -> list[str]:
    """One canonical line per row over every column: records hold nothing that differs between equal runs."""
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    spelled = {"object_ids": pl.col("object_ids").list.join(","), "payload": pl.col("payload").bin.encode("hex")}
    columns = [spelled.get(name, pl.col(name)).fill_null("\x00") for name in tables.RECORDS.names]
    return frame.select(pl.concat_str(columns, separator="\x1f").alias("line"))["line"].to_list()


def _read_spool(spool: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(spool)) as source:
        opened = pa.ipc.open_file(source)
        for number in range(opened.num_record_batches):
            yield opened.get_batch(number)


def _spool_digest(spool: Path) -> tuple[int, str]:
    rows = 0

    def lines() -> Iterator[str]:
        nonlocal rows
        for batch in _read_spool(spool):
            rows += batch.num_rows
            yield from _lines(batch)

    digest = fingerprints.set_digest(lines())
    return rows, digest
