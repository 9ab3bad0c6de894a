"""From the instances of one series to one record: order, consistency, the representative instance.

Belongs here: what makes instances one series and which of them stands for it. Does not belong here: parsing and pixels,
the frame's columns (the package's `records`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.deid.technical import HEADER_KEYWORDS, technical_attributes
from medvec_assets.deid.technical import PROFILE as TECHNICAL
from medvec_assets.modalities import OPEN, ReadObject, Rejected
from medvec_assets.modalities.imaging.dicom_file import header_numbers, header_value, read_dataset
from medvec_assets.modalities.imaging.image_rules import check_image
from medvec_assets.modalities.imaging.pixels import dataset_input
from resources.errors import ObjectRejected

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HELD_BYTES = 64 << 20  # of a series' files kept until its representative is known, so that small series are read once


@dataclass(frozen=True)
class Instance:
    """What is kept of a good instance until the series' representative is known: no pixels."""

    row: Mapping[str, Any]  # its manifest row
    modality: str
    sop_uid: str
    position: tuple[float, float]  # instance number, millimetres along the slice normal
    frames: int

    @property
    def object_id(self) -> str:
        return str(self.row["object_id"])

    @property
    def identity(self) -> tuple[str, ...]:
        """What all instances of one record must share: whose it is, what may be done with it, and what it shows."""
        return (*(str(self.row[name]) for name in ("subject_ref", "license", "access_tier")), self.modality)


@dataclass(frozen=True)
class Series:
    """One record in the making. `instances` begins with the representative, the others follow in their order.

    `payload` is the representative's de-identified copy; None where the series is open."""

    instances: tuple[Instance, ...]
    model_input: NDArray[np.uint8]
    attributes: dict[str, Any]
    deid_profile: str
    deid_actions: dict[str, int]
    payload: bytes | None = None
    study_uid: str = ""  # the source's own, empty where its header has none


def read_series(
    rows: Iterable[Mapping[str, Any]], read: ReadObject, pseudonyms: Pseudonyms
) -> tuple[Series | None, list[Rejected]]:
    """A series from its manifest rows; None if no instance is good. One bad instance never takes its series."""
    good: list[Instance] = []
    bad: list[Rejected] = []
    held: dict[str, bytes] = {}
    room = HELD_BYTES
    for row in sorted(rows, key=lambda row: str(row["object_id"])):
        try:
            data = read(row["uri"])
            good.append(_instance(row, data))
        except ObjectRejected as refusal:
            bad.append(_as_rejected(row["object_id"], refusal))
            continue
        if len(data) <= room:
            held[row["object_id"]] = data
            room -= len(data)
    good, inconsistent = _consistent(good)
    bad += inconsistent
    while good:
        chosen = good[len(good) // 2]
        try:
            return _series(chosen, good, held.get(chosen.object_id) or read(chosen.row["uri"]), pseudonyms), bad
        except ObjectRejected as refusal:
            bad.append(_as_rejected(chosen.object_id, refusal))
            good.remove(chosen)
    return None, bad


def _as_rejected(object_id: str, refusal: ObjectRejected) -> Rejected:
    return Rejected(object_id, refusal.code, refusal.remedy, refusal.disposition)


def _instance(row: Mapping[str, Any], data: bytes) -> Instance:
    dataset = read_dataset(data)
    size = check_image(dataset)
    if row["access_tier"] != OPEN:
        _check_curated(dataset)
    number = header_numbers([header_value(dataset, "InstanceNumber")], 1)
    return Instance(
        row,
        str(header_value(dataset, "Modality") or ""),
        str(header_value(dataset, "SOPInstanceUID") or ""),
        (math.inf if number is None else number[0], _millimetres_along_normal(dataset)),
        size.frames,
    )


def _check_curated(dataset: Dataset) -> None:
    """Nobody has looked through a source that is not open: what may show text is no vector until somebody has."""
    from medvec_assets.deid.dicom import burned_in, objects

    if objects.may_show_text(dataset, objects.check_kind(dataset)[0]):
        raise burned_in.text_possible(declared=False)


def _millimetres_along_normal(dataset: Any) -> float:
    """Where the slice lies along the stack; 0 where the header does not say."""
    place = header_numbers(header_value(dataset, "ImagePositionPatient"), 3)
    directions = header_numbers(header_value(dataset, "ImageOrientationPatient"), 6)
    if place is None or directions is None:
        return 0.0
    return float(np.dot(np.cross(directions[:3], directions[3:]), place))


def _consistent(instances: list[Instance]) -> tuple[list[Instance], list[Rejected]]:
    """The instances that agree on their identity, in order; the odd ones out. The majority counts, and the lowest
    object id where there is none."""
    if not instances:
        return [], []
    votes = Counter(instance.identity for instance in instances)
    winner = max(votes, key=lambda identity: votes[identity])  # the first of equals, in order of object id
    remedy = "the series mixes patients, licences or modalities: separate it at the source"
    odd = [Rejected(i.object_id, "inconsistent_series", remedy) for i in instances if i.identity != winner]
    kept = [instance for instance in instances if instance.identity == winner]
    return sorted(kept, key=lambda i: (*i.position, i.sop_uid, i.object_id)), odd


def _series(chosen: Instance, ordered: list[Instance], data: bytes, pseudonyms: Pseudonyms) -> Series:
    from medvec_assets.deid.dicom import PROFILE, deidentify  # it reads files with this package

    dataset = read_dataset(data)
    is_open = chosen.row["access_tier"] == OPEN
    copy = None if is_open else deidentify(data, pseudonyms)
    header = dataset if copy is None else read_dataset(copy.data)
    model_input = dataset_input(header, check_image(header))  # of the payload, where there is one
    attributes = technical_attributes(
        {keyword: header_value(header, keyword) for keyword in HEADER_KEYWORDS},
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        instances=len({instance.sop_uid or instance.object_id for instance in ordered}),
        frames=sum(instance.frames for instance in ordered),
    )
    instances = (chosen, *(instance for instance in ordered if instance is not chosen))
    study_uid = str(header_value(dataset, "StudyInstanceUID") or "").strip(" \0")
    if copy is not None:
        return Series(instances, model_input, attributes, PROFILE, copy.actions, copy.data, study_uid)
    kept = sum(1 for keyword in HEADER_KEYWORDS if keyword in dataset)
    actions = {"attributes_dropped": len(dataset) - kept, "attributes_kept": len(attributes)}
    return Series(instances, model_input, attributes, TECHNICAL, actions, study_uid=study_uid)
