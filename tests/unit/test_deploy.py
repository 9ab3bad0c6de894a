"""The cluster's files are what the pinned releases accept, and hold no secret."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config

DEPLOY = Path(__file__).parents[2] / "deploy"
VARIABLES = ("MEDVEC_DAGSTER_POSTGRES_URL", "MEDVEC_IMAGE", "MEDVEC_NAMESPACE", "MEDVEC_COMPUTE_LOG_BUCKET")


def test_the_instance_and_its_components_are_as_dagster_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "given")
    config, _ = dagster_instance_config(str(DEPLOY))
    assert not config["telemetry"]["enabled"]
    for part in (config["run_launcher"], config["compute_logs"]):
        component = getattr(importlib.import_module(part["module"]), part["class"])
        outcome = process_config(resolve_to_config_type(component.config_type()), part["config"])
        assert outcome.success, outcome.errors


def test_the_database_password_comes_by_environment_only() -> None:
    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert instance["storage"] == {"postgres": {"postgres_url": {"env": "MEDVEC_DAGSTER_POSTGRES_URL"}}}
