"""NBIA's REST API over a folder `<Collection>/<file>.dcm`: the endpoints the connector uses, with the real field names.

Paths, parameters and fields are those of services.cancerimagingarchive.net/nbia-api as its answers show them: getSeries
writes `SeriesInstanceUID`, getSeriesMetaData `Series UID`; getM5HashForImage (its own spelling) answers plain text; an
image that is not public is a 400 with a sentence. `restricted` collections are seen through v2 with a token alone.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from hashlib import md5
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl

from pydicom import dcmread

from standins.scripted import Answer, Request, Scripted

LICENSES = {
    "CC BY 4.0": (
        "Creative Commons Attribution 4.0 International License",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    "restricted": (
        "TCIA Restricted",
        "https://wiki.cancerimagingarchive.net/download/attachments/4556915/TCIA%20Restricted.pdf",
    ),
}
USER, PASSWORD = "reader", "correct horse"


@dataclass
class Image:
    collection: str
    patient: str
    series: str
    sop: str
    modality: str
    data: bytes
    digest: str


class NbiaStandIn(Scripted):
    root = "/nbia-api"

    def __init__(self, folder: Path, restricted: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.restricted = restricted
        self.tokens: set[str] = set()
        self.images: list[Image] = []
        self.stamps: dict[str, str] = {}  # series -> when it was last changed
        self.untold: set[str] = set()  # series whose licence only getSeriesMetaData tells
        self.licenses = {path.parent.name: path.read_text().partition("\n")[0] for path in folder.glob("*/LICENSE")}
        for path in sorted(
            folder.glob("*/*.dcm"), reverse=True
        ):  # of two files of one image the first is what is served
            self.put(path.parent.name, path.read_bytes())

    def put(self, collection: str, data: bytes, stamp: str = "2024-01-12 15:03:28.0") -> Image:
        """Publishes an image, in place of one with the same SOP instance UID."""
        header = dcmread(BytesIO(data), stop_before_pixels=True, force=True)
        sop, series, patient, modality = (
            str(header.get(name)) for name in ("SOPInstanceUID", "SeriesInstanceUID", "PatientID", "Modality")
        )
        image = Image(collection, patient, series, sop, modality, data, md5(data).hexdigest())
        self.images = [one for one in self.images if one.sop != sop] + [image]
        self.stamps[series] = stamp
        return image

    # ---------------------------------------------------------------- protocol

    def answer(self, request: Request) -> Answer:
        if request.path.endswith("/oauth/token"):
            return self._token(dict(parse_qsl(request.body.decode())))
        _, _, _, version, name = request.path.split("/", 4)
        if version == "v2" and request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return Answer(b'{"error":"invalid_token"}', 401)
        seen = [one for one in self.images if version == "v2" or one.collection not in self.restricted]
        return getattr(self, f"_{name}")(seen, request.params)

    def _token(self, form: dict[str, str]) -> Answer:
        if (form["grant_type"], form["client_id"]) != ("password", "NBIA"):
            return Answer(b'{"error":"unsupported_grant_type"}', 400)
        if (form["username"], form["password"]) != (USER, PASSWORD):
            return Answer(b'{"error":"invalid_grant","error_description":"Invalid user credentials"}', 401)
        token = secrets.token_hex(8)
        self.tokens.add(token)
        return _json({"access_token": token, "expires_in": 7199, "refresh_token": "r", "token_type": "Bearer"})

    def _getCollectionValues(self, seen: list[Image], params: dict[str, str]) -> Answer:
        return _json([{"Collection": name} for name in sorted({one.collection for one in seen})])

    def _getSeries(self, seen: list[Image], params: dict[str, str]) -> Answer:
        groups: dict[str, list[Image]] = {}
        for one in seen:
            if one.collection == params["Collection"]:
                groups.setdefault(one.series, []).append(one)
        return _json([self._row(series, images) for series, images in groups.items()]) if groups else Answer()

    def _row(self, series: str, images: list[Image]) -> dict[str, object]:
        first = images[0]
        name, uri = self._license(first.collection)
        row: dict[str, object] = {
            "SeriesInstanceUID": series,
            "StudyInstanceUID": "1.2.3",
            "Modality": first.modality,
            "SeriesDate": "2000-01-01 00:00:00.0",
            "BodyPartExamined": "CHEST",
            "AnnotationsFlag": False,
            "Collection": first.collection,
            "PatientID": first.patient,
            "ImageCount": len(images),
            "TimeStamp": self.stamps[series],
            "CollectionURI": "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
            "FileSize": sum(len(one.data) for one in images),
            "DateReleased": "2011-06-21 00:00:00.0",
        }
        return row if series in self.untold else row | {"LicenseName": name, "LicenseURI": uri}

    def _license(self, collection: str) -> tuple[str, str]:
        name = "restricted" if collection in self.restricted else self.licenses.get(collection, "")
        return LICENSES.get(name, (name, ""))

    def _getSeriesMetaData(self, seen: list[Image], params: dict[str, str]) -> Answer:
        [first, *_] = [one for one in seen if one.series == params["SeriesInstanceUID"]]
        name, uri = self._license(first.collection)
        told = {"Series UID": first.series, "Collection": first.collection, "Subject ID": first.patient}
        return _json([told | {"License Name": name, "License URI": uri, "Number of Images": "1"}])

    def _getSOPInstanceUIDs(self, seen: list[Image], params: dict[str, str]) -> Answer:
        return _json([{"SOPInstanceUID": one.sop} for one in seen if one.series == params["SeriesInstanceUID"]])

    def _getM5HashForImage(self, seen: list[Image], params: dict[str, str]) -> Answer:
        found = [one for one in seen if one.sop == params["SOPInstanceUid"]]
        return Answer(found[0].digest.encode()) if found else _not_public(params["SOPInstanceUid"])

    def _getSingleImage(self, seen: list[Image], params: dict[str, str]) -> Answer:
        key = (params["SeriesInstanceUID"], params["SOPInstanceUID"])
        found = [one for one in seen if (one.series, one.sop) == key]
        return Answer(found[0].data) if found else _not_public(key[1])


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def _not_public(uid: str) -> Answer:
    return Answer(f"Image with given SOPInstanceUID,{uid}, is not in public domain.".encode(), 400)
