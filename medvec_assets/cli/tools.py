"""Commands beside the pipeline: a folder of files, a server's roles, the services of this machine.

Belongs here: deid, roles, serve. Does not belong here: any work.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medvec_assets import printing
from medvec_assets.cli.shared import AsJson, app, settings_here, show


class PixelRule(StrEnum):
    REFUSE = "refuse"  # quarantine them
    CLEAN = "clean"  # find the text and blank it
    CLEAN_ALL = "clean_all"  # look at every other image too


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
    secret = settings_here().pseudonym_secret
    with progress.bars(not as_json) as shown:
        report = deidentify_folder(
            source, target, secret, source_name=source_name, options=options, workers=workers, progress=shown.rows
        )
    show(report, as_json, printing.deidentified)
    if not report["written"] + report["unchanged"]:
        raise typer.Exit(1)


@app.command()
def roles(as_json: AsJson = False) -> None:
    """Make the roles medvec_reader and medvec_writer on the Milvus server, with an administrator's token."""
    from resources.vector_index.roles import ensure_roles

    show({"roles": ensure_roles(settings_here())}, as_json, printing.roles)


@app.command()
def serve() -> None:
    """Start the Dagster UI and daemon and the REST service on this machine; Ctrl-C ends all."""
    from medvec_assets.serve import serve as start

    raise typer.Exit(start(settings_here()))
