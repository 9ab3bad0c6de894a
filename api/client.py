"""A typed client of the query service.

    with Client("http://127.0.0.1:8087", key) as medvec:
        for hit in medvec.search("contrast enhanced CT of the liver", limit=5).hits:
            print(hit.score, hit.record_id, hit.license)

Belongs here: one method a route, typed by the service's own models, and waiting when it says so. Does not belong here:
what an answer means. What goes wrong becomes Refused, with the service's own words and remedy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel

from api.models.cohorts import NeighboursAnswer, NeighboursBody
from api.models.datasets import DatasetModel, DatasetsAnswer
from api.models.lineage import LineageAnswer
from api.models.pictures import MapAnswer
from api.models.replay import ReplayAnswer, ReplayBody
from api.models.search import MembersAnswer, SearchAnswer, SearchBody
from medvec_assets.query.forms import Form

ATTEMPTS = 4
LONGEST_WAIT_SECONDS = 30.0
LATER = frozenset({429, 503})  # the service says when to ask again
MEDIA_TYPES = {
    ".dcm": "application/dicom",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".nii": "application/x-nifti",
    ".gz": "application/gzip",
}


class Refused(Exception):
    """The service refused: `status`, `code`, `remedy`, and the id under which the refusal was recorded."""

    def __init__(self, answer: httpx.Response) -> None:
        told = answer.json() if answer.headers.get("content-type") == "application/problem+json" else {}
        super().__init__(f"{answer.status_code}: {told.get('detail', answer.reason_phrase)}")
        self.status = answer.status_code
        self.code: str = told.get("code", "")
        self.remedy: str = told.get("remedy", "")
        self.fields: list[dict[str, str]] = told.get("errors") or []


class Client:
    """Asks one service with one key or token. Close it, or use it in a `with`. Not to be shared between threads.

    `purpose` is an HL7 PurposeOfUse code (HRESCH, TREAT, ...), which goes into the access log. What is asked with a body
    raises pydantic.ValidationError where the service would refuse it unseen.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        purpose: str | None = None,
        timeout_seconds: float = 60.0,
        verify: bool | str = True,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} | ({"X-Purpose-Of-Use": purpose} if purpose else {})
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_seconds, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(self, text: str | None = None, **question: Any) -> SearchAnswer:
        """Neighbours of a text, or of what `question` says: the fields of SearchBody."""
        body = _body(SearchBody, {"text": text, **question} if text is not None else question)
        return SearchAnswer.model_validate(self._json("POST", "/v1/search", json=body))

    def search_image(self, image: Path | bytes, media_type: str | None = None, **narrowed: Any) -> SearchAnswer:
        """Neighbours of a DICOM, NIfTI, PNG or JPEG file. Its name stays here; `narrowed` as in search."""
        if isinstance(image, Path):
            media_type = media_type or MEDIA_TYPES.get(image.suffix.lower(), "application/dicom")
            image = image.read_bytes()
        headers = {"Content-Type": media_type or "application/dicom"}
        answer = self._json("POST", "/v1/search/image", content=image, headers=headers, params=_parameters(narrowed))
        return SearchAnswer.model_validate(answer)

    def members(self, vector_id: str, limit: int = 100, after: str | None = None) -> MembersAnswer:
        """The records whose identical content a hit stands for."""
        parameters = _parameters({"limit": limit, "after": after})
        return MembersAnswer.model_validate(self._json("GET", f"/v1/hits/{vector_id}/members", params=parameters))

    def neighbours(self, dataset: str, **asked: Any) -> NeighboursAnswer:
        """How many subjects are near a set, and never who: the fields of NeighboursBody."""
        body = _body(NeighboursBody, {"dataset": dataset, **asked})
        return NeighboursAnswer.model_validate(self._json("POST", "/v1/cohorts/neighbours", json=body))

    def replay(self, **asked: Any) -> ReplayAnswer:
        """An earlier question again, of the versions that its answer named: the fields of ReplayBody."""
        return ReplayAnswer.model_validate(self._json("POST", "/v1/replay", json=_body(ReplayBody, asked)))

    def lineage(self, vector_id: str) -> LineageAnswer:
        """The chain from a vector back to its source."""
        return LineageAnswer.model_validate(self._json("GET", f"/v1/lineage/{vector_id}"))

    def lineage_as(self, vector_id: str, form: Form | str) -> str:
        """The same as a document: prov, openlineage, svg or html."""
        return self._ask("GET", f"/v1/lineage/{vector_id}", params={"format": Form(form).value}).text

    def datasets(self) -> DatasetsAnswer:
        """What this key may see."""
        return DatasetsAnswer.model_validate(self._json("GET", "/v1/datasets"))

    def dataset(self, dataset: str) -> DatasetModel:
        """One of them."""
        return DatasetModel.model_validate(self._json("GET", f"/v1/datasets/{dataset}"))

    def map(self, dataset: str, space: str) -> MapAnswer:
        """A sample of a space's vectors in two dimensions."""
        return MapAnswer.model_validate(self._json("GET", f"/v1/datasets/{dataset}/map", params={"space": space}))

    def thumbnail(self, path: str) -> bytes:
        """The PNG that a hit's `thumbnail` points at."""
        return self._ask("GET", path).content

    def _json(self, method: str, path: str, **sent: Any) -> Any:
        return self._ask(method, path, **sent).json()

    def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._http.request(method, path, **sent)
            if answer.is_success:
                return answer
            if answer.status_code not in LATER or attempt == ATTEMPTS:
                break
            time.sleep(min(float(answer.headers.get("Retry-After", "1")), LONGEST_WAIT_SECONDS))
        raise Refused(answer)


def _body(form: type[BaseModel], asked: Mapping[str, Any]) -> dict[str, Any]:
    return form.model_validate(asked).model_dump(mode="json", by_alias=True, exclude_none=True)


def _parameters(narrowed: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    return {name: value for name, value in narrowed.items() if value is not None}
