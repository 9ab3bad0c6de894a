"""The catalogue. Does not belong here: what is visible and what is told of it (query.published, query.catalogue)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.datasets import DatasetModel, DatasetsAnswer
from api.problems import GUARDED, responses

router = APIRouter(prefix="/v1", tags=["datasets"], route_class=Guarded)
DatasetId = Annotated[str, Path(max_length=255, description="an id of GET /v1/datasets", examples=["tcia_catalog"])]


@router.get("/datasets", responses=responses(*GUARDED))
def datasets(reader: Reader, service: Serving, looking: Looking) -> DatasetsAnswer:
    """What is here: datasets, how fresh, how many, under which licences and agreement, live spaces and cohorts."""
    found = service.catalogue.entries(reader.datasets)
    looking.results = len(found)
    return DatasetsAnswer(datasets=[DatasetModel.model_validate(one) for one in found])


@router.get("/datasets/{dataset_id}", responses=responses(*GUARDED, 404))
def dataset(reader: Reader, service: Serving, looking: Looking, dataset_id: DatasetId) -> DatasetModel:
    """One of them. What was not granted answers as what does not exist."""
    looking.question = dataset_id
    found = service.catalogue.entry(dataset_id, reader.datasets)
    looking.results = 1
    return DatasetModel.model_validate(found)
