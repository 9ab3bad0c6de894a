"""The catalogue finds its datasets by itself, and a sample bundle is the fixture folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medvec_assets import catalog
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.connectors import sample_folder
from resources.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A further folder of the package, whose modules are forgotten afterwards."""
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(tmp_path)])
    for name in ("tcia_added", "tcia_wrong"):
        monkeypatch.delitem(sys.modules, f"medvec_assets.catalog.{name}", raising=False)
    return tmp_path


def test_every_module_is_a_dataset_and_the_order_is_theirs() -> None:
    found = catalog.discover(catalog.__path__)
    assert found == catalog.CATALOG
    assert [spec.id for spec in found] == sorted(spec.id for spec in found)


def test_a_module_more_is_a_dataset_more(folder: Path) -> None:
    (folder / "tcia_added.py").write_text(
        "from medvec_assets.catalog import tcia_catalog\n"
        "MADE = tcia_catalog.TCIA_CATALOG.model_copy(update={'id': 'tcia_added'})\n"
    )
    assert "tcia_added" in [spec.id for spec in catalog.discover(catalog.__path__)]


def test_a_module_that_does_not_define_its_dataset_is_named(folder: Path) -> None:
    (folder / "tcia_wrong.py").write_text("A = 1\n")
    with pytest.raises(ConfigError, match=r"tcia_wrong\.py defines the datasets: none"):
        catalog.discover(catalog.__path__)


def test_what_is_made_up_may_always_say_so() -> None:
    assert "synthetic" in TCIA_CATALOG.index_attributes
    made_up = TCIA_CATALOG.model_copy(update={"sample": "synthetic"})
    assert made_up.is_synthetic({})
    assert not made_up.is_synthetic({TCIA_CATALOG.id: "s3://real"})
    assert not TCIA_CATALOG.is_synthetic({})


def test_the_sample_bundle_is_the_fixture_folder() -> None:
    assert sample_folder("tcia_catalog").resolve() == Path(__file__).parents[1] / "datasets" / "tcia_catalog" / "in"
    with pytest.raises(ConfigError, match="MEDVEC_SOURCES"):
        sample_folder("tcia_nothing")
