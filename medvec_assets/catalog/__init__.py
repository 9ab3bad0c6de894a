"""The catalogue: which datasets exist. Adding one is a module here and a line below; nothing else knows their names."""

from __future__ import annotations

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.catalog.tcia_radiology import TCIA_RADIOLOGY
from resources.errors import ConfigError

CATALOG: tuple[DatasetSpec, ...] = (TCIA_CATALOG, TCIA_RADIOLOGY)


def dataset(dataset_id: str) -> DatasetSpec:
    for spec in CATALOG:
        if spec.id == dataset_id:
            return spec
    known = ", ".join(spec.id for spec in CATALOG)
    raise ConfigError(f"there is no dataset {dataset_id!r}", remedy=f"use one of: {known}")
