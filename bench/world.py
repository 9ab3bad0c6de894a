"""A throw-away lake with real catalogue rows, or with real DICOM acquisitions, for the other benchmarks.

Belongs here: building the input. Does not belong here: timing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import idc_index_data
import numpy as np
import polars as pl
from pydicom import dcmread
from pydicom.uid import generate_uid

from medvec_assets.catalog.spec import DatasetSpec, Sharding
from medvec_assets.catalog.tcia_catalog import TCIA_CATALOG
from medvec_assets.catalog.tcia_radiology import TCIA_RADIOLOGY
from medvec_assets.stages.context import Context
from resources.encoders.weights import package_folder
from resources.lakehouse import Lakehouse
from resources.settings import Settings

COHORT = "bench"
# Distinct acquisitions in pydicom's packages that are stored uncompressed: CT, MR, NM and CR of 0.004 to 3.6 megapixels.
ACQUISITIONS = (
    "CT_small.dcm",
    "MR_small.dcm",
    "examples_overlay.dcm",
    "693_UNCR.dcm",
    "JPEG2000_UNC.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "MR2_UNCR.dcm",
    "RG1_UNCR.dcm",
    "RG3_UNCR.dcm",
)
_DESCRIPTOR = ("Modality", "BodyPartExamined", "SeriesDescription", "StudyDescription", "collection_id")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="medvec-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def home(series: int, *, distinct: bool) -> Iterator[tuple[Settings, DatasetSpec]]:
    """Settings of an empty home whose catalogue is `series` real rows in one cohort and one partition."""
    with _folder() as folder:
        frame = pl.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
        frame = frame.filter(~pl.col("SeriesDescription").fill_null("").str.contains(r"[\x00-\x1f]"))
        if distinct:
            frame = frame.unique(_DESCRIPTOR, keep="first", maintain_order=True)
        step = max(1, frame.height // series)
        chosen = frame.gather_every(step).head(series)
        # Different collections become one cohort; what told them apart stays in the text.
        study = pl.concat_str([pl.col("StudyDescription").fill_null(""), pl.col("collection_id")], separator=" ")
        chosen.with_columns(study.alias("StudyDescription"), pl.lit(COHORT).alias("collection_id")).write_parquet(
            folder / "index.parquet"
        )
        settings = Settings(home=folder / "home", sources={"tcia_catalog": str(folder / "index.parquet")})
        spec = TCIA_CATALOG.model_copy(update={"sharding": Sharding(max_objects=10 * series, max_bytes=None)})
        yield settings, spec


@contextmanager
def dicom_home(series: int) -> Iterator[tuple[Settings, DatasetSpec]]:
    """Settings of an empty home whose source is `series` DICOM files, each a series of its own with its own pixels."""
    with _folder() as folder:
        for number in range(series):
            _write_series(number, folder / "source" / COHORT / f"{number:06d}.dcm")
        (folder / "source" / COHORT / "LICENSE").write_text("CC BY 4.0\n")
        settings = Settings(home=folder / "home", sources={"tcia_radiology": str(folder / "source")})
        sharding = Sharding(max_objects=10 * series, max_bytes=None)
        yield settings, TCIA_RADIOLOGY.model_copy(update={"sharding": sharding})


def _write_series(number: int, path: Path) -> None:
    """One acquisition under new identifiers, its pixels rolled one further than those of the copy before."""
    copy, which = divmod(number, len(ACQUISITIONS))
    folders = (package_folder("pydicom", "data/test_files"), package_folder("data_store", "data"))
    found = next(file for folder in folders if (file := Path(folder) / ACQUISITIONS[which]).is_file())
    dataset = dcmread(found)
    rolled = np.roll(dataset.pixel_array, divmod(copy, dataset.Columns), axis=(0, 1))
    dataset.PixelData = rolled.tobytes()
    dataset.PatientID = f"patient-{number}"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, str(number)]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)


def context(settings: Settings, index: object | None = None) -> Context:
    return Context(settings, Lakehouse.open(settings), "bench", index=index)  # type: ignore[arg-type]


@contextmanager
def served(server: str) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """Settings of the index on `lite` or `milvus`, and the folder where a server, which is the tests' own, keeps its data."""
    if server == "lite":
        yield {}, None
        return
    from tests.services import Milvus

    with Milvus() as milvus:
        yield milvus.settings, milvus.folder / "data"
