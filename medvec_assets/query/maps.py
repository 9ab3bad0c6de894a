"""Maps: a space's vectors on the two axes along which they differ most, for people to look at.

Belongs here: a bounded sample of what may be shown, and its axes. Does not belong here: drawing (figures, the page).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from medvec_assets.catalog.spec import DatasetSpec
from medvec_assets.query.published import Grants, dataset_of, live_spaces, require_visible
from medvec_assets.query.rows import find_records
from resources import tables
from resources.errors import NotFound
from resources.lakehouse import Lakehouse
from resources.settings import Settings

MAX_POINTS = 3_000  # more only overprint each other; 4.6 MB of 384-d vectors, 15 of 1,280-d ones
SEED = 20260101
_COLUMNS = ["vector_id", "record_id", "partition", "cohort", "modality", "vector"]


@dataclass(frozen=True)
class Point:
    """A vector's place, each axis from -1 to 1, both at the same scale."""

    x: float
    y: float
    vector_id: str
    record_id: str
    cohort: str
    modality: str


@dataclass(frozen=True)
class SpaceMap:
    """`points` of `vectors` in all; `variance` is the share of it that each axis holds. `versions` as in an answer."""

    dataset: str
    space: str
    encoder: str
    vectors: int
    variance: tuple[float, float]
    points: tuple[Point, ...]
    versions: dict[str, int]
    subjects: frozenset[str]


def space_map(dataset: str, space: str, settings: Settings, lake: Lakehouse, grants: Grants = None) -> SpaceMap:
    """The live vectors of a space. Always the same sample of the same vectors: those with the lowest ids, which are hashes.

    Raises NotFound where nothing that may be seen is live, PolicyRefused where the dataset may not be shown here.
    """
    spec = dataset_of(dataset, grants)
    require_visible(spec, settings)
    live = [one for one in live_spaces(settings, lake, grants) if one.spec is spec and one.space == space]
    gold = lake.snapshot(tables.embeddings(spec.id, space)) if space in spec.spaces else None
    if not live or gold is None:
        raise NotFound(f"no live space of that name is in {spec.id}", remedy="see GET /v1/datasets, or run medvec run")
    of_live = (pc.field("space_version") == live[0].space_version) & pc.field("access_tier").isin(
        [one.access_tier for one in live]
    )
    count = gold.count(of_live)
    share = min(1.0, MAX_POINTS / max(count, 1))
    below = format(min(int(share * 2**128), 2**128 - 1), "032x")
    rows = _shown(gold.read(_COLUMNS, of_live & (pc.field("vector_id") <= below)), spec, settings, lake)
    places, variance = principal_axes(_block(rows))
    scale = float(np.abs(places).max(initial=0.0)) or 1.0
    points = tuple(
        Point(round(x / scale, 4), round(y / scale, 4), *identity)
        for (x, y), identity in zip(
            places.tolist(), rows.select("vector_id", "record_id", "cohort", "modality").iter_rows(), strict=True
        )
    )
    shares = (round(float(variance[0]), 4), round(float(variance[1]), 4))
    return SpaceMap(
        dataset=spec.id,
        space=space,
        encoder=live[0].space_version,
        vectors=count,
        variance=shares,
        points=points,
        versions={f"{spec.id}/{space}": gold.version},
        subjects=frozenset(rows["subject_key"]),
    )


def _shown(rows: pl.DataFrame, spec: DatasetSpec, settings: Settings, lake: Lakehouse) -> pl.DataFrame:
    """Those whose record still exists and is not suppressed, with its subject_key."""
    made_up = spec.is_synthetic(settings.sources)
    records = find_records(lake, spec.id, rows["record_id"], set(rows["partition"]), ["subject_key"], made_up=made_up)
    return rows.join(records, on="record_id", how="inner").sort("vector_id").head(MAX_POINTS)


def _block(rows: pl.DataFrame) -> NDArray[np.float32]:
    if rows.is_empty():
        return np.empty((0, 1), np.float32)
    return rows["vector"].explode().to_numpy().astype(np.float32, copy=False).reshape(rows.height, -1)


def principal_axes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates [n, 2] on the first two principal axes and the two shares of the variance. Signs are fixed."""
    points, shares = np.zeros((len(vectors), 2), np.float32), np.zeros(2, np.float32)
    if len(vectors) < 2:
        return points, shares
    centred = vectors - vectors.mean(axis=0)
    # Subspace iteration: a full SVD of 3,000 x 1,280 takes seconds, and two axes are wanted for a picture.
    width = min(10, *centred.shape)
    basis = np.random.default_rng(SEED).standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(8):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, strength, within = np.linalg.svd(centred @ basis, full_matrices=False)
    directions = (within @ basis.T)[:2]
    # An axis may come out either way round: its largest component is made positive.
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    kept = len(directions)
    points[:, :kept] = centred @ directions.T
    shares[:kept] = strength[:kept] ** 2 / max(float((centred**2).sum()), 1e-12)
    return points, shares
