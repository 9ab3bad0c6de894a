"""Promote and rollback: which generation of a space readers see.

Belongs here: the conditions, the flip, taking it back, dropping what is no longer wanted.
Does not belong here: filling a generation (embeddings, vectors), the table itself (generations).

Readers resolve a space through audit/generations, once per question, so that one atomic commit of it flips all access
tiers at once and an answer is of one generation or the other. The alias follows for whoever asks Milvus directly; killed
in between, the next sync or promote sets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.stages import embeddings, generations, recall, vectors
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import partition_states
from medvec_assets.stages.generations import Generation
from medvec_assets.stages.verify import verify_collection
from resources import tables
from resources.errors import CommitConflict, IntegrityError, NotFound

_ATTEMPTS = 5  # each repeats every check: more means that the space is being filled, not finished


@dataclass(frozen=True)
class Promotion:
    """What readers see now. `changed` is False where they saw it already."""

    dataset: str
    space: str
    space_version: str
    collections: tuple[str, ...]
    previous: tuple[str, ...] = ()
    delta_version: int | None = None
    recall: list[recall.Recall] = field(default_factory=list)
    changed: bool = True


@retry(
    retry=retry_if_exception_type(CommitConflict),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_random_exponential(0.1, 5),
    reraise=True,
)
def promote(ctx: Context, spec: DatasetSpec, space: str) -> Promotion:
    """Let readers see the generation of the spec's encoder, if it is whole and finds what it should.

    IntegrityError `promote_refused` names every reason against it; CommitConflict if partitions kept changing.
    """
    ctx.require_allowed(spec, "promote")
    version = spec.spaces[space].version
    known = generations.of_space(ctx, spec, space)
    rising = [one for one in known if one["space_version"] == version and one["state"] == "filling"]
    if not rising:
        return _already(ctx, spec, space, known)
    pinned = _pinned(ctx, spec, space)
    gold = ctx.lake.snapshot(tables.embeddings(spec.id, space))
    assert gold is not None  # it has a filling generation
    vectors.settle(ctx, spec)  # a run that was killed may have left that, and recall is less until then
    found = [one for generation in rising for one in recall.measure_and_record(ctx, spec, space, generation, gold)]
    reasons = _against(ctx, spec, space, known, rising) + recall.shortfalls(found)
    if reasons:
        raise IntegrityError(
            f"{spec.id} {space} {version} is not promoted: {'; '.join(reasons)}",
            remedy="bring the new generation up with `medvec run` (or `medvec sync --full`), then promote again",
            code="promote_refused",
        )
    if _pinned(ctx, spec, space) != pinned:
        raise CommitConflict(
            f"partitions of {spec.id} {space} changed while its new generation was examined",
            remedy="promote again when no run is writing to it",
        )
    previous = generations.flip(ctx, spec, space, known, rising)
    _set_aliases(ctx, spec, space, rising)
    names = tuple(one["collection"] for one in rising)
    return Promotion(spec.id, space, version, names, previous, gold.version, found)


def rollback(ctx: Context, spec: DatasetSpec, space: str) -> Promotion:
    """Let readers see the generation that the last promotion took from them. The one they saw goes on being filled."""
    ctx.require_allowed(spec, "rollback")
    known = generations.of_space(ctx, spec, space)
    retiring = [one for one in known if one["state"] == "retiring"]
    newest = {one["access_tier"]: one for one in retiring}  # oldest first: the last of a tier stays
    if not newest:
        raise NotFound(
            f"{spec.id} {space} has no generation to go back to",
            remedy="`medvec generations` lists them: one is kept by each promotion until it is dropped",
        )
    chosen = list(newest.values())
    assert ctx.index is not None, "rollback needs a context with an index"
    lost = [one["collection"] for one in chosen if ctx.index.describe(one["collection"]) is None]
    if lost:
        raise IntegrityError(
            f"{', '.join(lost)} is gone from the index", remedy="promote what is there; run `medvec sync --full` first"
        )
    previous = generations.flip(ctx, spec, space, known, chosen, left="filling")
    _set_aliases(ctx, spec, space, chosen)
    names = tuple(one["collection"] for one in chosen)
    return Promotion(spec.id, space, chosen[0]["space_version"], names, previous)


def drop_retired(ctx: Context, spec: DatasetSpec, space: str) -> list[str]:
    """Give up every generation kept for a rollback: its entities and its rows of gold. Returns the collections."""
    assert ctx.index is not None, "dropping needs a context with an index"
    known = generations.of_space(ctx, spec, space)
    # Marked before anything goes: a run killed in between leaves nothing that could be gone back to.
    generations.mark_dropped(ctx, spec, space)
    gone = [one for one in known if one["state"] in ("retiring", "dropped")]
    for one in gone:
        ctx.index.drop(one["collection"])
    wanted = {one["space_version"] for one in known if one["state"] in generations.MAINTAINED}
    table = tables.embeddings(spec.id, space)
    for version in sorted({one["space_version"] for one in gone} - wanted):
        base = ctx.lake.ensure(table)
        if version in base.partition_values("space_version"):
            ctx.lake.replace(base, {"space_version": version}, [], {"asset": "drop", "run_id": ctx.run_id})
    return [one["collection"] for one in gone if one["state"] == "retiring"]


def _already(ctx: Context, spec: DatasetSpec, space: str, known: Sequence[Generation]) -> Promotion:
    """Readers see it. The aliases may not, if the promotion was killed between the two."""
    version = spec.spaces[space].version
    live = [one for one in known if one["space_version"] == version and one["state"] == "live"]
    if not live:
        raise NotFound(
            f"{spec.id} {space} has no generation of {version}",
            remedy=f"fill one with `medvec run --dataset {spec.id}`, then promote it",
        )
    _set_aliases(ctx, spec, space, live)
    return Promotion(spec.id, space, version, tuple(one["collection"] for one in live), changed=False)


def _pinned(ctx: Context, spec: DatasetSpec, space: str) -> tuple[int, ...]:
    """The versions that the examination is of: the plan, the records and the embeddings."""
    examined = (tables.partitions(spec.id), tables.records(spec.id), tables.embeddings(spec.id, space))
    return tuple(ctx.lake.ensure(table).version for table in examined)


def _against(
    ctx: Context, spec: DatasetSpec, space: str, known: Sequence[Generation], rising: Sequence[Generation]
) -> list[str]:
    """What speaks against a flip: tiers that would vanish, partitions behind, entities that differ."""
    reasons = []
    live = {one["access_tier"] for one in known if one["state"] == "live"}
    for tier in sorted(live - {one["access_tier"] for one in rising}):
        reasons.append(f"tier {tier} has no new generation")
    shown = {one["space_version"] for one in known if one["state"] == "live"}
    heads = ctx.audit.latest(spec.id)
    asset = embeddings.asset_name(space)
    seen = {partition for name, version, partition in heads if name == asset and version in shown}
    behind = [s for s in partition_states(ctx, spec) if s.partition in seen and s.state != "current"]
    if behind:
        first = behind[0]
        reasons.append(
            f"{len(behind)} partitions are behind, such as {first.partition} ({first.state}: {first.reason})"
        )
    for generation in rising:
        report = verify_collection(ctx, spec, space, generation)
        if not report.ok:
            reasons.append(
                f"{report.collection} differs from gold: {report.missing} missing, {report.extra} extra, {report.stale} stale, "
                f"{report.vectors_differ} of {report.vectors_compared} vectors differ"
            )
    return reasons


def _set_aliases(ctx: Context, spec: DatasetSpec, space: str, shown: Sequence[Generation]) -> None:
    assert ctx.index is not None
    for one in shown:
        alias = generations.alias_name(spec, space, one["access_tier"])
        if ctx.index.alias_target(alias) != one["collection"]:
            ctx.index.set_alias(alias, one["collection"])
