"""The catalogue. Does not belong here: what is visible (query.published)."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Looking
from api.auth import Guarded, Reader, Serving
from api.models.datasets import DatasetModel, DatasetsAnswer
from api.problems import responses
from medvec_assets.query.published import published_datasets

router = APIRouter(prefix="/v1", tags=["datasets"], route_class=Guarded)


@router.get("/datasets", responses=responses(401, 403, 422, 429, 503))
def datasets(reader: Reader, service: Serving, looking: Looking) -> DatasetsAnswer:
    """What can be searched here: datasets, their live spaces and their cohorts."""
    published = published_datasets(service.settings, service.lake, reader.datasets)
    looking.results = len(published)
    return DatasetsAnswer(datasets=[DatasetModel.model_validate(one) for one in published])
