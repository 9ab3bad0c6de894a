"""Thumbnails: what the encoder saw of an image, made again from the record's payload or source when somebody looks.

Belongs here: finding the record, reading it verified, drawing it small. Does not belong here: reading files (modalities),
uploads (uploads). Nothing is kept: a withdrawn record has no thumbnail from the moment it is suppressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from medvec_assets.modalities import Rejected, modality
from medvec_assets.query.lineage import VECTOR_ID
from medvec_assets.query.published import Grants, LiveSpace, live_spaces
from medvec_assets.query.rows import find_embeddings, find_records
from medvec_assets.query.search.ranking import PICTURED
from medvec_assets.stages import encoding
from medvec_assets.stages import records as records_stage
from medvec_assets.stages.context import Context
from medvec_assets.stages.payloads import Payloads
from resources import tables
from resources.errors import CommitConflict, NotFound, QueryInvalid
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.lakehouse import Lakehouse

_PANELLED = "volume"  # its three channels are three slices, not colours


@dataclass(frozen=True)
class Thumbnail:
    """`subject_key` is for the access log and never shown."""

    png: bytes
    dataset: str
    space: str
    delta_version: int
    subject_key: str


def thumbnail(vector_id: str, settings: Settings, lake: Lakehouse, grants: Grants = None) -> Thumbnail:
    """A PNG of 224 x 224 pixels, or of three such slices beside each other for a volume.

    Raises QueryInvalid if the id is not 32 hex digits, NotFound if no live image that may be seen has it or its source
    does not give it any more, SourceUnavailable while the source does not answer.
    """
    if not VECTOR_ID.fullmatch(vector_id):
        raise QueryInvalid(
            "that is not a vector id: it must be 32 lower-case hex digits",
            remedy="copy the vector_id of a search hit",
        )
    for live in live_spaces(settings, lake, grants):
        if live.spec.modality in PICTURED and (found := _of(vector_id, live, settings, lake)) is not None:
            return found
    raise NotFound(
        "there is no image to show of that vector",
        remedy="check the id; a withdrawn or suppressed record, or one whose object changed, has none",
    )


def _of(vector_id: str, live: LiveSpace, settings: Settings, lake: Lakehouse) -> Thumbnail | None:
    spec, version, tier = live.spec, live.space_version, live.access_tier
    rows = find_embeddings(lake, spec.id, live.space, "vector_id", vector_id)
    rows = rows.filter((pl.col("space_version") == version) & (pl.col("access_tier") == tier))
    gold, records = lake.snapshot(tables.embeddings(spec.id, live.space)), lake.snapshot(tables.records(spec.id))
    if rows.is_empty() or gold is None or records is None:
        return None
    made_up = spec.is_synthetic(settings.sources)
    shown = find_records(
        lake, spec.id, rows["record_id"], rows["partition"], ["partition", "subject_key"], made_up=made_up
    )
    if shown.is_empty():
        return None
    record_id, partition, subject_key = shown.row(0)
    ctx = Context(settings, lake, run_id="thumbnail")
    read = Payloads(lake.root, spec.id).reader(records_stage.reader(ctx, spec, partition, keeps=False))
    wanted = pl.DataFrame({"record_id": [record_id], "fingerprint": [""]})
    try:
        for frame in encoding.jobs(ctx, spec, partition, records, wanted):
            [picture] = modality(spec.modality).model_inputs(frame, live.space, read)
            if not isinstance(picture, Rejected):
                png = _png(picture, spec.modality == _PANELLED)
                return Thumbnail(png, spec.id, live.space, gold.version, subject_key)
    except CommitConflict:  # the manifest moved on: what it lists now is another object
        return None
    return None


def _png(picture: np.ndarray, panelled: bool) -> bytes:
    from PIL import Image

    if panelled:
        picture = np.hstack([picture[..., channel] for channel in range(picture.shape[-1])])
    data = BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    return data.getvalue()
