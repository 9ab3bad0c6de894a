"""The catalogue: which datasets exist. Adding one is a module here, named as the dataset; nothing else knows its name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from medvec_assets.catalog.spec import DatasetSpec
from resources.errors import ConfigError


def discover(folders: Iterable[str]) -> tuple[DatasetSpec, ...]:
    """The spec of every module in `folders`, which are this package's, by name. ConfigError for a module that does not
    define exactly the one dataset that it is named after."""
    names = sorted(module.name for module in iter_modules(folders) if module.name != "spec")
    return tuple(_spec_of(name) for name in names)


def _spec_of(name: str) -> DatasetSpec:
    module = import_module(f"{__name__}.{name}")
    found = {value.id: value for value in vars(module).values() if isinstance(value, DatasetSpec)}
    if set(found) != {name}:
        defined = ", ".join(sorted(found)) or "none"
        raise ConfigError(
            f"medvec_assets/catalog/{name}.py defines the datasets: {defined}",
            remedy=f"let it define one DatasetSpec with id={name!r}, or rename the module",
        )
    return found[name]


CATALOG: tuple[DatasetSpec, ...] = discover(__path__)


def dataset(dataset_id: str) -> DatasetSpec:
    for spec in CATALOG:
        if spec.id == dataset_id:
            return spec
    known = ", ".join(spec.id for spec in CATALOG)
    raise ConfigError(f"there is no dataset {dataset_id!r}", remedy=f"use one of: {known}")
