"""Commands that answer a question and change nothing, but for the ledger of what `count --export` lets out.

Belongs here: search, replay, lineage, count, status, doctor. Does not belong here: any work.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvec_assets import printing
from medvec_assets.catalog import dataset
from medvec_assets.cli.shared import AsJson, Datasets, Space, app, settings_here, show, specs_of
from medvec_assets.query.forms import Form, as_text
from resources.errors import ConfigError
from resources.settings import Settings

if TYPE_CHECKING:
    from medvec_assets.query.search import Upload


@app.command()
def search(
    text: Annotated[str | None, typer.Argument(help="A question in words; left out with --image.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Find what looks like this DICOM, PNG, JPEG or NIfTI file.")
    ] = None,
    datasets: Datasets = None,
    space: Space = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    cohort: Annotated[list[str] | None, typer.Option(help="Only this cohort; may be given again.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only this modality; may be given again.")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="NAME=VALUE, NAME>=NUMBER, ... of an attribute that hits show.")
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="subject or study: only the best hit of each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find records by a text or an image, each with where it came from."""
    from medvec_assets.query.search import SearchEngine, SearchRequest
    from medvec_assets.query.search.filters import written
    from resources.lakehouse import Lakehouse
    from resources.vector_index import open_index

    settings = settings_here()
    request = SearchRequest(
        text=text,
        image=None if image is None else _read_image(image, settings),
        datasets=tuple(datasets or ()),
        space=space,
        cohorts=tuple(cohort or ()),
        modalities=tuple(modality or ()),
        attributes=tuple(written(line) for line in filters or ()),
        limit=limit,
        group_by=group_by,
    )
    with open_index(settings) as index, closing(SearchEngine(settings, Lakehouse.open(settings), index)) as engine:
        hits = [hit.shown() for hit in engine.search(request).hits]
    show({"hits": hits}, as_json, printing.hits)


def _read_image(path: Path, settings: Settings) -> Upload:
    """What the service makes of such a file, by its name's ending."""
    from medvec_assets.query.search import Upload
    from medvec_assets.query.uploads import ENDINGS, model_input

    kind = next((kind for ending, kind in ENDINGS.items() if path.name.lower().endswith(ending)), "imaging")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the image cannot be read ({error.strerror})", remedy="give the path of a file") from None
    return Upload(sha256(data).hexdigest(), model_input(kind, data, settings.api_upload_pixels))


@app.command()
def lineage(
    vector_id: str,
    form: Annotated[Form, typer.Option("--format", help="How the chain is told.")] = Form.JSON,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk a vector back to its source: embedding, record, objects, release, commits, runs."""
    from medvec_assets.query.lineage import lineage as walk
    from resources.lakehouse import Lakehouse

    if as_json and form is not Form.JSON:
        raise ConfigError(f"--json and --format {form} exclude each other", remedy="leave one of them out")
    settings = settings_here()
    told = walk(vector_id, settings, Lakehouse.open(settings))
    if output is not None:
        output.write_text(as_text(told, form), encoding="utf-8")
    elif form is Form.JSON:
        show(told, as_json, printing.lineage)
    else:
        print(as_text(told, form))


@app.command()
def replay(
    text: str,
    as_of: Annotated[list[str], typer.Option(help="DATASET/SPACE=VERSION; may be given again.")],
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    cohort: Annotated[list[str] | None, typer.Option(help="Only this cohort; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an older version of the embeddings, by exact search; what was withdrawn since does not come back."""
    from medvec_assets.query.as_of import PastRequest
    from medvec_assets.query.as_of import replay as ask
    from resources.lakehouse import Lakehouse

    named = dict(one.rpartition("=")[::2] for one in as_of)
    if not all(name and version.isdigit() for name, version in named.items()):
        raise ConfigError("--as-of is DATASET/SPACE=VERSION", remedy="such as tcia_catalog/text=11, as hits name it")
    versions = {name: int(version) for name, version in named.items()}
    settings = settings_here()
    found = ask(
        PastRequest(as_of=versions, text=text, cohorts=tuple(cohort or ()), limit=limit),
        settings,
        Lakehouse.open(settings),
    )
    answer = {"hits": [asdict(hit) for hit in found.hits], "complete": found.complete, "versions": found.versions}
    show(answer, as_json, printing.replayed)


@app.command()
def count(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET")],
    by: Annotated[list[str], typer.Option(help="Cohort, modality, license or an attribute; may be given again.")],
    export: Annotated[
        Path | None, typer.Option(help="Write the counts to this new file, the only one that may leave an enclave.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count subjects: small counts, and what would tell them, are not shown. Only what --export writes may leave."""
    from medvec_assets.query import exports
    from medvec_assets.query.published import require_visible
    from medvec_assets.query.small_cells import counts
    from resources.lakehouse import Lakehouse

    spec, settings = dataset(dataset_id), settings_here()
    require_visible(spec, settings)
    lake = Lakehouse.open(settings)
    if export is None:
        answer = exports.answer(spec, by, counts(lake, spec, by))
    else:
        answer = exports.export(settings, lake, spec, by, export)
    show(answer, as_json, printing.counts)


@app.command()
def status(datasets: Datasets = None, as_json: AsJson = False) -> None:
    """Say what is broken or stale right now: how many, which, and the command that mends it. Exit 1 if anything is."""
    from medvec_assets import runner
    from medvec_assets import status as module
    from medvec_assets.runtime import Runtime

    settings = settings_here()
    runtime, run_id = Runtime(settings), f"cli-{uuid.uuid4()}"
    with runner.operators_instance(settings) as instance:
        found = module.of_datasets(runtime, specs_of(datasets), instance, run_id)
    show(module.as_json(found), as_json, printing.status)
    if not all(one.ok for one in found):
        raise typer.Exit(1)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Try every part of the installation and say what to do about what does not answer. Exit 1 if any fails."""
    from medvec_assets.doctor import examine

    report = examine(settings_here())
    show(report, as_json, printing.doctor)
    if not report["ok"]:
        raise typer.Exit(1)
