"""API keys: what is kept of them, what ends them, and the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medvec_assets.cli.shared import app
from resources import api_keys, tables
from resources.api_keys import Role, create_key, hash_of, read_keys, revoke_key, rotate_key, split
from resources.errors import ConfigError, NotFound
from resources.lakehouse import Lakehouse
from resources.settings import Settings

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse.open(Settings(home=tmp_path))


def test_a_key_is_kept_as_a_hash_and_comes_back_as_it_was_made(lake: Lakehouse, tmp_path: Path) -> None:
    key, given = create_key(lake, "jane", [Role.READER], ["tcia_catalog"], 30)
    everything, _ = create_key(lake, "bot", [Role.METRICS], None, 1)
    nothing, _ = create_key(lake, "rex", [Role.AUDITOR], [], 1)
    assert read_keys(lake) == {one.id: one for one in (key, everything, nothing)}
    assert (everything.datasets, nothing.datasets) == (None, frozenset())
    assert key.expires_at - key.created_at == timedelta(days=30)
    key_id, secret = split(given)
    assert (key_id, hash_of(secret)) == (key.id, key.secret_sha256)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in written and key.secret_sha256.encode() in written


def test_a_rotated_key_lives_on_for_its_overlap_and_its_successor_as_long_as_it_would_have(lake: Lakehouse) -> None:
    key, given = create_key(lake, "jane", [Role.READER, Role.AUDITOR], ["tcia_catalog"], 30)
    old, new, secret = rotate_key(lake, key.id, timedelta(hours=6))
    assert timedelta(hours=5) < old.expires_at - datetime.now(UTC) <= timedelta(hours=6)
    assert (new.owner, new.roles, new.datasets) == (key.owner, key.roles, key.datasets)
    assert new.expires_at - new.created_at == timedelta(days=30)
    assert secret != given
    assert read_keys(lake) == {key.id: old, new.id: new}
    assert revoke_key(lake, new.id).expires_at <= datetime.now(UTC)
    for change in (lambda: revoke_key(lake, new.id), lambda: rotate_key(lake, "0" * 16, timedelta(0))):
        with pytest.raises(NotFound, match="keys list"):
            change()


@pytest.mark.parametrize(
    ("owner", "roles", "days"), [("", ["reader"], 1), ("x", [], 1), ("x", ["reader"], 0), ("x", ["reader"], 731)]
)
def test_a_key_without_owner_role_or_end_is_not_made(lake: Lakehouse, owner: str, roles: list[Any], days: int) -> None:
    with pytest.raises(ConfigError):
        create_key(lake, owner, [Role(name) for name in roles], None, days)
    assert read_keys(lake) == {}


class OneTable:
    """A lake of one table with these rows."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def snapshot(self, table: Any) -> OneTable:
        return self

    def read(self) -> pl.DataFrame:
        found = pl.from_arrow(tables.API_KEYS.empty_table())
        assert isinstance(found, pl.DataFrame)
        return pl.DataFrame(list(self._rows), schema=found.schema)


def row(key_id: str, hours: int, recorded: int, event: str = "created") -> dict[str, Any]:
    return {
        "key_id": key_id,
        "event": event,
        "owner": "jane",
        "roles": ["reader", "of-a-later-release"],
        "secret_sha256": hash_of(key_id),
        "created_at": NOON,
        "expires_at": NOON + timedelta(hours=hours),
        "recorded_at": NOON + timedelta(minutes=recorded),
        "datasets": None,
    }


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12),
    st.randoms(),
)
def test_nothing_lengthens_a_keys_life_in_whatever_order_changes_arrive(
    changes: list[tuple[str, int, int]], order: Any
) -> None:
    rows = [row(*one) for one in changes]
    order.shuffle(rows)
    found = read_keys(OneTable(rows))  # type: ignore[arg-type]
    for key_id in {one for one, _, _ in changes}:
        ends = [NOON + timedelta(hours=hours) for one, hours, _ in changes if one == key_id]
        assert found[key_id].expires_at == min(ends)
        assert found[key_id].roles == {Role.READER}


# -- the commands


def medvec(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    monkeypatch.setenv("MEDVEC_HOME", str(home))
    done = CliRunner().invoke(app, ["keys", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_commands_show_a_secret_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = medvec(tmp_path, monkeypatch, "create", "--owner", "jane", "--role", "reader", "-d", "tcia_catalog")
    key = read_keys(Lakehouse.open(Settings(home=tmp_path)))[made["id"]]
    assert hash_of(split(made["secret"])[1]) == key.secret_sha256
    turned = medvec(tmp_path, monkeypatch, "rotate", made["id"], "--overlap-hours", "0")
    assert turned["replaces"]["id"] == made["id"]
    medvec(tmp_path, monkeypatch, "revoke", turned["id"])
    listed = medvec(tmp_path, monkeypatch, "list")["keys"]
    assert [(one["id"], one["state"]) for one in listed] == [(made["id"], "expired"), (turned["id"], "revoked")]
    assert all("secret" not in name for one in listed for name in one)
    for shown in (made, turned):
        human = CliRunner().invoke(app, ["keys", "list"]).stdout
        assert shown["id"] in human and split(shown["secret"])[1] not in human


@pytest.mark.parametrize("grants", [[], ["-d", "tcia_catalog", "--all-datasets"]])
def test_a_readers_datasets_are_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grants: list[str]) -> None:
    monkeypatch.setenv("MEDVEC_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["keys", "create", "--owner", "x", "--role", "reader", *grants])
    assert isinstance(done.exception, ConfigError) and "which datasets" in str(done.exception)
    assert api_keys.read_keys(Lakehouse.open(Settings(home=tmp_path))) == {}


def test_a_grant_of_an_unknown_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVEC_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["keys", "create", "--owner", "x", "--role", "reader", "-d", "moon"])
    assert done.exception is not None and "moon" in str(done.exception)
