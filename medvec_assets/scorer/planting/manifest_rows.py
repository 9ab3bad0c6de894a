"""Planting into manifest rows: what a connector lists, and a records stage must not pass on.

Belongs here: which columns hold identifiers for which kind of source. Does not belong here: the objects' bytes.

An open source publishes the ids and addresses of its objects, and records may keep them. Two things are nobody's to publish:
the subject's id, which becomes a pseudonym everywhere, and the names of files and folders of images, which people call after
patients. `attributes` are the source's own columns; of those that are on no allow list none may pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medvec_assets.scorer.planting import Subject
from medvec_assets.scorer.planting.tables import extra

OPEN = "open"
IMAGES = ("application/dicom", "application/octet-stream", "application/nifti", "application/x-nifti", "image/")

Row = Mapping[str, Any]


def is_published(row: Row) -> bool:
    """Whether the source publishes this object's id and address."""
    return row["access_tier"] == OPEN and not row["media_type"].startswith(IMAGES)


def planted_row(row: Row, subject: Subject, number: int) -> dict[str, Any]:
    """A copy of `row` that belongs to `subject`, with the address and ids of copy `number`."""
    made = dict(row) | {
        "object_id": f"planted-{number}",
        "subject_ref": subject.ref,
        "attributes": _attributes(row["attributes"], subject),
        "removed_in_version": None,
    }
    base, hash_sign, fragment = str(row["uri"]).partition("#")
    folder, _, name = base.rpartition("/")
    if is_published(row):
        return made | {
            "uri": f"{folder}/copy-{number}/{name}{hash_sign}{fragment}",
            "record_ref": f"{row['record_ref']}-{number}",
        }
    scheme = base.partition("://")[0] if "://" in base else "file"
    named = subject.mint.plant("file_name", "manifest row, a folder's name")
    file = subject.mint.plant("file_name", "manifest row, a file's name")
    fragment = subject.ref if fragment == row["subject_ref"] else fragment
    if fragment:
        fragment = subject.alias(fragment, "manifest row, fragment of the URI")
    record = subject.alias(str(row["record_ref"]), "manifest row, record_ref")
    return made | {
        "uri": f"{scheme}:///archive/{named}/{number}-{file}{_suffix(name)}{hash_sign}{fragment}",
        "record_ref": f"{row['cohort']}/{record}-{number}/{subject.ref}",
    }


def planted_catalogue_row(row: Row, subject: Subject) -> dict[str, Any]:
    """A row of a catalogue of published series: its own columns are public, its subject and columns on no list are not."""
    return dict(row) | {"subject_ref": subject.ref, "attributes": _attributes(row["attributes"], subject)}


def _attributes(text: str, subject: Subject) -> str:
    known = json.loads(text)
    replaced = {name: subject.ref if value == subject.real_ref else value for name, value in known.items()}
    return json.dumps({**extra(subject, "manifest row, attribute"), **replaced}, sort_keys=True)


def _suffix(name: str) -> str:
    """`.nii.gz` of a scan's name: a modality may tell a format by it."""
    stem, *suffixes = name.split(".")
    return "".join(f".{one}" for one in suffixes[-2:]) if stem and all(len(one) <= 5 for one in suffixes[-2:]) else ""
