"""The command line. Every command takes --json: one JSON object on stdout and nothing else.

Belongs here: arguments, what a person sees, exit codes (0 fine, 1 the job or a check failed, 2 bad usage or
configuration). Does not belong here: any work; heavy imports (they are inside the commands, so --help is quick).
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from medvec_assets import printing
from medvec_assets.catalog import CATALOG, dataset
from medvec_assets.catalog.spec import DatasetSpec
from resources.errors import ConfigError, MedvecError, StorageError
from resources.settings import Settings


class PixelRule(StrEnum):
    REFUSE = "refuse"  # quarantine them
    CLEAN = "clean"  # find the text and blank it
    CLEAN_ALL = "clean_all"  # look at every other image too


app = typer.Typer(no_args_is_help=True, add_completion=False, help="medvec: a medical vector lakehouse.")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Space = Annotated[str | None, typer.Option(help="Only this space.")]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", "-d", help="Dataset id; may be given again.")]


def main() -> None:
    """Entry point of the `medvec` script."""
    try:
        _main()
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            _leave(end.code or 0)
        raise
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart: a thread of Arrow's that has just read from a bucket through
    delta-rs may still let go of a Python object, and then the end is now and then a crash, or never comes."""
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):  # `medvec search ... | head -1`
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)  # its lines are in the UI; failures are told by ours
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except MedvecError as error:
        _fail(error, 1)
    except PermissionError as error:
        remedy = "check who owns the folder, or point MEDVEC_HOME at one that can be written"
        _fail(StorageError(f"no permission for {error.filename}", remedy=remedy, code="storage_denied"), 1)


def _settings() -> Settings:
    """The settings. ConfigError names each variable that is wrong, and not its value, which may be a secret."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"MEDVEC_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
    except SettingsError as error:  # a list or mapping that is no JSON; the message names the field
        wrong = str(error)
    raise ConfigError(
        f"the MEDVEC_* variables cannot be used: {wrong}",
        remedy='correct them; lists and mappings are JSON, such as MEDVEC_SOURCES=\'{"dataset": "path"}\'',
    )


@app.command()
def run(
    datasets: Datasets = None,
    partition: Annotated[list[str] | None, typer.Option("--partition", "-p", help="Only this partition.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every cohort, not only the spec's sample.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring datasets up to date: list, normalise, embed, index. Does only what is not done."""
    specs = _specs(datasets)
    if partition and len(specs) != 1:
        raise ConfigError("--partition needs exactly one --dataset", remedy="name the dataset the partition is of")
    _run(specs, partitions=tuple(partition or ()), everything=everything, as_json=as_json)


@app.command()
def search(
    text: str,
    datasets: Datasets = None,
    space: Space = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    cohort: Annotated[list[str] | None, typer.Option(help="Only this cohort; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find records by a text, each with where it came from."""
    from medvec_assets.query.search import SearchEngine, SearchRequest
    from resources.lakehouse import Lakehouse
    from resources.vector_index import open_index

    settings = _settings()
    request = SearchRequest(
        text=text, datasets=tuple(datasets or ()), space=space, cohorts=tuple(cohort or ()), limit=limit
    )
    with open_index(settings) as index:
        hits = [asdict(hit) for hit in SearchEngine(settings, Lakehouse.open(settings), index).search(request)]
    _show({"hits": hits}, as_json, printing.hits)


@app.command()
def lineage(vector_id: str, as_json: AsJson = False) -> None:
    """Walk a vector back to its source: embedding, record, objects, release, commits, runs."""
    from medvec_assets.query.lineage import lineage as walk
    from resources.lakehouse import Lakehouse

    settings = _settings()
    _show(walk(vector_id, settings, Lakehouse.open(settings)), as_json, printing.lineage)


@app.command()
def count(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET")],
    by: Annotated[list[str], typer.Option(help="Cohort, modality, license or an attribute; may be given again.")],
    as_json: AsJson = False,
) -> None:
    """Count subjects, as may leave an enclave: small counts, and what would tell them, are not shown."""
    from medvec_assets.query.published import require_visible
    from medvec_assets.query.small_cells import counts
    from resources.lakehouse import Lakehouse

    spec, settings = dataset(dataset_id), _settings()
    require_visible(spec, settings)
    found = counts(Lakehouse.open(settings), spec, by)
    answer = {"dataset": spec.id, "by": by, "smallest_count": spec.smallest_count, "counts": found.to_dicts()}
    _show(answer, as_json, printing.counts)


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
    with _stages() as ctx:
        for spec in _specs(datasets):
            done += [asdict(synced) for synced in sync_all(ctx, spec, full=full, floats=floats)]
            retire.retire(ctx, spec)
    totals = {name: sum(one[name] for one in done) for name in ("upserted", "deleted", "unchanged")}
    _show({**totals, "partitions": done}, as_json, printing.sync)


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

    with _stages() as ctx:
        specs = _specs(datasets)
        report = report_json(
            [one for spec in specs for one in diff(ctx, spec, every_vector=floats, with_recall=recall)]
        )
    _show(report, as_json, printing.verify)
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

    with _stages() as ctx:
        kept = {} if keep_days is None else {"keep_days": keep_days}
        done = asdict(maintain(ctx, _specs(datasets), **kept))
    _show(done, as_json, printing.maintained)


@app.command()
def promote(datasets: Datasets = None, space: Space = None, as_json: AsJson = False) -> None:
    """Let readers see the generation of the present encoder, if it is whole and finds what it should."""
    from medvec_assets.stages.promote import promote as move

    _show({"spaces": [asdict(one) for one in _of_spaces(datasets, space, move)]}, as_json, printing.promoted)


@app.command()
def rollback(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET")], space: Space = None, as_json: AsJson = False
) -> None:
    """Let readers see the generation that the last promotion took from them."""
    from medvec_assets.stages.promote import rollback as move

    _show({"spaces": [asdict(one) for one in _of_spaces([dataset_id], space, move)]}, as_json, printing.promoted)


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
    with _stages(with_index=False) as ctx:
        found = [
            dict(one)
            for spec in _specs(datasets)
            for name in spec.spaces
            for one in generations.of_space(ctx, spec, name)
        ]
    _show({"generations": found}, as_json, printing.generations)


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
    with _stages() as ctx:
        states = [asdict(state) for state in partition_states(ctx, spec)]
    _show({"dataset": spec.id, "partitions": states}, as_json, printing.partitions)


@app.command()
def status(datasets: Datasets = None, as_json: AsJson = False) -> None:
    """Say what is broken or stale right now: how many, which, and the command that mends it. Exit 1 if anything is."""
    from medvec_assets import runner
    from medvec_assets import status as module
    from medvec_assets.runtime import Runtime

    settings = _settings()
    runtime, run_id = Runtime(settings), f"cli-{uuid.uuid4()}"
    with runner.operators_instance(settings) as instance:
        found = module.of_datasets(runtime, _specs(datasets), instance, run_id)
    _show(module.as_json(found), as_json, printing.status)
    if not all(one.ok for one in found):
        raise typer.Exit(1)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Try every part of the installation and say what to do about what does not answer. Exit 1 if any fails."""
    from medvec_assets.doctor import examine

    report = examine(_settings())
    _show(report, as_json, printing.doctor)
    if not report["ok"]:
        raise typer.Exit(1)


@app.command()
def deid(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of DICOM files.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="An empty folder, or one of an earlier run.")],
    source_name: Annotated[
        str, typer.Option("--source", help="Whose pseudonyms: a source's name, as in specs.")
    ] = "dicom",
    device: Annotated[bool, typer.Option("--device", help="Keep device identifiers and serial numbers.")] = False,
    pixels: Annotated[PixelRule, typer.Option(help="What becomes of images that may show text.")] = PixelRule.CLEAN,
    workers: Annotated[int, typer.Option(min=1, help="Processes that work at once.")] = 1,
    as_json: AsJson = False,
) -> None:
    """De-identify a folder of DICOM files by PS3.15. Names become pseudonyms; what was done is not done again."""
    from medvec_assets import progress
    from medvec_assets.deid.dicom import Options
    from medvec_assets.deid_folder import deidentify_folder

    options = Options(device=device, pixels=pixels)
    secret = _settings().pseudonym_secret
    with progress.bars(not as_json) as shown:
        report = deidentify_folder(
            source, target, secret, source_name=source_name, options=options, workers=workers, progress=shown.rows
        )
    _show(report, as_json, printing.deidentified)
    if not report["written"] + report["unchanged"]:
        raise typer.Exit(1)


@app.command()
def roles(as_json: AsJson = False) -> None:
    """Make the roles medvec_reader and medvec_writer on the Milvus server, with an administrator's token."""
    from resources.vector_index.roles import ensure_roles

    _show({"roles": ensure_roles(_settings())}, as_json, printing.roles)


@app.command()
def serve() -> None:
    """Start the Dagster UI and daemon and the REST service on this machine; Ctrl-C ends all."""
    from medvec_assets.serve import serve as start

    raise typer.Exit(start(_settings()))


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

    settings = _settings()
    with progress.bars(not as_json) as shown:
        runtime = Runtime(settings, shown.rows)
        selection = runner.Selection(partitions, everything, split)
        report = runner.run(settings, specs, selection, runtime, shown.partitions)
    _show(report.as_json(), as_json, printing.run)
    for sentence in report.failures:
        print(sentence, file=sys.stderr)
    raise typer.Exit(report.exit_code)


def _of_spaces(
    datasets: list[str] | None, space: str | None, action: Callable[[Any, DatasetSpec, str], Any]
) -> list[Any]:
    """`action` on every space, or on those named `space`; what it answered."""
    chosen = [(spec, name) for spec in _specs(datasets) for name in spec.spaces if space in (None, name)]
    if not chosen:
        raise ConfigError(f"no dataset has a space {space!r}", remedy="`medvec generations` lists the spaces")
    with _stages() as ctx:
        return [action(ctx, spec, name) for spec, name in chosen]


@contextmanager
def _stages(with_index: bool = True) -> Iterator[Any]:
    """A stage context outside Dagster."""
    from medvec_assets import progress
    from medvec_assets.runtime import Runtime

    with (
        progress.bars() as shown,
        Runtime(_settings(), shown.rows).context(f"cli-{uuid.uuid4()}", with_index=with_index) as ctx,
    ):
        yield ctx


def _specs(datasets: list[str] | None) -> list[DatasetSpec]:
    return [dataset(name) for name in datasets] if datasets else list(CATALOG)


def _fail(error: MedvecError, code: int) -> NoReturn:
    print(f"medvec: {error.message} [{error.code}]\n  What to do: {error.remedy}", file=sys.stderr)
    raise SystemExit(code)


def _show(result: dict[str, Any], as_json: bool, human: Callable[[dict[str, Any]], Iterator[str]]) -> None:
    for line in [json.dumps(result, default=str)] if as_json else human(result):
        print(line)
