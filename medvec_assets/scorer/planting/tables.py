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
from medvec_assets.scorer.planting.notes import planted_text

SUBJECT = re.compile(r"(subject|patient|person|participant|case|donor)[ _]?(id|identifier|uuid|eid)?|eid|mrn", re.I)
IDENTIFIER = re.compile(
    r"(submitter|accession|barcode|account|order|note|hadm|stay|visit_occurrence|encounter|specimen)_?(id|number)?",
    re.I,
)
# Not titles and descriptions: in tables they come out of a dictionary, which nobody types a name into.
FREE_TEXT = re.compile(
    r"((.*_)?(text|comments?|remarks?|narrative|impression|history|findings)|value_as_string|(.*_)?reason(_text)?)",
    re.I,
)
PLANTED_ROWS = (
    20  # of a table, in which free text is planted: an id must be the same in all rows, text in a few is enough
)
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


def planted_value(name: str, value: Any, subject: Subject, above: str, with_text: bool = True) -> Any:
    """What stands in a cell of column `name`; identifiers and free text change, anything else is left as it is."""
    if value in (None, ""):
        return value
    if SUBJECT.fullmatch(name) or str(value) == subject.real_ref:
        return int(subject.ref) if isinstance(value, int) and subject.ref.isdigit() else subject.ref
    if IDENTIFIER.fullmatch(name) and not isinstance(value, float | bool):
        alias = subject.alias(str(value), f"{above} {name}")
        return int(alias) if isinstance(value, int) and alias.isdigit() else alias
    if with_text and isinstance(value, str) and " " in value and FREE_TEXT.fullmatch(name):
        # A note in a cell is planted as a note is.
        return planted_text(value, subject) if "\n" in value else f"{value} {subject.mint.sentence(f'{above} {name}')}"
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
        in_text = number < PLANTED_ROWS
        kept = [planted_value(n, cell, subject, "column", in_text) for n, cell in zip(names, row, strict=False)]
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
    """A document, or lines of documents; written as the source writes them, so that no reader stumbles over a blank."""
    text = data.decode("utf-8")
    end = "\n" if text.endswith("\n") else ""
    try:
        return f"{_dumped(_planted_node('', json.loads(text), subject, with_extra), text)}{end}".encode()
    except json.JSONDecodeError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    made = [
        _planted_node("", one, subject, with_extra and number == 0, number < PLANTED_ROWS)
        for number, one in enumerate(documents)
    ]
    return ("\n".join(_dumped(one, text) for one in made) + end).encode()


def _dumped(node: Any, example: str) -> str:
    separators = (", ", ": ") if '": ' in example[:200] else (",", ":")
    return json.dumps(node, separators=separators, ensure_ascii=example.isascii())


def _planted_node(name: str, node: Any, subject: Subject, with_extra: bool, with_text: bool = True) -> Any:
    if isinstance(node, dict):
        made = {key: _planted_node(key, value, subject, False, with_text) for key, value in node.items()}
        made |= extra(subject, "extra key") if with_extra else {}
        return dict(sorted(made.items())) if list(node) == sorted(node) else made
    if isinstance(node, list):
        return [
            _planted_node(name, one, subject, with_extra and number == 0, with_text and number < PLANTED_ROWS)
            for number, one in enumerate(node)
        ]
    return planted_value(name, node, subject, "key", with_text)


# ---------------------------------------------------------------- Parquet


def _parquet(data: bytes, subject: Subject, with_extra: bool) -> bytes:
    table = pq.read_table(pa.BufferReader(data))
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            made = [
                planted_value(field.name, value, subject, "column", number < PLANTED_ROWS)
                for number, value in enumerate(table[field.name].to_pylist())
            ]
            table = table.set_column(place, field, pa.array(made, field.type))
    for name, value in extra(subject, "extra column").items() if with_extra else ():
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    comment = subject.mint.sentence("parquet metadata")
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"comment": comment.encode()})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
