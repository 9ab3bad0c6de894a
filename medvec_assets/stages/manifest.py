"""The manifest stage: what the source publishes, validated, planned into partitions.

Belongs here: rules every listing must satisfy whatever its connector, tombstones, the plan's commit.
Does not belong here: protocols (connectors), the arithmetic of plans (partitions).

Three tables are written, each atomically and in this order: quarantine, manifest, partitions. The plan is last because
it is what the rest of the chain reads: a run killed in between leaves the old plan, and the next run repeats the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from medvec_assets import fingerprints, partitions
from medvec_assets.catalog.spec import SYNTHETIC, AccessTier, DatasetSpec
from medvec_assets.connectors import LISTING, Listing, Rejection
from medvec_assets.connectors.landing import Landing
from medvec_assets.connectors.observations import Observations
from medvec_assets.json_columns import with_mark
from medvec_assets.partitions import Leaves, Partition
from medvec_assets.stages import quarantine, withdrawal
from medvec_assets.stages.context import Context, Outcome, is_ahead
from resources import tables
from resources.audit import ChainKey
from resources.errors import SourceError
from resources.lakehouse import Snapshot

VERSION = "manifest-1"
ASSET = "manifest"
CHAIN: ChainKey = (ASSET, "-", "-")
UNASSIGNED = "unassigned"  # quarantine's partition for objects that never reached the plan
MAX_ID_BYTES = 255  # what an index entity's record_id holds
MAX_COHORT_BYTES = 200  # a partition is a cohort and up to 17 characters, and an index entity holds 255 bytes of it
MAX_URI_CHARS = 2_048
_CONTROL = r"\p{Cc}"
_SPACE, _DEL = 0x20, 0x7F  # between them lie the printable characters of ASCII
# Fewer than this share of a listing valid means the source is not what it says (schema drift), not that rows are bad.
MIN_VALID_SHARE = 0.5
_REQUIRED = ("object_id", "cohort", "uri", "checksum", "license", "access_tier", "subject_ref", "record_ref")
# Stand in the table without a null, or in a partition's content digest, whose fields hold no control characters.
_FURTHER = ("checksum_kind", "media_type", "upstream_version", "first_seen_version", "attributes")
_PREVIOUS = ("object_id", "uri", "size_bytes", "checksum", "checksum_kind", "subject_ref", "record_ref", "attributes")
_REMEDIES = {
    "missing_field": "the source published this row without a required field; it is listed again at the next refresh",
    "field_too_long": f"an id has at most {MAX_ID_BYTES} bytes, a cohort {MAX_COHORT_BYTES}, a URI {MAX_URI_CHARS} characters; "
    "ask the source to correct it",
    "control_characters": "fields hold printable characters only; ask the source to correct it",
    "bad_cohort": "a cohort is made of letters, digits, _ and -; ask the source or rename the folder",
    "bad_access_tier": f"a tier is one of {', '.join(AccessTier)}; correct the connector's mapping",
    "negative_size": "a size is zero or more bytes; ask the source to correct it",
    "duplicate_object_id": "an object id stands for one object; ask the source which one is meant",
}


@dataclass(frozen=True)
class Refreshed:
    """The outcome, the plan that now stands and the partitions whose content differs from the last plan's."""

    outcome: Outcome
    plan: pl.DataFrame
    changed_partitions: tuple[str, ...]
    upstream_version: str


def current_plan(ctx: Context, spec: DatasetSpec) -> pl.DataFrame:
    """The committed plan (columns of bronze/<dataset>/partitions), empty before the first refresh."""
    snapshot = ctx.lake.snapshot(tables.partitions(spec.id))
    return snapshot.read() if snapshot else pl.DataFrame(schema=pl.Schema(tables.PARTITIONS))


def refresh(ctx: Context, spec: DatasetSpec, split: tuple[str, ...] = ()) -> Refreshed:
    """Bring manifest and plan up to what the source publishes now. `split` names partitions to halve by hand."""
    ctx.require_allowed(spec, ASSET)
    connector = ctx.connector(spec)
    version = connector.version()
    plan_base, base = ctx.lake.ensure(tables.partitions(spec.id)), ctx.lake.ensure(tables.manifest(spec.id))
    plan = plan_base.read()
    mark = [SYNTHETIC] if ctx.is_synthetic(spec) else []
    key = fingerprints.input_digest(
        VERSION, partitions.CONTENT_VERSION, version, spec.connector, spec.sharding.model_dump_json(), *mark
    )
    head = ctx.audit.latest(spec.id).get(CHAIN)
    recorded = not is_ahead(CHAIN, head, base, plan_base, ctx.lake.snapshot(tables.quarantine(spec.id)))
    if head is not None and recorded and head["input_digest"] == key and plan.height and not split:
        return _unchanged(head, plan, version)

    began = datetime.now(UTC)
    previous = withdrawal.own(ctx, spec, base.read())
    # Not what was removed: a connector that lists from what it knows must not bring it back.
    known = previous.filter(pl.col("removed_in_version").is_null()).select(_PREVIOUS)
    published, rejected = _listed(ctx, spec, known)
    listed = withdrawal.with_tombstones(spec, published, previous, version)
    withdrawal.note_removals(ctx, spec, previous, listed, version)
    objects, leaves = _planned(spec, listed, plan, split)
    bad = [(one.object_id, "quarantined", one.code, one.remedy) for one in rejected]
    quarantine.replace(ctx, spec, CHAIN, bad, UNASSIGNED)

    facts = {"asset": ASSET, "run_id": ctx.run_id, "upstream_version": version}
    following = ctx.transaction(spec, CHAIN)
    write = partial(_write, ctx, base, objects, facts, following)
    first = previous.is_empty()
    with ThreadPoolExecutor(max_workers=1) as beside:
        digesting = beside.submit(partitions.content_digests, objects)
        # What there is nothing to compare with is written meanwhile: 1.4 s less per million rows on two cores.
        table_version = write() if first else base.version
        digests = digesting.result()
    new_plan = _plan_rows(leaves, digests, version, plan)
    changed = _changed(plan, new_plan)
    content = fingerprints.set_digest(f"{p}\x1f{d}" for p, d in new_plan.select("partition", "content_digest").rows())
    moved = first or bool(changed) or set(plan["partition"]) != set(new_plan["partition"])
    moved = moved or (not recorded and not partitions.content_digests(previous).equals(digests))
    if moved:
        table_version = table_version if first else write()
        ctx.lake.replace(plan_base, {}, _batches(new_plan, tables.PARTITIONS), facts, following)
    outcome = Outcome(
        table_path=tables.manifest(spec.id).path,
        table_version=table_version,
        changed=moved,
        rows_in=published.height + len(rejected),
        rows_out=objects.height,
        quarantined=len(rejected),
        input_digest=key,
        output_digest=content,
    )
    ctx.record(
        dataset=spec.id,
        asset=ASSET,
        partition="-",
        table_path=outcome.table_path,
        table_version=table_version,
        upstream_version=version,
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        rows_quarantined=outcome.quarantined,
        input_digest=key,
        output_digest=content,
    )
    Landing(ctx.settings, spec.id).listed(began)
    Observations(ctx.settings, spec.id).drop(unless_asked_since=began if rejected else None)
    return Refreshed(outcome, new_plan, changed, version)


def _planned(
    spec: DatasetSpec, objects: pl.DataFrame, plan: pl.DataFrame, split: tuple[str, ...]
) -> tuple[pl.DataFrame, Leaves]:
    """`objects` with their partition, by partition and id, and the leaves of the plan that follows `plan`."""
    leaves = partitions.plan(objects, map(Partition.parse, plan["partition"]), spec.sharding, spec.source)
    for name in split:
        leaves = partitions.split(leaves, Partition.parse(name))
    objects = objects.with_columns(partitions.assign(objects, leaves, spec.source).alias("partition"))
    # By the names' rank: comparing a million names again costs .4 s.
    names = pl.Enum(objects["partition"].unique().sort())
    return objects.sort(pl.col("partition").cast(names).to_physical(), "object_id"), leaves


def _write(
    ctx: Context, base: Snapshot, objects: pl.DataFrame, facts: dict[str, str], following: tuple[str, int]
) -> int:
    rows = _batches(objects.select(tables.MANIFEST.names), tables.MANIFEST)
    return ctx.lake.replace(base, {}, rows, facts, following).version


def _unchanged(head: dict[str, object], plan: pl.DataFrame, version: str) -> Refreshed:
    outcome = Outcome(
        table_path=str(head["table_path"]),
        table_version=int(str(head["table_version"])),
        changed=False,
        rows_in=int(str(head["rows_in"])),
        rows_out=int(str(head["rows_out"])),
        skipped=int(str(head["rows_out"])),
        quarantined=int(str(head["rows_quarantined"])),
        input_digest=str(head["input_digest"]),
        output_digest=str(head["output_digest"]),
    )
    return Refreshed(outcome, plan, (), version)


def _listed(ctx: Context, spec: DatasetSpec, previous: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
    judged: list[Future[tuple[pl.DataFrame, list[Rejection]]]] = []
    rows = 0
    # Judged while the next listing is made: .8 s less per million rows on two cores.
    with ThreadPoolExecutor(max_workers=1) as judge:
        for listing in ctx.connector(spec).listings(previous):
            judged.append(judge.submit(validated, listing))
            rows += listing.objects.height
            ctx.progress(f"{spec.id} manifest", rows, 0)
    pieces = [one.result()[0] for one in judged]
    rejected = [refused for one in judged for refused in one.result()[1]]
    objects = pl.concat(pieces) if pieces else pl.DataFrame(schema=LISTING)
    if ctx.is_synthetic(spec):
        objects = objects.with_columns(with_mark(objects["attributes"], SYNTHETIC))
    objects, duplicates = _without_duplicates(objects)
    rejected.extend(duplicates)
    total = objects.height + len(rejected)
    if total and objects.height / total < MIN_VALID_SHARE:
        codes = pl.Series([r.code for r in rejected]).value_counts(sort=True).rows()
        raise SourceError(
            f"dataset {spec.id}: only {objects.height} of {total} listed objects satisfy the listing's rules {codes}",
            remedy="the source's layout has probably changed; compare its columns with the connector, then run again",
        )
    if not total:
        raise SourceError(
            f"dataset {spec.id}: the source lists no object at all",
            remedy="check the URI in MEDVEC_SOURCES and the credentials; an emptied source must be confirmed by hand",
        )
    return objects, rejected


def validated(listing: Listing) -> tuple[pl.DataFrame, list[Rejection]]:
    """Split a listing into rows that satisfy every rule and rejections that name the first rule broken."""
    objects = listing.objects.select([pl.col(name).cast(kind) for name, kind in LISTING.items()])
    present = (*_REQUIRED, *_FURTHER)
    broken_rules = {  # in the order in which they are named
        "missing_field": pl.any_horizontal([pl.col(name).is_null() | (pl.col(name) == "") for name in present]),
        "field_too_long": pl.any_horizontal(_too_long()),
        "control_characters": pl.any_horizontal(_control_characters(objects.select(*present, "removed_in_version"))),
        "bad_cohort": ~pl.col("cohort").str.contains(r"^[A-Za-z0-9_-]+$"),
        "negative_size": pl.col("size_bytes").is_null() | (pl.col("size_bytes") < 0),
        "bad_access_tier": ~pl.col("access_tier").is_in([str(tier) for tier in AccessTier]),
    }
    # As flags first: a column of codes for rows that are nearly all fine costs .3 s per million.
    broken = objects.select(rule.fill_null(False).alias(code) for code, rule in broken_rules.items())
    is_broken = broken.select(pl.any_horizontal(pl.all())).to_series()
    # An id that breaks a rule is not repeated: over-long or unprintable text does not belong in a table of its own.
    id_ = pl.col("object_id")
    usable = (id_ != "") & (id_.str.len_bytes() <= MAX_ID_BYTES) & ~id_.str.contains(_CONTROL)
    named = pl.when(usable).then(id_).otherwise(pl.format("row-{}", pl.col("_row")))
    codes = pl.coalesce([pl.when(code).then(pl.lit(code)) for code in broken_rules])
    found = pl.concat([objects, broken], how="horizontal").with_row_index("_row").filter(is_broken).select(named, codes)
    refused = [Rejection(object_id, code, _REMEDIES[code]) for object_id, code in found.iter_rows()]
    return objects.filter(~is_broken), [*listing.rejected, *refused]


def _too_long() -> list[pl.Expr]:
    ids = [pl.col(name).str.len_bytes() > MAX_ID_BYTES for name in ("object_id", "subject_ref", "record_ref")]
    cohort = pl.col("cohort").str.len_bytes() > MAX_COHORT_BYTES
    return [*ids, cohort, pl.col("uri").str.len_chars() > MAX_URI_CHARS]


def _control_characters(texts: pl.DataFrame) -> list[pl.Expr]:
    """Where a column of `texts` holds control characters; columns that hold none are left out.

    Searching every field costs 1.5 s per million rows, looking at the bytes first .4: a control character is a byte
    below the space, DEL, or one of U+0080-U+009F, which only stand in texts of more bytes than characters.
    """
    found = [pl.lit(False)]
    for column, (_, text) in zip(texts.iter_columns(), partitions.utf8_columns(texts), strict=False):
        data = np.frombuffer(text, np.uint8)
        if not data.size or (data.min() >= _SPACE and data.max() < _DEL):
            continue
        wide = column.filter(column.str.len_bytes() != column.str.len_chars())
        if data.min() < _SPACE or (data == _DEL).any() or wide.str.contains(_CONTROL).any():
            found.append(pl.col(column.name).str.contains(_CONTROL))
    return found


def _without_duplicates(objects: pl.DataFrame) -> tuple[pl.DataFrame, list[Rejection]]:
    if objects["object_id"].hash().n_unique() == objects.height:
        return objects, []  # as many hashes as rows: no id twice, and counting ids costs .25 s more per million
    repeated = objects.filter(pl.col("object_id").is_duplicated())["object_id"]
    kept = objects.filter(~pl.col("object_id").is_in(repeated.unique().implode()))
    code = "duplicate_object_id"
    return kept, [Rejection(object_id, code, _REMEDIES[code]) for object_id in repeated]


def _plan_rows(leaves: Leaves, digests: pl.DataFrame, version: str, plan: pl.DataFrame) -> pl.DataFrame:
    before = int(str(plan["plan_version"].max())) if plan.height else 0
    names = [str(leaf) for leaf in leaves]
    moved = set(plan["partition"]) != set(names)
    frame = pl.DataFrame(
        {"partition": names, "cohort": [leaf.cohort for leaf in leaves], "prefix": [leaf.prefix for leaf in leaves]}
    )
    rows = frame.join(digests, on="partition", how="left").with_columns(
        pl.col("objects", "size_bytes").fill_null(0),
        pl.col("content_digest").fill_null(fingerprints.input_digest("empty")),
        pl.lit(version).alias("upstream_version"),
        pl.lit(before + 1 if moved else before).cast(pl.Int64).alias("plan_version"),
    )
    return rows.sort("partition").select([pl.col(n).cast(t) for n, t in pl.Schema(tables.PARTITIONS).items()])


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> tuple[str, ...]:
    known = dict(before.select("partition", "content_digest").rows())
    pairs = after.select("partition", "content_digest").rows()
    return tuple(name for name, digest in pairs if known.get(name) != digest)


def _batches(frame: pl.DataFrame, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Made while the writer takes them: half a second less per million rows, and never a second copy of them all."""
    for piece in frame.iter_slices(65_536):
        yield from piece.to_arrow().cast(schema).to_batches()
