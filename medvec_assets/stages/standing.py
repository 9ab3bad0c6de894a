"""What of a dataset is broken or stale right now: an exact count, a capped sample and the recovery, per kind of problem.

Belongs here: the problems that tables, index and source show by themselves. Does not belong here: repairing anything,
checks of one partition's content (checks), what Dagster knows of runs (status hands it in).

It began with a partition whose first run failed for good at night: automation does not ask twice, freshness looks only
at what was once made, and a list of 179 partitions says "never materialized" of those that nobody asked for too. So a
problem is only what somebody asked for, and one look answers for everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.partitions import Partition
from medvec_assets.scorer.verdicts import Verdicts, told
from medvec_assets.stages import due, generations, manifest, quarantine, records
from medvec_assets.stages.context import Context
from medvec_assets.stages.due import PartitionState, partition_states
from medvec_assets.stages.retire import leftovers
from resources.errors import MedvecError, SourceError, SourceUnavailable

MAX_SAMPLE = 10
# What was made is true, of inputs that have moved since. Any other reason is damage or a chain that stopped halfway.
_STALE = frozenset({due.CONTENT_CHANGED, due.INPUT_CHANGED, due.NOT_KEPT})
_NOT_PASSED = frozenset({due.LEAKED, due.UNPROVED})  # of de-identification


@dataclass(frozen=True)
class Problem:
    """`count` is exact, `sample` names at most MAX_SAMPLE. Not `broken` is stale: answers are true, of an older input."""

    name: str
    what: str
    count: int
    sample: tuple[str, ...]
    remedy: str
    broken: bool


@dataclass(frozen=True)
class Runs:
    """What the orchestrator knows: partitions in a run that goes on, those whose last run failed, and whether the last
    one that listed the source did."""

    running: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    listing_failed: bool = False


@dataclass(frozen=True)
class Standing:
    """One dataset now. Of its `partitions`, `unasked` were never asked for, which is no problem."""

    dataset: str
    partitions: int = 0
    current: int = 0
    running: int = 0
    unasked: int = 0
    problems: tuple[Problem, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems


def examine(ctx: Context, spec: DatasetSpec, now: datetime, runs: Runs = Runs()) -> Standing:
    """Everything that is broken or stale in `spec`, worst first; without an index in `ctx`, what can be told without.

    IndexUnavailable or IndexInvalid if the index cannot be asked. A source that does not answer is a problem, not an error.
    """
    heads = ctx.audit.latest(spec.id)
    refusal = ctx.refusal(spec)
    if refusal is not None:
        kept = _problem("kept_against_policy", refusal.message, (), refusal.remedy, broken=True, count=len(heads))
        return Standing(spec.id, note=refusal.message, problems=(kept,) if heads else ())
    states = partition_states(ctx, spec)
    unfinished = [state for state in states if state.state != "current"]
    asked = [s for s in unfinished if records.chain_of(s.partition) in heads or s.partition in runs.failed]
    behind = [state for state in asked if state.partition not in runs.running]
    known = _Known(ctx, spec, now, states, behind, heads, runs.listing_failed)
    found = [problem for look in _LOOKS for problem in look(known)]
    return Standing(
        spec.id,
        partitions=len(states),
        current=len(states) - len(unfinished),
        running=len(runs.running),
        unasked=len([s for s in unfinished if s not in asked and s.partition not in runs.running]),
        problems=tuple(sorted(found, key=lambda problem: not problem.broken)),
    )


def of_error(name: str, error: MedvecError) -> Problem:
    """A part that does not answer."""
    return _problem(name, error.message, (), error.remedy, broken=True, count=1)


def _problem(
    name: str, what: str, found: Sequence[str], remedy: str, *, broken: bool, count: int | None = None
) -> Problem:
    """A problem of `found`, or of `count` things that `found` tells of."""
    return Problem(name, what, len(found) if count is None else count, tuple(found[:MAX_SAMPLE]), remedy, broken)


@dataclass(frozen=True)
class _Known:
    ctx: Context
    spec: DatasetSpec
    now: datetime
    states: Sequence[PartitionState]
    behind: Sequence[PartitionState]
    """Asked for, not current, and no run is at it."""
    heads: Mapping[Any, Mapping[str, Any]]
    listing_failed: bool


def _broken_partitions(known: _Known) -> Iterator[Problem]:
    stopped = [state for state in known.behind if state.reason not in _STALE | _NOT_PASSED]
    if stopped:
        yield _problem(
            "partitions_broken",
            "a run failed or was killed in them, or the index lost what it held",
            [f"{state.partition}: {_told(known, state)}" for state in stopped],
            _run_again(known, stopped),
            broken=True,
        )


def _stale_partitions(known: _Known) -> Iterator[Problem]:
    stale = [state for state in known.behind if state.reason in _STALE]
    if not stale:
        return
    since = {s.partition: known.heads[records.chain_of(s.partition)]["finished_at"].astimezone(UTC) for s in stale}
    oldest_first = sorted(stale, key=lambda state: since[state.partition])
    old = sum(known.now - at > known.spec.freshness.max_age for at in since.values())
    yield _problem(
        "partitions_stale",
        f"what they are made from has changed; {old} of them are older than {known.spec.freshness.max_age.days} days",
        [f"{s.partition}: {_told(known, s)}; made {since[s.partition]:%Y-%m-%d}" for s in oldest_first],
        _run_again(known, oldest_first),
        broken=old > 0,
    )


def _deidentification(known: _Known) -> Iterator[Problem]:
    """Where the check `deid_scored` failed last, also where the records were found unchanged since."""
    found = [state for state in known.behind if state.reason in _NOT_PASSED]
    if not found:
        return
    verdicts = Verdicts(known.ctx.lake, known.spec.id)
    rows = ((state.partition, verdicts.newest(state.partition)) for state in found)
    leaking = sum(state.reason == due.LEAKED for state in found)
    yield _problem(
        "deid_not_passed",
        f"their newest de-identification score did not pass; {leaking} of them leak, and are shown to nobody until one does",
        [f"{partition}: {told(row)}" for partition, row in rows if row is not None],
        f"mend the rule that let it through, or what ended the scored run; then {_run_again(known, found)}",
        broken=True,
    )


def _listing(known: _Known) -> Iterator[Problem]:
    if known.listing_failed:
        what = "the last run that listed the source failed or was refused by a check: what it publishes since is not planned"
        sample = [f"the error of the last run of {known.spec.id}/{manifest.ASSET} says why"]
        yield _problem("listing_failed", what, sample, f"medvec run --dataset {known.spec.id}", broken=True)


def _source(known: _Known) -> Iterator[Problem]:
    listed = known.heads.get((manifest.ASSET, "-", "-"))
    if listed is None:
        return
    try:
        published = known.ctx.connector(known.spec).version()
    except (SourceError, SourceUnavailable) as error:
        yield of_error("source_unreadable", error)
        return
    if published != listed["upstream_version"]:
        yield _problem(
            "source_moved",
            "the source publishes something newer than what is listed",
            [f"{listed['upstream_version']} is listed, {published} is published"],
            f"medvec run --dataset {known.spec.id}",
            broken=False,
        )


def _quarantine(known: _Known) -> Iterator[Problem]:
    """Where more objects were put aside than the spec allows: the rules of the check `quarantine_share`."""
    aside = quarantine.read(known.ctx, known.spec)
    if aside.is_empty():
        return
    objects = {state.partition: state.objects for state in known.states}
    listed = aside.filter(pl.col("stage") == manifest.ASSET)
    unread = aside.filter((pl.col("stage") == records.ASSET) & (pl.col("disposition") == "quarantined"))
    total = sum(objects.values()) + listed.height
    shares = [("the listing", listed, total)]
    for rows in unread.sort("partition").partition_by("partition", maintain_order=True):
        name = rows["partition"][0]
        shares.append((name, rows, objects.get(name, 0)))
    usual = known.spec.quarantine_threshold
    allowed = {name: known.spec.known_bad.get(Partition.parse(name).cohort, usual) for name in objects}
    over = [(name, rows, of) for name, rows, of in shares if rows.height > allowed.get(name, usual) * of]
    if over:
        yield _problem(
            "quarantine_over_threshold",
            f"objects put aside where they are more than {usual:.1%}, or than is accepted of their cohort",
            [f"{name}: {rows.height} of {of} objects ({_codes(rows)})" for name, rows, of in over],
            f"read the codes and remedies in bronze/{known.spec.id}/quarantine and mend the source or the parser; then "
            f"medvec run --dataset {known.spec.id}",
            broken=True,
            count=sum(rows.height for _, rows, _ in over),
        )


def _codes(rows: pl.DataFrame) -> str:
    counted = rows["code"].value_counts(sort=True).rows()
    return ", ".join(f"{code} {number}" for code, number in counted[:3])


def _left_over(known: _Known) -> Iterator[Problem]:
    found = leftovers(known.ctx, known.spec, lambda: known.states)
    remedy = f"medvec sync --dataset {known.spec.id}"
    if found.partitions:
        what = "they left the plan, and what stands in their place is whole"
        yield _problem("partitions_not_retired", what, found.partitions, remedy, broken=False)
    if found.staged:
        segments = sum(len(keys) for keys in found.staged.values())
        sample = [f"{name}: {len(keys)} segments" for name, keys in sorted(found.staged.items())]
        what = "staged vectors of runs that ended, which nobody wants any more"
        yield _problem("staging_left_over", what, sample, remedy, broken=False, count=segments)


def _waiting_generations(known: _Known) -> Iterator[Problem]:
    for space in known.spec.spaces:
        filling = [g for g in generations.of_space(known.ctx, known.spec, space) if g["state"] == "filling"]
        if filling:
            yield _problem(
                f"{space}_not_promoted",
                "readers see the encoder before: the new one's collections are being filled, or wait for a promotion",
                [f"{one['collection']} ({one['space_version']})" for one in filling],
                f"medvec promote --dataset {known.spec.id} --space {space}",
                broken=False,
            )


_LOOKS: tuple[Callable[[_Known], Iterable[Problem]], ...] = (
    _listing,
    _deidentification,
    _broken_partitions,
    _quarantine,
    _source,
    _stale_partitions,
    _left_over,
    _waiting_generations,
)


def _told(known: _Known, state: PartitionState) -> str:
    if records.chain_of(state.partition) not in known.heads:
        return "its run failed before anything was made"
    return f"{state.state}: {state.reason}"


def _run_again(known: _Known, behind: Sequence[PartitionState]) -> str:
    """The command that brings exactly `behind` up, or the first MAX_SAMPLE of them."""
    command = f"medvec run --dataset {known.spec.id}"
    sample, cohorts = known.spec.sample_cohorts, {state.cohort for state in behind}
    if sample is None or cohorts <= set(sample):
        return command
    if len(behind) > MAX_SAMPLE and all(known.heads.get(records.chain_of(s.partition)) for s in known.states):
        return f"{command} --all"
    named = " ".join(f"--partition {state.partition}" for state in behind[:MAX_SAMPLE])
    more = f", and so on: {len(behind) - MAX_SAMPLE} more" if len(behind) > MAX_SAMPLE else ""
    return f"{command} {named}{more}"
