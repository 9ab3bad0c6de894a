"""Commands that bring datasets up to date, and what readers see of them.

Belongs here: run, partitions, sync, verify, maintain, generations and moving between them. Does not belong here: any work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from medvec_assets import printing
from medvec_assets.catalog import dataset
from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.cli.shared import AsJson, Datasets, Space, app, settings_here, show, specs_of, stages
from resources.errors import ConfigError


@app.command()
def run(
    datasets: Datasets = None,
    partition: Annotated[list[str] | None, typer.Option("--partition", "-p", help="Only this partition.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every cohort, not only the spec's sample.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring datasets up to date: list, normalise, embed, index. Does only what is not done."""
    specs = specs_of(datasets)
    if partition and len(specs) != 1:
        raise ConfigError("--partition needs exactly one --dataset", remedy="name the dataset the partition is of")
    _run(specs, partitions=tuple(partition or ()), everything=everything, as_json=as_json)


@app.command()
def partitions(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET")],
    split: Annotated[list[str] | None, typer.Option(help="Halve this partition by one more bit of H(subject).")] = None,
    as_json: AsJson = False,
) -> None:
    """List a dataset's partitions with their state, or split one."""
    from medvec_assets.stages.due import partition_states

    spec = dataset(dataset_id)
    if split:
        children = tuple(f"{name}{'' if '.' in name else '.'}{bit}" for name in split for bit in "01")
        _run([spec], partitions=children, split=tuple(split), as_json=as_json)
        return
    with stages() as ctx:
        states = [asdict(state) for state in partition_states(ctx, spec)]
        stays = {"for_this_site_only": True} if ctx.counts_stay(spec) else {}
    show({"dataset": spec.id, "partitions": states, **stays}, as_json, printing.partitions)


@app.command()
def sync(
    datasets: Datasets = None,
    full: Annotated[
        bool, typer.Option("--full", help="Diff every entity, also where receipt and count agree.")
    ] = False,
    floats: Annotated[
        bool, typer.Option("--vectors", help="Also compare every vector itself, float by float.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Reconcile the index with the embeddings."""
    from medvec_assets.stages import retire
    from medvec_assets.stages.sync import sync_all

    done: list[dict[str, Any]] = []
    with stages() as ctx:
        for spec in specs_of(datasets):
            done += [asdict(synced) for synced in sync_all(ctx, spec, full=full, floats=floats)]
            retire.retire(ctx, spec)
    totals = {name: sum(one[name] for one in done) for name in ("upserted", "deleted", "unchanged")}
    show({**totals, "partitions": done}, as_json, printing.sync)


@app.command()
def verify(
    datasets: Datasets = None,
    floats: Annotated[bool, typer.Option("--vectors", help="Compare every vector itself, not a sample.")] = False,
    recall: Annotated[bool, typer.Option("--recall", help="Also measure recall@10 against exact search.")] = False,
    as_json: AsJson = False,
) -> None:
    """Diff the index with the embeddings, entity by entity, and repair nothing. Exit 1 if they differ."""
    from medvec_assets.stages.verify import as_json as report_json
    from medvec_assets.stages.verify import verify as diff

    with stages() as ctx:
        specs = specs_of(datasets)
        report = report_json(
            [one for spec in specs for one in diff(ctx, spec, every_vector=floats, with_recall=recall)]
        )
    show(report, as_json, printing.verify)
    if not report["ok"]:
        raise typer.Exit(1)


@app.command("maintain")
def keep_up(
    datasets: Datasets = None,
    keep_days: Annotated[
        int | None, typer.Option(help="Delete files that nothing refers to for so long; 30 days, or more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge small files, delete old ones, shorten logs, let the index give up deleted entities. Harms no run."""
    from medvec_assets.stages.maintain import maintain

    with stages() as ctx:
        kept = {} if keep_days is None else {"keep_days": keep_days}
        done = asdict(maintain(ctx, specs_of(datasets), **kept))
    show(done, as_json, printing.maintained)


@app.command()
def promote(datasets: Datasets = None, space: Space = None, as_json: AsJson = False) -> None:
    """Let readers see the generation of the present encoder, if it is whole and finds what it should."""
    from medvec_assets.stages.promote import promote as move

    show({"spaces": [asdict(one) for one in _of_spaces(datasets, space, move)]}, as_json, printing.promoted)


@app.command()
def rollback(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET")], space: Space = None, as_json: AsJson = False
) -> None:
    """Let readers see the generation that the last promotion took from them."""
    from medvec_assets.stages.promote import rollback as move

    show({"spaces": [asdict(one) for one in _of_spaces([dataset_id], space, move)]}, as_json, printing.promoted)


@app.command("generations")
def list_generations(
    datasets: Datasets = None,
    drop: Annotated[bool, typer.Option("--drop", help="Give up those kept for a rollback.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the collections of every space with the encoder they hold and whether readers see them."""
    from medvec_assets.stages import generations
    from medvec_assets.stages.promote import drop_retired

    if drop:
        _of_spaces(datasets, None, drop_retired)
    with stages(with_index=False) as ctx:
        found = [
            dict(one)
            for spec in specs_of(datasets)
            for name in spec.spaces
            for one in generations.of_space(ctx, spec, name)
        ]
    show({"generations": found}, as_json, printing.generations)


def _run(
    specs: list[DatasetSpec],
    *,
    as_json: bool,
    partitions: tuple[str, ...] = (),
    everything: bool = False,
    split: tuple[str, ...] = (),
) -> None:
    from medvec_assets import progress, runner
    from medvec_assets.runtime import Runtime

    settings = settings_here()
    with progress.bars(not as_json) as shown:
        runtime = Runtime(settings, shown.rows)
        selection = runner.Selection(partitions, everything, split)
        report = runner.run(settings, specs, selection, runtime, shown.partitions)
    show(report.as_json(), as_json, printing.run)
    for sentence in report.failures:
        print(sentence, file=sys.stderr)
    raise typer.Exit(report.exit_code)


def _of_spaces(
    datasets: list[str] | None, space: str | None, action: Callable[[Any, DatasetSpec, str], Any]
) -> list[Any]:
    """`action` on every space, or on those named `space`; what it answered."""
    chosen = [(spec, name) for spec in specs_of(datasets) for name in spec.spaces if space in (None, name)]
    if not chosen:
        raise ConfigError(f"no dataset has a space {space!r}", remedy="`medvec generations` lists the spaces")
    with stages() as ctx:
        return [action(ctx, spec, name) for spec, name in chosen]
