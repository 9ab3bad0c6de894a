"""`medvec keys`: who may ask the query service.

Belongs here: the commands. Does not belong here: what a key is (resources.api_keys), who an operator is (the lake's own
permissions say who may write the table).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from medvec_assets.catalog import dataset
from medvec_assets.cli.shared import AsJson, Datasets, app, settings_here, show
from resources.api_keys import MAX_DAYS, MAX_OVERLAP_HOURS, ApiKey, Role
from resources.errors import ConfigError
from resources.lakehouse import Lakehouse

keys = typer.Typer(no_args_is_help=True, help="API keys of the query service: create, list, rotate, revoke.")
app.add_typer(keys, name="keys")
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `medvec keys list` shows it.")]


@keys.command()
def create(
    owner: Annotated[str, typer.Option(help="The person or service that will hold it.")],
    role: Annotated[list[Role], typer.Option(help="May be given again.")],
    datasets: Datasets = None,
    all_datasets: Annotated[bool, typer.Option("--all-datasets", help="Every dataset, later ones too.")] = False,
    expires_days: Annotated[int, typer.Option(min=1, max=MAX_DAYS)] = 90,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown once, here, and can never be shown again."""
    from resources.api_keys import create_key

    if bool(datasets) == all_datasets and set(role) & {Role.READER, Role.STEWARD, Role.ADMIN}:
        raise ConfigError("say which datasets the key may see", remedy="give --dataset D, or --all-datasets")
    granted = None if all_datasets else [dataset(name).id for name in datasets or ()]
    key, secret = create_key(Lakehouse.open(settings_here()), owner, role, granted, expires_days)
    show(_told(key) | {"secret": secret}, as_json, _made)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Every key there ever was, ended ones too."""
    from resources.api_keys import read_keys

    found = read_keys(Lakehouse.open(settings_here())).values()
    show({"keys": [_told(key) for key in found]}, as_json, lambda told: map(_line, told["keys"]))


@keys.command()
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=MAX_OVERLAP_HOURS, help="How long the old one lives on.")
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Make a key with the same rights; the old one stays valid for the overlap."""
    from resources.api_keys import rotate_key

    lake = Lakehouse.open(settings_here())
    old, key, secret = rotate_key(lake, key_id, timedelta(hours=overlap_hours))
    show(_told(key) | {"replaces": _told(old), "secret": secret}, as_json, _made)


@keys.command()
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """End a key now; every worker of the service knows within seconds."""
    from resources.api_keys import revoke_key

    show(_told(revoke_key(Lakehouse.open(settings_here()), key_id)), as_json, lambda told: iter([_line(told)]))


def _told(key: ApiKey) -> dict[str, Any]:
    over = key.expires_at <= datetime.now(UTC)
    return {
        "id": key.id,
        "owner": key.owner,
        "roles": sorted(key.roles),
        "datasets": None if key.datasets is None else sorted(key.datasets),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat(),
        "state": ("revoked" if key.event == "revoked" else "expired") if over else "valid",
    }


def _line(told: dict[str, Any]) -> str:
    sees = "every dataset" if told["datasets"] is None else ", ".join(told["datasets"]) or "no dataset"
    rights = f"{', '.join(told['roles'])}; {sees}"
    return f"{told['id']}  {told['state']:<7} until {told['expires_at'][:16]}  {told['owner']}  {rights}"


def _made(told: dict[str, Any]) -> Iterator[str]:
    yield _line(told)
    if old := told.get("replaces"):
        yield f"replaces {_line(old)}"
    yield told["secret"]
