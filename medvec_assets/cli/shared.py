"""What all commands share: the app, their common options, settings, a stage context, and how an answer is shown.

Belongs here: nothing that is of one command. Does not belong here: any work; heavy imports (they are inside the commands, so
--help is quick).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from medvec_assets.catalog import CATALOG, dataset
from medvec_assets.catalog.spec import DatasetSpec
from resources.errors import ConfigError
from resources.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="medvec: a medical vector lakehouse.")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Space = Annotated[str | None, typer.Option(help="Only this space.")]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", "-d", help="Dataset id; may be given again.")]


def settings_here() -> Settings:
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


@contextmanager
def stages(with_index: bool = True) -> Iterator[Any]:
    """A stage context outside Dagster."""
    from medvec_assets import progress
    from medvec_assets.runtime import Runtime

    with (
        progress.bars() as shown,
        Runtime(settings_here(), shown.rows).context(f"cli-{uuid.uuid4()}", with_index=with_index) as ctx,
    ):
        yield ctx


def specs_of(datasets: list[str] | None) -> list[DatasetSpec]:
    return [dataset(name) for name in datasets] if datasets else list(CATALOG)


def show(result: dict[str, Any], as_json: bool, human: Callable[[dict[str, Any]], Iterator[str]]) -> None:
    for line in [json.dumps(result, default=str)] if as_json else human(result):
        print(line)
