"""Withdrawal: what a source takes back is seen, dated, and gone from every layer by its source's deadline.

Belongs here: noting removals as the manifest sees them, what of them is still here past its deadline.
Does not belong here: the removal itself, which the stages do by making each partition what the manifest says; the rule and
the grace, which are the spec's.

`audit/withdrawals` has one row per object that was published here once and is no more. It is written before the manifest
that no longer lists the object, so that a run killed in between notes it twice rather than never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pyarrow.compute as pc

from medvec_assets.catalog.spec import SYNTHETIC, DatasetSpec, Withdrawal
from medvec_assets.stages import vectors
from medvec_assets.stages.context import Context
from resources import tables
from resources.errors import SourceError
from resources.tables import TableSpec

# A listing that takes away more than this share of a dataset's published objects, and more than so many, is more likely a
# mistyped prefix or a half-mounted folder. Where withdrawal erases, nothing brings them back: a person must confirm it.
MASS_SHARE, MASS_OBJECTS = 0.1, 20


@dataclass(frozen=True)
class Overdue:
    """A withdrawn object that `layer` still holds after its deadline; the subject by its pseudonym."""

    object_id: str
    subject_key: str
    due_at: datetime
    layer: str


def own(ctx: Context, spec: DatasetSpec, previous: pl.DataFrame) -> pl.DataFrame:
    """Of the last manifest what the source itself published: the made-up sample that was read before it is nobody's, and
    goes without a trace. Raises SourceError `sample_over_data` where the sample would now take the place of real data."""
    if spec.sample != SYNTHETIC or previous.is_empty():
        return previous
    made_up = (previous["attributes"].str.json_path_match(f"$.{SYNTHETIC}") == "true").fill_null(False)
    if ctx.is_synthetic(spec) and not made_up.all():
        raise SourceError(
            f"dataset {spec.id}: this lake holds the source's own data, and the made-up sample would take their place",
            remedy="name the source in MEDVEC_SOURCES again, or run the sample in another MEDVEC_HOME",
            code="sample_over_data",
        )
    return previous if ctx.is_synthetic(spec) else previous.filter(~made_up)


def with_tombstones(spec: DatasetSpec, published: pl.DataFrame, previous: pl.DataFrame, version: str) -> pl.DataFrame:
    """Published objects, and those that were here before and are not published any more, dated.

    Where withdrawal erases, bronze too forgets what is removed: only `audit/withdrawals` tells that it was here.
    """
    if spec.withdrawal == Withdrawal.ERASE:
        return published.filter(pl.col("removed_in_version").is_null())
    if previous.is_empty():
        return published  # a join against a million rows takes .2 s to find nothing
    gone = previous.join(published, on="object_id", how="anti").with_columns(
        pl.coalesce("removed_in_version", pl.lit(version)).alias("removed_in_version")
    )
    return pl.concat([published, gone.select(published.columns)])


def note_removals(
    ctx: Context, spec: DatasetSpec, previous: pl.DataFrame, objects: pl.DataFrame, version: str
) -> pl.DataFrame:
    """Write down what `previous` (the last manifest) published and `objects` (the next) does not; those rows.

    Raises SourceError `mass_removal` where withdrawal erases and so much goes at once that a person must confirm it.
    """
    was = previous.filter(pl.col("removed_in_version").is_null())
    stays = objects.filter(pl.col("removed_in_version").is_null()).select("object_id")
    gone = was.join(stays, on="object_id", how="anti")
    if gone.is_empty():
        return gone
    _require_meant(ctx, spec, gone.height, was.height, version)
    seen_at = datetime.now(UTC)
    told = objects.select("object_id", "removed_in_version")
    rows = gone.drop("removed_in_version").join(told, on="object_id", how="left")
    rows = rows.with_columns(
        pl.lit(spec.id).alias("dataset"),
        _keys(ctx, spec, rows["subject_ref"]),
        pl.col("removed_in_version").fill_null(version),
        pl.lit(seen_at).alias("seen_at"),
        pl.lit(seen_at + spec.withdrawal_grace).alias("due_at"),
    )
    _append(ctx, tables.withdrawals(), rows)
    if spec.withdrawal == Withdrawal.ERASE:
        _suppress(ctx, spec, gone, was, rows)
    return gone


def overdue(ctx: Context, spec: DatasetSpec, now: datetime) -> list[Overdue]:
    """Every withdrawn object of `spec` that records, embeddings or index still hold past its deadline, by layer."""
    snapshot = ctx.lake.snapshot(tables.withdrawals())
    if snapshot is None:
        return []
    due = snapshot.read(where=(pc.field("dataset") == spec.id) & (pc.field("due_at") < now)).sort("seen_at")
    due = _not_back(ctx, spec, due.unique("object_id", keep="last", maintain_order=True))
    if due.is_empty():
        return []
    silver = _read(ctx, tables.records(spec.id), ["record_id", "object_ids", "subject_key"], due["cohort"])
    in_silver = due.join(silver.select(object_id="object_ids").explode("object_id"), on="object_id", how="semi")
    found = [("records", in_silver)]
    for space in spec.spaces:
        gold = _read(ctx, tables.embeddings(spec.id, space), ["record_id", "subject_key"], due["cohort"])
        orphans = gold.join(silver.select("record_id"), on="record_id", how="anti")
        found.append((f"{space}_embeddings", due.join(orphans, on="subject_key", how="semi")))
    behind = [name for (_, name), one in vectors.receipts(ctx, spec).items() if _is_older(one, due, name)]
    found.append(("index", due.filter(pl.col("partition").is_in(behind))))
    columns = ("object_id", "subject_key", "due_at")
    late = [(row, layer) for layer, rows in found for row in rows.select(columns).iter_rows()]
    return [Overdue(object_id, subject, due_at, layer) for (object_id, subject, due_at), layer in late]


def _not_back(ctx: Context, spec: DatasetSpec, due: pl.DataFrame) -> pl.DataFrame:
    """Without what the source publishes again."""
    manifest = ctx.lake.snapshot(tables.manifest(spec.id))
    if manifest is None or due.is_empty():
        return due
    published = manifest.read(["object_id"], pc.field("removed_in_version").is_null())
    return due.join(published, on="object_id", how="anti")


def _is_older(receipt: dict[str, object], due: pl.DataFrame, partition: str) -> bool:
    """Whether a partition's index was last reconciled before a removal from it was seen."""
    last = due.filter(pl.col("partition") == partition)["seen_at"].max()
    at = receipt["reconciled_at"]
    assert isinstance(at, datetime)
    return isinstance(last, datetime) and at < last and receipt["entities"] != 0


def _read(ctx: Context, table: TableSpec, columns: list[str], cohorts: Iterable[str]) -> pl.DataFrame:
    """`columns` of the rows of these cohorts; none if there is no table."""
    snapshot = ctx.lake.snapshot(table)
    if snapshot is None:
        return pl.DataFrame(schema={name: pl.Schema(table.schema)[name] for name in columns})
    return snapshot.read(columns, pc.field("cohort").isin(sorted(set(cohorts))))


def _require_meant(ctx: Context, spec: DatasetSpec, gone: int, published: int, version: str) -> None:
    confirmation = f"{spec.id}@{version}"
    few = gone <= MASS_OBJECTS or gone <= MASS_SHARE * published
    if spec.withdrawal != Withdrawal.ERASE or few or confirmation in ctx.settings.confirmed_removals:
        return
    raise SourceError(
        f"dataset {spec.id}: the source does not list {gone} of {published} objects any more, and what it withdraws is "
        "erased here for ever",
        remedy="look whether the source was listed whole; if it is meant, set "
        f"MEDVEC_CONFIRMED_REMOVALS='[\"{confirmation}\"]' and run again",
        code="mass_removal",
    )


def _suppress(ctx: Context, spec: DatasetSpec, gone: pl.DataFrame, was: pl.DataFrame, rows: pl.DataFrame) -> None:
    """Put subjects of whom nothing is left on the suppression list: no refresh brings them back."""
    left = was.join(gone.select("object_id"), on="object_id", how="anti").select("subject_ref")
    whole = rows.join(left, on="subject_ref", how="anti").select("subject_key", since="seen_at").unique()
    if whole.height:
        why = {"reason": pl.lit("withdrawn at the source"), "source": pl.lit(spec.source)}
        _append(ctx, tables.suppression(), whole.with_columns(**why))


def _keys(ctx: Context, spec: DatasetSpec, subject_refs: pl.Series) -> pl.Series:
    pseudonyms = ctx.pseudonyms(spec)
    known = {ref: pseudonyms.subject(ref) for ref in subject_refs.unique()}
    return pl.Series("subject_key", [known[ref] for ref in subject_refs], pl.String)


def _append(ctx: Context, table: TableSpec, rows: pl.DataFrame) -> None:
    ctx.lake.append(table, rows.select(table.schema.names).to_arrow().cast(table.schema), {"run_id": ctx.run_id})
