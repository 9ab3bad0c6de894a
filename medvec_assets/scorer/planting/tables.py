"""Planting into tables, in text (CSV, TSV, a matrix with header lines), JSON, JSON lines or Parquet.

Belongs here: identifier columns, free-text columns, columns that nobody asked for, header lines. Does not belong here: what
a dataset's columns are called beyond what identifiers are called everywhere.

Two copies of each: one whose values are planted and whose columns are the source's, one with columns too many, which a
reader may refuse.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medvec_assets.scorer.planting import Planted, Subject

SUBJECT = re.compile(r"(subject|patient|person|participant|case|donor)[ _]?(id|identifier|uuid|eid)?|eid|mrn", re.I)
IDENTIFIER = re.compile(
    r"(submitter|accession|barcode|account|order|note|hadm|stay|visit_occurrence|encounter|specimen)_?(id|number)?",
    re.I,
)
# Not titles and descriptions: in tables they come out of a dictionary, which nobody types a name into.
FREE_TEXT = re.compile(r".*(text|comment|remark|reason|history|narrative|impression|value_as_string|note).*", re.I)
EXTRA = {
    "patient_name": "name",
    "ssn": "ssn",
    "phone": "phone",
    "email": "email",
    "street_address": "address",
    "zip": "zip",
    "mrn": "mrn",
    "account_number": "account",
    "beneficiary": "health_plan",
    "license_number": "license",
    "vehicle": "plate",
    "device_serial": "device_serial",
    "homepage": "url",
    "ip": "ip",
    "photo_file": "file_name",
}
HEADER_KINDS = ("name", "email", "phone", "institution", "address")


def plant(data: bytes, subject: Subject) -> Iterator[Planted]:
    """Both copies; none if the bytes are no table that can be told."""
    form = _form(data)
    if form is not None:
        try:
            yield Planted(form(data, subject, False))
            yield Planted(form(data, subject, True), damaged=True)
        except (ValueError, csv.Error, pa.ArrowException):
            return


def _form(data: bytes) -> Callable[[bytes, Subject, bool], bytes] | None:
    start = data.lstrip()[:4]
    if start == b"PAR1":
        return _parquet
    if start[:1] in (b"{", b"["):
        return _json
    return _text if start and b"\0" not in data[:4_096] else None


def planted_value(name: str, value: Any, subject: Subject, above: str) -> Any:
    """What stands in a cell of column `name`; identifiers and free text change, anything else is left as it is."""
    if value in (None, ""):
        return value
    if SUBJECT.fullmatch(name) or str(value) == subject.real_ref:
        return int(subject.ref) if isinstance(value, int) and subject.ref.isdigit() else subject.ref
    if IDENTIFIER.fullmatch(name) and not isinstance(value, float | bool):
        alias = subject.alias(str(value), f"{above} {name}")
        return int(alias) if isinstance(value, int) and alias.isdigit() else alias
    if isinstance(value, str) and FREE_TEXT.fullmatch(name):
        return f"{value} {subject.mint.sentence(f'{above} {name}')}"
    return value


def extra(subject: Subject, above: str) -> dict[str, str]:
    made = {name: subject.mint.plant(kind, f"{above} {name}") for name, kind in EXTRA.items()}
    born = subject.mint.date(f"{above} birth_date", 0)
    return {name: value for name, value in made.items() if value} | {"birth_date": f"{born:%Y-%m-%d}"}


# ---------------------------------------------------------------- text


def _text(data: bytes, subject: Subject, with_extra: bool) -> bytes:
    lines = data.decode("utf-8").splitlines(keepends=True)
    head = [line for line in lines if line[:1] in "#!"]
    rows = [line for line in lines if line[:1] not in "#!"]
    if not rows:
        raise ValueError("no row")
    delimiter = "\t" if "\t" in rows[0] else ","
    table = list(csv.reader(rows, delimiter=delimiter))
    names = table[0]
    added = extra(subject, "extra column") if with_extra else {}
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*names, *added])
    for number, row in enumerate(table[1:]):
        cells = zip(names, row, strict=False)
        # Free text in one row of a table is enough; a subject's id must be the same in all of them.
        kept = [
            planted_value(name, cell, subject, "column") if number == 0 or SUBJECT.fullmatch(name) else cell
            for name, cell in cells
        ]
        writer.writerow([*kept, *row[len(names) :], *added.values()])
    return ("".join([*head, *_header_lines(head, subject)]) + out.getvalue()).encode()


def _header_lines(head: list[str], subject: Subject) -> list[str]:
    """More of the header lines that a matrix has: `!Series_contact_name "..."` or `# ...`."""
    if not head:
        return []
    made = [(kind, subject.mint.plant(kind, f"header line, {kind}")) for kind in HEADER_KINDS]
    if head[0].startswith("!"):
        return [f'!Series_contact_{kind}\t"{value}"\n' for kind, value in made]
    return [f"# {kind}: {value}\n" for kind, value in made]


# ---------------------------------------------------------------- JSON


def _json(data: bytes, subject: Subject, with_extra: bool) -> bytes:
    try:
        return json.dumps(_planted_node("", json.loads(data), subject, with_extra)).encode()
    except json.JSONDecodeError:
        documents = [json.loads(line) for line in data.splitlines() if line.strip()]
    made = [_planted_node("", one, subject, with_extra and number == 0) for number, one in enumerate(documents)]
    return "".join(json.dumps(one) + "\n" for one in made).encode()


def _planted_node(name: str, node: Any, subject: Subject, with_extra: bool) -> Any:
    if isinstance(node, dict):
        made = {key: _planted_node(key, value, subject, False) for key, value in node.items()}
        return made | (extra(subject, "extra key") if with_extra else {})
    if isinstance(node, list):
        return [_planted_node(name, one, subject, with_extra and number == 0) for number, one in enumerate(node)]
    return planted_value(name, node, subject, "key")


# ---------------------------------------------------------------- Parquet


def _parquet(data: bytes, subject: Subject, with_extra: bool) -> bytes:
    table = pq.read_table(pa.BufferReader(data))
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = table[field.name].to_pylist()
            first = planted_value(field.name, column[0], subject, "column") if column else None
            everywhere = SUBJECT.fullmatch(field.name) is not None
            made = [first if everywhere or number == 0 else value for number, value in enumerate(column)]
            table = table.set_column(place, field, pa.array(made, field.type))
    for name, value in extra(subject, "extra column").items() if with_extra else ():
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    comment = subject.mint.sentence("parquet metadata")
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"comment": comment.encode()})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
