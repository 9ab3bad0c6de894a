"""Settings: what they resolve to, and secrets that are made once and kept from others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from resources.errors import ConfigError
from resources.settings import Settings, secret_file


def test_an_empty_uri_is_a_folder_of_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert (settings.lake, settings.index) == (str(tmp_path / "lake"), str(tmp_path / "index"))
    elsewhere = Settings(home=tmp_path, lake_uri="s3://bucket/lake", index_uri="https://milvus:19530")
    assert (elsewhere.lake, elsewhere.index) == ("s3://bucket/lake", "https://milvus:19530")


def test_home_is_absolute_whatever_folder_a_process_runs_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=Path("here"))
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "here"
    assert Settings(home=Path("~/there")).home == Path.home() / "there"


def test_variables_are_read_and_others_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDVEC_HOME", str(tmp_path))
    monkeypatch.setenv("MEDVEC_SOURCES", '{"tcia_catalog": "/data/index.parquet"}')
    monkeypatch.setenv(
        "MEDVEC_AGREEMENTS", '[{"id": "dua-7", "holder": "H", "datasets": ["d"], "expires": "2027-01-31"}]'
    )
    monkeypatch.setenv("MEDVEC_SITE", "rap")
    monkeypatch.setenv("SITE", "elsewhere")
    settings = Settings()
    assert settings.home == tmp_path
    assert settings.sources == {"tcia_catalog": "/data/index.parquet"}
    (agreement,) = settings.agreements
    assert (agreement.id, agreement.holder, agreement.expires.year) == ("dua-7", "H", 2027)
    assert settings.site == "rap"


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "tpu"), ("threads", -1), ("decode_workers", -1), ("api_port", 70_000), ("dagster_port", -1)],
)
def test_impossible_values_are_refused(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(home=tmp_path, **{name: value})  # type: ignore[arg-type]


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(home=tmp_path).site = "elsewhere"  # type: ignore[misc]


def test_threads_are_those_the_process_may_use(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, threads=3).torch_threads == 3
    assert Settings(home=tmp_path, decode_workers=3).decode_threads == 3
    assert Settings(home=tmp_path).torch_threads == Settings(home=tmp_path).decode_threads >= 1


def test_the_pseudonym_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = Settings(home=tmp_path).pseudonym_secret
    assert len(first) == 32
    assert Settings(home=tmp_path).pseudonym_secret == first
    assert Settings(home=tmp_path / "other").pseudonym_secret != first
    file = tmp_path / "keys" / "pseudonym.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["pseudonym.key"]


def test_a_given_pseudonym_key_is_used_and_no_file_is_made(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, pseudonym_key="ab" * 32).pseudonym_secret == bytes.fromhex("ab" * 32)  # type: ignore[arg-type]
    assert not (tmp_path / "keys").exists()


def test_a_pseudonym_key_that_is_not_hexadecimal_is_refused_without_being_shown(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, pseudonym_key="not-hexadecimal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        _ = settings.pseudonym_secret
    assert "not-hexadecimal" not in str(caught.value)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, pseudonym_key="ab" * 32, index_token="root:Milvus")  # type: ignore[arg-type]
    assert "abab" not in repr(settings) + settings.model_dump_json()
    assert "Milvus" not in repr(settings) + settings.model_dump_json()


def test_two_first_starts_agree_on_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys" / "api.key"
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        Path(target).write_text("the other process was first")
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert secret_file(path) == "the other process was first"
    assert [file.name for file in path.parent.iterdir()] == ["api.key"]


@pytest.mark.parametrize("key", ["abcd", "not hexadecimal at all"])
def test_a_short_or_malformed_pseudonym_key_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pseudonym key"):
        _ = Settings(home=tmp_path, pseudonym_key=key).pseudonym_secret


def test_an_empty_pseudonym_key_means_the_one_of_this_home(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, pseudonym_key="").pseudonym_secret == Settings(home=tmp_path).pseudonym_secret
